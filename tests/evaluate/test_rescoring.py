"""More seeds for an outcome are what scoring on all of them at once would have been."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ruleforge.core.known import known
from ruleforge.core.text import parse
from ruleforge.evaluate.baselines import tune_baselines, with_targets
from ruleforge.evaluate.evaluator import Outcome, Protocol, evaluate
from ruleforge.evaluate.funnel import Funnel, Rung
from ruleforge.evaluate.lanes import Plan
from ruleforge.evaluate.rescoring import Rescoring, baselines_on_more_seeds, on_more_seeds
from ruleforge.evaluate.workers import Workers
from ruleforge.tasks import load_workload

PLAN = Plan(chunk_lanes=8, score_lanes=4, update_plane="torch")
PLACES = tuple(load_workload(name, batch_size=8, steps=16) for name in ("teacher_student", "breast_cancer"))
PROTOCOL = Protocol((1e-2, 1e-1), score_seeds=(1000, 1001))
TEXTS = [str(known(name).rule) for name in ("sgd", "adam", "signum", "lion", "nesterov")]
LOST = "update = exp(g * 1e30)\n"


def by_name(rows: list[list[Outcome]]) -> list[dict[str, Outcome]]:
    return [{outcome.workload: outcome for outcome in row} for row in rows]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_more_seeds_are_what_all_of_them_at_once_would_have_been() -> None:
    pool = Workers(1)
    few = by_name(evaluate([*TEXTS, LOST], PLACES, PROTOCOL, PLAN, pool))
    all_seeds = replace(PROTOCOL, score_seeds=(1000, 1001, 7000, 7001))
    at_once = by_name(evaluate([*TEXTS, LOST], PLACES, all_seeds, PLAN, pool))
    more = on_more_seeds([*TEXTS, LOST], few, PLACES, (7000, 7001), PLAN, pool)
    for one, other in zip(more, at_once, strict=True):
        for name, outcome in one.items():
            expected = other[name]
            assert replace(outcome, train_loss=None, metric=None) == replace(
                expected, train_loss=None, metric=None
            )
            assert outcome.train_loss == pytest.approx(expected.train_loss)
            assert outcome.metric == pytest.approx(expected.metric)
    assert more[-1]["teacher_student"].setting is None and more[-1] == few[-1]
    rules = {f"b{i}": parse(text) for i, text in enumerate(TEXTS)}
    found, wanted = (
        {w.name: {f"b{i}": rows[i][w.name] for i in range(len(TEXTS))} for w in PLACES}
        for rows in (few, at_once)
    )
    few_seeds = with_targets(found, "computed")
    extended = baselines_on_more_seeds(few_seeds, rules, PLACES, PROTOCOL, (7000, 7001), PLAN, pool)
    assert extended.targets == with_targets(wanted, "computed").targets
    kept = tune_baselines(rules, PLACES, all_seeds, PLAN, pool)
    assert kept.origin == "cached" and kept.outcomes == extended.outcomes


def test_those_that_seem_best_get_more_seeds_and_are_what_they_show_then() -> None:
    pool = Workers(1)
    names = [f"b{i}" for i in range(2)]
    rows = by_name(evaluate(TEXTS[:2], PLACES, PROTOCOL, PLAN, pool))
    tuned = with_targets({w.name: {n: rows[i][w.name] for i, n in enumerate(names)} for w in PLACES}, "x")
    rules = {name: parse(text) for name, text in zip(names, TEXTS, strict=False)}
    more = baselines_on_more_seeds(tuned, rules, PLACES, PROTOCOL, (7000,), PLAN, pool)
    rung = Rung(PLACES, PROTOCOL, tuned)
    plain = Funnel([rung], PLAN, pool).climb(dict(enumerate(TEXTS)))
    funnel = Funnel([rung], PLAN, pool, rescoring=Rescoring(2, (7000,), more))
    results = funnel.climb(dict(enumerate(TEXTS)))
    best = sorted(plain, key=lambda n: (-plain[n][-1].speedup, n))[:2]
    for n, found in results.items():
        assert found[-1].is_rescored == (n in best)
        if n in best:
            assert all(len(o.curves) == 3 for o in found[-1].outcomes.values())
        else:
            assert found == plain[n]
    assert funnel.rescoring is not None and len(funnel.rescoring.values) == 2
    assert funnel.counts["rescored"] == 2
    extra = 2 * sum(w.steps for w in PLACES)
    assert funnel.counts["lane_steps"] == steps_of(rung) + extra
    again = funnel.climb({9: TEXTS[2]})  # not among the two best that were rescored: no more seeds
    assert again[9][-1].is_rescored == (plain[2][-1].speedup > min(funnel.rescoring.values))


def steps_of(rung: Rung) -> int:
    return len(TEXTS) * sum(rung.protocol.n_lanes * rung.protocol.steps(w) for w in rung.workloads)


def test_the_floor_never_falls() -> None:
    rescoring = Rescoring(2, (), with_targets({}, "x"))
    floors = []
    for value in (0.5, 0.9, 0.2, 1.1, 0.7, 1.0):
        floors.append(rescoring.floor)
        rescoring.values.append(value)
    assert floors == [0.0, 0.0, 0.5, 0.5, 0.9, 0.9] and rescoring.floor == 1.0
