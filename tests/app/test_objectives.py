"""Objectives: each against its definition worked out by hand; their table, their use in a search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ruleforge.app.config import parse_config
from ruleforge.app.objectives import (
    OBJECTIVES,
    Measured,
    Way,
    front_of,
    make_way,
    objectives_page,
)
from ruleforge.app.progress import QuietProgress
from ruleforge.app.ranking import rank
from ruleforge.app.run import resume_run, run_search
from ruleforge.core.known import known
from ruleforge.core.text import parse
from ruleforge.errors import RunError
from ruleforge.evaluate.baselines import with_targets
from ruleforge.evaluate.evaluator import Outcome
from ruleforge.evaluate.lanes import LaneSpec, sample_steps
from ruleforge.evaluate.latency import latency_ns
from ruleforge.evaluate.schedule_probe import largest_step
from ruleforge.store import Store
from tests.app.test_search_runs import SMALL, Interrupting, contents

pytestmark = pytest.mark.usefixtures("small_world")

N = 40
STEPS = sample_steps(N)


def outcome(
    ends: Sequence[float | None], *, start: float = 10.0, train: float | None = 0.5,
    metric: float | None = None, diverged: int = 0, name: str = "w",
    tried: Sequence[tuple[float, float | None]] = (),
) -> Outcome:  # fmt: skip
    """Curves that fall in a straight line from the start to each end; None diverges half-way."""
    curves = []
    for end in ends:
        line = [start + ((0.0 if end is None else end) - start) * t / N for t in STEPS]
        curves.append(
            tuple(None if end is None and t > N / 2 else v for t, v in zip(STEPS, line, strict=True))
        )
    return Outcome(
        name, N, LaneSpec(0.1, "constant"), 0.1, tuple(curves), tuple(loss for _, loss in tried),
        tuple(LaneSpec(lr, "constant") for lr, _ in tried), train, metric, 10, diverged,
    )  # fmt: skip


BASES = {
    "w": {"a": outcome([2.0], metric=0.8), "b": outcome([4.0], metric=0.9)},
    "v": {"a": outcome([6.0], name="v"), "b": outcome([5.0], name="v")},
}
BASELINES = with_targets(BASES, "computed")


def measured(w: Outcome, v: Outcome | None = None) -> Measured:
    outcomes = {"w": w} | ({"v": v} if v is not None else {})
    return Measured(parse("update = g\n").rule, outcomes, {"w": 0.8, "v": 1.3, "x": None}, 1.02, BASELINES)


def value(name: str, seen: Measured, missed: int = 0) -> float:
    return OBJECTIVES[name].judged(seen, missed)


def test_losses_are_counted_on_the_way_to_the_best_baseline() -> None:
    assert make_way(BASES["w"].values()) == Way(10.0, 2.0)
    seen = measured(outcome([4.0]), outcome([4.0], name="v"))
    assert value("final_loss", seen) == pytest.approx((2 / 8 + -1 / 5) / 2)
    assert value("final_loss", measured(outcome([None]))) == 1.0
    assert value("final_loss", measured(outcome([99.0]))) == 1.0
    # after a quarter: 8.0 for the best baseline on w, 8.5 for one that ends at 4
    assert value("sample_efficiency", measured(outcome([4.0]))) == pytest.approx(0.5 / 8)
    assert value("sample_efficiency", measured(outcome([None]))) == pytest.approx((7.5 - 8) / 8)
    gap = measured(outcome([4.0], train=3.0), outcome([5.0], train=7.0, name="v"))
    assert value("generalization_gap", gap) == pytest.approx((1 / 8 - 2 / 5) / 2)
    assert value("generalization_gap", measured(outcome([None], train=None))) == 1.0


def test_a_scale_and_a_shift_of_all_losses_change_nothing() -> None:
    def moved(o: Outcome) -> Outcome:
        curves = tuple(tuple(None if v is None else 3 * v - 7 for v in c) for c in o.curves)
        train = None if o.train_loss is None else 3 * o.train_loss - 7
        return Outcome(
            o.workload, o.n_steps, o.setting, o.lr, curves, o.final_losses, o.tried, train, o.metric
        )

    seen = measured(outcome([4.0, 3.0]))
    other = Measured(
        seen.rule, {"w": moved(outcome([4.0, 3.0]))}, {}, 1.0,
        with_targets({"w": {name: moved(o) for name, o in BASES["w"].items()}}, "computed"),
    )  # fmt: skip
    for name in ("final_loss", "sample_efficiency", "generalization_gap"):
        assert value(name, seen) == pytest.approx(value(name, other))


def test_the_metric_is_counted_from_the_best_baselines() -> None:
    assert value("final_metric", measured(outcome([4.0], metric=0.95))) == pytest.approx(0.05)
    assert value("final_metric", measured(outcome([None], metric=None))) == pytest.approx(-0.9)
    assert value("final_metric", measured(outcome([4.0]), outcome([4.0], name="v"))) == pytest.approx(-0.9)


def test_stability_is_what_neither_diverged_nor_spread() -> None:
    assert value("stability", measured(outcome([4.0, 4.0]))) == 1.0
    assert value("stability", measured(outcome([4.0, 4.0], diverged=3))) == pytest.approx(0.7)
    assert value("stability", measured(outcome([2.0, 6.0], diverged=3))) == pytest.approx(0.7 - 0.25)


def test_the_worst_workload_and_the_mean() -> None:
    seen = measured(outcome([4.0]))
    assert (value("consistency", seen), value("speedup", seen)) == (0.8, 1.02)


def test_lr_robustness_is_the_mean_of_the_decades_that_comparisons_show() -> None:
    tried = [(1e-3, 3.0), (1e-2, 1.0), (1e-1, 1.05), (1.0, None)]
    assert value("lr_robustness", measured(outcome([4.0], tried=tried))) == pytest.approx(1.05)
    assert value("lr_robustness", measured(outcome([4.0], tried=[(0.1, None)]))) == 0.0


@pytest.mark.parametrize(("name", "price"), [("speedup", 0.255), ("consistency", 0.2), ("final_loss", 1.25)])
def test_a_missed_rung_has_a_price(name: str, price: float) -> None:
    assert value(name, measured(outcome([4.0])), 2) == pytest.approx(price)


def test_every_price_makes_a_value_worse_or_leaves_it() -> None:
    seen = measured(outcome([4.0], metric=0.85, tried=[(0.1, 1.0), (0.2, 1.0)]))
    for name, row in OBJECTIVES.items():
        if row.needs == "clock":
            continue
        before, after = value(name, seen), value(name, seen, 1)
        worse = after < before if row.direction == "max" else after > before
        assert worse == (row.needs == "training"), name


def test_costs_are_those_of_the_rule() -> None:
    adam = Measured(known("adam").rule.rule, {}, {}, 0.0)
    cost = adam.rule.cost
    got = {name: value(name, adam) for name in ("complexity", "cost", "slots", "bytes", "energy")}
    assert got == {
        "complexity": adam.rule.nodes, "cost": cost.flops, "slots": 2, "bytes": cost.bytes,
        "energy": pytest.approx(0.9 * cost.flops + 163 * cost.bytes),
    }  # fmt: skip


def test_the_smoothness_of_an_owned_schedule() -> None:
    def rough(text: str) -> float:
        return largest_step(parse(text).rule)

    assert rough("update = g\n") == rough("update = g * lr\n") == rough("update = g / t\n") == 0.0
    assert rough("update = g * (1 - progress)\n") == pytest.approx(0.01 / 0.99)
    half = rough("update = where(progress < 0.5, g, g * 0.5)\n")
    assert half == pytest.approx(0.5)
    assert rough("update = g / (progress - 0.5)\n") == 1.0


def test_latency_is_measured_and_grows_with_work() -> None:
    short, long = (latency_ns(text, "torch") for text in ("update = g\n", str(known("adabelief").rule)))
    assert 0 < short < long < 1e6


POINTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), max_size=8)


@given(POINTS)
def test_the_front_is_what_nothing_dominates(values: list[tuple[int, ...]]) -> None:
    points = list(enumerate(values))
    front = front_of(points, ("max", "min", "min"))

    def beats(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        return a != b and a[0] >= b[0] and a[1] <= b[1] and a[2] <= b[2]

    expected = {n for n, v in points if not any(beats(u, v) for u in values)}
    assert {values[n] for n in front} == {values[n] for n in expected}
    assert len({values[n] for n in front}) == len(front)
    firsts = [values[n][0] for n in front]
    assert firsts == sorted(firsts, reverse=True)


def test_the_front_does_not_depend_on_the_order_of_points() -> None:
    points = [(0, (1.0, 2.0)), (1, (1.0, 2.0)), (2, (2.0, 3.0)), (3, (0.5, 2.0))]
    assert {tuple(front_of(order, ("max", "min"))) for order in permutations(points)} == {(2, 0)}


def test_the_page_shows_every_row(project_root: Path) -> None:
    page = (project_root / "docs" / "objectives.md").read_text(encoding="utf-8")
    assert page == objectives_page(), "regenerate it: make docs"
    assert all(f"| `{name}` |" in page for name in OBJECTIVES)


# In a search


def searched(folder: Path, progress: Any = None, **tables: Any) -> dict[str, Any]:
    search = {**SMALL["search"], "confirm": 2, "validate_every": 0}
    config = parse_config({**SMALL, "search": search, **tables})
    return run_search(config, out=folder, progress=progress or QuietProgress())


AXES = {
    name: row.direction
    for name, row in OBJECTIVES.items()
    if name not in ("final_metric", "latency", "smoothness")
}


def test_a_search_on_all_axes_at_once_goes_on_after_an_interruption(tmp_path: Path) -> None:
    searched(tmp_path / "whole", objectives=AXES)
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "cut", Interrupting(1), objectives=AXES)
    resume_run(tmp_path / "cut", progress=QuietProgress())
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    with Store.open(tmp_path / "whole", readonly=True) as store:
        trained = {c.id for c in store.candidates("trained")}
        for name in AXES:
            rows = store.fitness(objective=name)
            assert {row.candidate for row in rows} == trained
            assert all(row.value is not None and math.isfinite(row.value) for row in rows)
        ranked = rank(store)
        assert sum(each.on_front for each in ranked) > 1


def test_a_rule_beyond_a_trained_limit_is_no_parent_and_no_finalist(tmp_path: Path) -> None:
    # As good as the best of the baselines: few are.
    report = searched(tmp_path / "run", limits={"final_loss": 0.0})
    with Store.open(tmp_path / "run", readonly=True) as store:
        out = {c.id for c in store.candidates("trained") if c.reason}
        losses = {f.candidate: f.value for f in store.fitness(objective="speedup")}
        assert out and out <= set(losses)
        alive = {n for g in store.generations() for n in g.population}
        assert alive and not out & alive
        assert not out & {each["id"] for each in report["front"]}
        assert all("at most 0 is asked for" in c.reason for c in store.candidates("trained") if c.reason)
        assert not any(each.on_front for each in rank(store) if each.row.id in out)


def test_an_objective_on_a_metric_that_no_workload_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no workload reports a metric"):
        searched(tmp_path / "run", objectives={"speedup": "max", "final_metric": "max"})


def test_latency_is_an_axis_where_runs_need_not_repeat(tmp_path: Path) -> None:
    report = searched(
        tmp_path / "run", deterministic=False, objectives={"speedup": "max", "latency": "min"},
        limits={"latency_ns": 1e6},
    )  # fmt: skip
    assert report["champion"] is not None
    with Store.open(tmp_path / "run", readonly=True) as store:
        values = [row.value for row in store.fitness(objective="latency")]
        assert values and all(value and value > 0 for value in values)
