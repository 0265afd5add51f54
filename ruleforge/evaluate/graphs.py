"""A function of tensors as a graph of torch's primitive ops, arranged for lanes on a CPU, and compiled.

`vmap` turns each matrix product of a task into a batched one: a small product a lane. A library is at
its worst where the rows of a small product are short (10 classes: a third of the speed), so such a product
is written transposed, and what follows lies (lane, class, row) and runs along the rows. That changes
nothing but rounding.

Knows nothing of tasks and rules. What is compiled is kept on disk by torch's own cache, which is asked with a
traced graph; `kept_graphs` keeps it under a name, and is asked first.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.shape_prop import ShapeProp
from torch.overrides import TorchFunctionMode

from ruleforge.evaluate import kept_graphs

aten = torch.ops.aten
Function = Callable[..., tuple[Tensor, ...]]
SHORT = 16
"""Rows of fewer numbers than this are short: two vectors of eight floats."""


def why_not() -> str:
    """Why nothing can be compiled on this machine, or ""."""
    if not hasattr(torch._inductor, "standalone_compile"):
        return f"torch {torch.__version__} cannot compile a graph on its own (2.8 or newer can)"
    from torch._inductor import config

    names = config.cpp.cxx
    found = [name for name in (names if isinstance(names, tuple | list) else [names]) if name]
    return "" if any(shutil.which(name) for name in found) else f"no C++ compiler ({', '.join(found)})"


class CompiledFunction:
    """A function of lanes and a batch in machine code, for tensors of fixed shapes.

    What depends on the batch alone, such as its labels as one-hot rows, is taken out of the lanes' loops:
    `prepared` computes it once a batch, and the compiled part begins where the lanes come in.

    Args:
        function: (lanes, *batch) → tensors.
        lanes: what has the lanes; its values do not matter.
        batch: what all lanes share; the values do not matter.
        identity: what nothing but this function at these shapes is called; then it is kept on disk, and other
            processes load it without tracing it. "" keeps nothing.
    """

    def __init__(
        self, function: Function, lanes: Tensor, batch: Sequence[Tensor] = (), identity: str = ""
    ) -> None:
        from torch._inductor import config

        # Processes of ours compile side by side already; shapes were checked where they were made; one C++
        # file a graph compiles faster than one a loop, and calls them faster than Python does.
        with config.patch(compile_threads=1, size_asserts=False, cpp_wrapper=True):
            kept = kept_graphs.load(identity) if identity else None
            self._prologue, self._rest = kept or _compiled(function, lanes, batch, identity)

    def prepared(self, batch: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What the lanes need of a batch."""
        return tuple(_short_rows_transposed(value) for value in self._prologue(*batch))

    def prepared_at_once(self, columns: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What the lanes need of many batches: for columns of T batches, (T, …), values of T, (T, …)."""
        made = torch.vmap(self._prologue)(*columns)
        return tuple(value if value.ndim < 3 else _short_rows_transposed(value) for value in made)

    def __call__(self, lanes: Tensor, prepared: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(self._rest(lanes, *prepared))


def _compiled(function: Function, lanes: Tensor, batch: Sequence[Tensor], identity: str) -> tuple[Any, Any]:
    """What prepares a batch, and the rest in machine code."""
    from torch._inductor import standalone_compile

    prologue, rest = without_lanes(arranged(trace(function, (lanes, *batch)), (lanes, *batch)))
    args: list[Any] = [lanes, *map(_short_rows_transposed, prologue(*batch))]
    made = standalone_compile(rest, args, dynamic_shapes="from_example_inputs")
    if identity:
        kept_graphs.keep(identity, prologue, batch, made)
    return prologue, made


def trace(function: Function, args: Sequence[Tensor]) -> fx.GraphModule:
    """The graph of `function` at the shapes of `args`, derivatives and vmap worked out."""
    with _Traceable():
        return make_fx(function)(*args)


def is_same(a: fx.GraphModule, b: fx.GraphModule) -> bool:
    """Whether two traces are one graph, its constants included."""
    mine, theirs = _constants(a), _constants(b)
    return (
        a.code == b.code
        and mine.keys() == theirs.keys()
        and all(torch.equal(mine[name], theirs[name]) for name in mine)
    )


def _constants(graph: fx.GraphModule) -> dict[str, Tensor]:
    return {node.target: getattr(graph, node.target) for node in graph.graph.find_nodes(op="get_attr")}


def _one_hot(labels: Tensor, num_classes: int) -> Tensor:
    return (labels[..., None] == torch.arange(num_classes, device=labels.device)).long()


SAME: dict[Any, Callable[..., Any]] = {torch.nn.functional.one_hot: _one_hot}
"""What torch computes after a look at the values, and the same without one."""


class _Traceable(TorchFunctionMode):
    """Within, functions that look at values before they answer are replaced by ones that do not."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return SAME.get(func, func)(*args, **(kwargs or {}))


def arranged(graph: fx.GraphModule, args: Sequence[Tensor]) -> fx.GraphModule:
    """The same function, changed in place: batched products with short rows are written transposed."""
    ShapeProp(graph).propagate(*args)
    for node in graph.graph.find_nodes(op="call_function", target=aten.bmm.default):
        _, rows, columns = node.meta["tensor_meta"].shape
        if columns < min(rows, SHORT):
            with graph.graph.inserting_before(node):
                a, b = (graph.graph.call_function(aten.transpose.int, (x, 1, 2)) for x in node.args)
                product = graph.graph.call_function(aten.bmm.default, (b, a))
                node.replace_all_uses_with(graph.graph.call_function(aten.transpose.int, (product, 1, 2)))
    for node in graph.graph.nodes:
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default  # what it looks at may now lie transposed
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _short_rows_transposed(values: Tensor) -> Tensor:
    """The same tensor, lying in memory as the products of lanes with short rows do.

    What is one value for all lanes, or for all steps, stays one in memory.
    """
    if values.ndim < 2 or values.shape[-1] >= min(values.shape[-2], SHORT):
        return values
    once = values[tuple(slice(None) if stride else slice(1) for stride in values.stride())]
    return once.transpose(-1, -2).contiguous().transpose(-1, -2).expand(values.shape)


def without_lanes(graph: fx.GraphModule) -> tuple[fx.GraphModule, fx.GraphModule]:
    """A graph of (lanes, *batch) in two: batch → shared values, and (lanes, *shared values) → results."""
    first, rest = fx.Graph(), fx.Graph()
    early: dict[fx.Node, fx.Node] = {}
    late: dict[fx.Node, fx.Node] = {}
    shared: list[fx.Node] = []
    lanes, *others = graph.graph.find_nodes(op="placeholder")
    late[lanes] = rest.placeholder(lanes.name)
    early.update((node, first.placeholder(node.name)) for node in others)

    def brought(node: fx.Node) -> fx.Node:
        if node not in late:
            shared.append(early[node])
            late[node] = rest.placeholder(f"{node.name}_shared")
        return late[node]

    has_lanes = {lanes}
    for node in graph.graph.nodes:
        if node.op == "output":
            rest.output(fx.map_arg(node.args[0], brought))
        elif node.op != "placeholder":
            if not has_lanes.isdisjoint(node.all_input_nodes):
                has_lanes.add(node)
                late[node] = rest.node_copy(node, brought)
            else:
                early[node] = first.node_copy(node, early.__getitem__)
    first.output(tuple(shared))
    made = fx.GraphModule(graph, first), fx.GraphModule(graph, rest)
    for each in made:
        each.graph.eliminate_dead_code()
        each.recompile()
    return made
