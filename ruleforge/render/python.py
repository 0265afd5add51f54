"""Rules as Python, for torch tensors and for numpy arrays, and for the host's own floats.

One table a target says how each op is written. Where a library means something else by an op than
the op table does (torch.sign(NaN) is 0, comparisons drop NaN, there is no cbrt), the table names a
helper, and the helper's source is written into the file that needs it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.format import format_number
from ruleforge.core.rule import Kind
from ruleforge.render.base import ATOM, LOOSEST, POWER, PRODUCT, SIGN, SUM, Spelling, Writer, missing_ops
from ruleforge.render.ranges import ANY, Range
from ruleforge.render.script import Script


def _call(name: str, arity: int = 1, *helpers: str) -> Spelling:
    args = ", ".join(f"{{{n}}}" for n in range(arity))
    return Spelling(f"{name}({args})", helpers=helpers)


def _own(name: str, arity: int = 1) -> Spelling:
    return _call(name, arity, name)


_ARITHMETIC: dict[str, Spelling] = {
    "add": Spelling("{0} + {1}", SUM, (SUM, PRODUCT)),
    "sub": Spelling("{0} - {1}", SUM, (SUM, PRODUCT)),
    "mul": Spelling("{0} * {1}", PRODUCT, (PRODUCT, SIGN)),
    "div": Spelling("{0} / {1}", PRODUCT, (PRODUCT, SIGN)),
    "pow": Spelling("{0} ** {1}", POWER, (ATOM, ATOM)),
    "neg": Spelling("-{0}", SIGN, (ATOM,)),
    "lerp": Spelling("{0} + {2} * ({1} - {0})", SUM, (PRODUCT, SUM, PRODUCT)),
}
_COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_MASK_NAMES = {
    "lt": "_less",
    "le": "_less_equal",
    "gt": "_greater",
    "ge": "_greater_equal",
    "eq": "_equal",
    "ne": "_not_equal",
}

TORCH: dict[str, Spelling] = {
    **_ARITHMETIC,
    **{op: _call(f"torch.{op}") for op in "abs sqrt exp log log1p expm1 sin cos tan asin acos atan".split()},
    **{op: _call(f"torch.{op}") for op in "sinh cosh tanh floor".split()},
    **{op: _call(f"torch.{op}", 2) for op in ("minimum", "maximum", "atan2", "hypot")},
    **{op: _own(name, 2) for op, name in _MASK_NAMES.items()},
    "sign": _own("_sign"),
    "cbrt": _own("_cbrt"),
    "clip": _own("_clip", 3),
    "where": _own("_where", 3),
    "norm": _call("torch.linalg.vector_norm"),
    "mean": _own("_mean"),
    "rms": _own("_rms"),
    "dot": _own("_dot", 2),
    "max_abs": _own("_max_abs"),
    "orthogonalize": _own("_orthogonalize"),
}  # fmt: skip
# Shorter words where these arguments are Python numbers.
_TORCH_NUMBERS: dict[tuple[str, tuple[bool, ...]], Spelling] = {
    ("minimum", (False, True)): Spelling("torch.clamp({0}, max={1})"),
    ("minimum", (True, False)): Spelling("torch.clamp({1}, max={0})"),
    ("maximum", (False, True)): Spelling("torch.clamp({0}, min={1})"),
    ("maximum", (True, False)): Spelling("torch.clamp({1}, min={0})"),
    ("clip", (False, True, True)): _call("torch.clamp", 3),
    **{
        ("clip", (True, low, high)): _own("_clip", 3)
        for low, high in ((True, False), (False, True), (False, False))
    },
    **{("clip", (False, low, high)): _own("_clip", 3) for low, high in ((True, False), (False, True))},
}
# These take Python numbers as they are; other functions of torch want tensors.
_TORCH_TAKES_NUMBERS = frozenset({*_ARITHMETIC, *_COMPARE})

NUMPY: dict[str, Spelling] = {
    **_ARITHMETIC,
    **{op: _call(f"np.{op}") for op in "abs sign sqrt cbrt exp log log1p expm1 sin cos tan".split()},
    **{op: _call(f"np.{op}") for op in "sinh cosh tanh floor".split()},
    **{op: _call(f"np.{name}") for op, name in (("asin", "arcsin"), ("acos", "arccos"), ("atan", "arctan"))},
    **{op: _call(f"np.{op}", 2) for op in ("minimum", "maximum", "hypot")},
    **{op: _own(name, 2) for op, name in _MASK_NAMES.items()},
    "atan2": _call("np.arctan2", 2),
    "clip": Spelling("np.minimum(np.maximum({0}, {1}), {2})"),
    "where": _own("_where", 3),
    **{op: _own(f"_{op}") for op in ("norm", "mean", "rms", "max_abs", "orthogonalize")},
    "dot": _own("_dot", 2),
}  # fmt: skip


@dataclass(frozen=True)
class HostWord:
    """How Python's own floats do an op, and when that is safe.

    Attributes:
        spelling: the words.
        safe: whether Python neither raises nor strays from IEEE, from the arguments' ranges and
            the range of the result.
        fallback: function on 0-dim tensors that is right for all values.
    """

    spelling: Spelling
    safe: Callable[[list[Range], Range], bool]
    fallback: str


_Test = Callable[[list[Range], Range], bool]


def _always(args: list[Range], result: Range) -> bool:
    return True


def _never(args: list[Range], result: Range) -> bool:
    return False


def _known(args: list[Range], result: Range) -> bool:
    return not any(arg.may_be_nan for arg in args)


def _first_known(args: list[Range], result: Range) -> bool:
    return not args[0].may_be_nan


def _result_finite(args: list[Range], result: Range) -> bool:
    return _known(args, result) and result.is_finite


def _divisor_nonzero(args: list[Range], result: Range) -> bool:
    return 0.0 not in args[1]


def _not_negative(args: list[Range], result: Range) -> bool:
    return args[0].low >= 0


def _positive(args: list[Range], result: Range) -> bool:
    return args[0].low > 0


def _within_one(args: list[Range], result: Range) -> bool:
    return args[0].low >= -1 and args[0].high <= 1


def _finite(args: list[Range], result: Range) -> bool:
    return args[0].is_finite


def _math(name: str, safe: _Test, arity: int = 1) -> HostWord:
    return HostWord(_call(f"math.{name}", arity), safe, f"torch.{name}")


HOST: dict[str, HostWord] = {
    **{op: HostWord(_ARITHMETIC[op], _always, "") for op in ("add", "sub", "mul", "neg", "lerp")},
    "div": HostWord(_ARITHMETIC["div"], _divisor_nonzero, "torch.div"),
    "pow": HostWord(_ARITHMETIC["pow"], _result_finite, "torch.pow"),
    "abs": HostWord(_call("abs"), _always, ""),
    "sign": HostWord(_call("_sign"), _never, "_sign"),
    "sqrt": _math("sqrt", _not_negative),
    "cbrt": _math("cbrt", _always),
    "exp": _math("exp", _result_finite),
    "log": _math("log", _positive),
    "log1p": _math("log1p", _not_negative),
    "expm1": _math("expm1", _result_finite),
    **{op: _math(op, _finite) for op in ("sin", "cos", "tan", "floor")},
    **{op: _math(op, _within_one) for op in ("asin", "acos")},
    **{op: _math(op, _always) for op in ("atan", "tanh")},
    **{op: _math(op, _result_finite) for op in ("sinh", "cosh")},
    "atan2": _math("atan2", _always, arity=2),
    "hypot": _math("hypot", _always, arity=2),
    "minimum": HostWord(_call("min", 2), _known, "torch.minimum"),
    "maximum": HostWord(_call("max", 2), _known, "torch.maximum"),
    "clip": HostWord(Spelling("min(max({0}, {1}), {2})"), _known, "torch.clamp"),
    "where": HostWord(Spelling("{1} if {0} else {2}", LOOSEST, (SUM, SUM, SUM)), _first_known, "_where"),
    **{
        op: HostWord(Spelling(f"float({{0}} {sign} {{1}})", inner=(SUM, SUM)), _known, _MASK_NAMES[op])
        for op, sign in _COMPARE.items()
    },
}
# A host number has no reductions.
_REDUCTIONS = {"norm", "mean", "rms", "dot", "max_abs", "orthogonalize"}
for _table, _extra in ((TORCH, ()), (NUMPY, ()), ({*HOST, *_REDUCTIONS}, ())):
    if missing_ops(_table, _extra):
        raise ImportError(f"a table of Python words and the op table disagree: {missing_ops(_table, _extra)}")

# Python's words for these serve floats and tensors alike.
_FOR_BOTH = frozenset("add sub mul div neg lerp pow abs".split())
_COMPARISON = re.compile(r" (?:[<>]=?|[=!]=) ")
_SIMPLE = re.compile(r"-?(?:[A-Za-z_][A-Za-z_0-9.]*|[0-9.]+(?:e[-+]?[0-9]+)?)")


def python_number(value: float) -> str:
    """A number as ruff and black write it."""
    return format_number(value).replace("e+", "e")


def live_numbers(script: Script) -> frozenset[Expr]:
    """Host numbers that change from step to step, or with the learning rate.

    On a device that must not be waited for they are 0-dim tensors; all others are Python floats.
    """
    found: dict[Expr, bool] = {}
    for item in ex.walk([script.update, *(slot.next for slot in script.slots)]):
        own = item.op in ("t", "first", "lr", "progress") or (
            item.op == "state" and script.kinds[item] is Kind.HOST
        )
        found[item] = script.kinds[item] is Kind.HOST and (own or any(found[arg] for arg in item.args))
    return frozenset(item for item, live in found.items() if live)


class PythonWriter(Writer):
    """Python expressions, spaced as ruff and black space them."""

    def leaf(self, item: Expr) -> tuple[str, int]:
        if item.op == "const":
            number = python_number(float(item.value or 0))
            return number, SIGN if number.startswith("-") else ATOM
        if item.op == "first":
            return "float(t == 1)", ATOM
        return item.op, ATOM

    def fill(self, item: Expr, spelling: Spelling, args: list[str]) -> str:
        if spelling.template == "{0} ** {1}" and all(_SIMPLE.fullmatch(arg) for arg in args):
            return "**".join(args)
        if spelling.template == "{0} ** 0.5" and _SIMPLE.fullmatch(args[0]):
            return f"{args[0]}**0.5"
        return super().fill(item, spelling, args)


class NumpyWriter(PythonWriter):
    """Arrays, with host numbers as numpy's own scalars, which never raise."""

    def spelling(self, item: Expr) -> Spelling:
        return NUMPY[item.op]


class TorchWriter(PythonWriter):
    """Tensors, and Python floats for host numbers.

    In scope where the text runs: `w`, the weights, from which numbers become tensors; the script's
    names; `t`, `lr` and so on where they are read.

    Args:
        script: names, kinds and ranges.
        live: host numbers that may be 0-dim tensors instead of floats, see `live_numbers`; they are
            written in words that serve both.
    """

    def __init__(self, script: Script, live: frozenset[Expr] = frozenset()) -> None:
        super().__init__(script.names)
        self.script = script
        self.live = live

    def leaf(self, item: Expr) -> tuple[str, int]:
        if item.op == "first" and item in self.live:
            self.helpers["_is_first"] = None
            return "_is_first(t)", ATOM
        return super().leaf(item)

    def spelling(self, item: Expr) -> Spelling:
        if self._kind(item) is Kind.HOST:
            return self._host(item)
        numbers = tuple(self._kind(arg) is Kind.HOST for arg in item.args)
        alive = [arg in self.live for arg in item.args]
        if item.op == "where" and self._chooses(item):
            if alive[0]:
                return _own("_choose", 3)
            return Spelling("{1} if {0} else {2}", LOOSEST, (SUM, SUM, SUM))
        if item.op == "mul" and item.args[0] is item.args[1] and self._is_long(item.args[0]):
            return _call("torch.square")
        if item.op == "clip" and any(alive):
            return TORCH["clip"]
        if (item.op, numbers) in _TORCH_NUMBERS:
            return _TORCH_NUMBERS[item.op, numbers]
        words = TORCH[item.op]
        if item.op in _TORCH_TAKES_NUMBERS or not any(numbers):
            return words
        if item.op == "where":
            numbers = (numbers[0], False, False)
        forms = {0: "{{{n}}}", 1: "w.new_full((), {{{n}}})", 2: "_like({{{n}}}, w)"}
        fill = [
            forms[number + (number and live)].format(n=n)
            for n, (number, live) in enumerate(zip(numbers, alive, strict=True))
        ]
        helpers = (*words.helpers, *(("_like",) if any(map(min, numbers, alive)) else ()))
        return Spelling(words.template.format(*fill), words.level, words.inner, helpers)

    def _spelled(self, item: Expr) -> tuple[str, int]:
        """As ever, but the condition of a choice is a bare comparison."""
        spelling = self.spelling(item) if item.op == "where" else None
        if spelling is None or not (spelling.level == LOOSEST or "_choose" in spelling.helpers):
            return super()._spelled(item)
        self.helpers |= dict.fromkeys(spelling.helpers)
        needed = SUM if spelling.level == LOOSEST else LOOSEST
        _, a, b = (self._bracketed(arg, needed) for arg in item.args)
        condition = self._condition(item.args[0])
        if spelling.level != LOOSEST and not _COMPARISON.search(condition):
            condition = f"{self._bracketed(item.args[0], SUM)} != 0"
        return spelling.template.format(condition, a, b), spelling.level

    def _bracketed(self, item: Expr, level: int) -> str:
        text, held = self.held(item)
        return text if held >= level else self.bracket(text)

    def _condition(self, item: Expr) -> str:
        if item in self.names:
            return self.names[item]
        if item is ex.leaf("first"):
            return "t == 1"
        if item.op in _COMPARE and (item in self.live or "float(" in self._host(item).template):
            a, b = (self._bracketed(arg, SUM) for arg in item.args)
            return f"{a} {_COMPARE[item.op]} {b}"
        return self._bracketed(item, SUM)

    def _kind(self, item: Expr) -> Kind:
        return self.script.kinds[item]

    def _is_long(self, item: Expr) -> bool:
        return bool(item.args) and item not in self.names

    def _range(self, item: Expr) -> Range:
        return self.script.ranges.get(item, ANY)

    def _host(self, item: Expr) -> Spelling:
        word = HOST[item.op]
        ranges = [self._range(arg) for arg in item.args]
        safe = word.safe(ranges, self._range(item))
        if item in self.live:
            if safe and item.op == "sqrt":
                return Spelling("{0} ** 0.5", POWER, (ATOM,))
            if safe and item.op in _FOR_BOTH:
                return word.spelling
            name = {"cbrt": "_cbrt", "clip": "_clip"}.get(item.op, word.fallback)
            args = ", ".join(f"{{{n}}}" for n in range(len(item.args)))
            return Spelling(f"_ieee({name}, {args})", helpers=("_ieee", *((name,) if name[0] == "_" else ())))
        if safe:
            if item.op == "mul" and item.args[0] is item.args[1] and self._is_long(item.args[0]):
                return Spelling("{0} ** 2", POWER, (ATOM,)) if self._range(item).is_finite else word.spelling
            return word.spelling
        args = ", ".join(f"{{{n}}}" for n in range(len(item.args)))
        own = (word.fallback,) if word.fallback.startswith("_") else ()
        return Spelling(f"_ieee({word.fallback}, {args})", helpers=("_ieee", *own))

    def _chooses(self, item: Expr) -> bool:
        """Whether `where` can be Python's own choice: a host condition between values of one kind."""
        condition, a, b = item.args
        return (
            self._kind(condition) is Kind.HOST
            and not self._range(condition).may_be_nan
            and self._kind(a) is self._kind(b) is self._kind(item)
        )

    def may_alias(self, item: Expr) -> bool:
        """Whether the value written out may be the tensor of a state itself, not a new one."""
        if not item.args:
            return item.op == "state"
        if item.op == "orthogonalize":
            return self._alias_of(item.args[0])
        if item.op == "where" and self._chooses(item):
            return any(self._alias_of(arg) for arg in item.args[1:])
        return False

    def _alias_of(self, arg: Expr) -> bool:
        return arg.op == "state" if arg in self.names else self.may_alias(arg)
