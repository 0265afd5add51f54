"""Strategies: which genomes to propose next. They ask and are told; they evaluate nothing.

A proposal is a function of the run's seed, its generation, its index and the population at the
generation's start, so a generation may be asked in any chunks and again for more; `tell` ends it.
What a strategy knows between generations is its population and a few counts, and that is its state: text
and numbers, from which `restore` goes on with the same proposals. Telling duplicates and rejects from
new rules, and giving ids, is the caller's business.
"""

from __future__ import annotations

from ruleforge.errors import ConfigError
from ruleforge.search.controls import Aging, HyperOnly, RandomSearch
from ruleforge.search.evolution import Nsga2
from ruleforge.search.islands import Islands
from ruleforge.search.people import Individual, Proposal, Setup, Strategy, Told
from ruleforge.words import did_you_mean

__all__ = ["STRATEGIES", "Individual", "Proposal", "Setup", "Strategy", "Told", "make_strategy"]

STRATEGIES: dict[str, type[Nsga2]] = {
    strategy.name: strategy for strategy in (Nsga2, Aging, Islands, HyperOnly, RandomSearch)
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
