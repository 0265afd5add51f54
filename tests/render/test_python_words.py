"""Every op in every Python target means what the op table says, special values included."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.ops import CORE, OPS
from ruleforge.core.rule import Kind, Rule
from ruleforge.core.text import Line, RuleText
from ruleforge.render import python as words
from ruleforge.render.base import missing_ops
from ruleforge.render.helpers import NUMPY_HELPERS, TORCH_HELPERS, with_needed
from ruleforge.render.python import NumpyWriter, TorchWriter
from ruleforge.render.ranges import Range
from ruleforge.render.script import Script

SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 1e-3, 40.0, math.inf, -math.inf, math.nan)
FEW = (0.0, 1.0, -2.5, 0.5, math.inf, math.nan)
ELEMENTWISE = [name for name in CORE if OPS[name].kind == "elementwise"]
ULPS = {"cbrt": 64, "pow": 16, "tan": 16, "hypot": 8, "atan2": 8}

TORCH_HEAD = """
from __future__ import annotations
import math
from collections.abc import Callable
from typing import Any
import torch
from torch import Tensor
"""
NUMPY_HEAD = "from __future__ import annotations\nimport numpy as np\nArray = np.ndarray\n"


def args_of(op: str) -> tuple[Expr, ...]:
    return tuple(ex.state(i) for i in range(OPS[op].arity))


def module(source: str, folder: Path, name: str) -> Any:
    path = folder / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def script_for(op: str, kinds: tuple[Kind, ...], ranges: dict[Expr, Range] | None = None) -> Script:
    args = args_of(op)
    call = ex.node(op, *args)
    row = OPS[op]
    kind = {"reduce": Kind.SCALAR, "matrix": Kind.TENSOR}.get(row.kind, max(kinds))
    text = RuleText(Rule(ex.leaf("g")), (Line("update", ex.leaf("g")),))
    return Script(
        text=text, slots=(), hypers={}, statements=(), update=call, kept="",
        names={arg: f"x{i}" for i, arg in enumerate(args)},
        kinds={**dict(zip(args, kinds, strict=True)), call: kind},
        ranges=ranges or {}, reads=frozenset(),
    )  # fmt: skip


def torch_function(op: str, kinds: tuple[Kind, ...], folder: Path) -> Callable[..., Any]:
    """The op as exported code spells it, for arguments of these kinds."""
    writer = TorchWriter(script_for(op, kinds))
    body = writer.write(ex.node(op, *args_of(op)))
    params = ", ".join(["w", *(f"x{i}" for i in range(OPS[op].arity))])
    helpers = "\n\n".join(with_needed(writer.helpers, TORCH_HELPERS))
    source = f"{TORCH_HEAD}\n{helpers}\n\ndef f({params}):\n    return {body}\n"
    label = "".join(kind.name[0] for kind in kinds)
    return module(source, folder, f"torch_{op}_{label}").f


def meaning(op: str, *args: Any) -> Any:
    function = OPS[op].meaning
    assert function is not None
    with np.errstate(all="ignore"):
        return function(*args)


def assert_close(op: str, found: Any, expected: Any, dtype: Any = np.float64) -> None:
    found, expected = np.asarray(found), np.asarray(expected)
    bound = ULPS.get(op, 4) * np.finfo(dtype).eps
    same = (np.isnan(found) & np.isnan(expected)) | (found == expected)
    with np.errstate(all="ignore"):
        near = np.abs(found - expected) <= bound * np.maximum(np.abs(expected), 1e-300)
    assert (same | near).all(), (op, found, expected)


def grid(op: str, values: tuple[float, ...]) -> list[np.ndarray]:
    points = np.array(list(itertools.product(values, repeat=OPS[op].arity)))
    return [np.ascontiguousarray(column) for column in points.T]


@pytest.mark.parametrize("table", [words.TORCH, words.NUMPY], ids=["torch", "numpy"])
def test_tables_are_complete(table: dict[str, Any]) -> None:
    assert not missing_ops(table)
    assert missing_ops({name: None for name in table if name != "cbrt"}) == {"cbrt"}
    assert missing_ops([*table, "invented"]) == {"invented"}


@pytest.mark.parametrize("op", ELEMENTWISE)
def test_torch_tensors(op: str, tmp_path: Path) -> None:
    args = grid(op, SPECIAL if OPS[op].arity < 3 else FEW)
    f = torch_function(op, (Kind.TENSOR,) * len(args), tmp_path)
    w = torch.zeros(1, dtype=torch.float64)
    assert_close(op, f(w, *map(torch.from_numpy, args)).numpy(), meaning(op, *args))


@pytest.mark.parametrize("op", [name for name in ELEMENTWISE if OPS[name].arity > 1])
def test_torch_tensors_meet_numbers(op: str, tmp_path: Path) -> None:
    """Every mixture of tensors, per-tensor scalars and Python numbers keeps float64 and the meaning."""
    tensor = np.array(FEW)
    for kinds in itertools.product(Kind, repeat=OPS[op].arity):
        if max(kinds) is not Kind.TENSOR:
            continue
        f = torch_function(op, kinds, tmp_path)
        w = torch.zeros(2, dtype=torch.float64)
        for numbers in itertools.product((0.1, -2.5, math.nan, math.inf, 0.0), repeat=OPS[op].arity):
            ours: list[Any] = []
            theirs: list[Any] = []
            for kind, number in zip(kinds, numbers, strict=True):
                ours.append(
                    {
                        Kind.TENSOR: torch.from_numpy(tensor),
                        Kind.SCALAR: torch.tensor(number, dtype=torch.float64),
                        Kind.HOST: number,
                    }[kind]
                )
                theirs.append(tensor if kind is Kind.TENSOR else np.float64(number))
            found = f(w, *ours)
            assert found.dtype == torch.float64, (op, kinds)
            assert_close(op, found.numpy(), np.broadcast_to(meaning(op, *theirs), tensor.shape))


@pytest.mark.parametrize("op", [name for name in CORE if OPS[name].kind != "elementwise"])
@pytest.mark.parametrize("shape", [(5, 3), (2, 4), (7,), (), (0,), (0, 3), (2, 3, 2)])
def test_torch_reductions_and_matrices(op: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    args = [np.asarray(rng.normal(size=shape)) for _ in range(OPS[op].arity)]
    f = torch_function(op, (Kind.TENSOR,) * len(args), tmp_path)
    w = torch.zeros(shape, dtype=torch.float64)
    found = f(w, *map(torch.from_numpy, args)).numpy()
    expected = np.asarray(meaning(op, *args))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("op", [name for name in CORE if OPS[name].kind == "reduce"])
def test_torch_reductions_keep_nan(op: str, tmp_path: Path) -> None:
    f = torch_function(op, (Kind.TENSOR,) * OPS[op].arity, tmp_path)
    x = torch.tensor([1.0, math.nan, 2.0])
    assert torch.isnan(f(x, *([x] * OPS[op].arity)))


@pytest.mark.parametrize("op", ELEMENTWISE)
@pytest.mark.parametrize("known", [False, True], ids=["nothing_known", "values_known"])
def test_host_numbers(op: str, known: bool, tmp_path: Path) -> None:
    """Python's own arithmetic where it is safe, else tensors: IEEE's answer for every value, no exception."""
    args = args_of(op)
    call = ex.node(op, *args)
    kinds = (Kind.HOST,) * len(args)
    values = SPECIAL if len(args) < 3 else FEW
    points = list(itertools.product(values, repeat=len(args)))
    if op == "pow":
        points.remove((-math.inf, 0.5))  # numpy answers NaN for a scalar and, as IEEE says, inf for an array
    expected = [float(meaning(op, *map(np.float64, point))) for point in points]
    lines, helpers = [], {}
    for point, result in zip(points, expected, strict=True):
        ranges = {}
        if known:
            ranges = {arg: exactly(v) for arg, v in zip(args, point, strict=True)} | {call: exactly(result)}
        writer = TorchWriter(script_for(op, kinds, ranges))
        writer.names = {arg: literal(v) for arg, v in zip(args, point, strict=True)}
        lines.append(f"    ({writer.write(call)}),")
        helpers |= writer.helpers
    own = "\n\n".join(with_needed(helpers, TORCH_HELPERS))
    body = "\n".join(lines)
    source = f"{TORCH_HEAD}\n{own}\n\nnan, inf = math.nan, math.inf\nRESULTS = [\n{body}\n]\n"
    found = module(source, tmp_path, f"host_{op}").RESULTS
    assert all(isinstance(value, float | int) for value in found)
    assert_close(op, np.array(found, dtype=float), np.array(expected))


def exactly(value: float) -> Range:
    if math.isnan(value):
        return Range(-math.inf, math.inf, True)
    return Range(value, value, False)


def literal(value: float) -> str:
    return f"({value!r})"


def test_python_arithmetic_is_used_where_it_is_safe() -> None:
    """The fallback is right for everything, so only this shows that the readable words are used."""
    safe = Range(0.5, 0.75, False)
    for op in ELEMENTWISE:
        if op == "sign":
            continue
        args = args_of(op)
        ranges = {**dict.fromkeys(args, safe), ex.node(op, *args): safe}
        writer = TorchWriter(script_for(op, (Kind.HOST,) * len(args), ranges))
        assert "_ieee" not in writer.write(ex.node(op, *args)), op


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("op", CORE)
def test_numpy(op: str, dtype: Any, tmp_path: Path) -> None:
    args = args_of(op)
    writer = NumpyWriter({arg: f"x{i}" for i, arg in enumerate(args)})
    body = writer.write(ex.node(op, *args))
    params = ", ".join(f"x{i}" for i in range(len(args)))
    helpers = "\n\n".join(with_needed(writer.helpers, NUMPY_HELPERS))
    source = f"{NUMPY_HEAD}\n{helpers}\n\ndef f({params}):\n    return {body}\n"
    f = module(source, tmp_path, f"numpy_{op}").f
    if OPS[op].kind == "elementwise":
        values = [column.astype(dtype) for column in grid(op, SPECIAL if len(args) < 3 else FEW)]
    else:
        rng = np.random.default_rng(0)
        values = [rng.normal(size=(5, 3)).astype(dtype) for _ in args]
    with np.errstate(all="ignore"):
        found = f(*values)
    expected = meaning(op, *values)
    assert np.asarray(found).dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("g - (w - g)", "g - (w - g)"),
        ("(g - w) - g", "g - w - g"),
        ("g / (w * g)", "g / (w * g)"),
        ("g * w / g", "g * w / g"),
        ("-g ** 2.5", "-(g**2.5)"),
        ("(-g) ** w", "(-g) ** w"),
        ("g ** w ** g", "g ** (w**g)"),
        ("(g ** w) ** g", "(g**w) ** g"),
        ("2 ** -g", "2 ** (-g)"),
        ("-(g * w)", "-(g * w)"),
        ("g * -w", "g * -w"),
        ("g + -1", "g + -1"),
        ("square(g + w)", "torch.square(g + w)"),
        ("square(g)", "g * g"),
        ("(g < w) * w", "_less(g, w) * w"),
    ],
)
def test_brackets_and_spaces(text: str, shown: str) -> None:
    rule = RuleText.parse(f"update = {text}")
    script = Script(
        text=rule, slots=(), hypers={}, statements=(), update=rule.rule.update, kept="", names={},
        kinds=rule.rule.kinds, ranges={}, reads=frozenset(),
    )  # fmt: skip
    assert TorchWriter(script).write(rule.rule.update) == shown
