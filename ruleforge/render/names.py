"""Names for states and intermediate values, by what they mean.

States carry torch's names where they mean the same (`exp_avg` is an average of g), the names of
the rule text where they mean something of their own, and plain letters in formulas. The module
invents names and compares meanings; it writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from ruleforge.core import expr as ex
from ruleforge.core.canon import fold
from ruleforge.core.expr import Expr
from ruleforge.core.laws import ONE, ZERO
from ruleforge.core.ops import OPS
from ruleforge.core.rule import Rule
from ruleforge.core.text import RuleText

Style = Literal["torch", "maths"]

MAX_NAME = 28
"""Longest name of a state or an intermediate value; hyperparameters keep theirs."""

_G = ex.leaf("g")
_SQUARE = ex.node("mul", _G, _G)

# What a state means -> its name in code, its name in formulas.
_KNOWN: dict[str, tuple[str, str]] = {
    "ema(g)": ("exp_avg", "m"),
    "ema(g*g)": ("exp_avg_sq", "v"),
    "trace(g)": ("momentum_buffer", "b"),
    "total(g)": ("grad_sum", "s"),
    "total(g*g)": ("grad_sq_sum", "s"),
    "prev(g)": ("prev_grad", "g_prev"),
    "running_max(ema(g*g))": ("max_exp_avg_sq", "v_max"),
}
MEANINGFUL: frozenset[str] = frozenset(name for name, _ in _KNOWN.values())
"""Names in code that always mean the same state, as torch's own optimizers use them."""
_STEMS: dict[str, tuple[str, str]] = {
    "ema": ("exp_avg", "m"),
    "ema_sq": ("exp_avg_sq", "v"),
    "trace": ("momentum_buffer", "b"),
    "total": ("running_sum", "s"),
    "running_max": ("running_max", "z"),
    "prev": ("prev_value", "p"),
}


def meanings(rule: Rule) -> dict[int, Expr]:
    """The term that each state holds, such as `ema(g, beta)`, where its recurrence is that of sugar."""
    folded = fold(rule)
    found: dict[int, Expr] = {}
    for i in range(len(rule.states)):
        term = folded.swap.get(ex.state(i)) if i in folded.hidden else _lerp_average(rule, i)
        value = rule.states[i].next
        if term is not None and term.op == "prev" and value.args and term.args[0] is folded.swap.get(value):
            term = term.args[0]
        if term is not None and term.op in _STEMS:
            found[i] = term
    return found


def _lerp_average(rule: Rule, index: int) -> Expr | None:
    """`lerp(x, s, beta)` is an average too, spelled another way."""
    slot = rule.states[index]
    if slot.init is ZERO and slot.next.op == "lerp" and slot.next.args[1] is ex.state(index):
        x, _, beta = slot.next.args
        if ex.state(index) not in ex.walk([x, beta]):
            return ex.sugar("ema", x, beta)
    return None


def _short(item: Expr) -> str:
    if item is _G or item is _SQUARE:
        return "g" if item is _G else "g*g"
    return f"{item.op}({_short(item.args[0])})" if item.op in _STEMS else "x"


class Names:
    """Gives out names that are free and safe in the target.

    Args:
        reserved: names that the target needs for itself.
    """

    def __init__(self, reserved: frozenset[str]) -> None:
        self.reserved = reserved
        self.taken: set[str] = set()

    def fresh(self, wish: str) -> str:
        """The name itself where it is free, else with a trailing `_` or a number."""
        name = f"{wish}_" if wish in self.reserved else wish
        number = 2
        while name in self.taken or name in self.reserved:
            name, number = f"{wish}_{number}", number + 1
        self.taken.add(name)
        return name


def state_names(text: RuleText, live: list[int], names: Names, style: Style) -> dict[int, str]:
    """A name for each live state."""
    known = meanings(text.rule)
    column = 0 if style == "torch" else 1
    seen = fold(text.rule).see(*(line.value for line in text.lines))
    locals_ = {value: line.target for value, line in zip(seen, text.lines, strict=True) if value.args}
    found: dict[int, str] = {}
    for i in sorted(live):
        explicit = text.states[i] if i < len(text.states) else ""
        term = known.get(i)
        meaning = _short(term) if term is not None else ""
        if meaning in _KNOWN and not (explicit and style == "maths"):
            wish = _KNOWN[meaning][column]
            wish = explicit if explicit and wish in found.values() else wish
        elif explicit or term is None:
            wish = explicit or ("state", "s")[column]
        else:
            squared = (
                term.op == "ema" and term.args[0].op == "mul" and term.args[0].args[0] is term.args[0].args[1]
            )
            wish = _STEMS["ema_sq" if squared else term.op][column]
            if term.args[0] in locals_:
                wish += f"_{locals_[term.args[0]]}"
        found[i] = names.fresh(wish[:MAX_NAME])
    return found


def slot_names(rule: Rule, reserved: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """torch-like names for all states of a rule that has no names of its own."""
    every = list(range(len(rule.states)))
    found = state_names(RuleText(rule, ()), every, Names(reserved), "torch")
    return tuple(found[i] for i in every)


def temporary_name(item: Expr, names: Mapping[Expr, str], denominators: set[Expr]) -> str:
    """A wish for the name of an intermediate value.

    Args:
        item: what is to be named.
        names: what has a name already, hyperparameters included.
        denominators: everything that something is divided by.
    """
    bias = _bias_correction(item, names)
    if bias:
        return bias
    words = [names.get(arg, arg.op) for arg in item.args if arg in names or arg.op in ("g", "w", "t")]
    if item.op == "mul" and item.args[0] is item.args[1] and words:
        return f"{words[0]}_sq"
    if OPS[item.op].kind == "reduce":
        return "_".join([item.op, *dict.fromkeys(words)])
    if item in denominators:
        return "denom"
    if item.op in ("lt", "le", "gt", "ge", "eq", "ne"):
        return "mask"
    return {"sqrt": "root", "sign": "direction", "orthogonalize": "ortho"}.get(item.op, "part")


def number_name(item: Expr, names: Mapping[Expr, str]) -> str:
    """A wish for the name of a host number that has none: `bias_correction2_sqrt`, `scaled_eps`."""
    wish = temporary_name(item, names, set())
    hypers = [names[arg] for arg in item.args if arg.op == "hyper"]
    if item.op == "sqrt" and _bias_correction(item.args[0], names):
        return f"{_bias_correction(item.args[0], names)}_sqrt"
    if len(hypers) == 1 and item.op == "mul":
        return f"scaled_{hypers[0]}"
    if len(hypers) == 1 and item.op == "sub" and item.args[0] is ONE:
        return f"one_minus_{hypers[0]}"
    return "number" if wish == "part" else wish


def _bias_correction(item: Expr, names: Mapping[Expr, str]) -> str:
    """torch's name of `1 - beta ** t`."""
    if item.op == "sub" and item.args[0] is ONE and item.args[1].op == "pow":
        base, exponent = item.args[1].args
        if base in names and exponent is ex.leaf("t"):
            number = re.search(r"\d+$", names[base])
            return f"bias_correction{number.group() if number else ''}"
    return ""
