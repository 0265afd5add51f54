"""Comparisons: what is reported of outcomes whose answers are known, bad workloads, small real ones."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ruleforge.app.compare import compare_rules
from ruleforge.app.comparison_report import notes, print_comparison
from ruleforge.app.profiles import FACTORS, performance_profiles, profile_svg
from ruleforge.app.progress import QuietProgress
from ruleforge.app.provenance import leave_one_out, left_out_in_words, run_record
from ruleforge.app.sensitivity import in_words
from ruleforge.app.standings import Compared, adjust_over_rules, pairs, reference_rows, standing_of
from ruleforge.app.verdicts import carries_over, gap_in_words
from ruleforge.core.known import known
from ruleforge.core.text import RuleText, parse
from ruleforge.errors import InputError
from ruleforge.evaluate.baselines import Baselines, with_targets
from ruleforge.evaluate.evaluator import Outcome
from ruleforge.evaluate.hypers import settings_of
from ruleforge.evaluate.lanes import LaneSpec, sample_steps

from .conftest import make_run

N_STEPS = 100
STEPS = np.array(sample_steps(N_STEPS), dtype=float)
PLACES = ("a", "b", "c", "d")
RULE, SLOW = parse("update = sign(g)\n"), known("sgd").rule
NOISE = np.array([0.0, 0.03, -0.02])  # so that seeds differ; the slower one misses the last target


def outcome(workload: str, rates: np.ndarray) -> Outcome:
    """Losses that fall in straight lines from 10, one a seed."""
    curves = tuple(tuple(float(v) for v in 10.0 - rate * STEPS) for rate in rates)
    tried = tuple(LaneSpec(lr, "constant") for lr in (0.01, 0.1, 1.0))
    return Outcome(
        workload, N_STEPS, tried[1], 0.1, curves, (2.0, 1.0, None), tried, n_lanes=6, n_diverged=1
    )  # fmt: skip


def outcomes(
    rate: float, spread: Mapping[str, float] | None = None, noise: np.ndarray = NOISE
) -> dict[str, Outcome]:
    """`rate` is a speed: twice the rate, half the steps. `spread` multiplies it on some workloads."""
    return {w: outcome(w, rate * (spread or {}).get(w, 1.0) * np.exp(noise)) for w in PLACES}


def baselines(**rates: float) -> Baselines:
    rules = {name: outcomes(rate) for name, rate in rates.items()}
    return with_targets({w: {name: rules[name][w] for name in rules} for w in PLACES}, "made")


TUNED = baselines(sgd=0.04, adam=0.05, momentum=0.02)


def compared(rate: float, spread: Mapping[str, float] | None = None, **step_us: float) -> dict[str, Any]:
    times = {w: step_us.get("mine", 1.0) for w in PLACES}
    theirs = {w: step_us.get("theirs", 1.0) for w in PLACES}
    mine = Compared("mine", RULE, outcomes(rate, spread), times)
    return standing_of(mine, TUNED, "adam", known("adam").rule, theirs)


def test_a_rule_that_is_faster_everywhere_is_better_and_wins_everywhere() -> None:
    record = compared(0.1, {"a": 1.01, "b": 0.99})
    overall = record["overall"]
    assert overall["speedup"] == pytest.approx(2.0, rel=0.05)
    assert overall["verdict"] == "better on 4 workloads" and overall["words"] == "better"
    assert (overall["wins"], overall["ties"], overall["losses"]) == (4, 0, 0)
    assert overall["worst_on"] == "b" and overall["worst"] == pytest.approx(1.98, rel=0.05)
    assert overall["vs_oracle"]["speedup"] == pytest.approx(2.0, rel=0.05)
    row = record["workloads"][0]
    assert row["steps"] == pytest.approx(row["reference_steps"] / 2, rel=0.05)
    assert row["lr_decades"] == pytest.approx(0.1) and row["diverged_share"] == pytest.approx(1 / 6)


def test_wins_and_losses_cancel_to_not_distinguishable() -> None:
    overall = compared(0.05, {"a": 2.0, "b": 1.6, "c": 0.55, "d": 0.6})["overall"]
    assert overall["words"] == "not distinguishable"
    assert (overall["wins"], overall["losses"]) == (2, 2)


def test_p_values_are_corrected_for_the_number_of_workloads() -> None:
    noisy = outcomes(0.06, {"a": 1.5, "c": 0.9}, np.array([0.06, -0.05, 0.02]))
    mine = Compared("mine", RULE, noisy, dict.fromkeys(PLACES, 1.0))
    record = standing_of(mine, TUNED, "adam", known("adam").rule, dict.fromkeys(PLACES, 1.0))
    rows = sorted(record["workloads"], key=lambda row: row["p"])
    assert 0.001 < rows[0]["p"] < 0.05
    assert rows[0]["p_holm"] == pytest.approx(4 * rows[0]["p"])
    assert all(row["result"] == ("win" if row["p_holm"] <= 0.05 else "tie") for row in rows)


def test_a_rule_that_costs_more_per_step_pays_for_it() -> None:
    record = compared(0.1, mine=3.0, theirs=1.0)
    equal = record["overall"]["equal_time"]
    assert equal["step_time_ratio"] == pytest.approx(3.0)
    assert equal["speedup"] == pytest.approx(record["overall"]["speedup"] / 3)
    assert (record["overall"]["words"], equal["verdict"]) == ("better", "worse on 4 workloads")
    assert record["workloads"][0]["equal_time_speedup"] == pytest.approx(2 / 3, rel=0.05)


def test_the_same_rule_is_called_so_without_any_noise() -> None:
    adam = known("adam").rule
    mine = Compared("mine", adam, outcomes(0.05), {w: 1.3 for w in PLACES})
    overall = standing_of(mine, TUNED, "adam", adam, {w: 1.0 for w in PLACES})["overall"]
    assert overall["ci"] == [1.0, 1.0] and overall["equal_time"]["ci"] == [1.0, 1.0]
    assert overall["verdict"].endswith("it is the same rule as adam")


def test_the_verdict_under_other_definitions_and_without_each_workload() -> None:
    steady = compared(0.1, {"a": 1.01, "b": 0.99})
    assert [row["verdict"] for row in steady["sensitivity"]] == ["better"] * 6
    assert [row["without"] for row in steady["leave_one_out"]] == list(PLACES)
    line = in_words("better", steady["leave_one_out"], "without", "choices", "without ")
    assert line.startswith("the same, better, under all 4 choices (×")
    fragile = compared(0.0515, {"a": 1.05, "b": 0.9})
    words = {row["without"]: row["verdict"] for row in fragile["leave_one_out"]}
    assert fragile["overall"]["words"] == "not distinguishable" and words["b"] == "better"
    line = in_words("not distinguishable", fragile["leave_one_out"], "without", "choices", "without ")
    assert "under 3 of 4 choices; without b it is better (×" in line


def test_of_several_rules_overall_p_values_are_corrected() -> None:
    records = [compared(0.1, {"a": 1.01}), compared(0.051, {"a": 1.1, "b": 0.95})]
    adjust_over_rules(records)
    first, second = (record["overall"] for record in records)
    assert first["p_holm"] == pytest.approx(2 * first["p"])
    assert second["p_holm"] >= second["p"]


def test_pairs_are_compared_over_the_same_targets() -> None:
    (row,) = pairs({"x": outcomes(0.1), "y": outcomes(0.05)}, TUNED)
    assert (row["rule"], row["over"], row["verdict"]) == ("x", "y", "better on 4 workloads")
    assert row["speedup"] == pytest.approx(2.0, rel=0.05)


def test_the_oracle_is_shown_beside_the_reference() -> None:
    rows = {row["name"]: row for row in reference_rows(TUNED, "sgd")}
    assert rows["oracle"]["speedup"]["speedup"] == pytest.approx(1.25, rel=0.1)
    assert rows["sgd"]["speedup"]["ci"] == [1.0, 1.0]
    assert rows["oracle"]["rules"] == dict.fromkeys(PLACES, "adam")


def test_profiles_count_workloads_within_a_factor_of_the_best() -> None:
    """Literal: ratio to the least mean log steps of each workload, counted one by one."""
    mine = outcomes(0.05, {"a": 2.0, "b": 0.7})
    record = performance_profiles({"mine": mine}, TUNED, ["sgd", "adam"])
    rows = {row["name"]: row for row in record["rules"]}
    assert rows["mine"]["ratio"]["a"] == 1.0 and rows["adam"]["ratio"]["b"] == 1.0
    assert rows["adam"]["ratio"]["a"] == pytest.approx(2.0, rel=0.05)
    for row in rows.values():
        for factor, share in zip(FACTORS, row["share"], strict=True):
            assert share == sum(r <= factor * (1 + 1e-9) for r in row["ratio"].values()) / 4
    assert rows["mine"]["compared"] and not rows["sgd"]["compared"]
    picture = profile_svg(record, "mine <on> a suite")
    assert picture.count('<path d="M52.0 296.0') == 3 and "mine &lt;on&gt;" in picture


def test_why_a_workload_is_left_out() -> None:
    lost = Outcome("w", N_STEPS, None, None, ())
    flat = Outcome("w", N_STEPS, LaneSpec(0.1, "constant"), 0.1, ((1.0,) * len(STEPS),))
    uneven = Outcome(
        "w", N_STEPS, LaneSpec(0.1, "constant"), 0.1, (tuple(9 - 0.01 * STEPS), (1.0,) * len(STEPS))
    )
    said = [with_targets({"w": {"sgd": o}}, "made").why_left_out("w") for o in (lost, flat, uneven)]
    assert "diverges" in said[0] and "below the loss it starts from" in said[1] and "some seed" in said[2]


# A run's own figures


def summary(speedup: float, low: float, high: float, n: int = 6) -> dict[str, Any]:
    return {"speedup": speedup, "ci": [low, high], "n_workloads": n}


@pytest.mark.parametrize(
    ("fresh", "n", "words"),
    [
        (
            summary(1.2, 1.05, 1.4),
            6,
            "The win carries over to validation: ×1.30 [1.10, 1.50] on the search suite",
        ),
        (summary(1.1, 0.9, 1.3), 6, "It may carry over, but the interval on validation includes ×1.00"),
        (summary(0.98, 0.8, 1.2), 6, "That the win carries over to validation is not shown"),
        (summary(0.8, 0.7, 0.9), 6, "The win does NOT carry over to validation"),
        (summary(0.8, 0.7, 0.9), 1, "It is fitted to that one workload: search on several"),
        (None, 6, "There is nothing on validation to say whether it carries over"),
    ],
)
def test_whether_a_win_carries_over_is_said_in_words(fresh: Any, n: int, words: str) -> None:
    assert words in carries_over({"search": summary(1.3, 1.1, 1.5, n), "validation": fresh}, "validation")


def test_what_is_left_of_a_gain_is_told() -> None:
    left = carries_over({"search": summary(1.44, 1.1, 1.8), "held_out": summary(1.2, 1.1, 1.3)}, "held_out")
    assert "50% of the gain is left" in left and "the held_out suite" in left
    unsure = carries_over(
        {"search": summary(1.03, 0.9, 1.2), "validation": summary(1.01, 0.9, 1.1)}, "validation"
    )
    assert "It may carry over" in unsure and "of the gain" not in unsure  # of none that was shown
    none = carries_over(
        {"search": summary(0.9, 0.8, 1.1), "validation": summary(1.2, 1.1, 1.3)}, "validation"
    )
    assert none.startswith("It does not beat")


def test_overfitting_is_called_so() -> None:
    fitted = gap_in_words(1.3, 0.9, 185, (1.45, 0.59), is_champion=False, n_searched=1)
    assert "×1.30 on the one workload that was searched on, ×0.90 on validation" in fitted
    assert "rule 185, stands at ×1.45 and on validation at ×0.59, which is overfitting: chosen by" in fitted
    assert "can hardly do otherwise" in fitted
    sound = gap_in_words(1.3, 1.2, 4, (1.45, 1.1), is_champion=True, n_searched=6)
    assert "overfitting" not in sound and "one workload" not in sound


class Evaluated:
    """Stands in for a store: two rules trained in full on three workloads, one that was stopped."""

    def fitness(self, objective: str) -> list[Any]:
        return [Row(0, 1), Row(1, 1), Row(2, 0)]

    def evaluations(self, rung: int) -> list[Any]:
        assert rung == 1
        values = {0: (2.0, 1.0, 1.0), 1: (1.0, 1.2, 1.1)}
        return [
            Row(number, 1, workload, {"vs_oracle": value})
            for number, row in values.items()
            for workload, value in zip("xyz", row, strict=True)
        ]


class Row:
    def __init__(self, candidate: int, rung: int, workload: str = "", speedup: Any = None) -> None:
        self.candidate, self.rung, self.workload, self.speedup = candidate, rung, workload, speedup


def test_a_champion_that_lives_off_one_workload_is_seen() -> None:
    finalists = [
        {
            "id": 0,
            "workloads": {w: {"vs_oracle": v} for w, v in zip("xyzv", (2.0, 1.0, 1.0, 1.0), strict=True)},
        },
        {
            "id": 1,
            "workloads": {w: {"vs_oracle": v} for w, v in zip("xyzv", (1.0, 1.2, 1.1, 1.0), strict=True)},
        },
    ]
    rows = leave_one_out(Evaluated(), 0, finalists)  # type: ignore[arg-type]
    assert [(r["without"], r["rank"], r["best"], r["chosen"]) for r in rows] == [
        ("x", 2, 1, 1), ("y", 1, 0, 0), ("z", 1, 0, 0),
    ]  # fmt: skip
    line = left_out_in_words(0, rows)
    assert "of 2 rules of the highest rung: 2 without x, 1 without y" in line
    assert "choose it again 2 times of 3, and rule 1 without x" in line


def test_a_runs_own_figures_stand_beside_the_fresh_ones(finished_run: Path) -> None:
    fresh = {**summary(1.1, 1.02, 1.2), "verdict": "better on 6 workloads"}
    record = run_record(finished_run, fresh, "held_out")
    assert record is not None and list(record["standing"]) == ["search", "validation", "held_out"]
    assert "The win carries over to the held_out suite: ×1.30" in record["carries_over"]
    assert "×0.90 [0.80, 1.00] on validation" in record["carries_over"]
    again = run_record(finished_run, fresh, "validation")
    assert again is not None and list(again["standing"])[-1] == "validation, again"
    named = run_record(finished_run, fresh, None)
    assert named is not None and "to the named workloads" in named["carries_over"]
    assert run_record(make_run(Path("results") / "second", finished=False), fresh, "held_out") is None


# Small real ones

TASKS = """
import torch
from ruleforge.tasks import Task

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
Y = X @ torch.tensor([1.0, -2.0, 0.5])

def plain(p, rows):
    return ((X[rows] @ p["w"] - Y[rows]) ** 2).mean()

def make(name, loss, evaluate=None):
    every = torch.arange(40)
    return Task(
        name,
        lambda generator: {"w": torch.randn(3, generator=generator)},
        lambda generator: (torch.randint(40, (8,), generator=generator),),
        loss,
        evaluate or (lambda p: {"loss": plain(p, every)}),
        16,
    )

def fine():
    return make("fine", lambda p, b, key: plain(p, b[0]))

def nan_later():
    return make("nan_later", lambda p, b, key: plain(p, b[0]) + torch.log(torch.as_tensor(1 - key * 0.3)))

def flat():
    return make("flat", lambda p, b, key: plain(p, b[0]), lambda p: {"loss": 0 * p["w"].sum() + 1.0})

def nan_metric():
    def evaluate(p):
        return {"loss": plain(p, torch.arange(40)), "accuracy": p["w"].sum() * float("nan")}
    return make("nan_metric", lambda p, b, key: plain(p, b[0]), evaluate)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    found = tmp_path_factory.mktemp("tasks")
    (found / "odd.py").write_text(TASKS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(found / "cache"))
        yield found


def small(folder: Path, *names: str, **options: Any) -> dict[str, Any]:
    rules: dict[str, RuleText] = options.pop("rules", {"mine": RULE})
    against = {name: known(name).rule for name in ("sgd", "adam")}
    return compare_rules(
        rules, against, workloads=[f"odd.py:{name}" for name in names], folder=folder,
        backend="torch", progress=QuietProgress(), **options,
    )  # fmt: skip


def test_workloads_that_nobody_can_train_are_named_and_left_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = small(folder, "fine", "nan_later", "flat", "nan_metric")
    assert record["left_out"] == {
        "odd.py:nan_later": "every baseline diverges at every learning rate",
        "odd.py:flat": "no baseline gets below the loss it starts from",
    }
    assert [row["name"] for row in record["workloads"]] == ["odd.py:fine", "odd.py:nan_metric"]
    assert record["workloads"][1]["metric"] is None
    assert any("two workloads" in warning for warning in record["warnings"])
    json.dumps(record, allow_nan=False)
    print_comparison(record)
    shown = capsys.readouterr()
    assert "left out: odd.py:flat" in shown.err and "population of workloads like these" in shown.out


def test_hyperparameters_are_tuned_for_rules_and_references_alike(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = {"momentum": known("momentum").rule}
    plain = small(folder, "fine", rules=rules)
    tuned = small(folder, "fine", rules=rules, hyper_settings=2)
    (before,), (after,) = plain["workloads"], tuned["workloads"]
    settings = {None, *settings_of(str(known("momentum").rule), 2)}
    assert before["tuned_hypers"] is None and after["tuned_hypers"] in settings
    assert after["lanes"] > 2 * before["lanes"] and after["reference_loss"] <= before["reference_loss"] * 1.5
    print_comparison(tuned)
    assert "2 other settings of the hyperparameters tuned for all" in capsys.readouterr().out


def test_one_workload_says_nothing_about_transfer(folder: Path) -> None:
    record = small(folder, "fine")
    assert record["overall"]["ci_over"] == "seeds"
    assert record["overall"]["verdict"].endswith("on 1 workload, over seeds alone")
    assert any("nothing can be said about transfer" in warning for warning in record["warnings"])
    assert not any("population" in line for line in notes(record, record["rules"]))


def test_one_seed_on_one_workload_has_no_verdict(folder: Path) -> None:
    record = small(folder, "fine", seeds=1)
    assert record["overall"]["verdict"] == "no verdict on 1 workload: one seed shows no spread"
    assert record["workloads"][0]["result"] is None


def test_nothing_to_compare_on_is_an_error_with_the_reasons(folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        small(folder, "nan_later")
    assert "odd.py:nan_later: every baseline diverges" in str(caught.value)


def test_two_names_of_one_rule_are_told(folder: Path) -> None:
    adam = known("adam").rule
    record = small(folder, "fine", "nan_metric", rules={"one": adam, "two": parse(str(adam)), "sgd": SLOW})
    assert "one and two are the same rule" in record["warnings"]
    row = next(row for row in record["pairs"] if (row["rule"], row["over"]) == ("one", "two"))
    assert row["speedup"] == 1.0 and row["ci"] == [1.0, 1.0]
    same = next(rule for rule in record["rules"] if rule["same_as"])
    assert same["overall"]["ci"] == [1.0, 1.0] and "the same rule as" in same["overall"]["verdict"]
    assert all(math.isfinite(place["step_us"]) for rule in record["rules"] for place in rule["workloads"])
