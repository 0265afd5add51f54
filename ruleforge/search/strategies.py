"""Strategies: which genomes to propose next. They ask and are told; they evaluate nothing.

A proposal is a function of the run's seed, its generation, its index and the population at the
generation's start, so a generation may be asked in any chunks and again for more; `tell` ends it.
What a strategy knows between generations is its population, and that is its state: text and
numbers, from which `restore` goes on with the same proposals. Telling duplicates and rejects from
new rules, and giving ids, is the caller's business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from ruleforge.core.rule import MAX_DEPTH, MAX_NODES, MAX_STATES, Rule
from ruleforge.errors import ConfigError, RuleError, StoreError
from ruleforge.search.children import Child, child_rng, make_child, random_child
from ruleforge.search.deap_bridge import rank_nsga2
from ruleforge.search.genome import Genome, from_rule, from_text, to_rule, to_text
from ruleforge.search.grammar_model import Grammar
from ruleforge.search.variation import DEFAULT_WEIGHTS, constants
from ruleforge.search.vocabulary import Rng, Vocabulary, draw_index
from ruleforge.words import did_you_mean

Direction = Literal["max", "min"]
FOCUSED_SHARE = 0.5  # of the generation after `refocus`
SEEDED_SHARE = 0.5  # of a first generation: variations of seeds; the rest is random
STATE_VERSION = 1


@dataclass(frozen=True)
class Setup:
    """What every strategy is made from.

    Attributes:
        grammar: what may be created; its limits hold for every child.
        directions: of each objective, in the order in which they are told.
        population: how many individuals survive a generation, and how many `ask` proposes at once.
        seed: the run's seed.
        seeds: known rules to start from, by name; hypers become constants at their defaults.
        immigrants: share of later generations that is random.
        weights: relative probability of each variation.
        tournament: how many compete for parenthood in `aging`.
    """

    grammar: Grammar
    directions: tuple[Direction, ...]
    population: int = 200
    seed: int = 0
    seeds: tuple[tuple[str, Rule], ...] = ()
    immigrants: float = 0.1
    weights: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_WEIGHTS))
    tournament: int = 8


@dataclass(frozen=True)
class Proposal:
    """A rule to try.

    Attributes:
        generation: generation that proposes it.
        index: its number within the generation.
        genome: what made the rule.
        rule: without hyperparameters: its constants are numbers.
        parents: ids, as told, of the individuals it was made from; empty where there were none.
        origin: name of the variation; `seed:adam` for a seed, `insert:adam` for a variation of one
            in the first generation, `random`, or `copy` where nothing fitted the limits.
    """

    generation: int
    index: int
    genome: Genome
    rule: Rule
    parents: tuple[int, ...]
    origin: str


@dataclass(frozen=True)
class Told:
    """What became of a proposal.

    Attributes:
        proposal: as it was asked.
        id: the candidate's id; a duplicate's twin's.
        objectives: in the setup's order; None for a reject.
    """

    proposal: Proposal
    id: int
    objectives: tuple[float, ...] | None


@dataclass(frozen=True)
class Individual:
    """A genome that is alive, with its objectives."""

    id: int
    genome: Genome
    objectives: tuple[float, ...]


class Strategy(Protocol):
    """What a driver needs of a strategy."""

    name: ClassVar[str]

    @property
    def population(self) -> tuple[Individual, ...]:
        """Individuals alive now, best first."""

    def front(self) -> tuple[Individual, ...]:
        """Those of the population that none of it dominates."""

    def ask(self, generation: int, start: int = 0, n: int | None = None) -> list[Proposal]:
        """Proposals `start` to `start + n` of a generation; n is the population size if left out."""

    def tell(self, told: Sequence[Told]) -> None:
        """End the generation, with what became of its proposals, in any order."""

    def restart(self, people: Sequence[Individual]) -> None:
        """Go on from these alone."""

    def refocus(self, people: Sequence[Individual]) -> None:
        """Spend half of the next generation on other constants for the first of these that has some."""

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, as JSON."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""


class Nsga2:
    """NSGA-II: parents by tournament on front and crowding, survivors among parents and children.

    Source:
        Deb et al. 2002, A fast and elitist multiobjective genetic algorithm: NSGA-II.
    """

    name: ClassVar[str] = "nsga2"

    def __init__(self, setup: Setup) -> None:
        if not setup.directions or setup.population < 1:
            raise ConfigError(
                f"expected an objective and a population, got {setup.directions!r} and {setup.population}",
                hint='name at least one objective, such as speedup = "max"',
            )
        self.setup = setup
        self.vocabulary = Vocabulary(setup.grammar)
        self._signs = tuple(1.0 if direction == "max" else -1.0 for direction in setup.directions)
        self._seeds = tuple((name, from_rule(rule)) for name, rule in setup.seeds)
        self._people: tuple[Individual, ...] = ()
        self._standing: tuple[tuple[int, float], ...] = ()
        self._focus: tuple[Individual, ...] = ()

    # asking

    def ask(self, generation: int, start: int = 0, n: int | None = None) -> list[Proposal]:
        """Proposals `start` to `start + n` of a generation; n is the population size if left out."""
        count = self.setup.population if n is None else n
        return [self._propose(generation, index) for index in range(start, start + count)]

    def _propose(self, generation: int, index: int) -> Proposal:
        rng = child_rng(self.setup.seed, generation, index)
        if generation == 0 and index < len(self._seeds):
            name, genome = self._seeds[index]
            return Proposal(generation, index, genome, to_rule(genome), (), f"seed:{name}")
        parents: tuple[int, ...]
        if self._focus and index < self.setup.population * FOCUSED_SHARE:
            parent = self._focus[index % len(self._focus)]
            child, parents = self._moved(parent.genome, rng), (parent.id,)
        else:
            child, parents = self._start(rng) if not self._people else self._breed(rng)
        return Proposal(generation, index, child.genome, child.rule, parents, child.origin)

    def _start(self, rng: Rng) -> tuple[Child, tuple[int, ...]]:
        """A variation of a seed, or a random genome."""
        if not self._seeds or rng.random() >= SEEDED_SHARE:
            return random_child(rng, self.vocabulary), ()
        return self._varied_seed(rng), ()

    def _varied_seed(self, rng: Rng) -> Child:
        name, genome = self._seeds[draw_index(rng, len(self._seeds))]
        for _ in range(1 + draw_index(rng, 3)):
            _, partner = self._seeds[draw_index(rng, len(self._seeds))]
            child = make_child(rng, self.vocabulary, genome, partner, self.setup.weights)
            genome = child.genome
        origin = child.origin if child.origin in ("random", "copy") else f"{child.origin}:{name}"
        return Child(child.genome, child.rule, origin)

    def _breed(self, rng: Rng) -> tuple[Child, tuple[int, ...]]:
        if rng.random() < self.setup.immigrants:
            return random_child(rng, self.vocabulary), ()
        return self._child_of(self._parent(rng), self._parent(rng), rng)

    def _child_of(self, first: Individual, second: Individual, rng: Rng) -> tuple[Child, tuple[int, ...]]:
        child = make_child(rng, self.vocabulary, first.genome, second.genome, self.setup.weights)
        if child.origin == "random":
            return child, ()
        return child, ((first.id, second.id) if child.origin == "crossover" else (first.id,))

    def _moved(self, genome: Genome, rng: Rng, suffix: str = "") -> Child:
        """The same formula with one to three constants moved."""
        origin = "copy"
        for _ in range(1 + draw_index(rng, 3)):
            child = make_child(rng, self.vocabulary, genome, genome, {"constant": 1.0})
            if child.origin == "constant":
                genome, origin = child.genome, f"constant{suffix}"
        return Child(genome, to_rule(genome), origin)

    def _parent(self, rng: Rng, size: int = 2) -> Individual:
        """The winner of a tournament: lower front, then less crowded, then the first drawn."""
        drawn = [draw_index(rng, len(self._people)) for _ in range(size)]
        return self._people[min(drawn, key=lambda i: (self._standing[i][0], -self._standing[i][1]))]

    # telling

    def tell(self, told: Sequence[Told]) -> None:
        """End the generation, with what became of its proposals, in any order.

        Raises:
            ValueError: a tuple of objectives that has not one value for each direction.
        """
        self._focus = ()
        self._settle(self._survivors(self._new(told)))

    def restart(self, people: Sequence[Individual]) -> None:
        """Go on from these alone."""
        self._focus = ()
        self._settle(tuple(people)[: self.setup.population])

    def refocus(self, people: Sequence[Individual]) -> None:
        """Spend half of the next generation on other constants for the first of these that has some."""
        self._focus = tuple(person for person in people if constants(person.genome))[:1]

    def _new(self, told: Sequence[Told]) -> list[Individual]:
        """Individuals that are new by id and have finite objectives, in the order of asking."""
        seen = {person.id for person in self._people}
        found = []
        for item in sorted(told, key=lambda item: (item.proposal.generation, item.proposal.index)):
            if item.objectives is None or item.id in seen:
                continue
            if len(item.objectives) != len(self._signs):
                raise ValueError(f"expected {len(self._signs)} objectives, got {item.objectives!r}")
            if all(map(math.isfinite, item.objectives)):
                seen.add(item.id)
                values = tuple(float(value) for value in item.objectives)
                found.append(Individual(item.id, item.proposal.genome, values))
        return found

    def _survivors(self, new: list[Individual]) -> tuple[Individual, ...]:
        people = (*self._people, *new)
        best = rank_nsga2([person.objectives for person in people], self._signs, self.setup.population)
        return tuple(people[i] for i in best.order)

    def _settle(self, people: tuple[Individual, ...]) -> None:
        """Make this the population; each one's standing follows from it alone."""
        ranking = rank_nsga2([person.objectives for person in people], self._signs, len(people))
        standing = [(0, 0.0)] * len(people)
        for i, rank, crowding in zip(ranking.order, ranking.rank, ranking.crowding, strict=True):
            standing[i] = (rank, crowding)
        self._people, self._standing = people, tuple(standing)

    # looking

    @property
    def population(self) -> tuple[Individual, ...]:
        """Individuals alive now, in the strategy's order."""
        return self._people

    def front(self) -> tuple[Individual, ...]:
        """Those of the population that none of it dominates."""
        pairs = zip(self._people, self._standing, strict=True)
        return tuple(person for person, (rank, _) in pairs if rank == 0)

    # going on

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, as JSON."""
        state: dict[str, Any] = {
            "strategy": self.name,
            "version": STATE_VERSION,
            "seed": self.setup.seed,
            "population": [_record(person) for person in self._people],
        }
        return {**state, "focus": [_record(person) for person in self._focus]} if self._focus else state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            StoreError: it is of another strategy, seed or version, or cannot be read.
        """
        for key, own in (("strategy", self.name), ("version", STATE_VERSION), ("seed", self.setup.seed)):
            if state.get(key) != own:
                raise StoreError(
                    f"the stored {key} is {state.get(key)!r}, this search has {own!r}",
                    hint="resume with the run's own config.toml",
                )
        people = _people(state, "population")
        self._focus = _people(state, "focus") if "focus" in state else ()
        self._settle(people)


def _record(person: Individual) -> dict[str, Any]:
    return {"id": person.id, "genome": to_text(person.genome), "objectives": list(person.objectives)}


def _people(state: Mapping[str, Any], key: str) -> tuple[Individual, ...]:
    """The individuals that a state holds under a key."""
    try:
        return tuple(
            Individual(int(row["id"]), from_text(row["genome"]), tuple(float(v) for v in row["objectives"]))
            for row in state[key]
        )
    except (KeyError, TypeError, ValueError, RuleError) as error:
        raise StoreError(f"the stored {key} cannot be read: {error}") from None


class RandomSearch(Nsga2):
    """The control: independent draws from the grammar, no seeds, no parents; keeps the best it saw."""

    name: ClassVar[str] = "random"

    def _propose(self, generation: int, index: int) -> Proposal:
        child = random_child(child_rng(self.setup.seed, generation, index), self.vocabulary)
        return Proposal(generation, index, child.genome, child.rule, (), child.origin)


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

    def _parent(self, rng: Rng, size: int = 0) -> Individual:
        return super()._parent(rng, self.setup.tournament)

    def _survivors(self, new: list[Individual]) -> tuple[Individual, ...]:
        return (*self._people, *new)[-self.setup.population :]


STRATEGIES: dict[str, type[Nsga2]] = {
    strategy.name: strategy for strategy in (Nsga2, RandomSearch, HyperOnly, Aging)
}


def make_strategy(name: str, setup: Setup) -> Strategy:
    """The strategy of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in STRATEGIES:
        hint = did_you_mean(name, STRATEGIES, f"there are {', '.join(STRATEGIES)}")
        raise ConfigError(f"unknown strategy {name!r}", hint=hint)
    return STRATEGIES[name](setup)
