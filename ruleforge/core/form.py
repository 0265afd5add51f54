"""A rule's form: what is left of it when its constants are forgotten.

Siblings that differ in constants alone are one form. Where places are few, they go to forms.
"""

from __future__ import annotations

from . import expr as ex
from .expr import Expr
from .rule import MAX_HYPERS, Hyper, Rule, State

STRUCTURAL = frozenset({0.0, 1.0, 2.0, -1.0})  # numbers that make the formula and tune nothing


def with_constants(rule: Rule) -> Rule:
    """The rule with each hyperparameter replaced by its default."""
    mapping = ex.rebuild(
        rule.roots,
        lambda item, args: (
            ex.const(rule.hypers[int(item.value or 0)].default)
            if item.op == "hyper"
            else ex.with_args(item, args)
        ),
    )
    states = tuple(State(mapping[s.init], mapping[s.next]) for s in rule.states)
    return Rule(mapping[rule.update], states)


def form_key(rule: Rule, *, untied: bool = False) -> str:
    """Key of a rule's form: each constant that could be tuned is a hyperparameter.

    Args:
        rule: any rule.
        untied: forget which constants are equal, so that a rule and its version with one beta
            split in two have one key.
    """
    inlined = with_constants(rule.canonical).canonical
    numbers: dict[float, int] = {}

    def replace(item: Expr, args: tuple[Expr, ...]) -> Expr:
        if item.op == "const" and item.number not in STRUCTURAL:
            return ex.hyper(0 if untied else numbers.setdefault(item.number, len(numbers)))
        return ex.with_args(item, args)

    mapping = ex.rebuild(inlined.roots, replace)
    if len(numbers) > MAX_HYPERS:
        return inlined.key
    states = tuple(State(mapping[s.init], mapping[s.next]) for s in inlined.states)
    hypers = tuple(Hyper(-1e300, 1e300, value) for value in numbers or (0.5,))
    return Rule(mapping[inlined.update], states, hypers).key
