"""What a comparison reports of each rule, read off outcomes that are at hand.

Speed-ups with intervals on each workload and over all of them; wins, ties and losses; the same at equal
time; what the verdict depends on. Trains nothing and prints nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from ruleforge.app.sensitivity import under_other_targets, without_each
from ruleforge.app.verdicts import result_of, verdict, words_of
from ruleforge.core.text import RuleText
from ruleforge.evaluate.baselines import Baselines
from ruleforge.evaluate.evaluator import Outcome
from ruleforge.evaluate.measures import lr_decades, median_steps
from ruleforge.evaluate.statistics import Summary, holm, interval, p_value, seed_means, summarize
from ruleforge.evaluate.targets import Speedup, speedup

Record = dict[str, Any]


@dataclass(frozen=True)
class Compared:
    """A rule that was tuned and scored.

    Attributes:
        name, text: the rule.
        outcomes: workload name → outcome.
        step_us: workload name → microseconds of a step of one lane; empty where it was not timed.
    """

    name: str
    text: RuleText
    outcomes: Mapping[str, Outcome]
    step_us: Mapping[str, float]


def standing_of(
    mine: Compared, tuned: Baselines, reference: str, reference_text: RuleText,
    reference_us: Mapping[str, float],
) -> Record:  # fmt: skip
    """A rule's record: each workload, and over all of them."""
    speedups = tuned.speedups(mine.outcomes, reference)
    overall = summarize(speedups)
    is_same = mine.text.rule.full_key == reference_text.rule.full_key
    mine_us = reference_us if is_same else mine.step_us
    workloads = [
        _row(w, mine.outcomes[w], tuned, reference, s, mine_us.get(w), reference_us.get(w))
        for w, s in speedups.items()
    ]
    results = _settle(workloads, speedups)
    said = verdict(overall)
    others = {name: tuned.speedups(mine.outcomes, name) for name in ("oracle", "adam")}
    return {
        "name": mine.name,
        "nodes": mine.text.rule.nodes,
        "states": mine.text.rule.canonical.slots,
        "flops_per_weight": mine.text.rule.cost.flops,
        "same_as": reference if is_same else None,
        "workloads": workloads,
        "overall": {
            **overall.as_json(),
            "verdict": f"{said}: it is the same rule as {reference}" if is_same else said,
            "words": words_of(overall),
            "p": _p_over_workloads(speedups),
            **results,
            "worst_on": _worst(workloads),
            **{f"vs_{name}": _against(found) for name, found in others.items()},
            "equal_time": _equal_time(speedups, mine_us, reference_us),
        },
        "sensitivity": under_other_targets(mine.outcomes, tuned, reference),
        "leave_one_out": without_each(mine.outcomes, tuned, reference),
    }


def _against(speedups: Mapping[str, Speedup]) -> Record:
    found = summarize(speedups)
    return {**found.as_json(), "verdict": verdict(found)}


def _row(
    name: str, mine: Outcome, tuned: Baselines, reference: str, value: Speedup,
    mine_us: float | None, reference_us: float | None,
) -> Record:  # fmt: skip
    theirs, targets = tuned.outcomes[name][reference], tuned.targets[name]
    ci, by_seed = interval(value), seed_means(value)
    speed = float(math.exp(by_seed.mean())) if len(by_seed) else None
    ratio = mine_us / reference_us if mine_us and reference_us else None
    return {
        "name": name,
        "speedup": speed,
        "ci": list(ci) if ci else None,
        "p": p_value(by_seed),
        "steps": median_steps(mine, targets),
        "reference_steps": median_steps(theirs, targets),
        "budget_steps": targets.n_steps,
        "targets": list(targets.levels),
        "final_loss": mine.final_loss,
        "reference_loss": theirs.final_loss,
        "metric": mine.metric,
        "reference_metric": theirs.metric,
        "lr": mine.lr,
        "schedule": mine.setting.schedule if mine.setting else None,
        "tuned_hypers": mine.hypers or None,
        "lr_decades": lr_decades(mine),
        "reference_lr_decades": lr_decades(theirs),
        "diverged": mine.n_diverged,
        "lanes": mine.n_lanes,
        "diverged_share": mine.n_diverged / mine.n_lanes if mine.n_lanes else None,
        "missed": value.n_missed,
        "dropped": value.n_dropped,
        "step_us": mine_us,
        "reference_step_us": reference_us,
        "equal_time_speedup": speed / ratio if speed and ratio else None,
    }


def _settle(rows: Sequence[Record], speedups: Mapping[str, Speedup]) -> Record:
    """Corrects the rows' p values for their number, and counts wins, ties and losses."""
    tested = [row for row in rows if row["p"] is not None]
    for row, adjusted in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = adjusted
    for row in rows:
        row.setdefault("p_holm", None)
        row["result"] = result_of(row["p_holm"], row["speedup"])
    counts = Counter(row["result"] for row in rows)
    return {"wins": counts["win"], "ties": counts["tie"], "losses": counts["loss"]}


def _worst(rows: Sequence[Record]) -> str | None:
    known = [row for row in rows if row["speedup"] is not None]
    return min(known, key=lambda row: row["speedup"])["name"] if known else None


def _equal_time(
    speedups: Mapping[str, Speedup], mine: Mapping[str, float], reference: Mapping[str, float]
) -> Record | None:
    """The same when seconds are counted in place of steps, by the step times measured here."""
    if not all(w in mine and w in reference for w in speedups):
        return None
    ratios = {w: mine[w] / reference[w] for w in speedups}
    shifted = {
        w: replace(s, log_ratios=tuple(value - math.log(ratios[w]) for value in s.log_ratios))
        for w, s in speedups.items()
    }
    cost = math.exp(math.fsum(map(math.log, ratios.values())) / len(ratios)) if ratios else None
    return {**_against(shifted), "step_time_ratio": cost}


def _p_over_workloads(speedups: Mapping[str, Speedup]) -> float | None:
    return p_value([float(seed_means(s).mean()) for s in speedups.values() if s.log_ratios])


def adjust_over_rules(compared: Sequence[Record]) -> None:
    """Holm's correction of the overall p values for the number of rules that were compared."""
    tested: list[MutableMapping[str, Any]] = [r["overall"] for r in compared if r["overall"]["p"] is not None]
    for overall, adjusted in zip(tested, holm([each["p"] for each in tested]), strict=True):
        overall["p_holm"] = adjusted
    for record in compared:
        record["overall"].setdefault("p_holm", None)


def reference_rows(tuned: Baselines, reference: str) -> list[Record]:
    """The reference itself, Adam and the oracle, against the three references."""
    usable = tuned.usable()
    best = {w: tuned.outcomes[w][tuned.oracle(w)] for w in usable}
    rows: dict[str, Mapping[str, Outcome]] = {
        reference: {w: tuned.outcomes[w][reference] for w in usable},
        "adam": {w: tuned.outcomes[w]["adam"] for w in usable},
        "oracle": best,
    }
    return [
        {
            "name": name,
            "speedup": summarize(tuned.speedups(outcomes, reference)).as_json(),
            "vs_oracle": summarize(tuned.speedups(outcomes, "oracle")).as_json(),
            "vs_adam": summarize(tuned.speedups(outcomes, "adam")).as_json(),
            "rules": {w: tuned.oracle(w) for w in usable} if name == "oracle" else None,
        }
        for name, outcomes in rows.items()
    ]


def pairs(outcomes: Mapping[str, Mapping[str, Outcome]], tuned: Baselines) -> list[Record]:
    """Every two of the compared rules against each other, over the same targets."""
    rows = []
    for a, b in combinations(outcomes, 2):
        found: Summary = summarize(
            {w: speedup(outcomes[a][w], outcomes[b][w], tuned.targets[w]) for w in tuned.usable()}
        )
        rows.append({"rule": a, "over": b, **found.as_json(), "verdict": verdict(found)})
    return rows


def twins(rules: Mapping[str, RuleText]) -> list[tuple[str, str]]:
    """Pairs of names of one rule."""
    return [(a, b) for a, b in combinations(rules, 2) if rules[a].rule.full_key == rules[b].rule.full_key]
