"""What each part of a rule does: the rule without it, and how far that changes behaviour or training.

A part is a term that can be taken out and leave a rule: one side of a sum, product, quotient or choice,
a function around its argument, an average around what it averages; and a state that can be frozen, so that it
keeps for ever what it held after the first step. Its *change* is the distance between
both rules' answers on the streams, up to a positive factor; its *contribution* is how much slower the
rule trains without it, paired over seeds and workloads, with an interval (`simplify.paired`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ruleforge.core import expr as ex
from ruleforge.core.build import debias
from ruleforge.core.canon import Folded, fold
from ruleforge.core.expr import Expr
from ruleforge.core.format import format_rule, name_rule
from ruleforge.core.rule import Kind, Rule, State
from ruleforge.core.spell import Speller
from ruleforge.core.text import RuleText
from ruleforge.errors import RuleforgeError
from ruleforge.explain.fit import Target
from ruleforge.explain.traces import canonical_order, trace_rule
from ruleforge.records import Json
from ruleforge.render.names import slot_names
from ruleforge.simplify.paired import Bench, Paired

MAX_PARTS = 24


@dataclass(frozen=True)
class Part:
    """A part of a rule.

    Attributes:
        term: what is taken out, as text.
        action: what is done instead, as text.
        without: the rule without it.
        change: distance between the answers with and without it; None where the rest is not finite.
        trained: what training says, if it was asked.
    """

    term: str
    action: str
    without: RuleText
    change: float | None
    trained: Paired | None = None

    @property
    def loss(self) -> tuple[float, float, float] | None:
        """How many times as many steps the rule needs without the part, with its 95 % interval."""
        t = self.trained
        if t is None or t.speedup is None or t.ci_here is None:
            return None
        return 1 / t.speedup, 1 / t.ci_here[1], 1 / t.ci_here[0]

    def as_json(self) -> dict[str, Json]:
        loss = self.loss
        return {
            "term": self.term,
            "action": self.action,
            "without": str(self.without),
            "nodes": self.without.rule.nodes,
            "change": self.change,
            "contribution": loss[0] if loss else None,
            "ci": list(loss[1:]) if loss else None,
            "trained": self.trained.as_json() if self.trained else None,
        }


def parts(text: RuleText) -> list[Part]:
    """The parts of a rule, in the order of its graph, each with its change of behaviour."""
    rule = text.rule.canonical
    mine = Target(trace_rule(rule))
    known = {rule.key}
    found: list[Part] = []
    shown = _spelled(text)
    for gone, action, place, update, states in _removals(rule):
        try:
            without = Rule(update, states, rule.hypers)
            if without.key in known or not without.reads("g"):
                continue
            known.add(without.key)
            named = name_rule(without)
            format_rule(named)
        except RuleforgeError:
            continue
        found.append(
            Part(
                shown(gone),
                _where(action, shown(place)) if place else action,
                named,
                _change(mine, without),
            )
        )
        if len(found) == MAX_PARTS:
            break
    return found


def trained(text: RuleText, found: Sequence[Part], bench: Bench) -> list[Part]:
    """The same parts with what training says of each."""
    compared = bench.compare(text, [part.without for part in found])
    return [replace(part, trained=each) for part, each in zip(found, compared, strict=True)]


def _change(mine: Target, without: Rule) -> float | None:
    flat = mine.answers(without, np.array([without.defaults]))
    distance = float(mine.distances(flat)[0][0])
    return min(distance, 1.0) if np.isfinite(flat).all() else None


def _removals(rule: Rule) -> Iterator[tuple[Expr, str, Expr | None, Expr, tuple[State, ...]]]:
    """What can go and what then stands there: term, action, where, update and states."""
    folded = fold(rule, derived=True)
    recurrences = {
        rule.states[i].next: (op, args[0]) for i, (op, args) in folded.terms.items() if op != "prev"
    }
    for item in _own_nodes(folded, recurrences):
        for gone, stays, action in _choices(item, folded, recurrences):
            mapping = ex.rebuild(rule.roots, _replacer(item, stays))
            states = tuple(State(s.init, mapping[s.next]) for s in rule.states)
            place = item if gone is not item else None
            yield gone, action, place, mapping[rule.update], states
    yield from _frozen(rule, recurrences)


def _frozen(
    rule: Rule, recurrences: dict[Expr, tuple[str, Expr]]
) -> Iterator[tuple[Expr, str, None, Expr, tuple[State, ...]]]:
    """Each state that is more than a memory of the last step, held at what it was after the first one.

    A bias correction stays at its first value too.
    """
    for i, slot in enumerate(rule.states):
        if not slot.next.args or rule.kinds[slot.next] is Kind.HOST:
            continue
        debiased = [
            item
            for item in ex.walk(rule.roots)
            if item.args and item.args[0] is slot.next and _is_debiased(item, rule, recurrences)
        ]
        corrections = {item.args[1]: _at_first(item.args[1]) for item in debiased}

        def held(
            node: Expr, args: tuple[Expr, ...], i: int = i, slot: State = slot, corrections: Any = corrections
        ) -> Expr:
            if node is slot.next:
                return ex.node("where", ex.leaf("first"), ex.with_args(node, args), ex.state(i))
            return corrections[node] if node in corrections else ex.with_args(node, args)

        mapping = ex.rebuild(rule.roots, held)
        states = tuple(State(s.init, mapping[s.next]) for s in rule.states)
        gone = debiased[0] if debiased else slot.next
        yield gone, "held at its first value", None, mapping[rule.update], states


def _at_first(item: Expr) -> Expr:
    """The term with t = 1."""
    one = ex.const(1.0)
    return ex.rebuild([item], lambda node, args: one if node.op == "t" else ex.with_args(node, args))[item]


def _replacer(item: Expr, stays: Expr) -> Callable[[Expr, tuple[Expr, ...]], Expr]:
    return lambda node, args: stays if node is item else ex.with_args(node, args)


def _own_nodes(folded: Folded, recurrences: dict[Expr, tuple[str, Expr]]) -> list[Expr]:
    """Nodes that a reader sees: the update's and the states', not the inside of averages and derived ops."""
    rule = folded.rule
    roots = [rule.update, *(s.next for s in rule.states if s.next not in recurrences)]
    seen: dict[Expr, None] = {}
    pending = list(roots)
    while pending:
        item = pending.pop(0)
        if item in seen or not item.args:
            continue
        seen[item] = None
        average = item.args[0] if _is_debiased(item, rule, recurrences) else item  # ema_hat is one term
        _, args = folded.derived_term(item) or ("", item.args)
        pending += [recurrences[average][1]] if average in recurrences else args
    return list(seen)


def _is_debiased(item: Expr, rule: Rule, recurrences: Mapping[Expr, tuple[str, Expr]]) -> bool:
    """Whether a node is `ema / (1 - beta ** t)`, which is written `ema_hat`."""
    if item.op != "div" or recurrences.get(item.args[0], ("",))[0] != "ema":
        return False
    folded = fold(rule)
    beta = next(args[1] for i, (_, args) in folded.terms.items() if rule.states[i].next is item.args[0])
    return item.args[1] is debias(beta, ex.leaf("t"))


def _choices(
    item: Expr, folded: Folded, recurrences: dict[Expr, tuple[str, Expr]]
) -> Iterator[tuple[Expr, Expr, str]]:
    """Of one node: what goes, what stays in the node's place, and in words."""
    rule = folded.rule
    if (term := folded.derived_term(item)) is not None:
        op, args = term
        yield item, args[0], f"{op} taken off"
        return
    if item in recurrences:
        op, inner = recurrences[item]
        yield item, inner, f"{op} taken off"
        return
    if _is_debiased(item, rule, recurrences):
        yield item, recurrences[item.args[0]][1], "ema_hat taken off"
        yield item.args[1], item.args[0], "bias correction dropped"
        return
    tensors = [arg for arg in item.args if rule.kinds[arg] is Kind.TENSOR]
    match item.op:
        case "add" | "sub" | "minimum" | "maximum" | "lerp" | "atan2" | "hypot":
            a, b = item.args[:2]
            if a is not b:
                yield b, a, "dropped"
                yield a, (ex.node("neg", b) if item.op == "sub" else b), "dropped"
        case "mul":
            a, b = item.args
            if a is not b:
                yield b, a, "dropped"
                yield a, b, "dropped"
        case "div" | "pow":
            yield item.args[1], item.args[0], "dropped"
        case "where":
            yield item.args[2], item.args[1], "dropped"
            yield item.args[1], item.args[2], "dropped"
        case _ if len(tensors) == 1 and item.op != "neg" and rule.kinds[item] is Kind.TENSOR:
            yield item, tensors[0], f"{item.op} taken off"


def _where(action: str, place: str) -> str:
    return f"{action} from {place}" if len(place) <= 60 else action


def _spelled(text: RuleText) -> Callable[[Expr], str]:
    """Terms of the canonical rule as text: sugar and derived ops folded, hypers and states by name."""
    rule = text.rule.canonical
    _, order = canonical_order(text.rule)
    speller = Speller(fold(rule, derived=True))
    for i, number in enumerate(order):
        speller.call(ex.hyper(i), text.hypers[number])
    for i, name in enumerate(slot_names(rule)):
        speller.call(ex.state(i), name, is_state=True)

    def shown(item: Expr) -> str:
        try:
            return speller.spell(item)
        except RuleforgeError:
            return item.op

    return shown
