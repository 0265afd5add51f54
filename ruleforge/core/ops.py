# ruff: noqa: E501 (the table holds one op a line)
"""The op table: every primitive of the rule language, one row each.

The parser, the grammars, the backends, the exporters and the docs are generated from these rows.
The table knows what an op means (numpy, IEEE arithmetic in the tensor's dtype), what is true of it
and what it costs; it does not know how any target spells it beyond Python, LaTeX and sympy.

There are no protected ops: `x / 0` is an infinity and `log(-1)` a NaN, as IEEE says. NaN
propagates, through `sign`, comparisons, `minimum`, `maximum` and a `where` condition too, so that
a diverged lane cannot look healthy. IEEE itself keeps two exceptions: `x ** 0` and `1 ** x` are 1,
and `hypot` of an infinity is infinite, whatever the other argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Kind = Literal["elementwise", "reduce", "matrix", "derived", "sugar"]


@dataclass(frozen=True, slots=True)
class Op:
    """One primitive.

    Attributes:
        name: as written in rule text; infix ops have a `symbol` besides.
        kind: elementwise, reduce (one number for each parameter tensor), matrix (2-D tensors),
            derived (an `expansion` and nothing else), sugar (a state with a `recurrence`).
        params: parameter names; a trailing `#` marks one that must be a number (host or
            per-tensor scalar), a trailing `!` one that must be a tensor.
        meaning: the definition on numpy arrays; None for derived ops and sugar.
        flops: price of one element, in additions.
        latex: template over `{0}`, `{1}`, …
        sympy: name in sympy; "" where the renderer spells it.
        symbol: infix spelling in Python.
        commutative: `f(a, b) = f(b, a)` bit for bit.
        parity: "odd" or "even" in its only argument.
        monotone: +1 increasing, −1 decreasing, 0 neither or unknown.
        degree: `f(c·x) = c**degree · f(x)` for all c > 0.
        bounds: range of values.
        domain: where a finite argument gives a finite value, in words.
        expansion: for derived ops, rule text over the parameter names.
        recurrence: for sugar, the next value of a slot `s` that starts at 0.
        yields: for sugar, whether the term reads the slot's "new" or "old" value.
        folds: for derived ops, whether what it expands to is shown and counted as the op itself.
        doc: one line for people.
    """

    name: str
    kind: Kind
    params: tuple[str, ...]
    meaning: Callable[..., Any] | None = None
    flops: float = 1.0
    latex: str = ""
    sympy: str = ""
    symbol: str = ""
    commutative: bool = False
    parity: Literal["odd", "even", ""] = ""
    monotone: int = 0
    degree: float | None = None
    bounds: tuple[float, float] | None = None
    domain: str = ""
    expansion: str = ""
    recurrence: str = ""
    yields: Literal["new", "old"] = "new"
    folds: bool = False
    doc: str = ""

    @property
    def arity(self) -> int:
        return len(self.params)

    @property
    def param_names(self) -> tuple[str, ...]:
        return tuple(param.rstrip("#!") for param in self.params)

    @property
    def signature(self) -> str:
        """The call as a reader writes it: `ema(x, beta)`."""
        return f"{self.name}({', '.join(self.param_names)})"


def _nan_aware(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def mask(a: Any, b: Any) -> Any:
        unknown = np.isnan(a) | np.isnan(b)
        return np.where(unknown, np.nan, compare(a, b)).astype(np.result_type(a, b))

    return mask


def _where(c: Any, a: Any, b: Any) -> Any:
    chosen = np.where(c != 0, a, b)
    return np.where(np.isnan(c), np.nan, chosen).astype(chosen.dtype)


def _pow(a: Any, b: Any) -> Any:
    """IEEE pow; exponents 1 and 2 are exact by definition, since libraries differ in the last bit."""
    return np.where(b == 2, a * a, np.where(b == 1, a, np.power(a, b)))[()]


def _minimum(a: Any, b: Any) -> Any:
    """IEEE 754-2019 minimum: NaN wins, and −0 is below +0, so that the order cannot matter."""
    return np.where(a == b, np.where(np.signbit(a), a, b), np.minimum(a, b))[()]


def _maximum(a: Any, b: Any) -> Any:
    """IEEE 754-2019 maximum: NaN wins, and +0 is above −0, so that the order cannot matter."""
    return np.where(a == b, np.where(np.signbit(a), b, a), np.maximum(a, b))[()]


def _clip(x: Any, lo: Any, hi: Any) -> Any:
    return _minimum(_maximum(x, lo), hi)


def _lerp(a: Any, b: Any, x: Any) -> Any:
    return a + x * (b - a)


def _sum(x: Any) -> Any:
    """Sum in float64, rounded once to the dtype of `x`."""
    return x.dtype.type(np.sum(x, dtype=np.float64))


def _norm(x: Any) -> Any:
    return x.dtype.type(np.sqrt(np.sum(np.square(x, dtype=np.float64))))


def _mean(x: Any) -> Any:
    return x.dtype.type(np.sum(x, dtype=np.float64) / max(x.size, 1))


def _rms(x: Any) -> Any:
    return x.dtype.type(np.sqrt(np.sum(np.square(x, dtype=np.float64)) / max(x.size, 1)))


def _dot(a: Any, b: Any) -> Any:
    return a.dtype.type(np.sum(np.multiply(a, b, dtype=np.float64)))


def _max_abs(x: Any) -> Any:
    return np.max(np.abs(x), initial=x.dtype.type(0))


NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
NEWTON_SCHULZ_EPS = 1e-7


def _orthogonalize(x: Any) -> Any:
    """Jordan et al. 2024: five Newton–Schulz steps towards U·Vᵀ; other than 2-D tensors unchanged."""
    if x.ndim != 2:
        return x
    a, b, c = (x.dtype.type(k) for k in NEWTON_SCHULZ)
    wide = x if x.shape[0] <= x.shape[1] else x.T
    y = wide / np.maximum(_norm(wide), x.dtype.type(NEWTON_SCHULZ_EPS))
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = y @ y.T
        y = a * y + (b * gram + c * (gram @ gram)) @ y
    return y if x.shape[0] <= x.shape[1] else y.T


_INF = float("inf")
_X = ("x",)
_AB = ("a", "b")


def _row(name: str, params: tuple[str, ...], meaning: Callable[..., Any], **facts: Any) -> Op:
    return Op(name, "elementwise", params, meaning, **facts)


def _fn(name: str, meaning: Callable[..., Any], flops: float, **facts: Any) -> Op:
    facts.setdefault("latex", rf"\{name}\left({{0}}\right)")
    facts.setdefault("sympy", name)
    return Op(name, "elementwise", _X, meaning, flops, **facts)


def _compare(name: str, symbol: str, tex: str, fn: Callable[[Any, Any], Any], sym: str, both: bool) -> Op:
    return Op(
        name, "elementwise", _AB, _nan_aware(fn), 1, rf"\left[{{0}} {tex} {{1}}\right]", sym, symbol,
        commutative=both, bounds=(0, 1), doc=f"1 where a {symbol} b, else 0",
    )  # fmt: skip


def _reduce(
    name: str, params: tuple[str, ...], meaning: Callable[..., Any], flops: float, **facts: Any
) -> Op:
    return Op(name, "reduce", params, meaning, flops, **facts)


def _derived(name: str, params: tuple[str, ...], expansion: str, doc: str, folds: bool = False) -> Op:
    return Op(name, "derived", params, expansion=expansion, doc=doc, folds=folds)


def _sugar(
    name: str, params: tuple[str, ...], recurrence: str, doc: str, latex: str, yields: Any = "new"
) -> Op:
    return Op(name, "sugar", params, recurrence=recurrence, doc=doc, latex=latex, yields=yields)


# fmt: off
_ROWS: tuple[Op, ...] = (
    # arithmetic
    _row("add", _AB, np.add, latex="{0} + {1}", symbol="+", commutative=True, degree=1, doc="a + b"),
    _row("sub", _AB, np.subtract, latex="{0} - {1}", symbol="-", degree=1, doc="a − b"),
    _row("mul", _AB, np.multiply, latex=r"{0} \cdot {1}", symbol="*", commutative=True, degree=2, doc="a · b"),
    _row("div", _AB, np.divide, flops=4, latex=r"\frac{{{0}}}{{{1}}}", symbol="/", degree=0, domain="b ≠ 0", doc="a / b"),
    _row("pow", _AB, _pow, flops=20, latex="{{{0}}}^{{{1}}}", symbol="**", domain="a > 0, or b an integer",
         doc="a to the power b; `x ** 1` is x and `x ** 2` is `x * x`, exactly"),
    _row("neg", _X, np.negative, latex="-{0}", symbol="-", parity="odd", monotone=-1, degree=1, doc="−x"),
    # one argument
    _fn("abs", np.abs, 1, latex=r"\left|{0}\right|", sympy="Abs", parity="even", degree=1, bounds=(0, _INF), doc="|x|"),
    _fn("sign", np.sign, 1, latex=r"\operatorname{{sign}}\left({0}\right)", parity="odd", monotone=1, degree=0, bounds=(-1, 1),
        doc="−1, 0 or 1; NaN stays NaN"),
    _fn("sqrt", np.sqrt, 4, latex=r"\sqrt{{{0}}}", monotone=1, degree=0.5, bounds=(0, _INF), domain="x ≥ 0", doc="√x"),
    _fn("cbrt", np.cbrt, 20, latex=r"\sqrt[3]{{{0}}}", parity="odd", monotone=1, degree=1 / 3, doc="real cube root"),
    _fn("exp", np.exp, 10, monotone=1, bounds=(0, _INF), doc="eˣ"),
    _fn("log", np.log, 10, monotone=1, domain="x > 0", doc="natural logarithm"),
    _fn("log1p", np.log1p, 12, latex=r"\log\left(1 + {0}\right)", sympy="", monotone=1, domain="x > −1", doc="log(1 + x)"),
    _fn("expm1", np.expm1, 12, latex=r"\left(e^{{{0}}} - 1\right)", sympy="", monotone=1, bounds=(-1, _INF), doc="eˣ − 1"),
    _fn("sin", np.sin, 12, parity="odd", bounds=(-1, 1), doc="sine"),
    _fn("cos", np.cos, 12, parity="even", bounds=(-1, 1), doc="cosine"),
    _fn("tan", np.tan, 16, parity="odd", doc="tangent"),
    _fn("asin", np.arcsin, 16, latex=r"\arcsin\left({0}\right)", parity="odd", monotone=1, bounds=(-np.pi / 2, np.pi / 2),
        domain="|x| ≤ 1", doc="arc sine"),
    _fn("acos", np.arccos, 16, latex=r"\arccos\left({0}\right)", monotone=-1, bounds=(0, np.pi), domain="|x| ≤ 1", doc="arc cosine"),
    _fn("atan", np.arctan, 16, latex=r"\arctan\left({0}\right)", parity="odd", monotone=1, bounds=(-np.pi / 2, np.pi / 2), doc="arc tangent"),
    _fn("sinh", np.sinh, 16, parity="odd", monotone=1, doc="hyperbolic sine"),
    _fn("cosh", np.cosh, 16, parity="even", bounds=(1, _INF), doc="hyperbolic cosine"),
    _fn("tanh", np.tanh, 14, parity="odd", monotone=1, bounds=(-1, 1), doc="hyperbolic tangent"),
    _fn("floor", np.floor, 1, latex=r"\left\lfloor {0} \right\rfloor", monotone=1, doc="largest integer ≤ x"),
    # two and three arguments
    _row("minimum", _AB, _minimum, latex=r"\min\left({0}, {1}\right)", sympy="Min", commutative=True, degree=1, doc="the smaller; NaN wins"),
    _row("maximum", _AB, _maximum, latex=r"\max\left({0}, {1}\right)", sympy="Max", commutative=True, degree=1, doc="the larger; NaN wins"),
    _row("atan2", _AB, np.arctan2, flops=20, latex=r"\operatorname{{atan2}}\left({0}, {1}\right)", sympy="atan2", degree=0,
         bounds=(-np.pi, np.pi), doc="angle of the point (b, a)"),
    _row("hypot", _AB, np.hypot, flops=8, latex=r"\sqrt{{{{{0}}}^2 + {{{1}}}^2}}", commutative=True, degree=1, bounds=(0, _INF),
         doc="√(a² + b²) without overflow"),
    _row("clip", ("x", "lo", "hi"), _clip, flops=2, latex=r"\operatorname{{clip}}\left({0}, {1}, {2}\right)", doc="minimum(maximum(x, lo), hi)"),
    _row("lerp", ("a", "b", "x"), _lerp, flops=3, latex=r"\operatorname{{lerp}}\left({0}, {1}, {2}\right)", doc="a + x·(b − a), rounded exactly so"),
    _row("where", ("c", "a", "b"), _where, latex=r"\operatorname{{where}}\left({0}, {1}, {2}\right)", doc="a where c is not 0, else b"),
    _compare("lt", "<", "<", np.less, "StrictLessThan", False),
    _compare("le", "<=", r"\le", np.less_equal, "LessThan", False),
    _compare("gt", ">", ">", np.greater, "StrictGreaterThan", False),
    _compare("ge", ">=", r"\ge", np.greater_equal, "GreaterThan", False),
    _compare("eq", "==", "=", np.equal, "Equality", True),
    _compare("ne", "!=", r"\ne", np.not_equal, "Unequality", True),
    # one number for each parameter tensor
    _reduce("norm", ("x!",), _norm, 2, latex=r"\left\|{0}\right\|", parity="even", degree=1, bounds=(0, _INF), doc="2-norm of the whole tensor"),
    _reduce("mean", ("x!",), _mean, 1, latex=r"\operatorname{{mean}}\left({0}\right)", parity="odd", degree=1, doc="mean over the tensor"),
    _reduce("rms", ("x!",), _rms, 2, latex=r"\operatorname{{rms}}\left({0}\right)", parity="even", degree=1, bounds=(0, _INF),
            doc="root of the mean square"),
    _reduce("dot", ("a!", "b!"), _dot, 2, latex=r"\left\langle {0}, {1} \right\rangle", commutative=True, degree=2, doc="inner product"),
    _reduce("max_abs", ("x!",), _max_abs, 2, latex=r"\left\|{0}\right\|_\infty", parity="even", degree=1, bounds=(0, _INF), doc="largest |x|"),
    # 2-D tensors
    Op("orthogonalize", "matrix", ("x!",), _orthogonalize, 60, r"\operatorname{{orthogonalize}}\left({0}\right)", parity="odd", degree=0,
       doc="Muon's Newton–Schulz on 2-D tensors, x itself on others"),
    # derived: they expand where they are read
    _derived("square", _X, "x * x", "x²"),
    _derived("cube", _X, "x * x * x", "x³"),
    _derived("reciprocal", _X, "1 / x", "1 / x"),
    _derived("rsqrt", _X, "1 / sqrt(x)", "1 / √x"),
    _derived("ratio", ("a", "b", "eps"), "a / (b + eps)", "a over b, kept finite by eps"),
    _derived("agree", _AB, "a * b > 0", "1 where a and b have the same sign, else 0"),
    _derived("cautious", ("x!", "y!"), "x * agree(x, y) / maximum(mean(agree(x, y)), 0.001)",
             "x where y has its sign, scaled up for the share left out", folds=True),
    _derived("graft", ("x!", "y!"), "x * (norm(y) / maximum(norm(x), 1e-30))",
             "x brought to y's norm; Agarwal et al. 2020, arXiv:2002.11803", folds=True),
    _derived("equalize", ("x!",), "graft(orthogonalize(x), x)",
             "x with all its singular values alike, at its own norm; x itself where it is no matrix", folds=True),
    _derived("sigmoid", _X, "1 / (1 + exp(-x))", "logistic function", folds=True),
    _derived("softsign", _X, "x / (1 + abs(x))", "smooth sign with algebraic tails", folds=True),
    _derived("signed_sqrt", _X, "sign(x) * sqrt(abs(x))", "sign-preserving root", folds=True),
    _derived("softplus", _X, "log1p(exp(x))", "smooth maximum(x, 0)"),
    _derived("log_scale", _X, "sign(x) * log1p(abs(x))", "sign-preserving logarithm", folds=True),
    _derived("normalize", ("x!",), "x / maximum(norm(x), 1e-30)", "x at norm 1; 0 stays 0", folds=True),
    _derived("clip_norm", ("x!", "c#"), "x * minimum(1, c / norm(x))", "x scaled down to norm c", folds=True),
    _derived("ema_hat", ("x", "beta#"), "ema(x, beta) / (1 - beta ** t)", "bias-corrected exponential moving average", folds=True),
    # stateful sugar: a slot s that starts at 0
    _sugar("ema", ("x", "beta#"), "beta * s + (1 - beta) * x", "exponential moving average", r"\operatorname{{EMA}}_{{{1}}}\left({0}\right)"),
    _sugar("trace", ("x", "beta#"), "beta * s + x", "decaying sum (heavy-ball momentum)", r"\operatorname{{trace}}_{{{1}}}\left({0}\right)"),
    _sugar("total", _X, "s + x", "sum over all steps", r"\sum_{{\tau \le t}} {0}_\tau"),
    _sugar("running_max", _X, "maximum(s, x)", "largest value so far", r"\max_{{\tau \le t}} {0}_\tau"),
    _sugar("prev", _X, "x", "x one step ago, 0 at t = 1", r"{{{0}}}_{{t-1}}", yields="old"),
)
# fmt: on

OPS: dict[str, Op] = {row.name: row for row in _ROWS}
COMMUTATIVE: frozenset[str] = frozenset(row.name for row in _ROWS if row.commutative)
CORE: tuple[str, ...] = tuple(row.name for row in _ROWS if row.meaning is not None)
SUGAR: tuple[str, ...] = tuple(row.name for row in _ROWS if row.kind == "sugar")

HOST_LEAVES: tuple[str, ...] = ("t", "first", "lr", "lr0", "progress")
TENSOR_LEAVES: tuple[str, ...] = ("g", "w")
TERMINALS: dict[str, str] = {
    "g": "gradient of the loss",
    "w": "weights before the step",
    "t": "step, counted from 1",
    "first": "1 at t = 1, else 0",
    "lr": "this step's learning rate",
    "lr0": "initial learning rate",
    "progress": "t / total steps, in (0, 1]",
    "is_matrix": "1 for 2-D parameter tensors, else 0",
}
RESERVED: frozenset[str] = frozenset({"update", "weight_decay", "hyper", "state", *TERMINALS, *OPS})


def check_table() -> None:
    """Refuse a table that contradicts itself; called once, when the module is imported."""
    if len(OPS) != len(_ROWS):
        raise ValueError("two ops share a name")
    for row in _ROWS:
        forms = (row.meaning is not None, bool(row.expansion), bool(row.recurrence))
        if sum(forms) != 1:
            raise ValueError(f"op {row.name!r} needs exactly one of meaning, expansion, recurrence")
        if row.kind in ("elementwise", "reduce", "matrix") and not row.latex:
            raise ValueError(f"op {row.name!r} has no LaTeX")


check_table()
