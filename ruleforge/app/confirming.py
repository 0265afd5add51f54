"""A second look at the best of a search, before the finalists are chosen.

The largest of many noisy scores is partly luck: the search has seen thousands of rules on a seed or two.
So its best are scored again, on seeds that chose nothing, on the search suite and on the validation
suite, and the finalists are the best of that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ruleforge.app.finals import Phase, Suites, scored_beside_baselines
from ruleforge.app.schema import Config
from ruleforge.app.setup import baseline_rules, confirm_protocol
from ruleforge.evaluate.lanes import Plan
from ruleforge.evaluate.statistics import sure_mean
from ruleforge.evaluate.workers import Workers


@dataclass(frozen=True)
class Confirmed:
    """A contender and what the second look said.

    Attributes:
        id: candidate number.
        speedups: workload → speed-up over the best single baseline; None where nothing could be compared.
    """

    id: int
    speedups: Mapping[str, float | None]

    @property
    def merit(self) -> float:
        """What is sure of it over the workloads of both suites, all alike; as `Finalist.merit`."""
        return sure_mean(list(self.speedups.values()))

    def as_json(self) -> dict[str, Any]:
        return {"id": self.id, "merit": self.merit, "workloads": dict(self.speedups)}


def confirm(
    contenders: Mapping[int, str],
    config: Config,
    suites: Suites,
    plan: Plan,
    workers: Workers,
    phase: Phase,
    say: Callable[[str], None],
) -> list[Confirmed]:
    """Score contenders on fresh seeds.

    Args:
        contenders: candidate number → rule text.
        config: of the search.
        suites: where.
        plan, workers: as for training.
        phase: told the progress.
        say: told what is computed.

    Returns:
        All of them, best first; equals in the order given.
    """
    outcomes, tuned = scored_beside_baselines(
        contenders, baseline_rules(config), suites, confirm_protocol(config), plan, workers,
        phase, say, "scoring contenders again",
    )  # fmt: skip
    found = [Confirmed(number, tuned.values(mine, "best_single")) for number, mine in outcomes.items()]
    return sorted(found, key=lambda each: -each.merit)
