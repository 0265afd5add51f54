"""Rules for the foreach form, rewritten so that fewer passes over memory do the same.

Equal but for rounding: a number that divides a tensor under a root, in the denominator of the update, moves
to its numerator, where the step of the weights takes it along. `√(v / c) + ε` is `(√v + ε·√c) / √c`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.rule import Kind
from ruleforge.core.text import Line, RuleText
from ruleforge.errors import RuleError
from ruleforge.render.script import Script


def with_fewer_passes(script: Script) -> RuleText:
    """The text of a script with its update rewritten; the same text where nothing is to be gained."""
    text, update = script.text, script.update
    if update.op != "div" or script.kept or any(slot.next is update for slot in script.slots):
        return text
    above, below = update.args
    roots = [script.update, *(slot.next for slot in script.slots), *(line.value for line in text.lines)]
    parents = Counter(arg for item in ex.walk(roots) for arg in item.args)
    named = {line.value for line in text.lines}
    eps, root = _sum_with_number(script, below) or (None, below)
    if root.op != "sqrt" or root.args[0].op != "div":
        return text
    inside, number = root.args[0].args
    alone = all(parents[item] == 1 and item not in named for item in (below, root, root.args[0]))
    if not alone or script.kinds[inside] is not Kind.TENSOR or not _is_positive(script, number):
        return text
    moved = ex.node("sqrt", number)
    smaller: Expr = ex.node("sqrt", inside)
    if eps is not None:
        smaller = ex.node("add", smaller, ex.node("mul", eps, moved))
    better = ex.node("div", ex.node("mul", above, moved), smaller)
    lines = tuple(Line(each.target, better if each.value is update else each.value) for each in text.lines)
    try:
        return replace(text, rule=replace(text.rule, update=better), lines=lines)
    except RuleError:  # a rule at the limits of the language cannot grow
        return text


def _sum_with_number(script: Script, item: Expr) -> tuple[Expr, Expr] | None:
    """The number and the tensor of a sum of both."""
    if item.op == "add":
        for number, other in (item.args, item.args[::-1]):
            if script.kinds[number] is Kind.HOST:
                return number, other
    return None


def _is_positive(script: Script, item: Expr) -> bool:
    """Whether a node is a host number above 0, whatever the step."""
    found = script.ranges.get(item)
    host = script.kinds[item] is Kind.HOST
    return host and found is not None and not found.may_be_nan and found.low >= 0 and 0.0 not in found
