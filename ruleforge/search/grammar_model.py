"""What a grammar file holds: the one place where its keys are declared.

A grammar says what variation may create: ops, terminals, sugar, typed constants, limits. What a
seed rule may hold is not its business: seeds are let in whole. The module reads no file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ruleforge.core.ops import COMMUTATIVE, OPS, TERMINALS
from ruleforge.core.rule import MAX_DEPTH, MAX_NODES, MAX_STATES, Hyper
from ruleforge.search.forms import (
    CONSTANT_TYPES,
    FORMS,
    LEAF_TYPES,
    STATEFUL,
    Form,
    Low,
    Number,
    Tensor,
    Type,
    Value,
    constant_fits,
)

GROUPS: dict[str, tuple[str, ...]] = {
    kind: tuple(row.name for row in OPS.values() if row.kind == kind and row.name not in STATEFUL)
    for kind in ("elementwise", "reduce", "matrix", "derived")
}
ALL_SUGAR: tuple[str, ...] = tuple(name for name in OPS if name in STATEFUL)


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Draw(_Strict):
    """Where constants of one type come from: a set, or a range drawn on the type's own scale."""

    values: list[float] = Field(default=[], max_length=64, description="a set to draw from")
    low: float | None = Field(default=None, description="lower end of a range")
    high: float | None = Field(default=None, description="upper end of a range")

    @model_validator(mode="after")
    def _one_way(self) -> Draw:
        is_range = self.low is not None and self.high is not None
        if bool(self.values) == is_range or (self.low is None) != (self.high is None):
            raise ValueError("needs either `values`, or `low` and `high`")
        if is_range and not self.low < self.high:  # type: ignore[operator]
            raise ValueError(f"the range ({self.low:g}, {self.high:g}) is empty")
        if not all(math.isfinite(v) for v in (*self.values, self.low or 0, self.high or 0)):
            raise ValueError("constants are finite numbers")
        return self


class Constants(_Strict):
    """Evolved constants by type; a type that is left out cannot be created."""

    beta: Draw | None = Field(
        default=None, description="decays, in (0, 1); a range is uniform in log(1 - beta)"
    )
    eps: Draw | None = Field(
        default=None, description="small positive numbers; a range is uniform in log(eps)"
    )
    scale: Draw | None = Field(
        default=None, description="factors, exponents, bounds; a range is uniform in the log"
    )

    @model_validator(mode="after")
    def _in_domain(self) -> Constants:
        for name in ("beta", "eps", "scale"):
            draw: Draw | None = getattr(self, name)
            if draw is None:
                continue
            for value in (*draw.values, *(v for v in (draw.low, draw.high) if v is not None)):
                if not constant_fits(value, CONSTANT_TYPES[name]) or (name == "scale" and value <= 0):
                    domain = "in (0, 1)" if name == "beta" else "greater than 0"
                    raise ValueError(f"{name} constants are {domain}, got {value:g}")
        return self


class Limits(_Strict):
    """How large a rule may grow."""

    nodes: int = Field(default=30, ge=2, le=MAX_NODES, description="distinct nodes of the canonical rule")
    states: int = Field(
        default=2, ge=0, le=MAX_STATES, description="state tensors, those behind sugar included"
    )
    depth: int = Field(default=8, ge=1, le=MAX_DEPTH, description="levels of each tree below its root")
    explicit_states: int = Field(
        default=0, ge=0, le=MAX_STATES, description="states with an evolved recurrence"
    )


class HyperRange(_Strict):
    """Range of a constant that becomes a hyperparameter."""

    low: float
    high: float
    scale: Literal["linear", "log", "one_minus_log"] = "linear"

    @model_validator(mode="after")
    def _not_empty(self) -> HyperRange:
        if not self.low < self.high:
            raise ValueError(f"the range ({self.low:g}, {self.high:g}) is empty")
        return self


class Hypers(_Strict):
    """Ranges by constant type, for `genome.promote`; a published champion has ranges of its own."""

    beta: HyperRange | None = None
    eps: HyperRange | None = None
    scale: HyperRange | None = None


_OP_ITEM: dict[str, Any] = {
    "items": {"type": "string", "enum": [*GROUPS, *(n for n in OPS if n not in STATEFUL)]}
}
_SUGAR_ITEM: dict[str, Any] = {"items": {"type": "string", "enum": ["all", *ALL_SUGAR]}}
_TERMINAL_ITEM: dict[str, Any] = {"items": {"type": "string", "enum": [*TERMINALS]}}


class Grammar(_Strict):
    """A grammar, checked: it can generate a rule that reads the gradient, and uses all that it lists."""

    name: str = Field(default="", max_length=60, description="name; the file's own when left out")
    doc: str = Field(default="", max_length=2000, description="what the grammar is for")
    source: str = Field(default="", max_length=500, description="paper or other origin")
    ops: list[str] = Field(
        max_length=200, description="ops, or groups of the op table by kind", json_schema_extra=_OP_ITEM
    )
    sugar: list[str] = Field(
        default=[], max_length=50, description="stateful terms, or `all`", json_schema_extra=_SUGAR_ITEM
    )
    terminals: list[str] = Field(
        max_length=20, description="what rules may read", json_schema_extra=_TERMINAL_ITEM
    )
    number_ops: list[str] = Field(
        default=[],
        max_length=200,
        description="ops that may also combine numbers with numbers, as in 1 - beta ** t",
        json_schema_extra=_OP_ITEM,
    )
    constants: Constants = Constants()
    limits: Limits = Limits()
    hypers: Hypers = Hypers()
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default={}, description="relative probability by op, terminal or constant type; 1 where left out"
    )

    @property
    def op_names(self) -> tuple[str, ...]:
        """Ops without state, groups expanded."""
        return tuple(dict.fromkeys(op for item in self.ops for op in GROUPS.get(item, (item,))))

    @property
    def sugar_names(self) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys(op for item in self.sugar for op in (ALL_SUGAR if item == "all" else (item,)))
        )

    @property
    def constant_types(self) -> tuple[Type, ...]:
        """Constant types that can be created; `low` comes with `scale`."""
        named = [CONSTANT_TYPES[name] for name in ("beta", "eps", "scale") if getattr(self.constants, name)]
        return (*named, Low) if self.constants.scale else tuple(named)

    @property
    def hyper_ranges(self) -> dict[str, Hyper]:
        """Ranges by constant type; the default is a placeholder within."""
        given = {name: getattr(self.hypers, name) for name in ("beta", "eps", "scale")}
        return {name: Hyper(r.low, r.high, (r.low + r.high) / 2, r.scale) for name, r in given.items() if r}

    def with_limits(self, **limits: int) -> Grammar:
        """The same grammar with some of its limits replaced, as a search config asks for."""
        return self.model_copy(update={"limits": Limits(**{**self.limits.model_dump(), **limits})})

    def reweighted(self, factors: Mapping[str, float]) -> Grammar:
        """The same grammar with the weights of some ops, terminals and constant types multiplied."""
        known = {*self.op_names, *self.sugar_names, *self.terminals, "beta", "eps", "scale"}
        weights = {name: self.weights.get(name, 1.0) * f for name, f in factors.items() if name in known}
        return self.model_copy(update={"weights": {**self.weights, **weights}})

    @property
    def open_terminals(self) -> tuple[str, ...]:
        """Terminals that variation may create: those whose weight is not 0."""
        return tuple(name for name in self.terminals if self.weights.get(name, 1.0) > 0)

    @property
    def forms(self) -> tuple[Form, ...]:
        """Typed forms that variation may create, each of which can be closed."""
        made = [form for form in _wanted(self) if self.weights.get(form.op, 1.0) > 0]
        closed = closing_depths(made, self.open_terminals, self.constant_types)
        return tuple(form for form in made if all(arg in closed for arg in form.args))


def _wanted(grammar: Grammar) -> Iterable[Form]:
    names = {*grammar.op_names, *grammar.sugar_names}
    numbers = {op for item in grammar.number_ops for op in GROUPS.get(item, (item,))}
    for form in FORMS.values():
        mirrored = form.op in COMMUTATIVE and form.place == 1
        allowed = form.op in (numbers if form.place is None else names)
        if allowed and not form.loose and not mirrored:
            yield form


_ALL_TYPES: tuple[Type, ...] = tuple(
    dict.fromkeys([Value, Tensor, Number, *(t for f in FORMS.values() for t in (*f.args, f.ret))])
)


def closing_depths(
    forms: Iterable[Form], leaves: Iterable[str], constants: Iterable[Type]
) -> dict[Type, int]:
    """Height of the lowest tree of each type; types that no tree can have are missing."""
    made: dict[Type, int] = {LEAF_TYPES[name]: 0 for name in leaves} | dict.fromkeys(constants, 0)
    forms = list(forms)
    while True:
        asked = {
            wanted: min(levels)
            for wanted in _ALL_TYPES
            if (levels := [level for kind, level in made.items() if issubclass(kind, wanted)])
        }
        better = dict(made)
        for form in forms:
            if all(arg in asked for arg in form.args):
                level = 1 + max(asked[arg] for arg in form.args)
                better[form.ret] = min(level, better.get(form.ret, level))
        if better == made:
            return asked
        made = better


def grammar_schema() -> dict[str, Any]:
    """JSON Schema of grammar files, for editors; `docs/grammar.schema.json` holds it."""
    schema = Grammar.model_json_schema()
    schema["title"] = "ruleforge grammar"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
