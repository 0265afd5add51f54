"""Tuning, scoring, baselines and the funnel on a small workload."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ruleforge.core.known import known
from ruleforge.core.text import parse
from ruleforge.evaluate import baselines as baselines_module
from ruleforge.evaluate.baselines import cache_path, outcome_from_json, outcome_to_json, tune_baselines
from ruleforge.evaluate.evaluator import SCORE_SEED, TUNE_SEED, Protocol, evaluate
from ruleforge.evaluate.funnel import Described, Funnel, Limits, Rung, RungResult, describe, standing_value
from ruleforge.evaluate.hypers import settings_of
from ruleforge.evaluate.lanes import LaneSpec, Plan
from ruleforge.evaluate.probes import probe
from ruleforge.evaluate.workers import Workers
from ruleforge.tasks import WORKLOADS

PLAN = Plan(chunk_lanes=24)
SMALL = WORKLOADS["breast_cancer"].resized(steps=30)
GRID = Protocol((0.003, 0.01, 0.03), ("constant", "cosine"), score_seeds=(SCORE_SEED, SCORE_SEED + 1))
SGD, ADAM, LION = (str(known(name).rule) for name in ("sgd", "adam", "lion"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_outcomes_do_not_depend_on_the_number_of_workers_or_on_company() -> None:
    alone = evaluate([ADAM], [SMALL], GRID, PLAN, Workers(1))
    many = evaluate([SGD, LION, ADAM], [SMALL], GRID, PLAN, Workers(2))
    assert alone[0] == many[2]
    assert len(alone[0][0].curves) == 2 and len(alone[0][0].final_losses) == 6


def test_the_jobs_do_not_depend_on_the_number_of_workers() -> None:
    class Recording(Workers):
        def map(self, function: Any, jobs: Any, done: Any = lambda finished, total: None) -> Any:
            given.append(list(jobs))
            return [function(job) for job in jobs]

    seen = []
    for n_workers in (1, 3):
        given: list[Any] = []
        evaluate([SGD, ADAM], [SMALL], GRID, Plan(chunk_lanes=6), Recording(n_workers))
        seen.append(given)
    assert seen[0] == seen[1] and len(seen[0][0]) == 2


def test_scoring_seeds_are_not_tuning_seeds() -> None:
    assert TUNE_SEED not in GRID.score_seeds
    tuned = evaluate([ADAM], [SMALL], Protocol(GRID.lrs), PLAN, Workers(1))[0][0]
    scored = evaluate([ADAM], [SMALL], GRID, PLAN, Workers(1))[0][0]
    assert tuned.curves[0] not in scored.curves


def test_the_grid_widens_while_the_best_is_at_an_edge() -> None:
    low = Protocol((1e-5, 3e-5), score_seeds=(SCORE_SEED,))
    wide = Protocol((1e-5, 3e-5), score_seeds=(SCORE_SEED,), widen=True)
    fixed, widened = (evaluate([SGD], [SMALL], p, PLAN, Workers(1))[0][0] for p in (low, wide))
    assert fixed.setting is not None and widened.setting is not None
    assert widened.setting.lr > fixed.setting.lr and len(widened.final_losses) > 2
    assert (widened.final_loss or np.inf) < (fixed.final_loss or 0)


def test_settings_of_hyperparameters_are_tuned_and_the_best_is_scored() -> None:
    grid = Protocol((0.01, 0.1), score_seeds=(SCORE_SEED,), hyper_settings=3)
    plain = replace(grid, hyper_settings=0)
    slow = "beta: hyper(0, 1, one_minus_log) = 0.999\nupdate = ema(g, beta)\n"
    tuned, none = evaluate([slow, SGD], [SMALL], grid, PLAN, Workers(1))
    settings = settings_of(slow, 3)
    each = [row[0] for row in evaluate([slow, *settings], [SMALL], plain, PLAN, Workers(1))]
    best = min(each, key=lambda outcome: min(v for v in outcome.final_losses if v is not None))
    assert tuned[0].hypers in settings and tuned[0].curves == best.curves
    assert tuned[0].n_lanes == 4 * 2 + 1 and grid.n_lanes == 9
    assert (none[0].hypers, none[0].n_lanes) == ("", 3)  # SGD has no hyperparameter


def test_a_rule_that_always_diverges_is_a_result() -> None:
    outcome = evaluate(["update = exp(exp(g * 1000)) * g\n"], [SMALL], GRID, PLAN, Workers(1))[0][0]
    assert outcome.setting is None and outcome.final_loss is None and outcome.curves == ()
    assert outcome.n_diverged == outcome.n_lanes == 6 and outcome.diverged_at == 2


def test_a_lane_that_diverged_is_never_chosen() -> None:
    grid = Protocol((0.01, 1e30), score_seeds=(SCORE_SEED,))
    outcome = evaluate([SGD], [WORKLOADS["quadratic"].resized(steps=30)], grid, PLAN, Workers(1))[0][0]
    assert outcome.setting is not None and outcome.setting.lr == 0.01
    assert outcome.n_diverged == 1 and outcome.final_losses[1] is None


def test_a_lane_that_comes_back_from_infinity_has_diverged_all_the_same() -> None:
    comes_back = "update = where(t > 3, w / lr, where(t > 2, -1e30 * sign(w), g))\n"
    place = WORKLOADS["quadratic"].resized(steps=30)
    # SGD beside it keeps the chunk going to its end, where the lanes that came back are finite again.
    outcome = evaluate([comes_back, SGD], [place], Protocol((0.01, 0.1)), PLAN, Workers(1))[0][0]
    assert (outcome.setting, outcome.diverged_at) == (None, 4)
    assert outcome.n_diverged == outcome.n_lanes == 2


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"nodes": 9}, "10 nodes, at most 9"),
        ({"states": 1}, "2 state slots, at most 1"),
        ({"flops_per_weight": 3.0}, "FLOPs per weight, at most 3"),
        ({"bytes_per_weight": 10.0}, "bytes per weight, at most 10"),
    ],
)
def test_each_limit_refuses_what_is_beyond_it(limit: dict[str, float], words: str) -> None:
    rule = parse("update = ema(g, 0.9) / (sqrt(ema(g * g, 0.99)) + 1e-8)\n").rule
    wide = {"nodes": 512, "states": 16, "flops_per_weight": 1e6}
    assert Limits(**wide).broken_by(rule) == ""  # type: ignore[arg-type]
    assert words in Limits(**{**wide, **limit}).broken_by(rule)  # type: ignore[arg-type]


def test_outcomes_survive_json_bit_for_bit() -> None:
    outcome = evaluate([ADAM], [SMALL], GRID, PLAN, Workers(1))[0][0]
    assert outcome.tried == GRID.grid() and len(outcome.final_losses) == len(outcome.tried)
    assert outcome_from_json(json.loads(json.dumps(outcome_to_json(outcome)))) == outcome


def test_baselines_are_tuned_once_and_then_read() -> None:
    rules = {name: known(name).rule for name in ("sgd", "adam")}
    first = tune_baselines(rules, [SMALL], GRID, PLAN, Workers(1))
    second = tune_baselines(rules, [SMALL], GRID, PLAN, Workers(1))
    assert (first.origin, second.origin) == ("computed", "cached")
    assert first.outcomes == second.outcomes
    other = tune_baselines(rules, [SMALL], Protocol(GRID.lrs), PLAN, Workers(1))
    assert other.origin == "computed", "another protocol is another tuning"


def test_a_change_of_the_training_loop_makes_cached_baselines_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = {"sgd": known("sgd").rule}
    tune_baselines(rules, [SMALL], GRID, PLAN, Workers(1))
    monkeypatch.setattr(baselines_module, "_loop_hash", lambda: "changed")
    assert tune_baselines(rules, [SMALL], GRID, PLAN, Workers(1)).origin == "computed"


def test_a_damaged_cache_is_named_and_computed_again() -> None:
    rules = {"sgd": known("sgd").rule}
    cache_path().parent.mkdir(parents=True)
    cache_path().write_text("{ damaged")
    said: list[str] = []
    assert tune_baselines(rules, [SMALL], GRID, PLAN, Workers(1), say=said.append).origin == "computed"
    assert any("cannot be read" in line for line in said)


def test_a_cache_that_cannot_be_written_is_told_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str, **options: object) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    said: list[str] = []
    tune_baselines({"sgd": known("sgd").rule}, [SMALL], GRID, PLAN, Workers(1), say=said.append)
    assert any("cannot be kept" in line and "No space left" in line for line in said)
    assert list(cache_path().parent.iterdir()) == []


def test_references_are_what_their_names_say() -> None:
    rules = {name: known(name).rule for name in ("sgd", "adam", "lion")}
    tuned = tune_baselines(rules, [SMALL], GRID, PLAN, Workers(1))
    best = tuned.best_single(tuned.usable())
    assert best == tuned.oracle(SMALL.name)
    standing = tuned.standing({SMALL.name: tuned.outcomes[SMALL.name][best]})
    assert {key: s.speedup for key, s in standing.items()}["vs_oracle"] == pytest.approx(1.0)
    assert (standing["vs_adam"].speedup or 0) >= 1.0


def funnel(**options: object) -> Funnel:
    tuned = tune_baselines(
        {"sgd": known("sgd").rule, "adam": known("adam").rule}, [SMALL], GRID, PLAN, Workers(1)
    )
    short = Protocol((0.01,), n_steps=10)
    early = tune_baselines(
        {"sgd": known("sgd").rule, "adam": known("adam").rule}, [SMALL], short, PLAN, Workers(1)
    )  # fmt: skip
    rungs = [Rung((SMALL,), short, early, 0.34), Rung((SMALL,), GRID, tuned)]
    return Funnel(rungs, PLAN, Workers(1), **options)  # type: ignore[arg-type]


TEXTS = {
    1: "update = g\n",
    2: "update = g\n",
    3: "update = 2 * g\n",
    4: ADAM,
    5: "update = -g\n",
    6: "update = w\n",
    7: "update = ema(g, 0.1) + ema(g, 0.2) + ema(g, 0.3)\n",
    8: "update = sign(ema(g, 0.9))\n",
    9: "update = log(g)\n",
}


def described(number: int) -> Described:
    return describe(parse(TEXTS[number]).rule, Limits(nodes=20, states=2))


@pytest.mark.parametrize(("n_workers", "plane"), [(1, "torch"), (2, "numba")])
def test_the_funnel_refuses_what_cannot_win_and_counts_it(
    n_workers: int, plane: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ruleforge.evaluate.funnel.PROBE_BATCH", 2)
    stages = funnel()
    stages.plan, stages.workers = replace(PLAN, update_plane=plane), Workers(n_workers)
    verdicts = stages.admit({n: described(n) for n in TEXTS})
    assert {n: v.status for n, v in verdicts.items()} == {
        1: "trained", 2: "duplicate_key", 3: "duplicate_behaviour", 4: "trained", 5: "rejected",
        6: "rejected", 7: "rejected", 8: "trained", 9: "rejected",
    }  # fmt: skip
    assert verdicts[2].twin == verdicts[3].twin == 1
    assert "state slots" in verdicts[7].reason and "does not read g" in verdicts[6].reason
    assert stages.counts["proposed"] == 9 and stages.counts["distinct"] == 3
    climbed = stages.climb({n: TEXTS[n] for n in (1, 4, 8)})
    assert sorted(len(found) for found in climbed.values()) == [1, 1, 2]
    assert stages.counts["rung_0"] == 3 and stages.counts["rung_1"] == 1


def test_who_is_sure_of_it_is_trained_in_full_beside_the_best() -> None:
    stages = funnel()
    before = stages.climb({n: TEXTS[n] for n in (1, 4, 8)})
    worst = min(before, key=lambda n: (len(before[n]), before[n][-1].speedup))
    after = stages.climb({n: TEXTS[n] for n in (1, 4, 8)}, sure={worst})
    assert len(before[worst]) == 1 and len(after[worst]) == 2
    assert {n: len(found) for n, found in after.items() if n != worst} == {
        n: len(found) for n, found in before.items() if n != worst
    }


def test_without_dedupe_twins_are_trained() -> None:
    verdicts = funnel(dedupe=False).admit({n: described(n) for n in (1, 2, 3)})
    assert [v.status for v in verdicts.values()] == ["trained"] * 3


def test_remembered_candidates_are_recognised_after_a_restart() -> None:
    first = funnel()
    seen = first.admit({1: described(1)})
    second = funnel()
    second.remember(1, parse(TEXTS[1]).rule.full_key, seen[1].fingerprint)
    again = second.admit({n: described(n) for n in (2, 3)})
    assert [v.twin for v in again.values()] == [1, 1]
    assert [v.status for v in again.values()] == ["duplicate_key", "duplicate_behaviour"]


def test_candidates_that_were_stopped_early_do_not_outrank_full_ones() -> None:
    early, full = RungResult(0, {}, {}, 1.6), RungResult(2, {}, {}, 0.9)
    assert standing_value((early,), 3) < standing_value((full,), 3)
    assert standing_value((), 3) == 0.0


LRS9 = tuple(float(v) for v in np.geomspace(1e-4, 1.0, 9))


def test_refined_tuning_trains_half_of_the_grid_and_its_lanes_are_the_grid_s() -> None:
    grid = Protocol(LRS9, ("constant", "cosine"), score_seeds=(SCORE_SEED,))
    refined = replace(grid, refine=True)
    assert (grid.n_lanes, refined.n_lanes) == (19, 10)
    whole, part = (evaluate([SGD, ADAM, LION], [SMALL], p, PLAN, Workers(1)) for p in (grid, refined))
    for (full,), (found,) in zip(whole, part, strict=True):
        assert found.setting is not None and len(found.final_losses) in (7, 9)
        known = dict(zip(grid.grid(), full.final_losses, strict=True))
        assert set(found.final_losses) <= set(full.final_losses), "the same trainings, fewer of them"
        best = min(known[spec] or np.inf for spec in refined.first_wave())
        assert (known[found.setting] or np.inf) <= best
        if found.setting == full.setting:
            assert found.curves == full.curves


def test_what_refined_tuning_saves_is_counted_over_all_tuning_seeds() -> None:
    grid = Protocol(LRS9, ("constant", "cosine"), score_seeds=(SCORE_SEED,), tune_seeds=(TUNE_SEED, 1))
    tuned = tune_baselines({"sgd": known("sgd").rule}, [SMALL], grid, PLAN, Workers(1))
    rung = Rung((SMALL,), replace(grid, refine=True), tuned)
    funnel = Funnel([rung], PLAN, Workers(1))
    funnel.climb({1: SGD})
    assert funnel.counts["lane_steps"] == (2 * 9 + 1) * 30
    assert funnel.counts["lane_steps_saved"] == 2 * 9 * 30


def test_refined_tuning_does_not_depend_on_company() -> None:
    refined = Protocol(LRS9, ("constant", "cosine"), score_seeds=(SCORE_SEED,), refine=True)
    alone = evaluate([ADAM], [SMALL], refined, PLAN, Workers(1))
    many = evaluate([SGD, "update = exp(exp(g * 1000)) * g\n", ADAM], [SMALL], refined, PLAN, Workers(1))
    assert alone[0] == many[2]


@pytest.mark.parametrize(("at", "near"), [(1, (0, 1, 2)), (3, (2, 3, 4)), (7, (6, 7, 8))])
def test_the_second_wave_lies_around_the_best(at: int, near: tuple[int, ...]) -> None:
    refined = Protocol(LRS9, ("constant", "cosine"), refine=True)
    first, best = refined.first_wave(), LaneSpec(LRS9[at], "constant")
    assert [spec.lr for spec in first] == list(LRS9[1::2]) and best in first
    second = refined.second_wave(best)
    assert {spec.lr for spec in second} == {LRS9[i] for i in near}
    assert len(second) == 5 and not set(first) & set(second)


def test_where_the_first_wave_diverges_the_smallest_rate_is_tried() -> None:
    refined = Protocol((1e-2, 1e30, 1e31, 1e32), refine=True)
    outcome = evaluate([SGD], [WORKLOADS["quadratic"].resized(steps=30)], refined, PLAN, Workers(1))[0][0]
    assert outcome.setting == LaneSpec(1e-2, "constant") and outcome.n_diverged == 2


def test_a_grid_too_small_to_refine_is_trained_whole() -> None:
    small = Protocol((0.003, 0.01, 0.03), ("constant", "cosine"), refine=True)
    assert small.first_wave() == small.grid() and small.second_wave(None) == ()


def test_no_niche_takes_more_places_on_the_next_rung_than_it_may() -> None:
    texts = {n: f"update = ema(g, 0.80{n})\n" for n in (1, 2, 3, 4, 6, 7)}
    texts[8] = "update = sign(ema(g, 0.9))\n"
    stages = funnel(alike=1)
    for n, text in texts.items():
        stages.remember(n, "", probe([text])[0].fingerprint)
    assert [stages.niches.of(n) for n in texts] == ["1"] * 6 + ["8"] and stages.niches.of(99) == ""
    stages.rungs = [replace(stages.rungs[0], promote=0.5), stages.rungs[1]]
    climbed = stages.climb(texts)
    promoted = [n for n, found in climbed.items() if len(found) == 2]
    best = max((n for n in texts if n != 8), key=lambda n: climbed[n][0].speedup)
    assert sorted(promoted) == [best, 8]
    stages.alike = 0
    assert sum(len(found) == 2 for found in stages.climb(texts).values()) == 4  # round(7 / 2)
