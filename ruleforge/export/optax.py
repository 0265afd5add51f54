"""A rule as an optax `GradientTransformation`, in a file that needs jax and optax alone.

Everything is traced: hyperparameters may be arrays, as `optax.inject_hyperparams` makes them, and the
update runs under `jit`, `vmap` and `scan`. Host numbers have jax's own float type: float32, unless
`jax_enable_x64` is set.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Mapping
from dataclasses import replace

from ruleforge.core.expr import Expr
from ruleforge.core.format import format_rule
from ruleforge.core.laws import ZERO
from ruleforge.core.rule import Kind
from ruleforge.core.text import RuleText
from ruleforge.export.lines import WIDTH, float_literal, indented, wrapped
from ruleforge.export.pure import pure_function
from ruleforge.export.safety import check_class_name, check_names, class_name_for, plain_lines, snake
from ruleforge.export.zeros import tells_zeros_apart
from ruleforge.render.base import ATOM, Spelling
from ruleforge.render.helpers import JAX_HELPERS, with_needed
from ruleforge.render.python import HOST, NUMPY, PythonWriter, live_numbers
from ruleforge.render.ranges import ANY
from ruleforge.render.script import Plan, Script, Slot, make_script
from ruleforge.render.unicode import formula

_SCOPE = """
    jax jnp optax math Array Any Callable NamedTuple annotations params updates state g w t lr lr0 progress
    is_matrix weight_decay total_steps learning_rate mask count init update_fn found outer inner one l O I
    _rule
""".split()
_RESERVED = frozenset({*_SCOPE, *keyword.kwlist, *keyword.softkwlist, *dir(builtins), *JAX_HELPERS})
_ARITHMETIC = frozenset("add sub mul div pow neg lerp".split())
_CALLS = {"div": "jnp.divide({0}, {1})", "pow": "jnp.power({0}, {1})"}


class JaxWriter(PythonWriter):
    """jax.numpy's words for arrays and for numbers, either of which may be traced."""

    def __init__(self, script: Script) -> None:
        super().__init__(script.names)
        self.script = script
        self.live = live_numbers(script)

    def leaf(self, item: Expr) -> tuple[str, int]:
        if item.op == "first":
            return "jnp.where(t == 1, 1.0, 0.0)", ATOM
        return super().leaf(item)

    def spelling(self, item: Expr) -> Spelling:
        words = NUMPY[item.op]
        if item.op == "sign" and tells_zeros_apart(self.script, item):
            return Spelling("_sign({0})", helpers=("_sign",))
        fixed = self.script.kinds[item] is Kind.HOST and item not in self.live
        if fixed and item.op in _CALLS:
            ranges = [self.script.ranges.get(arg, ANY) for arg in item.args]
            if not HOST[item.op].safe(ranges, self.script.ranges.get(item, ANY)):
                return Spelling(_CALLS[item.op])
        return replace(words, template=re.sub(r"\bnp\.", "jnp.", words.template))


def export_optax(
    text: RuleText,
    class_name: str | None = None,
    *,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    provenance: Mapping[str, object] | None = None,
) -> str:
    """Source of a file with two functions, such as `scale_by_lion` and `lion`.

    Args:
        text: a rule with its names.
        class_name: name in capitals, such as `MyLion` for `my_lion`; from the docstring when missing.
        lr: accepted for all targets; optax asks for the learning rate.
        weight_decay: default decoupled weight decay.
        provenance: where the rule was found, shown at the top of the file.

    Raises:
        ExportError: a name that cannot be used, or names that are no identifiers.
    """
    check_names(text)
    name = check_class_name(class_name) if class_name is not None else class_name_for(text.doc)
    script = make_script(text, Plan("torch", _RESERVED | {name}, 56, JaxWriter))
    writer = JaxWriter(script)
    pure = pure_function(
        script, writer, script.slots, WIDTH - 4,
        progress="jnp.minimum(t / total_steps, 1.0)", is_matrix="jnp.asarray(g.ndim == 2, g.dtype)",
    )  # fmt: skip
    hypers = {n: float(h.default) for n, h in script.used_hypers.items()}
    numbers = ["t"] if script.reads & {"t", "first", "progress"} else []
    numbers += [n for n in ("lr", "lr0") if n in script.reads]
    numbers += ["total_steps"] if "progress" in script.reads else []
    arrays = ["g", *(["w"] if "w" in script.reads else []), *(slot.name for slot in script.slots)]
    rule = [
        "def _rule(",
        *(f"    {n}: Array," for n in arrays),
        *(f"    {n}: Any," for n in [*numbers, *hypers]),
        ") -> tuple[Any, ...]:",
        '    """The rule: the update, to be subtracted times the learning rate, and the next states."""',
        *indented(pure.body),
    ]
    parts = [
        "\n".join(rule),
        "\n".join(_state_class(name, script.slots)),
        "\n".join(_scale_by(name, script, writer, hypers, numbers)),
        "\n".join(_alias(name, script, hypers, weight_decay)),
        *with_needed(writer.helpers, JAX_HELPERS),
    ]
    return f"{_head(text, name, provenance or {})}\n\n\n" + "\n\n\n".join(parts) + "\n"


def _state_class(name: str, slots: tuple[Slot, ...]) -> list[str]:
    kinds = {Kind.HOST: "Any", Kind.SCALAR: "optax.Updates", Kind.TENSOR: "optax.Updates"}
    return [
        f"class {name}State(NamedTuple):",
        '    """Step and states."""',
        "",
        "    count: Any",
        *(f"    {slot.name}: {kinds[slot.kind]}" for slot in slots),
    ]


def _extra(script: Script) -> list[str]:
    """Arguments that few rules need: the learning rate, and the length of the training."""
    found = ["learning_rate: optax.ScalarOrSchedule"] if script.reads & {"lr", "lr0"} else []
    return found + (["total_steps: int"] if "progress" in script.reads else [])


def _scale_by(
    name: str, script: Script, writer: JaxWriter, hypers: Mapping[str, float], numbers: list[str]
) -> list[str]:
    slots = script.slots
    extra = _extra(script)
    trees = [slot for slot in slots if slot.kind is not Kind.HOST]
    rate = []
    if "lr" in script.reads:
        rate += ["lr = _rate(learning_rate, state.count)"]
    if "lr0" in script.reads:
        rate += ["lr0 = _rate(learning_rate, 0)"]
    if rate or any("lr0" in writer.write(slot.init) for slot in slots):
        writer.helpers["_rate"] = None
    starts = [_start(slot, writer) for slot in slots]
    before = ["lr0 = _rate(learning_rate, 0)"] if any("lr0" in s for s in starts) else []
    arguments = [slot.name if slot.kind is not Kind.HOST else f"state.{slot.name}" for slot in slots]
    reads_w = "w" in script.reads
    call = f"_rule({', '.join(['g', *(['w'] if reads_w else []), *arguments, *numbers, *hypers])})"
    row = ["g", *(["w"] if reads_w else []), *(slot.name for slot in trees)]
    columns = ["updates", *(["params"] if reads_w else []), *(f"state.{slot.name}" for slot in trees)]
    count = 1 + len(slots)
    new = []
    for n, slot in enumerate(slots, 1):
        if slot.kind is Kind.HOST:
            writer.helpers["_shared"] = None
            new.append(f"_shared(found[{n}], state.{slot.name})")
        else:
            writer.helpers["_cast"] = None
            new.append(f"_cast(found[{n}], state.{slot.name})")
    writer.helpers["_cast"] = None
    body = [
        f"def init(params: optax.Params) -> {name}State:",
        *indented(before),
        f"    return {name}State(",
        "        jnp.zeros([], jnp.int32),",
        *(f"        {start}," for start in starts),
        "    )",
        "",
        "def update_fn(",
        "    updates: optax.Updates,",
        f"    state: {name}State,",
        "    params: optax.Params | None = None,",
        f") -> tuple[optax.Updates, {name}State]:",
        *(["    if params is None:", "        raise ValueError(optax.NO_PARAMS_MSG)"] if reads_w else []),
        "    count = state.count + 1",
        *(["    t = jnp.asarray(count, dtype=float)"] if "t" in numbers else []),
        *indented(rate),
        "",
        f"    def one({', '.join(f'{n}: Any' for n in row)}) -> tuple[Any, ...]:",
        *indented(indented(wrapped(f"return {call}" if len(call) < 60 else f"found = {call}", WIDTH - 12))),
        *([] if len(call) < 60 else ["        return found"]),
        "",
        *indented(wrapped(f"found = jax.tree.map(one, {', '.join(columns)})", WIDTH - 8)),
        "    outer = jax.tree.structure(updates)",
        f"    inner = jax.tree.structure((0,) * {count})",
        "    found = jax.tree.transpose(outer, inner, found)",
        f"    return _cast(found[0], updates), {name}State(",
        "        count,",
        *(f"        {text}," for text in new),
        "    )",
        "",
        "return optax.GradientTransformation(init, update_fn)",
    ]
    return [
        f"def scale_by_{snake(name)}(",
        *(f"    {each}," for each in extra),
        *(f"    {n}: float = {float_literal(value)}," for n, value in hypers.items()),
        ") -> optax.GradientTransformation:",
        '    """The rule alone: no learning rate, no weight decay."""',
        "",
        *indented(body),
    ]


def _start(slot: Slot, writer: JaxWriter) -> str:
    value = "0.0" if slot.init is ZERO else writer.write(slot.init)
    if slot.kind is Kind.HOST:
        return f"jnp.asarray({value}, dtype=float)"
    if slot.kind is Kind.SCALAR:
        return f"jax.tree.map(lambda p: jnp.full((), {value}, p.dtype), params)"
    if slot.init is ZERO:
        return "jax.tree.map(jnp.zeros_like, params)"
    return f"jax.tree.map(lambda p: jnp.full_like(p, {value}), params)"


def _alias(name: str, script: Script, hypers: Mapping[str, float], weight_decay: float) -> list[str]:
    extra = [each for each in _extra(script) if not each.startswith("learning_rate")]
    passed = ["learning_rate"] if len(_extra(script)) > len(extra) else []
    passed += [*(each.split(":")[0] for each in extra), *hypers]
    return [
        f"def {snake(name)}(",
        "    learning_rate: optax.ScalarOrSchedule,",
        *(f"    {each}," for each in extra),
        *(f"    {n}: float = {float_literal(value)}," for n, value in hypers.items()),
        f"    weight_decay: float = {float_literal(float(weight_decay))},",
        "    mask: Any = None,",
        ") -> optax.GradientTransformation:",
        '    """The rule with decoupled weight decay and a learning rate."""',
        "    return optax.chain(",
        f"        scale_by_{snake(name)}(",
        *(f"            {n}," for n in passed),
        "        ),",
        "        optax.add_decayed_weights(weight_decay, mask),",
        "        optax.scale_by_learning_rate(learning_rate),",
        "    )",
    ]


def _head(text: RuleText, name: str, provenance: Mapping[str, object]) -> str:
    doc = plain_lines(text.doc, WIDTH - 4)
    lines = [f"{name} for optax: needs jax and optax alone.", "", *doc, *([""] if doc else [])]
    lines += ["Each array w with gradient g moves by", "", *(f"    {line}" for line in formula(text)), ""]
    for key, value in provenance.items():
        lines += plain_lines(f"{key}: {value}", WIDTH - 4)
    lines += [""] if provenance else []
    lines += [f"Written by ruleforge from the rule {text.rule.key}:", ""]
    lines += [f"    {line}" for line in format_rule(replace(text, doc="")).splitlines()]
    imports = ["from __future__ import annotations", "", "from typing import Any, NamedTuple", ""]
    imports += ["import jax", "import jax.numpy as jnp", "import optax", ""]
    imports += [f'__all__ = ["{snake(name)}", "scale_by_{snake(name)}"]', "", "Array = Any"]
    return "\n".join(['"""' + lines[0], *lines[1:], '"""', "", *imports])
