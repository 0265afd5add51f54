"""NSGA-II over genomes, with options that can be switched on one by one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ruleforge.errors import ConfigError, StoreError
from ruleforge.search.children import Child, child_rng, make_child, random_child
from ruleforge.search.deap_bridge import Ranking, rank_nsga2
from ruleforge.search.genome import Genome, from_rule, to_rule
from ruleforge.search.people import Individual, Proposal, Setup, Told, people_of, to_record
from ruleforge.search.selection import epsilon_lexicase, epsilons, novelties
from ruleforge.search.variation import OF_TWO, constants
from ruleforge.search.vocabulary import Rng, Vocabulary, draw_index

FOCUSED_SHARE = 0.5  # of the generation after `refocus`
SEEDED_SHARE = 0.5  # of a first generation: variations of seeds; the rest is random
STATE_VERSION = 1


class Nsga2:
    """NSGA-II: parents by tournament on front and crowding, survivors among parents and children.

    The setup's options add to it one by one: parents by lexicase over the workloads, siblings of the best
    with other constants, novelty as one more axis, and a new population where the old one stalls.

    Source:
        Deb et al. 2002, A fast and elitist multiobjective genetic algorithm: NSGA-II.
    """

    name: ClassVar[str] = "nsga2"
    usual_tournament: ClassVar[int] = 2

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
        self._cases: NDArray[np.float64] | None = None
        self._epsilon: NDArray[np.float64] | None = None
        self._best: float | None = None
        self._stall = 0

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
        if (parent := self._to_tune(index)) is not None:
            child, parents = self._moved(parent.genome, rng), (parent.id,)
        else:
            child, parents = self._start(rng) if not self._people else self._breed(rng)
        return Proposal(generation, index, child.genome, child.rule, parents, child.origin)

    def _to_tune(self, index: int) -> Individual | None:
        """Whose constants this proposal moves, if it is one that does."""
        if self._focus and self._is_focused(index):
            return self._focus[index % len(self._focus)]
        number = index // max(1, self.setup.tune_moves)
        if number >= min(self.setup.tune_top, len(self._people)):
            return None
        person = self.best(self.setup.tune_top)[number]
        return person if constants(person.genome) else None

    def _is_focused(self, index: int) -> bool:
        return index < self.setup.population * FOCUSED_SHARE

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
        return child, ((first.id, second.id) if child.origin in OF_TWO else (first.id,))

    def _moved(self, genome: Genome, rng: Rng, suffix: str = "") -> Child:
        """The same formula with one to three constants moved."""
        origin = "copy"
        for _ in range(1 + draw_index(rng, 3)):
            child = make_child(rng, self.vocabulary, genome, genome, {"constant": 1.0})
            if child.origin == "constant":
                genome, origin = child.genome, f"constant{suffix}"
        return Child(genome, to_rule(genome), origin)

    def _parent(self, rng: Rng) -> Individual:
        """By lexicase, or a tournament: lower front, then less crowded, then the first drawn."""
        if self._cases is not None and self._epsilon is not None:
            return self._people[epsilon_lexicase(rng, self._cases, self._epsilon)]
        size = self.setup.tournament or self.usual_tournament
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
        self._count_stall()

    def _count_stall(self) -> None:
        """Start anew where the first objective has not improved for too long; the run keeps its finds."""
        if not self.setup.restarts or not self._people:
            return
        best = self._signs[0] * self.best(1)[0].objectives[0]
        if self._best is None or best > self._best:
            self._best, self._stall = best, 0
            return
        self._stall += 1
        if self._stall >= self.setup.restarts:
            self._best, self._stall = None, 0
            self._settle(())

    def best(self, count: int) -> tuple[Individual, ...]:
        """The best of the population by the first objective."""
        return tuple(self._by_value(self._people)[:count])

    def join(self, people: Sequence[Individual]) -> None:
        """Individuals of another population come, and compete like newborn ones."""
        here = {person.id for person in self._people}
        self._settle(self._survivors([person for person in people if person.id not in here]))

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
                cases = item.cases if self.setup.selection == "epsilon_lexicase" else ()
                behaviour = item.behaviour if self.setup.novelty else ()
                niche = item.niche if self.setup.alike else ""
                found.append(Individual(item.id, item.proposal.genome, values, cases, behaviour, niche))
        return found

    def _survivors(self, new: list[Individual]) -> tuple[Individual, ...]:
        people = self._few_of_a_niche((*self._people, *new))
        return tuple(people[i] for i in self._ranked(people, self.setup.population).order)

    def _few_of_a_niche(self, people: Sequence[Individual]) -> Sequence[Individual]:
        """The best of each niche by the first objective, as many as the setup says."""
        if not self.setup.alike:
            return people
        seen: Counter[str] = Counter()
        kept = set()
        for person in self._by_value(people):
            seen[person.niche] += 1
            if not person.niche or seen[person.niche] <= self.setup.alike:
                kept.add(person.id)
        return [person for person in people if person.id in kept]

    def _by_value(self, people: Sequence[Individual]) -> list[Individual]:
        return sorted(people, key=lambda p: (-self._signs[0] * p.objectives[0], p.id))

    def _ranked(self, people: Sequence[Individual], count: int) -> Ranking:
        """By fronts over the objectives, and over novelty where it is asked for.

        Novelty counts for the better half alone: what is new and bad is easily found.
        """
        points, signs = [person.objectives for person in people], self._signs
        if self.setup.novelty and people:
            values = [self._signs[0] * person.objectives[0] for person in people]
            middle = median(values)
            news = novelties([person.behaviour for person in people])
            points = [
                (*point, new if value >= middle else 0.0)
                for point, new, value in zip(points, news, values, strict=True)
            ]
            signs = (*signs, 1.0)
        return rank_nsga2(points, signs, count)

    def _settle(self, people: tuple[Individual, ...]) -> None:
        """Make this the population; each one's standing follows from it alone."""
        ranking = self._ranked(people, len(people))
        standing = [(0, 0.0)] * len(people)
        for i, rank, crowding in zip(ranking.order, ranking.rank, ranking.crowding, strict=True):
            standing[i] = (rank, crowding)
        self._people, self._standing = people, tuple(standing)
        self._cases = self._epsilon = None
        widths = {len(person.cases) for person in people}
        if self.setup.selection == "epsilon_lexicase" and len(widths) == 1 and widths != {0}:
            self._cases = np.array([person.cases for person in people])
            self._epsilon = epsilons(self._cases)

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
            "population": [to_record(person) for person in self._people],
        }
        if self._focus:
            state["focus"] = [to_record(person) for person in self._focus]
        if self.setup.restarts:
            state |= {"best": self._best, "stall": self._stall}
        return state

    def own_state(self) -> dict[str, Any]:
        """What `restore_own` needs besides the individuals: who lives here, and how long nothing improved."""
        return {"ids": [person.id for person in self._people], "best": self._best, "stall": self._stall}

    def restore_own(self, state: Mapping[str, Any], known: Mapping[int, Individual]) -> None:
        """Go on from a state of one island, given the individuals by id."""
        self._settle(tuple(known[int(number)] for number in state["ids"]))
        self._restore_stall(state)

    def _restore_stall(self, state: Mapping[str, Any]) -> None:
        best = state.get("best")
        self._best, self._stall = None if best is None else float(best), int(state.get("stall", 0))

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
        people = people_of(state, "population")
        self._focus = people_of(state, "focus") if "focus" in state else ()
        self._settle(people)
        try:
            self._restore_stall(state)
        except (TypeError, ValueError) as error:
            raise StoreError(f"the stored stall cannot be read: {error}") from None
