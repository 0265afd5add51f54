"""Islands: populations that evolve apart and exchange their best now and then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from ruleforge.errors import ConfigError, StoreError
from ruleforge.search.evolution import Nsga2
from ruleforge.search.people import Individual, Proposal, Setup, Told, people_of


class Islands(Nsga2):
    """Several NSGA-II populations on a ring. Proposal k of a generation is island k modulo their number's.

    Every `migrate_every` generations the best `migrants` of each island, by the first objective, are copied
    to the next one, where they compete like newborn ones. The population that others see is all of them.

    Source:
        Whitley et al. 1999, The island model genetic algorithm. Departs from it in nothing but NSGA-II on
        each island.
    """

    name: ClassVar[str] = "islands"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        if not 2 <= setup.islands <= setup.population // 2:
            raise ConfigError(
                f"{setup.islands} islands of {setup.population} individuals",
                hint="at least two islands, of at least two individuals each",
            )
        sizes = [(setup.population + k) // setup.islands for k in range(setup.islands)]
        self.parts = tuple(Nsga2(replace(setup, population=size)) for size in sizes)
        self._told = 0

    def _propose(self, generation: int, index: int) -> Proposal:
        if self._focus and self._is_focused(index):
            return super()._propose(generation, index)
        return self.parts[index % len(self.parts)]._propose(generation, index)

    def tell(self, told: Sequence[Told]) -> None:
        """End the generation, with what became of its proposals, in any order."""
        self._focus = ()
        for k, part in enumerate(self.parts):
            part.tell([item for item in told if item.proposal.index % len(self.parts) == k])
        self._told += 1
        if self._told % self.setup.migrate_every == 0:
            self._migrate()
        self._gather()

    def _migrate(self) -> None:
        """Copy the best of each island to the next; all leave before any arrives."""
        leaving = [part.best(self.setup.migrants) for part in self.parts]
        for k, part in enumerate(self.parts):
            part.join(leaving[k - 1])

    def _gather(self) -> None:
        """Make all that live on islands the population; one that lives on two counts once."""
        alive = {person.id: person for part in self.parts for person in part.population}
        self._settle(tuple(alive[number] for number in sorted(alive)))

    def restart(self, people: Sequence[Individual]) -> None:
        """Go on from these alone, on every island."""
        self._focus = ()
        for part in self.parts:
            part.restart(people)
        self._gather()

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, as JSON: individuals once, and who lives where."""
        return {
            **super().state(),
            "islands": [part.own_state() for part in self.parts],
            "told": self._told,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            StoreError: it is of another strategy, seed, version or number of islands, or cannot be read.
        """
        super().restore(state)
        known = {person.id: person for person in people_of(state, "population")}
        try:
            parts, told = state["islands"], int(state["told"])
            if len(parts) != len(self.parts):
                raise ValueError(f"{len(parts)} islands, this search has {len(self.parts)}")
            for part, own in zip(self.parts, parts, strict=True):
                part.restore_own(own, known)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StoreError(f"the stored islands cannot be read: {error}") from None
        self._told = told
