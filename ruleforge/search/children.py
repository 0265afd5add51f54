"""Children: genomes that keep the grammar's limits and read the gradient, each from its own generator.

`make_child` draws variations until one gives such a genome; `random_child` starts from nothing. A
child is a function of its generator and its parents alone. What is good about it is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ruleforge.core import expr as ex
from ruleforge.core.canon import fold, live_states
from ruleforge.core.laws import ZERO
from ruleforge.core.rule import Rule
from ruleforge.errors import RuleError
from ruleforge.search import deap_bridge as bridge
from ruleforge.search.forms import Scale, Tensor
from ruleforge.search.lines import Genome, Line, reads, without_dead
from ruleforge.search.spelling import to_rule
from ruleforge.search.variation import (
    DEFAULT_WEIGHTS,
    LATE,
    VARIATIONS,
    injected,
    readable,
    reads_line,
    recurrence,
)
from ruleforge.search.vocabulary import Pool, Rng, Vocabulary, draw_index

TRIES = 8
RANDOM_TRIES = 40
DEEPEST_START = 5
SURE_CHEAPLY = 0.75  # share of the node limit below which the folded raw graph decides


def child_rng(seed: int, generation: int, index: int) -> Rng:
    """The generator of one child; equal arguments give equal children, whoever asks and when."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, generation, index])))


@dataclass(frozen=True)
class Child:
    """A genome that keeps the limits, its rule, and the variation that made it."""

    genome: Genome
    rule: Rule
    origin: str


def fitting_rule(vocabulary: Vocabulary, genome: Genome) -> Rule | None:
    """The genome's rule if it keeps the limits and reads the gradient, else None."""
    limits = vocabulary.limits
    if not reads(genome, "g") or any(bridge.height(line.tree) > limits.depth for line in genome.lines):
        return None
    try:
        rule = to_rule(genome)
    except RuleError:
        return None
    if rule.slots > limits.states:
        return None
    rough = rough_nodes(rule)
    if rough > 2 * limits.nodes or (rough > SURE_CHEAPLY * limits.nodes and rule.nodes > limits.nodes):
        return None
    return rule


def rough_nodes(rule: Rule) -> int:
    """Nodes of the folded graph before canonicalization: within a quarter of `rule.nodes`, and cheap."""
    folded = fold(rule, derived=True)
    live = live_states(rule)
    states = folded.states
    inits = [rule.states[i].init for i in live if i in states and rule.states[i].init is not ZERO]
    return len(ex.walk([folded.update, *(states[i] for i in live if i in states), *inits]))


def make_child(
    rng: Rng,
    vocabulary: Vocabulary,
    first: Genome,
    second: Genome,
    weights: Mapping[str, float] = DEFAULT_WEIGHTS,
) -> Child:
    """A child within the limits.

    Variations are drawn until one applies, changes something and keeps the limits. After `TRIES`
    the child is the first parent itself, with origin "copy"; where that is a seed beyond the limits,
    it is a random genome.
    """
    names = Pool(list(weights), list(weights.values()))
    for _ in range(TRIES):
        name = names.draw(rng)
        genome = VARIATIONS[name](rng, vocabulary, first, second)
        if genome is None:
            continue
        genome = without_dead(genome)
        if genome == first:
            continue
        rule = fitting_rule(vocabulary, genome)
        if rule is not None:
            return Child(genome, rule, name)
    rule = fitting_rule(vocabulary, first)
    return random_child(rng, vocabulary) if rule is None else Child(first, rule, "copy")


def random_child(rng: Rng, vocabulary: Vocabulary) -> Child:
    """A random genome within the limits: ramped half-and-half, with up to `explicit_states` states.

    Where the limits refuse every try, it is `update = g`.
    """
    for _ in range(RANDOM_TRIES):
        genome = without_dead(_random_genome(rng, vocabulary))
        rule = fitting_rule(vocabulary, genome)
        if rule is not None:
            return Child(genome, rule, "random")
    plain = Genome((Line("update", Tensor, bridge.tree([bridge.leaf("g")])),))
    return Child(plain, to_rule(plain), "random")


def _random_genome(rng: Rng, vocabulary: Vocabulary) -> Genome:
    limits = vocabulary.limits
    n_states = draw_index(rng, min(limits.explicit_states, limits.states) + 1)
    n_late = sum(rng.random() < LATE for _ in range(n_states))
    zero = bridge.tree([bridge.const(0.0, Scale)])
    state = Line("state", Tensor, bridge.tree([]), zero)
    update = n_states - n_late
    lines = [state] * update + [Line("update", Tensor, bridge.tree([]))] + [state] * n_late
    for i, line in enumerate(lines):
        if line.role == "state":
            lines[i] = replace(line, tree=bridge.tree(recurrence(rng, vocabulary, lines, i)))
            continue
        room = 1 + draw_index(rng, min(limits.depth, DEEPEST_START))
        nodes = vocabulary.tree(rng, Tensor, room, full=rng.random() < 0.5, refs=readable(lines, i))
        for j in range(len(lines)):
            unread = not any(reads_line(item, j) for item in nodes)
            if j != i and unread:
                reading = bridge.ref(j, j < i and rng.random() < 0.5, Tensor)
                nodes = injected(rng, nodes, Tensor, reading) or nodes
        lines[i] = replace(line, tree=bridge.tree(nodes))
    return Genome(tuple(lines))


def foreign(vocabulary: Vocabulary, genome: Genome) -> tuple[str, ...]:
    """Nodes of a genome that variation with this grammar could not create, such as a seed's `w`."""
    return tuple(
        dict.fromkeys(
            item.name for line in genome.lines for item in line.tree if not vocabulary.creates(item)
        )
    )
