"""What strategies and their drivers tell each other: proposals, what became of them, who is alive.

Individuals travel as text and numbers; nothing here draws or selects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from ruleforge.core.rule import Rule
from ruleforge.errors import RuleError, StoreError
from ruleforge.search.genome import Genome, from_text, to_text
from ruleforge.search.grammar_model import Grammar
from ruleforge.search.variation import DEFAULT_WEIGHTS

Direction = Literal["max", "min"]
Selection = Literal["nsga2", "epsilon_lexicase"]


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
        tournament: how many compete for parenthood; 0 for the strategy's usual number.
        selection: how parents are chosen: by fronts, or by `epsilon_lexicase` over cases.
        tune_top: how many of the best, by the first objective, get siblings with other constants.
        tune_moves: how many siblings each of them gets in a generation.
        restarts: generations without a better first objective before the population starts anew; 0 never.
        novelty: keep rules that behave unlike the others, as one more axis.
        alike: how many of one niche survive a generation; 0 for any number.
        islands, migrate_every, migrants: see `Islands`.
    """

    grammar: Grammar
    directions: tuple[Direction, ...]
    population: int = 200
    seed: int = 0
    seeds: tuple[tuple[str, Rule], ...] = ()
    immigrants: float = 0.1
    weights: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_WEIGHTS))
    tournament: int = 0
    selection: Selection = "nsga2"
    tune_top: int = 0
    tune_moves: int = 4
    restarts: int = 0
    novelty: bool = False
    alike: int = 0
    islands: int = 4
    migrate_every: int = 5
    migrants: int = 2


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


class Asked(Protocol):
    """What a strategy needs of its proposal when it is told."""

    @property
    def generation(self) -> int: ...
    @property
    def index(self) -> int: ...
    @property
    def genome(self) -> Genome: ...


@dataclass(frozen=True)
class Told:
    """What became of a proposal.

    Attributes:
        proposal: as it was asked, whoever made it.
        id: the candidate's id; a duplicate's twin's.
        objectives: in the setup's order; None for a reject.
        cases: how good it is on each workload, more being better; for lexicase selection.
        behaviour: its fingerprint; for novelty.
        niche: what it shares with rules that behave nearly as it does; for `alike`.
    """

    proposal: Asked
    id: int
    objectives: tuple[float, ...] | None
    cases: tuple[float, ...] = ()
    behaviour: tuple[float, ...] = ()
    niche: str = ""


@dataclass(frozen=True)
class Individual:
    """A genome that is alive, with its objectives, and with what else the setup's options ask for."""

    id: int
    genome: Genome
    objectives: tuple[float, ...]
    cases: tuple[float, ...] = ()
    behaviour: tuple[float, ...] = ()
    niche: str = ""


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


def to_record(person: Individual) -> dict[str, Any]:
    """An individual as JSON."""
    record = {"id": person.id, "genome": to_text(person.genome), "objectives": list(person.objectives)}
    more = {"cases": list(person.cases), "behaviour": list(person.behaviour), "niche": person.niche}
    return record | {key: values for key, values in more.items() if values}


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def people_of(state: Mapping[str, Any], key: str) -> tuple[Individual, ...]:
    """The individuals that a state holds under a key."""
    try:
        return tuple(
            Individual(
                int(row["id"]),
                from_text(row["genome"]),
                _floats(row["objectives"]),
                _floats(row.get("cases", ())),
                _floats(row.get("behaviour", ())),
                str(row.get("niche", "")),
            )
            for row in state[key]
        )
    except (AttributeError, KeyError, TypeError, ValueError, RuleError) as error:
        raise StoreError(f"the stored {key} cannot be read: {error}") from None
