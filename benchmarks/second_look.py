"""Does a second look at the best of a search lead to better champions? Judged on seeds that chose nothing.

    python benchmarks/second_look.py RUN… [--workers 2] [--seeds 5] [--json]

RUN is a finished run of `search.confirm` > 0. All its contenders are scored on the final's seeds, as if all
of them were finalists, and on seeds of their own, which judge. Then three ways of choosing are told apart:
the best by the search's own fitness; the best on the final's seeds of as many finalists by that fitness, one
a form; and what is done now: finalists by the second look, the champion by second look and final together.
Search and validation suite alone.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from ruleforge.app.config import load_config, load_validation_workloads, load_workloads
from ruleforge.app.finals import Suites, merit
from ruleforge.app.ranking import SPEEDUP
from ruleforge.app.setup import baseline_rules, confirm_protocol
from ruleforge.backends import fastest_plane, prepare_plane
from ruleforge.evaluate.baselines import tune_baselines
from ruleforge.evaluate.evaluator import FINAL_SEED, evaluate
from ruleforge.evaluate.funnel import at_most
from ruleforge.evaluate.lanes import Plan
from ruleforge.evaluate.niches import Niches
from ruleforge.evaluate.workers import Workers
from ruleforge.store import CONFIG, Store

JUDGE_SEED = 9000
CHOICES = ("own fitness", "final alone", "second look")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=5, help="that judge")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [judge(run, options.seeds, options.workers) for run in options.runs]
    print(json.dumps(rows, indent=1) if options.json else table(rows))
    return 0


def judge(run: Path, seeds: int, workers: int) -> dict[str, Any]:
    """What each way of choosing chose, and how it stands on the judging seeds."""
    config = load_config(run / CONFIG)
    with Store.open(run, readonly=True) as store:
        looked = {each["id"]: each for each in store.results()["second_look"]}
        second = {n: each["merit"] for n, each in looked.items()}
        texts = {n: store.candidate(n).text for n in second}
        niches = Niches()
        for candidate in store.candidates("trained"):
            niches.add(candidate.id, json.loads(candidate.fingerprint))
        own: dict[int, float] = {}
        for fit in store.fitness(objective=SPEEDUP):
            own[fit.candidate] = fit.value or 0.0  # the highest rung comes last
    suites = Suites(load_workloads(config), load_validation_workloads(config))
    protocol = confirm_protocol(config)
    plan = Plan(update_plane=fastest_plane())
    prepare_plane(plan.update_plane)
    share = config.search.confirm_seeds / config.training.score_seeds
    logs: dict[int, dict[str, float]] = {}
    final: dict[int, Mapping[str, float | None]] = {}
    with Workers(workers) as pool:
        for name, first, count in (
            ("final", FINAL_SEED, config.training.score_seeds),
            ("judge", JUDGE_SEED, seeds),
        ):
            own_seeds = replace(protocol, score_seeds=tuple(first + k for k in range(count)))
            tuned = tune_baselines(baseline_rules(config), suites.all, own_seeds, plan, pool)
            found = evaluate(list(texts.values()), suites.all, own_seeds, plan, pool)
            for n, row in zip(texts, found, strict=True):
                if name == "final":
                    final[n] = tuned.values(_by_name(row), "best_single")
                else:
                    values = tuned.values(_by_name(row), "oracle")
                    logs[n] = {w: math.log(value) for w, value in values.items() if value}
    alone = {n: merit(final[n], None) for n in texts}
    both = {n: merit(final[n], (looked[n]["workloads"], share)) for n in texts}
    count = config.search.finalists
    chosen = {
        "own fitness": _best(own, texts),
        "final alone": _best(alone, _of_niches(niches, own, texts, count)),
        "second look": _best(both, _of_niches(niches, second, texts, count)),
    }
    judged = {n: _mean(each.values()) for n, each in logs.items()}
    names = {"search": [w.name for w in suites.search], "validation": [w.name for w in suites.validation]}
    return {
        "run": str(run),
        "contenders": len(texts),
        "correlation": {
            name: _spearman([scores[n] for n in texts], [judged[n] for n in texts])
            for name, scores in (("own fitness", own), ("final", alone), ("second look", second))
        },
        "chosen": {
            way: {
                "id": n,
                "all": math.exp(judged[n]),
                **{
                    suite: math.exp(_mean([logs[n][w] for w in places if w in logs[n]]))
                    for suite, places in names.items()
                },
            }
            for way, n in chosen.items()
        },
        "best_of_all": math.exp(max(judged.values())),
        "mean_of_all": math.exp(fmean(judged.values())),
    }


def _by_name(row: Sequence[Any]) -> dict[str, Any]:
    return {outcome.workload: outcome for outcome in row}


def _mean(values: Any) -> float:
    known = list(values)
    return fmean(known) if known else math.log(0.5)


def _best(scores: Mapping[int, float], among: Any) -> int:
    return min(among, key=lambda n: (-scores[n], n))


def _of_niches(niches: Niches, scores: Mapping[int, float], among: Any, count: int) -> list[int]:
    """The best by a score, one a niche."""
    return at_most(1, sorted(among, key=lambda n: (-scores[n], n)), niches.of)[:count]


def _spearman(one: Sequence[float], other: Sequence[float]) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = ["Rank correlation of the contenders' scores with the judging seeds:"]
    for row in rows:
        told = ", ".join(f"{name} {value:.2f}" for name, value in row["correlation"].items())
        lines.append(f"  {row['run']} ({row['contenders']} contenders): {told}")
    lines += ["", "Champions on the judging seeds, speed-up over the oracle:"]
    lines.append(f"  {'chosen by':<14}{'both suites':>13}{'search':>9}{'validation':>12}   each run")
    for way in CHOICES:
        cells = {
            key: math.exp(fmean(math.log(row["chosen"][way][key]) for row in rows))
            for key in ("all", "search", "validation")
        }
        each = " ".join(f"×{row['chosen'][way]['all']:.3f}" for row in rows)
        lines.append(
            f"  {way:<14}{cells['all']:>13.3f}{cells['search']:>9.3f}{cells['validation']:>12.3f}   {each}"
        )
    best = math.exp(fmean(math.log(row["best_of_all"]) for row in rows))
    mean = math.exp(fmean(math.log(row["mean_of_all"]) for row in rows))
    lines.append(f"  all contenders: mean ×{mean:.3f}; the best by the judging seeds themselves ×{best:.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
