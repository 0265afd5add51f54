"""Types of genome nodes, and the typed forms in which each op of the table may stand.

A tree is strongly typed. A value is a tensor or a number (host or per-tensor scalar); masks and the
constants beta, eps, scale and low are narrower. Each op comes in one form for each place where its
first tensor argument may stand (`sub.0` for tensor − anything, `sub.1` for number − tensor) and one
for numbers alone (`sub.n`), so that a form always returns one type. A form is strict where a
parameter has a role (the beta of `ema` is a beta constant, the condition of `where` a mask), and
loose (`ema.0~`) where any number or value is let in: what a known rule may hold and variation does
not create.

All of it is derived from the op table. The module knows nothing of grammars, of trees or of DEAP.
"""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass

from ruleforge.core.ops import OPS, TENSOR_LEAVES, TERMINALS, Op


class Value:
    """A tensor or a number."""


class Tensor(Value):
    """A value for each weight."""


class Number(Value):
    """A host number or a per-tensor scalar."""


class Mask(Value):
    """0 or 1."""


class TensorMask(Tensor, Mask):
    """0 or 1 for each weight."""


class NumberMask(Number, Mask):
    """0 or 1 for the whole tensor."""


class Beta(Number):
    """A decay constant in (0, 1)."""


class Eps(Number):
    """A small positive constant."""


class Scale(Number):
    """Any other constant."""


class Low(Number):
    """A lower bound: the negative of a scale."""


Type = type[Value]
CONSTANT_TYPES: dict[str, Type] = {"beta": Beta, "eps": Eps, "scale": Scale, "low": Low}
TYPE_LABELS: dict[Type, str] = {cls: name for name, cls in CONSTANT_TYPES.items()}
LINE_TYPES: dict[str, Type] = {"tensor": Tensor, "number": Number}

# (op, parameter) -> role; ops whose parameter is called beta or eps need no entry.
_ROLES: dict[tuple[str, str], Type] = {
    ("lerp", "x"): Beta,
    ("where", "c"): Mask,
    ("clip", "lo"): Low,
    ("clip", "hi"): Scale,
    ("clip_norm", "c"): Scale,
    ("pow", "b"): Scale,
}
_ROLE_NAMES: dict[str, Type] = {"beta": Beta, "eps": Eps}


@dataclass(frozen=True)
class Form:
    """One typed way to apply an op.

    Attributes:
        name: unique, such as `ema.0`.
        op: name in the op table.
        args: type of each argument.
        ret: type of the result.
        loose: lets in more than the roles of its parameters.
        place: index of the first tensor argument; None for numbers alone.
    """

    name: str
    op: str
    args: tuple[Type, ...]
    ret: Type
    loose: bool
    place: int | None


def constant_fits(value: float, kind: Type) -> bool:
    """Whether a constant may have this type."""
    if not math.isfinite(value):
        return False
    if kind is Beta:
        return 0 < value < 1
    return value > 0 if kind is Eps else True


def _calls(row: Op) -> set[str]:
    nodes = ast.walk(ast.parse(row.expansion or "0", mode="eval"))
    return {n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}


def _is_mask(row: Op) -> bool:
    if row.expansion:
        return isinstance(ast.parse(row.expansion, mode="eval").body, ast.Compare)
    return row.symbol in ("<", "<=", ">", ">=", "==", "!=")


def _role(row: Op, index: int, place: int | None) -> Type | None:
    name = row.param_names[index]
    if place is None and row.name == "pow":
        return None  # a tensor's exponent is a constant, but numbers form `beta ** t`
    return _ROLES.get((row.name, name)) or _ROLE_NAMES.get(name)


def _result(row: Op, place: int | None) -> Type:
    if row.kind == "reduce":
        return Number
    if _is_mask(row):
        return NumberMask if place is None else TensorMask
    return Number if place is None else Tensor


def _plain(row: Op, index: int, place: int | None) -> Type | None:
    """Type of an argument by its place and its marker; None where the op refuses it."""
    marker = row.params[index][-1]
    if place is None or index < place:
        return None if marker == "!" else Number
    if index == place:
        return None if marker == "#" else Tensor
    return {"#": Number, "!": Tensor}.get(marker, Value)


def _narrowed(plain: Type, role: Type) -> Type | None:
    """The type that fits both the place and the role; None if there is none."""
    if role is Mask:
        return {Tensor: TensorMask, Number: NumberMask}.get(plain, Mask)
    return None if plain is Tensor else role


def _forms_of(row: Op) -> list[Form]:
    found = []
    for place in (*range(row.arity), None):
        plain = [_plain(row, i, place) for i in range(row.arity)]
        if any(kind is None for kind in plain):
            continue
        args: list[Type] = [kind for kind in plain if kind is not None]
        name = f"{row.name}.{'n' if place is None else place}"
        roles = [_role(row, i, place) for i in range(row.arity)]
        if any(roles):
            narrow = [
                kind if role is None else _narrowed(kind, role)
                for kind, role in zip(args, roles, strict=True)
            ]
            if all(narrow):
                strict = tuple(kind for kind in narrow if kind is not None)
                found.append(Form(name, row.name, strict, _result(row, place), False, place))
            found.append(Form(name + "~", row.name, tuple(args), _result(row, place), True, place))
        else:
            found.append(Form(name, row.name, tuple(args), _result(row, place), False, place))
    return found


FORMS: dict[str, Form] = {form.name: form for row in OPS.values() for form in _forms_of(row)}
STATEFUL: frozenset[str] = frozenset(
    row.name
    for row in OPS.values()
    if row.kind == "sugar" or any(OPS[name].kind == "sugar" for name in _calls(row) if name in OPS)
)


def leaf_type(name: str) -> Type:
    """Type of a terminal of the language."""
    if name in TENSOR_LEAVES:
        return Tensor
    return NumberMask if name in ("first", "is_matrix") else Number


LEAF_TYPES: dict[str, Type] = {name: leaf_type(name) for name in TERMINALS}


def place_of(kinds: tuple[Type, ...]) -> int | None:
    """Index of the first tensor among an op's arguments; None where all are numbers."""
    return next((i for i, kind in enumerate(kinds) if issubclass(kind, Tensor)), None)


def form_for(op: str, place: int | None, fits_roles: bool) -> Form:
    """The form for an op whose first tensor argument stands at `place`, strict where the roles fit."""
    name = f"{op}.{'n' if place is None else place}"
    if name in FORMS and fits_roles:
        return FORMS[name]
    return FORMS.get(name + "~") or FORMS[name]


def role_of(op: str, index: int, place: int | None) -> Type | None:
    """The role of a parameter: a constant's type, Mask, or None."""
    return _role(OPS[op], index, place)
