"""Looks at the validation suite: what counts as degradation, what is done then, and that it is repeated."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ruleforge.app import watching
from ruleforge.app.progress import QuietProgress
from ruleforge.app.run import resume_run, run_search
from ruleforge.app.setup import CONFIRM_SEED, RESCORE_SEED
from ruleforge.app.watching import WATCH_SEED, Look, best_look, is_degrading
from ruleforge.evaluate.evaluator import COMPARE_SEED, FINAL_SEED, SCORE_SEED, TUNE_SEED
from ruleforge.simplify.paired import PAIRED_SEED
from ruleforge.store import Store
from tests.app.test_search_runs import Interrupting, config, contents

pytestmark = pytest.mark.usefixtures("small_world")


def look(search: float, *validation: float, action: str = "", generation: int = 0) -> Look:
    return Look(
        generation, (1,), math.log(search), {f"w{k}": math.log(v) for k, v in enumerate(validation)}, action
    )


GOOD = look(1.0, 1.00, 1.00, 1.00, 1.00)
WORSE = look(1.1, 0.90, 0.92, 0.89, 0.91)


def test_two_looks_in_a_row_that_agree_are_degradation() -> None:
    assert is_degrading([GOOD, WORSE, WORSE])
    assert not is_degrading([GOOD, WORSE])
    assert not is_degrading([GOOD, WORSE, GOOD])
    assert not is_degrading([WORSE, WORSE, WORSE])


def test_no_degradation_where_the_searchs_own_fitness_did_not_rise() -> None:
    fallen = look(0.9, 0.90, 0.92, 0.89, 0.91)
    assert not is_degrading([GOOD, fallen, fallen])
    assert not is_degrading([GOOD, WORSE, fallen])


def test_a_fall_on_one_workload_that_the_others_do_not_share_is_none() -> None:
    odd = look(1.1, 0.60, 1.02, 1.01, 1.03)
    assert not is_degrading([GOOD, odd, odd])


def test_one_workload_asks_for_ten_percent() -> None:
    assert not is_degrading([look(1.0, 1.0), look(1.1, 0.95), look(1.1, 0.95)])
    assert is_degrading([look(1.0, 1.0), look(1.1, 0.85), look(1.1, 0.85)])
    assert not is_degrading([look(1.0), look(1.1), look(1.2)])


def test_the_best_look_counts_not_the_last() -> None:
    rising = [look(1.0 + k / 10, 0.8 + k / 10, 0.8 + k / 10, generation=k) for k in range(3)]
    assert best_look(rising).generation == 2
    low = look(2.0, 0.9, 0.9)
    assert is_degrading([*rising, low, low]) is True  # below the third, though not below the second


def test_noise_alone_is_seldom_called_degradation() -> None:
    """Ten looks at rules that are equally good on validation, 10 % noise a workload, while fitness rises."""
    rng = np.random.default_rng(0)
    false, n_runs = 0, 400
    for _ in range(n_runs):
        looks = []
        for k in range(10):
            looks.append(look(1.0 + k / 100, *np.exp(0.1 * rng.standard_normal(5))))
            if is_degrading(looks):
                false += 1
                break
    assert false / n_runs < 0.25
    # and a real loss of 15 % is seen within four looks, nearly always
    seen = 0
    for _ in range(n_runs):
        start = [look(1.0, *np.exp(0.1 * rng.standard_normal(5))) for _ in range(3)]
        bad = [look(1.1 + k / 10, *np.exp(-0.16 + 0.1 * rng.standard_normal(5))) for k in range(4)]
        seen += any(is_degrading([*start, *bad[: k + 1]]) for k in range(4))
    assert seen / n_runs > 0.7


def test_records_are_read_back_exactly() -> None:
    odd = look(1.1, 0.1 + 0.2, 1 / 3, action="restart", generation=7)
    assert Look.from_record(odd.record()) == odd


def test_no_two_purposes_share_a_seed() -> None:
    starts = [
        TUNE_SEED,
        SCORE_SEED,
        FINAL_SEED,
        COMPARE_SEED,
        PAIRED_SEED,
        WATCH_SEED,
        CONFIRM_SEED,
        RESCORE_SEED,
    ]
    assert sorted(starts) == starts and min(np.diff(starts)) >= 1000  # as many as a config may ask for


def looked(**search: Any) -> Any:
    return config(validate_every=1, generations=4, **search)


def looks_of(run: Path) -> list[dict[str, Any]]:
    with Store.open(run, readonly=True) as store:
        return [g.best["look"] for g in store.generations() if g.best and "look" in g.best]


@pytest.fixture
def alarmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second look calls it degradation."""
    monkeypatch.setattr(watching, "is_degrading", lambda looks: len(looks) >= 2)


@pytest.mark.parametrize(
    "policy",
    [
        "restart",
        "stop",
        pytest.param("reparameterize", marks=pytest.mark.slow),
        pytest.param("ignore", marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("alarmed")
def test_what_is_done_is_done_again_after_an_interruption(tmp_path: Path, policy: str) -> None:
    whole = looked(on_degradation=policy)
    report = run_search(whole, out=tmp_path / "whole", progress=QuietProgress())
    for after in (0, 1, 2):
        if policy == "stop" and after == 2:
            continue
        with pytest.raises(KeyboardInterrupt):
            run_search(whole, out=tmp_path / f"cut{after}", progress=Interrupting(after))
        resume_run(tmp_path / f"cut{after}", progress=QuietProgress())
        assert contents(tmp_path / f"cut{after}") == contents(tmp_path / "whole")
    actions = [each["action"] for each in looks_of(tmp_path / "whole")]
    expected = {
        "restart": ["", "restart", "", "restart"],
        "reparameterize": ["", "reparameterize", "", "reparameterize"],
        "stop": ["", "stop"],
        "ignore": ["", "", "", ""],
    }[policy]
    assert actions == expected
    assert [each["action"] for each in report["watch"]["looks"]] == expected
    with Store.open(tmp_path / "whole", readonly=True) as store:
        third = [c for c in store.candidates() if c.generation == 2]
        parents = {p for c in third for p in store.parents(c.id)}
        best = set(looks_of(tmp_path / "whole")[0]["leaders"])
        if policy == "restart":
            assert parents and parents <= best
            assert len(store.generations()[1].population) <= len(best)
        if policy == "reparameterize":
            moved = [c for c in third if c.origin == "constant"]
            assert len(moved) >= 3 and any(set(store.parents(c.id)) <= best for c in moved)
        if policy == "stop":
            assert len(store.generations()) == 2 and not third


def test_a_look_trains_a_rule_once_and_is_stored(tmp_path: Path) -> None:
    run_search(looked(), out=tmp_path / "run", progress=QuietProgress())
    with Store.open(tmp_path / "run", readonly=True) as store:
        rows = store.evaluations(rung=2)
        leaders = {n for each in looks_of(tmp_path / "run") for n in each["leaders"]}
        assert {row.candidate for row in rows} == leaders
        assert {row.workload for row in rows}.isdisjoint({"teacher_student"})
        second = store.results()["second_look"]
        assert [each["merit"] for each in second] == sorted((e["merit"] for e in second), reverse=True)
        final = store.results()["final"]
    assert {each["id"] for each in final["front"]} <= {each["id"] for each in second}


def test_no_second_look_and_no_watch_are_possible(tmp_path: Path) -> None:
    report = run_search(config(confirm=0, validate_every=0), out=tmp_path / "run", progress=QuietProgress())
    assert report["champion"]["second_look"] is None and "watch" not in report
    assert looks_of(tmp_path / "run") == []
