"""What might be left out of a rule: every part deleted, hoisted or replaced, every constant rounded.

These change behaviour, so nothing here is proposed as equal; `reduce` trains them beside the rule. A cut
is offered only if it makes the rule shorter, lighter or rounder, and still reads the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.ops import OPS
from ruleforge.core.rule import Hyper, Rule
from ruleforge.core.text import RuleText
from ruleforge.errors import RuleError, RuleTextError
from ruleforge.simplify import rewrite
from ruleforge.simplify.promote import role_of
from ruleforge.simplify.view import View, make, named

Weight = tuple[int, int, float, int]
MAX_CUTS = 160


@dataclass(frozen=True)
class Cut:
    """A shorter rule that does something else.

    Attributes:
        change: what was done, in the notation of laws: `clip(x, -1, 1) -> x`.
        kind: "part" or "constant".
        text: the rule without it.
    """

    change: str
    kind: str
    text: RuleText


def weight(rule: Rule) -> Weight:
    """Nodes, state tensors, FLOPs, and the digits of all numbers: what cutting lowers, in this order."""
    canonical = rule.canonical
    numbers = [item.number for item in ex.walk(canonical.roots) if item.op == "const"]
    digits = sum(_digits(value) for value in (*numbers, *canonical.defaults))
    return (*rewrite.score(rule), digits)


def cuts(text: RuleText) -> list[Cut]:
    """The cuts of a rule, shortest result first; rules that are the same by key are offered once."""
    view = View.of(text.rule)
    own = weight(text.rule)
    found: dict[str, tuple[Weight, Cut]] = {}
    for change, kind, made in _proposals(view):
        settled = rewrite.settled(made)
        if settled is None or not settled.rule.reads("g"):
            continue
        rule = settled.rule
        heavy = weight(rule)
        if heavy >= own or rule.full_key in found or rule.full_key == text.rule.full_key:
            continue
        try:
            cut = Cut(change, kind, named(rule, text.hypers, text.doc))
        except (RuleError, RuleTextError):
            continue
        found[rule.full_key] = (heavy, cut)
    return [cut for _, cut in sorted(found.values(), key=lambda pair: pair[0])][:MAX_CUTS]


def _proposals(view: View) -> Iterator[tuple[str, str, View]]:
    yield from _rounded(view)
    for item in view.nodes:
        if item.args and not _is_number(item):
            for change, made in _instead(item):
                yield change, "part", view.swapped({item: made})


def _instead(item: Expr) -> Iterator[tuple[str, Expr]]:
    """What may stand in a term's place: one of its arguments, a plainer average, the bare gradient."""
    letters = [_letter(arg, place) for place, arg in enumerate(item.args)]
    shown = _shown(item.op, letters)
    for place, arg in enumerate(item.args):
        if not _is_number(arg):
            yield f"{shown} -> {letters[place]}", arg
    if item.op == "ema_hat":
        yield f"{shown} -> {_shown('ema', letters)}", make("ema", *item.args)
    if len(ex.walk([item])) > 2:
        yield f"{shown} -> g", ex.leaf("g")


def _letter(arg: Expr, place: int) -> str:
    if not arg.args and arg.op not in ("state", "hyper"):
        return f"{arg.number:g}" if arg.op == "const" else arg.op
    return "xyz"[place] if place < 3 else "x"


def _shown(op: str, letters: list[str]) -> str:
    symbol = OPS[op].symbol
    if symbol and len(letters) == 2:
        return f"{letters[0]} {symbol} {letters[1]}"
    return f"-{letters[0]}" if op == "neg" else f"{op}({', '.join(letters)})"


def _is_number(arg: Expr) -> bool:
    return all(node.op not in ("g", "w", "state") for node in ex.walk([arg]))


# constants


def _rounded(view: View) -> Iterator[tuple[str, str, View]]:
    """All numbers rounded at once, then each, then each made equal to another of its kind."""
    numbers = _numbers(view)
    for digits in (1, 2):
        short = {role_value: _round(*role_value, digits) for role_value in numbers}
        moved = {key: value for key, value in short.items() if value != key[1]}
        if len(moved) > 1:
            words = "digit" if digits == 1 else "digits"
            yield f"every constant to {digits} {words}", "constant", _with_numbers(view, moved)
        for key, value in moved.items():
            yield f"{key[1]:.12g} -> {value:g}", "constant", _with_numbers(view, {key: value})
    for role, value in numbers:
        two = math.copysign(2.0 ** round(math.log2(abs(value))), value) if role == "c" and value else value
        if two != value:
            yield f"{value:.12g} -> {two:g}", "constant", _with_numbers(view, {(role, value): two})
        for other_role, other in numbers:
            if other_role == role and other != value:
                change = f"{value:.12g} -> {other:g}, shared"
                yield change, "constant", _with_numbers(view, {(role, value): other})


def _numbers(view: View) -> list[tuple[str, float]]:
    """Constants and defaults with their roles."""
    found: dict[tuple[str, float], None] = {}
    for item in view.nodes:
        for place, arg in enumerate(item.args):
            as_constant = ex.const(view.hypers[arg.index].default) if arg.op == "hyper" else arg
            if as_constant.op == "const":
                stand_in = ex.with_args(item, (*item.args[:place], as_constant, *item.args[place + 1 :]))
                role = role_of(stand_in, place)
                if role is not None:
                    found[role, as_constant.number] = None
    return list(found)


def _round(role: str, value: float, digits: int) -> float:
    """Rounded; the weight of an average by what it leaves out: 0.9988 to 0.999."""
    if role == "beta" and value > 0.5:
        rounded = float(f"{1 - float(f'{1 - value:.{digits}g}'):.12g}")
        return rounded if 0 < rounded < 1 else value
    return float(f"{value:.{digits}g}")


def _with_numbers(view: View, moved: dict[tuple[str, float], float]) -> View:
    values = {old: new for (_, old), new in moved.items()}
    hypers = tuple(
        Hyper(h.low, h.high, values[h.default], h.scale)
        if h.default in values and h.low < values[h.default] < h.high
        else h
        for h in view.hypers
    )
    swapped = view.swapped({ex.const(old): ex.const(new) for old, new in values.items()})
    return View(swapped.update, swapped.inits, swapped.nexts, hypers)


def _digits(value: float) -> int:
    """Significant digits, of 1 - x where x is close below 1."""
    size = abs(1 - value) if 0.5 < value < 1 else abs(value)
    return len(f"{size:.11e}".split("e")[0].rstrip("0").replace(".", ""))
