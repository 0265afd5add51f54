"""The controls of a search, and aging evolution: what any claim of NSGA-II is checked against."""

from __future__ import annotations

from typing import ClassVar

from ruleforge.core.rule import MAX_DEPTH, MAX_NODES, MAX_STATES
from ruleforge.errors import ConfigError
from ruleforge.search.children import Child, child_rng, random_child
from ruleforge.search.evolution import Nsga2
from ruleforge.search.people import Individual, Proposal, Setup
from ruleforge.search.vocabulary import Rng, Vocabulary, draw_index


class RandomSearch(Nsga2):
    """The control: independent draws from the grammar, no seeds, no parents; keeps the best it saw."""

    name: ClassVar[str] = "random"

    def _propose(self, generation: int, index: int) -> Proposal:
        child = random_child(child_rng(self.setup.seed, generation, index), self.vocabulary)
        return Proposal(generation, index, child.genome, child.rule, (), child.origin)

    def _count_stall(self) -> None:
        """Independent draws have nothing to start anew."""


class HyperOnly(Nsga2):
    """The other control: the seeds' formulas stay, only their constants evolve. Limits do not apply."""

    name: ClassVar[str] = "hyper_only"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        if not setup.seeds:
            raise ConfigError("hyper_only needs rules to start from", hint='write seed_rules = ["adam"]')
        self.vocabulary = Vocabulary(
            setup.grammar.with_limits(nodes=MAX_NODES, states=MAX_STATES, depth=MAX_DEPTH)
        )

    def _start(self, rng: Rng) -> tuple[Child, tuple[int, ...]]:
        name, genome = self._seeds[draw_index(rng, len(self._seeds))]
        return self._moved(genome, rng, f":{name}"), ()

    def _breed(self, rng: Rng) -> tuple[Child, tuple[int, ...]]:
        parent = self._parent(rng)
        return self._moved(parent.genome, rng), (parent.id,)


class Aging(Nsga2):
    """Regularized evolution: parents by a large tournament, and the oldest die, however good.

    Source:
        Real et al. 2019, arXiv:1802.01548, as used for Lion. Departs from it by telling in batches
        and by comparing several objectives through their fronts.
    """

    name: ClassVar[str] = "aging"
    usual_tournament: ClassVar[int] = 8

    def _survivors(self, new: list[Individual]) -> tuple[Individual, ...]:
        return (*self._people, *new)[-self.setup.population :]
