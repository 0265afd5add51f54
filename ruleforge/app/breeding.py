"""Proposals bred in the workers: in go a strategy's state and a slice of a generation, out come rules as text
with all that admission asks of them.

A proposal is a function of the config, the generation, its index and the population at the generation's
start, so it does not matter who breeds it. Spelling, naming and measuring a rule costs milliseconds, which is
as much as its first rung: in one process they would keep the others waiting.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ruleforge.app.config import parse_config
from ruleforge.app.objectives import OBJECTIVES, Measured
from ruleforge.app.schema import Config
from ruleforge.app.setup import search_strategy
from ruleforge.core.rule import Rule
from ruleforge.evaluate.funnel import Described, describe
from ruleforge.evaluate.workers import Workers
from ruleforge.search.genome import Genome, from_text, to_text
from ruleforge.search.strategies import Strategy

SLICE: Final = 25


@dataclass(frozen=True)
class Litter:
    """A slice of a generation to be bred.

    Attributes:
        config: the run's config as TOML, resolved.
        state: of its strategy at the generation's start, as JSON.
        generation: number of the generation.
        start, n: the slice.
    """

    config: str
    state: str
    generation: int
    start: int
    n: int


@dataclass(frozen=True)
class Bred:
    """A proposal as text and numbers; see `ruleforge.search.people.Proposal`.

    Attributes:
        generation, index, parents, origin: of the proposal.
        spelled: its genome as text.
        described: its rule, named and measured.
        judged: the values of those objectives that need the rule alone.
    """

    generation: int
    index: int
    parents: tuple[int, ...]
    origin: str
    spelled: str
    described: Described
    judged: Mapping[str, float]

    @property
    def genome(self) -> Genome:
        """What made the rule."""
        return from_text(self.spelled)


def breed(config: str, state: str, generation: int, start: int, n: int, workers: Workers) -> list[Bred]:
    """Proposals `start` to `start + n` of a generation, in order.

    Args:
        config, state, generation, start, n: see `Litter`.
        workers: where they are made.
    """
    litters = [
        Litter(config, state, generation, at, min(SLICE, start + n - at))
        for at in range(start, start + n, SLICE)
    ]
    return [each for litter in workers.map(born, litters) for each in litter]


def born(litter: Litter) -> list[Bred]:
    """The proposals of one slice."""
    config, strategy = _config(litter.config), _strategy(litter.config, litter.state)
    alone = [name for name in (*config.axes, *config.limits.trained) if OBJECTIVES[name].needs == "rule"]
    return [
        Bred(
            each.generation, each.index, each.parents, each.origin, to_text(each.genome),
            describe(each.rule, config.limits.static), _judged(each.rule, alone),
        )
        for each in strategy.ask(litter.generation, litter.start, litter.n)
    ]  # fmt: skip


def _judged(rule: Rule, names: list[str]) -> dict[str, float]:
    seen = Measured(rule, {}, {}, 0.0)
    return {name: OBJECTIVES[name].value(seen) for name in names}


@lru_cache(maxsize=2)
def _config(text: str) -> Config:
    return parse_config(text)


@lru_cache(maxsize=1)
def _strategy(config: str, state: str) -> Strategy:
    """The config's strategy at a generation's start; its own object, since threads may ask at once."""
    strategy = search_strategy(_config(config))
    strategy.restore(json.loads(state))
    return strategy
