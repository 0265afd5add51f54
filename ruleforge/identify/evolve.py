"""Genetic programming on traces: forms vary, and each one's constants are fitted by least squares."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ruleforge.core.rule import Rule
from ruleforge.errors import RuleforgeError
from ruleforge.explain.fit import EXACT, Fit, Fitter, Target
from ruleforge.search.children import child_rng, make_child
from ruleforge.search.genome import Genome, from_rule, promote
from ruleforge.search.grammar import load_grammar
from ruleforge.search.vocabulary import Vocabulary

POPULATION = 12
QUICK_SETTINGS = 10


def evolve(target: Target, starts: Sequence[Fit], *, deadline: float, seed: int = 0) -> Fit:
    """The nearest rule found before the deadline, beginning with fits of simple forms.

    Args:
        target: prepared traces.
        starts: at least one.
        deadline: `time.monotonic()` at which to stop.
        seed: of the variation.
    """
    vocabulary = Vocabulary(load_grammar("full"))
    alive: list[tuple[float, int, Fit, Genome]] = []
    seen: set[str] = set()
    for fit in starts:
        try:
            genome = from_rule(fit.rule.with_defaults(fit.hypers))
        except RuleforgeError:
            continue
        seen.add(fit.rule.key)
        alive.append((_score(fit), len(alive), fit, genome))
    best = min(starts, key=_score)
    number = 0
    while alive and time.monotonic() < deadline and best.distance > EXACT:
        rng = child_rng(seed, 1, number)
        number += 1
        i, j = sorted(int(rng.random() * len(alive)) for _ in range(2))
        child = make_child(rng, vocabulary, alive[i][3], alive[j][3])
        try:
            rule = promote(child.genome)
            if rule.key in seen or len(rule.hypers) > 8:
                continue
            seen.add(rule.key)
            fit = _fitted(rule, target, alive[-1][0])
        except RuleforgeError:
            continue
        if _score(fit) < alive[-1][0] or len(alive) < POPULATION:
            alive.append((_score(fit), len(seen) + POPULATION, fit, child.genome))
            alive.sort(key=lambda row: row[:2])
            del alive[POPULATION:]
            best = min(best, fit, key=_score)
    return best


def _score(fit: Fit) -> float:
    """Distance, and a little for size so that forms do not swell."""
    return fit.distance * (1 + 0.003 * fit.rule.nodes)


def _fitted(rule: Rule, target: Target, worst: float) -> Fit:
    fitter = Fitter(rule, target)
    fitter.survey(QUICK_SETTINGS)
    if fitter.distance < 2 * worst:
        fitter.contract(rounds=2, n=12)
    if fitter.distance < 1.2 * worst:
        fitter.polish(starts=1, rounds=8)
    return fitter.best
