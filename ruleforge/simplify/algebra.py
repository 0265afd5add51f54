"""Algebra under named assumptions: a descent over our own laws, then sympy on scalar subterms.

The descent takes any law that makes the rule shorter. Where none does, it carries factors and signs
outwards for a while, to where a law absorbs them, and then tries detours that lengthen the rule first.
Such a walk counts only if it ends in something shorter than where it began (fewer FLOPs alone are no
reason for one), and steps that did not help are taken out of it again. Nothing is accepted before
`verify` has agreed; each step is compared with the rule that was given and not with its predecessor, so
errors cannot add up.

What this cannot see: identities behind two detours, and states that are multiples of each other without
being averages or decaying sums.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from ruleforge.core.rule import Rule
from ruleforge.simplify import rewrite
from ruleforge.simplify.record import Step
from ruleforge.simplify.rewrite import Proposal, Rewrite, Score
from ruleforge.simplify.scalar import ScalarAlgebra, scalar_terms
from ruleforge.simplify.verify import Checker, Relation
from ruleforge.simplify.view import View

MAX_WALK = 60  # steps of one walk
MAX_LONGER = 4  # nodes that a walk may add on its way
MAX_DETOURS = 32


@dataclass
class Descent:
    """One simplification under way.

    Attributes:
        checker: compares with the rule that was given.
        view: the rule as it stands.
        allow_scale: whether a positive factor of the update may be dropped.
        deadline: `time.monotonic()` after which nothing more is proposed.
        spell: text of a rule, for the steps.
        steps: what was accepted.
        rules: the rule before the first step and after each.
        relation: how the current rule stands to the given one.
        timed_out: whether the deadline cut the search short.
        refused: keys of rules that `verify` turned down.
    """

    checker: Checker
    view: View
    allow_scale: bool
    deadline: float
    spell: Callable[[Rule], str]
    steps: list[Step] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    relation: Relation = "equal"
    timed_out: bool = False
    refused: set[str] = field(default_factory=set)

    def run(self, engine: ScalarAlgebra) -> None:
        """To the end: laws, walks, sympy and detours, until none of them helps or time is up."""
        self.rules = [self.view.rule]
        if scalar_terms(self.view):
            engine.start()
        while self._shorten() or self._walk() or self._ask(engine) or self._detour():
            pass

    @property
    def score(self) -> Score:
        return rewrite.score(self.view.rule)

    def _late(self) -> bool:
        if time.monotonic() > self.deadline:
            self.timed_out = True
        return self.timed_out

    def _shorter_laws(self) -> Iterable[Rewrite]:
        yield from rewrite.SHORTER
        if self.allow_scale:
            yield from rewrite.SCALE

    def _proposals(self, view: View, law: Rewrite, seen: set[str]) -> Iterator[Proposal]:
        for proposal in law.proposals(view):
            if self._late():
                return
            key = proposal.view.rule.key
            if key not in self.refused and key not in seen:
                yield proposal

    def _shorten(self) -> bool:
        """Each law as often as it makes the rule shorter; whether any did."""
        helped = False
        for law in self._shorter_laws():
            while self._take_first(law):
                helped = True
        return helped

    def _take_first(self, law: Rewrite) -> bool:
        for proposal in self._proposals(self.view, law, set()):
            if proposal.score < self.score and self._take([proposal]):
                return True
        return False

    def _walk(self) -> bool:
        """Moves until something becomes shorter; whether the rule or the refused ones changed."""
        chain: list[Proposal] = []
        view, seen = self.view, {self.view.rule.key}
        while len(chain) < MAX_WALK and not self._late():
            found = self._step_down(view, seen) or self._step_aside(view, seen)
            if found is None:
                return False
            chain.append(found)
            view = found.view
            seen.add(view.rule.key)
            if found.score[:2] < self.score[:2]:
                known = len(self.refused)
                return self._take(self._pruned(chain)) or len(self.refused) > known
        return False

    def _step_down(self, view: View, seen: set[str]) -> Proposal | None:
        here = rewrite.score(view.rule)
        for law in self._shorter_laws():
            for proposal in self._proposals(view, law, seen):
                if proposal.score < here:
                    return proposal
        return None

    def _step_aside(self, view: View, seen: set[str]) -> Proposal | None:
        for law in rewrite.MOVES:
            for proposal in self._proposals(view, law, seen):
                if proposal.score[0] <= self.score[0] + MAX_LONGER:
                    return proposal
        return None

    def _detour(self) -> bool:
        """One longer form at a time, then down from there."""
        tried = 0
        for law in rewrite.DETOURS:
            for proposal in self._proposals(self.view, law, {self.view.rule.key}):
                tried += 1
                if tried > MAX_DETOURS:
                    return False
                chain, seen = [proposal], {self.view.rule.key, proposal.view.rule.key}
                while (found := self._step_down(chain[-1].view, seen)) is not None:
                    chain.append(found)
                    seen.add(found.view.rule.key)
                if chain[-1].score[:2] < self.score[:2] and self._take(self._pruned(chain)):
                    return True
        return False

    def _ask(self, engine: ScalarAlgebra) -> bool:
        """Other forms of scalar subterms, as they are or after our laws; whether one helped."""
        for term in scalar_terms(self.view):
            if self._late():
                return False
            for form in engine.variants(term, self.view.facts, self.deadline - time.monotonic()):
                made = rewrite.settled(self.view.swapped({term: form}))
                if made is None or made.rule.key in self.refused:
                    continue
                chain = [Proposal("scalar algebra by sympy", "leaves are real numbers", "algebra", made)]
                seen = {self.view.rule.key, made.rule.key}
                if made.rule.nodes > self.score[0] + MAX_LONGER:
                    continue
                while (found := self._step_down(chain[-1].view, seen)) is not None:
                    chain.append(found)
                    seen.add(found.view.rule.key)
                if chain[-1].score[:2] < self.score[:2] and self._take(chain):
                    return True
        return False

    def _pruned(self, chain: list[Proposal]) -> list[Proposal]:
        """The chain without the steps that it can do without."""
        number = len(chain) - 2
        while number >= 0 and not self._late():
            shorter = self._replayed(chain[:number] + chain[number + 1 :], chain[-1].score)
            if shorter is not None:
                chain = shorter
            number = min(number, len(chain) - 1) - 1
        return chain

    def _replayed(self, chain: list[Proposal], goal: Score) -> list[Proposal] | None:
        """The laws of a chain from the current rule on, or None if they miss the goal."""
        by_law = {law.law: law for law in (*self._shorter_laws(), *rewrite.MOVES, *rewrite.DETOURS)}
        view, made = self.view, []
        for link in chain:
            here = self._proposals(view, by_law[link.law], {view.rule.key})
            again = next((proposal for proposal in here if proposal.site == link.site), None)
            if again is not None:
                made.append(again)
                view = again.view
        return made if made and made[-1].score <= goal else None

    def _take(self, chain: list[Proposal]) -> bool:
        """Accept a chain if `verify` agrees with each of its steps; else remember what it refused."""
        steps: list[Step] = []
        relation, before = self.relation, self.view.rule.nodes
        for proposal in chain:
            rule = proposal.view.rule
            if proposal.kind == "scale":
                relation = "scale"
            verdict = self.checker.check(rule, relation)
            if not verdict.holds:
                self.refused.add(rule.key)
                return False
            steps.append(
                Step(proposal.law, proposal.assumption, proposal.kind, before, rule.nodes, verdict.max_error,
                     self.spell(rule))
            )  # fmt: skip
            before = rule.nodes
        self.steps += steps
        self.rules += [proposal.view.rule for proposal in chain]
        self.relation = relation
        self.view = chain[-1].view
        return True
