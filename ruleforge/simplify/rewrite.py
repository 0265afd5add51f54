"""Laws at work on a view: which rewrites a rule offers, and what each costs.

The module proposes. Whether a proposal is true is `verify`'s business, and which to take is `algebra`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.laws import ZERO
from ruleforge.core.rule import Rule
from ruleforge.errors import RuleError
from ruleforge.simplify import collect, laws
from ruleforge.simplify.facts import Facts
from ruleforge.simplify.laws import Law
from ruleforge.simplify.patterns import match, put
from ruleforge.simplify.record import StepKind
from ruleforge.simplify.view import View, make, mentions, remade

Score = tuple[int, int, float]
MAX_SITES = 24


@dataclass(frozen=True)
class Proposal:
    """A rewrite of a whole rule.

    Attributes:
        law: what a step will show.
        assumption: under which it holds.
        kind: "algebra" or "scale".
        view: the rewritten rule, folded anew.
        site: key of the only node that was rewritten; "" for all that the law fits.
    """

    law: str
    assumption: str
    kind: StepKind
    view: View
    site: str = ""

    @property
    def score(self) -> Score:
        return score(self.view.rule)


def score(rule: Rule) -> Score:
    """What simplification minimises, in this order: nodes, state tensors, FLOPs for each weight."""
    return rule.nodes, rule.slots, rule.cost.flops


@dataclass(frozen=True)
class TermRewrite:
    """A law for single terms."""

    law: str
    assumption: str
    ops: frozenset[str] | None  # root ops it can fit; None for any
    rewrite: Callable[[Expr, Facts], Expr | None]

    def proposals(self, view: View) -> Iterator[Proposal]:
        """At all sites at once, then at each."""
        present = [item for item in view.nodes if self.ops is None or item.op in self.ops]
        sites = {item: made for item in present if (made := self._on(item, view.facts)) is not None}
        if not sites:
            return
        rewritten = settled(view.mapped(self._everywhere(view.facts)))
        if rewritten is not None:
            yield Proposal(self.law, self.assumption, "algebra", rewritten)
        if len(sites) > 1:
            for item, replacement in list(sites.items())[:MAX_SITES]:
                rewritten = settled(view.swapped({item: replacement}))
                if rewritten is not None:
                    yield Proposal(self.law, self.assumption, "algebra", rewritten, item.key)

    def _on(self, item: Expr, facts: Facts) -> Expr | None:
        made = self.rewrite(item, facts)
        return None if made is item else made

    def _everywhere(self, facts: Facts) -> Callable[[Expr, tuple[Expr, ...]], Expr]:
        def replace(item: Expr, args: tuple[Expr, ...]) -> Expr:
            rebuilt = remade(item, args)
            if self.ops is not None and rebuilt.op not in self.ops:
                return rebuilt
            return self._on(rebuilt, facts) or rebuilt

        return replace


@dataclass(frozen=True)
class ViewRewrite:
    """A law for states or for the update as a whole."""

    law: str
    assumption: str
    kind: StepKind
    rewrite: Callable[[View], Iterable[View]]

    def proposals(self, view: View) -> Iterator[Proposal]:
        for rewritten in self.rewrite(view):
            made = settled(rewritten)
            if made is not None:
                yield Proposal(self.law, self.assumption, self.kind, made)


Rewrite = TermRewrite | ViewRewrite


def settled(view: View) -> View | None:
    """The view in canonical form, or None where it passes a limit of the language."""
    try:
        return View.of(view.rule)
    except RuleError:
        return None


def by_pattern(law: Law) -> TermRewrite:
    """The rewrite that a law of the table spells."""

    def rewrite(item: Expr, facts: Facts) -> Expr | None:
        for bound in match(law.pattern, item, facts):
            made = put(law.result, bound)
            if made is not item:
                return made
        return None

    return TermRewrite(law.text, law.assumption, frozenset({str(law.pattern[0])}), rewrite)


def _of_update(law: Law) -> ViewRewrite:
    def rewrite(view: View) -> Iterator[View]:
        for bound in match(law.pattern, view.update, view.facts):
            yield view.with_update(put(law.result, bound))
            return

    return ViewRewrite("update: " + law.text, law.assumption, "scale", rewrite)


def _of_state(law: Law) -> ViewRewrite:
    def rewrite(view: View) -> Iterator[View]:
        inits = dict(view.inits)
        for index, value in view.nexts:
            old = ex.state(index)
            if inits[index] is not ZERO:
                continue
            for bound in match(law.pattern, value, view.facts, {"s": old}):
                term = put(law.result, bound)
                if not mentions(term, old):
                    yield view.without_state(index, make("prev", term), term)

    return ViewRewrite("state: " + law.text, law.assumption, "algebra", rewrite)


def _weights_of_update(view: View) -> Iterator[View]:
    made = collect.weights_of_update(view.update)
    if made is not None:
        yield view.with_update(made)


SHORTER: tuple[Rewrite, ...] = (
    *(by_pattern(law) for law in laws.TERM),
    TermRewrite("decided by ranges", "terms lie in the ranges that their ops allow", None, collect.decided),
    TermRewrite("like terms collected", "sums may be reordered", None, collect.collect_sum),
    TermRewrite("like factors collected", "factors are not 0; products may be reordered", None,
                collect.collect_product),
    TermRewrite("sign(c * x + d * y) -> sign(lerp(x, y, d / (c + d)))", "c > 0 and d > 0",
                frozenset({"sign"}), collect.weights_under_sign),
    TermRewrite("trace((1 - c) * x, c) -> ema(x, c)", "0 < c < 1", frozenset({"trace"}),
                collect.trace_as_average),
    ViewRewrite("a shared sum or product", "sums and products may be reordered", "algebra",
                collect.shared_parts),
    ViewRewrite("state: s -> its first value", "a state that is never changed", "algebra",
                collect.resting_states),
    *(_of_state(law) for law in laws.STATE),
    ViewRewrite("state: c * s + d * x -> ema(d / (1 - c) * x, c) or trace(d * x, c)",
                "the state starts at 0", "algebra", collect.average_states),
)  # fmt: skip
SCALE: tuple[Rewrite, ...] = (
    *(_of_update(law) for law in laws.UPDATE),
    ViewRewrite("update: c * x + d * y -> its shortest multiple",
                "lr is tuned: a positive constant factor is free", "scale", _weights_of_update),
)  # fmt: skip
MOVES: tuple[Rewrite, ...] = tuple(by_pattern(law) for law in laws.MOVES)
DETOURS: tuple[Rewrite, ...] = tuple(by_pattern(law) for law in laws.DETOURS)
