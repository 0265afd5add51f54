"""Typed constants become named hyperparameters, with ranges to tune them in.

A constant's place says what it is: the weight of an average (`beta`), something tiny that keeps a
quotient finite (`eps`), or another scale (`c`). Small whole numbers, one half, zeros and exponents belong
to the formula and stay. The rule does the same as before, bit for bit, at the new defaults.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Literal

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.ops import RESERVED
from ruleforge.core.rule import MAX_HYPERS, Hyper
from ruleforge.core.text import RuleText
from ruleforge.simplify.view import View, hyper_order, make, mentions, named

Role = Literal["beta", "eps", "c"]

MAX_EPS = 1e-3
_AVERAGES = ("ema", "ema_hat", "trace")
_SCALED = frozenset("add sub mul div minimum maximum clip clip_norm lt le gt ge hypot atan2 where".split())
_FORMULA = frozenset((0.0, 0.5, 1.0, 2.0, 3.0, 4.0))


def promote_constants(text: RuleText) -> RuleText:
    """The rule with its typed constants as hyperparameters.

    Hyperparameters that it already has keep their names and ranges. Equal constants in equal roles
    become one. The text is written anew, so states are named anew; a rule without such constants
    comes back as it is. At most as many are promoted as the language allows, averages first.

    Args:
        text: any rule.
    """
    view = View.of(text.rule, derived=True)  # the constants of a derived op are its own
    numbers = _chosen(view, MAX_HYPERS - len(text.hypers))
    if not numbers:
        return text
    first = len(text.hypers)
    place = {key: ex.hyper(first + number) for number, key in enumerate(numbers)}

    def replace(item: Expr, args: tuple[Expr, ...]) -> Expr:
        if not args:
            return item
        new = list(args)
        for position, arg in enumerate(item.args):
            role = role_of(item, position)
            if role is None:
                continue
            value = arg.number
            if (role, value) in place:
                new[position] = place[role, value]
            elif (role, -value) in place:
                new[position] = make("neg", place[role, -value])
        return make(item.op, *new)

    promoted = view.mapped(replace)
    hypers = (*text.rule.hypers, *(_hyper(role, value) for role, value in numbers))
    rule = View(promoted.update, promoted.inits, promoted.nexts, hypers).rule
    order = hyper_order(rule)
    return named(rule, _names(text.hypers, [role for role, _ in numbers], order), text.doc)


def role_of(item: Expr, position: int) -> Role | None:
    """What the constant in an argument's place is, or None where it belongs to the formula."""
    arg = item.args[position]
    if arg.op != "const":
        return None
    value = arg.number
    averages = (item.op in _AVERAGES and position == 1) or (item.op == "lerp" and position == 2)
    decays = item.op == "pow" and position == 0 and mentions(item.args[1], ex.leaf("t"))
    if (averages or decays) and 0 < value < 1:
        return "beta"
    if item.op in ("add", "maximum") and 0 < value <= MAX_EPS:
        return "eps"
    if item.op in _SCALED and abs(value) not in _FORMULA:
        return "c"
    return None


def _chosen(view: View, limit: int) -> list[tuple[Role, float]]:
    """Constants to promote with their roles; of a symmetric pair ±c the positive one."""
    found: dict[tuple[Role, float], None] = {}
    for item in view.nodes:
        for position in range(len(item.args)):
            role = role_of(item, position)
            if role is not None:
                found[role, item.args[position].number] = None
    single = [key for key in found if key[1] > 0 or (key[0], -key[1]) not in found]
    single.sort(key=lambda key: ("beta", "eps", "c").index(key[0]))
    return single[:limit]


def _hyper(role: Role, value: float) -> Hyper:
    if role == "beta":
        scale = "one_minus_log" if value >= 0.7 else "log" if value <= 0.1 else "linear"
        return Hyper(0.0, 1.0, value, scale)  # type: ignore[arg-type]
    high = 1.0 if role == "eps" else 10.0 ** (math.ceil(math.log10(abs(value))) + 1)
    return Hyper(0.0, high, value, "log") if value > 0 else Hyper(-high, 0.0, value)


def _names(known: tuple[str, ...], roles: list[Role], order: tuple[int, ...]) -> list[str]:
    """Names by number: known ones kept, new ones by role, counted where there are several."""
    names = [*known, *roles]
    many = Counter(roles)
    taken = {*known, *RESERVED}
    counts = Counter[str]()
    for index in sorted(range(len(known), len(names)), key=lambda i: order.index(i) if i in order else 99):
        stem = names[index]
        chosen = stem if many[roles[index - len(known)]] == 1 and stem not in taken else ""
        while not chosen or chosen in taken:
            counts[stem] += 1
            chosen = f"{stem}{counts[stem]}"
        names[index] = chosen
        taken.add(chosen)
    return names
