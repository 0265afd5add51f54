"""The end of a search: finalists on fresh seeds, the champion, and the report.

Finalists are the best candidates of the highest rung. They and the baselines are tuned again, alike,
and scored on seeds that no choice has seen, on the search suite and on the validation suite. The
champion is the finalist with the best `sure_mean` over the workloads of both, in the final and in the
second look that chose the finalists (`confirming`); so its figures are the best of a few, and the unbiased
look is `ruleforge compare RUN --suite held_out`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ruleforge.app.identity import KnownAs, identify_text
from ruleforge.app.verdicts import carries_over, gap_in_words
from ruleforge.core.text import RuleText, parse
from ruleforge.evaluate.baselines import Baselines, tune_baselines
from ruleforge.evaluate.evaluator import Outcome, Protocol, evaluate
from ruleforge.evaluate.lanes import Plan
from ruleforge.evaluate.statistics import Summary, geometric_mean, sure_mean
from ruleforge.evaluate.workers import Workers
from ruleforge.tasks import Workload

Phase = Callable[[str, int, int], None]
SecondLook = tuple[Mapping[str, float | None], float]


@dataclass(frozen=True)
class Suites:
    """The workloads of a final: search ones first, then validation ones that are not among them."""

    search: tuple[Workload, ...]
    validation: tuple[Workload, ...]

    @property
    def all(self) -> tuple[Workload, ...]:
        names = {w.name for w in self.search}
        return (*self.search, *(w for w in self.validation if w.name not in names))


def merit(vs_best_single: Mapping[str, float | None], second_look: SecondLook | None) -> float:
    """`sure_mean` of a speed-up over the best single baseline, every workload of both suites alike; final and
    second look each count by their seeds."""
    before, share = second_look or ({}, 0.0)
    return sure_mean([_weighted(now, before.get(w), share) for w, now in vs_best_single.items()])


@dataclass(frozen=True)
class Finalist:
    """A candidate in the final.

    Attributes:
        id: candidate number in the run.
        rule: its rule.
        known_as: its name, if it has one.
        outcomes: workload name → outcome, on fresh seeds.
        search, validation: standing against the three references.
        vs_oracle: workload name → speed-up over its best baseline, or None.
        vs_best_single: the same over the baseline that is best on the workloads of both suites.
        second_look: the same when the finalists were chosen, and how many of the final's seeds its seeds
            are worth; None where they were not looked at again.
    """

    id: int
    rule: RuleText
    known_as: KnownAs
    outcomes: Mapping[str, Outcome]
    search: Mapping[str, Summary]
    validation: Mapping[str, Summary]
    vs_oracle: Mapping[str, float | None]
    vs_best_single: Mapping[str, float | None]
    second_look: SecondLook | None = None

    @property
    def is_new(self) -> bool:
        """Whether no known rule has its form or answers as it does on the probes."""
        return self.known_as.relation == "new"

    @property
    def merit(self) -> float:
        """What the champion is chosen by."""
        return merit(self.vs_best_single, self.second_look)

    def carries_over(self) -> str:
        """Whether the win on the search suite carries over to validation, in words."""
        suites = {"search": self.search, "validation": self.validation}
        return carries_over(
            {name: standing["vs_best_single"].as_json() for name, standing in suites.items()}, "validation"
        )

    def as_json(self) -> dict[str, Any]:
        rule = self.rule.rule
        return {
            "id": self.id,
            "text": str(self.rule),
            "nodes": rule.nodes,
            "states": rule.canonical.slots,
            "known_as": str(self.known_as),
            "speedup": {"search": standing_json(self.search), "validation": standing_json(self.validation)},
            "workloads": {
                name: {**_outcome_json(outcome), "vs_oracle": self.vs_oracle.get(name)}
                for name, outcome in self.outcomes.items()
            },
            "merit": self.merit,
            "second_look": sure_mean(list(self.second_look[0].values())) if self.second_look else None,
        }


def _weighted(now: float | None, before: float | None, share: float) -> float | None:
    """Weighted geometric mean of two speed-ups; one alone where the other is not known."""
    if not now or not before:
        return now or before
    return math.exp((math.log(now) + share * math.log(before)) / (1 + share))


def standing_json(standing: Mapping[str, Summary]) -> dict[str, Any]:
    return {name: summary.as_json() for name, summary in standing.items()}


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "lr": outcome.lr,
        "schedule": outcome.setting.schedule if outcome.setting else None,
        "final_loss": outcome.final_loss,
        "metric": outcome.metric,
        "diverged": outcome.n_diverged,
        "lanes": outcome.n_lanes,
    }


def run_final(
    candidates: Mapping[int, str],
    baselines: Mapping[str, RuleText],
    suites: Suites,
    protocol: Protocol,
    plan: Plan,
    workers: Workers,
    phase: Phase,
    say: Callable[[str], None],
    second_looks: Mapping[int, SecondLook] | None = None,
) -> tuple[list[Finalist], Baselines]:
    """Tune and score finalists and baselines on fresh seeds.

    Args:
        candidates: candidate number → rule text.
        baselines: rules by name.
        suites: where.
        protocol, plan, workers: the same for both.
        phase: told the progress.
        say: told what is computed.
        second_looks: candidate number → `Finalist.second_look`.

    Returns:
        Finalists, best first, and the tuned baselines.
    """
    found, tuned = scored_beside_baselines(
        candidates, baselines, suites, protocol, plan, workers, phase, say, "scoring finalists"
    )
    names = workers.map(identify_text, list(candidates.values()))
    finalists = []
    for (number, outcomes), known_as in zip(found.items(), names, strict=True):
        finalists.append(
            Finalist(
                number, parse(candidates[number]), known_as, outcomes,
                _standing(tuned, outcomes, suites.search), _standing(tuned, outcomes, suites.validation),
                tuned.values(outcomes, "oracle"), tuned.values(outcomes, "best_single"),
                (second_looks or {}).get(number),
            )
        )  # fmt: skip
    finalists.sort(key=lambda f: (-f.merit, f.rule.rule.nodes, f.id))
    return finalists, tuned


def scored_beside_baselines(
    candidates: Mapping[int, str],
    baselines: Mapping[str, RuleText],
    suites: Suites,
    protocol: Protocol,
    plan: Plan,
    workers: Workers,
    phase: Phase,
    say: Callable[[str], None],
    doing: str,
) -> tuple[dict[int, dict[str, Outcome]], Baselines]:
    """Outcomes by candidate and workload, and the baselines, tuned and scored alike; see `run_final`."""
    tuned = tune_baselines(
        baselines, suites.all, protocol, plan, workers, say=say,
        done=lambda k, n: phase("tuning baselines", k, n),
    )  # fmt: skip
    rows = evaluate(
        list(candidates.values()), suites.all, protocol, plan, workers, lambda k, n: phase(doing, k, n)
    )
    return {n: {o.workload: o for o in row} for n, row in zip(candidates, rows, strict=True)}, tuned


def _standing(
    tuned: Baselines, outcomes: Mapping[str, Outcome], places: Sequence[Workload]
) -> dict[str, Summary]:
    return restricted(tuned, places).standing({w.name: outcomes[w.name] for w in places})


def restricted(tuned: Baselines, places: Sequence[Workload]) -> Baselines:
    """The baselines on some of their workloads."""
    names = [w.name for w in places]
    return Baselines(
        {n: tuned.outcomes[n] for n in names}, {n: tuned.targets[n] for n in names}, tuned.origin
    )


def baselines_json(tuned: Baselines, suites: Suites) -> list[dict[str, Any]]:
    """A row a baseline, best on the search suite first."""
    names = next(iter(tuned.outcomes.values()))
    rows = []
    for name in names:
        outcomes = {w: rules[name] for w, rules in tuned.outcomes.items()}
        rows.append(
            {
                "name": name,
                "speedup": {
                    "search": standing_json(_standing(tuned, outcomes, suites.search)),
                    "validation": standing_json(_standing(tuned, outcomes, suites.validation)),
                },
                "workloads": {w: _outcome_json(o) for w, o in outcomes.items()},
            }
        )
    return sorted(rows, key=lambda row: -(row["speedup"]["search"]["vs_oracle"]["speedup"] or 0.0))


def search_gap(finalists: Sequence[Finalist], champion: Finalist) -> dict[str, Any] | None:
    """How the finalists stand where they were searched and on validation: the run's generalization gap.

    Returns:
        The geometric means over finalists, `search` and `validation`, of the speed-up over the best single
        baseline; `best_on_search`, the finalist that the search suite alone would have chosen, with both;
        and all of it in `words`. None where a suite has nothing to compare on.
    """
    both = {
        f.id: (search, validation)
        for f in finalists
        if (search := f.search["vs_best_single"].speedup)
        and (validation := f.validation["vs_best_single"].speedup)
    }
    if not both:
        return None
    search, validation = (geometric_mean([pair[k] for pair in both.values()]) or 0.0 for k in (0, 1))
    first = max(both, key=lambda n: (both[n][0], -n))
    n_searched = champion.search["vs_best_single"].n_workloads
    return {
        "search": search,
        "validation": validation,
        "best_on_search": {"id": first, "search": both[first][0], "validation": both[first][1]},
        "words": gap_in_words(
            search, validation, first, both[first], is_champion=first == champion.id, n_searched=n_searched
        ),
    }
