"""What core does to every rule bit for bit, told as steps.

The canonical form drops dead code, folds constants, applies the exact laws, merges states that always
hold equal values and recognises sugar. That happens to every rule on its way to identity, so it is not
done here a second time; here it is only counted, on the graph as it was written.
"""

from __future__ import annotations

from collections.abc import Callable

from ruleforge.core import expr as ex
from ruleforge.core.canon import fold, live_states
from ruleforge.core.expr import Expr
from ruleforge.core.laws import ZERO, lawful
from ruleforge.core.rule import Rule, State
from ruleforge.core.text import RuleText
from ruleforge.simplify.record import Step


def exact_steps(given: RuleText, spell: Callable[[Rule], str]) -> list[Step]:
    """Steps from the rule as written to its canonical form.

    Args:
        given: the rule as written.
        spell: text of a rule.
    """
    rule = given.rule
    explicit = frozenset(range(len(given.states)))
    live = live_states(rule)
    shown = [i for i in live if i in explicit]  # the others are part of the terms that stand for them
    alive = (rule.update, *(rule.states[i].next for i in shown))
    everything = (*alive, *(rule.states[i].next for i in explicit), *(line.value for line in given.lines))
    lawful_rule = _lawful(rule)
    lawful_alive = (lawful_rule.update, *(lawful_rule.states[i].next for i in shown))
    canonical = rule.canonical
    counts = [
        _count(rule, explicit, everything),
        _count(rule, explicit, alive),
        _count(lawful_rule, explicit, lawful_alive),
        rule.nodes,
    ]
    merged = len(live) - len(canonical.states)
    laws = [
        (_dead_code(given, live), counts[0] != counts[1]),
        ("exact laws applied, constants folded", counts[1] != counts[2]),
        (
            f"{merged} states merged with equal ones" if merged else "states recognised as sugar",
            counts[2] != counts[3] or merged > 0,
        ),
    ]
    steps = []
    for number, (law, happened) in enumerate(laws):
        if happened and law:
            text = spell(rule)
            steps.append(Step(law, "", "exact", counts[number], counts[number + 1], 0.0, text))
    return steps


def _lawful(rule: Rule) -> Rule:
    mapping = ex.rebuild(rule.roots, lambda item, args: lawful(item.op, *args) if args else item)
    states = tuple(State(mapping[s.init], mapping[s.next]) for s in rule.states)
    return Rule(mapping[rule.update], states, rule.hypers)


def _count(rule: Rule, explicit: frozenset[int], roots: tuple[Expr, ...]) -> int:
    inits = [state.init for i, state in enumerate(rule.states) if i in explicit and state.init is not ZERO]
    return len(ex.walk([*fold(rule, explicit, derived=True).see(*roots), *inits]))


def _dead_code(given: RuleText, live: list[int]) -> str:
    """Names of what does not reach the update, or ""."""
    reached = set(ex.walk([given.rule.update, *(given.rule.states[i].next for i in live)]))
    names = [f"state {name}" for i, name in enumerate(given.states) if i not in live]
    names += [
        line.target
        for line in given.lines
        if line.target not in given.states and line.target != "update" and line.value not in reached
    ]
    return "dead code dropped: " + ", ".join(names) if names else ""
