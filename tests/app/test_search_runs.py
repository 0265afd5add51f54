"""Whole searches, small: the same run whatever the number of workers, interrupted or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ruleforge.app.config import parse_config
from ruleforge.app.progress import QuietProgress
from ruleforge.app.run import resume_run, run_search
from ruleforge.app.schema import Config
from ruleforge.core.text import parse
from ruleforge.errors import RunError, StoreError, TaskError
from ruleforge.store import Store

pytestmark = pytest.mark.usefixtures("small_world")

SMALL: dict[str, Any] = {
    "grammar": "adaptive",
    "seed": 3,
    "search": {
        "population": 10,
        "generations": 3,
        "finalists": 2,
        "seed_rules": ["sgd", "adam"],
        "confirm": 4,
        "confirm_seeds": 1,
        "validate_every": 2,
        "validate_top": 2,
    },
    "training": {
        "workloads": ["teacher_student"],
        "validation_suite": "validation",
        "steps": 12,
        "batch_size": 8,
        "lrs": {"low": 1e-3, "high": 1e-1, "points": 3},
        "schedules": ["constant"],
        "seeds": 1,
        "score_seeds": 1,
        "update_plane": "torch",
        "rungs": [{"steps": 6, "lrs": 2, "workloads": 1, "promote": 0.5}],
    },
    "baselines": {"rules": ["sgd", "adam"]},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, small_world: None) -> tuple[Path, dict[str, Any]]:
    """A run from beginning to end in one process, and its report."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, run_search(config(), out=folder, workers=1, progress=QuietProgress())


def config(**search: Any) -> Config:
    return parse_config({**SMALL, "search": {**SMALL["search"], **search}})


class Interrupting(QuietProgress):
    """Ctrl-C when a generation has ended."""

    def __init__(self, after: int) -> None:
        self.after = after

    def generation(self, n: int, stats: Any) -> None:
        if n == self.after:
            raise KeyboardInterrupt


def contents(run: Path) -> tuple[str, bytes]:
    with Store.open(run, readonly=True) as store:
        return store.dump(), (run / "champion.rule").read_bytes()


Whole = tuple[Path, dict[str, Any]]


def test_two_workers_give_the_same_run(tmp_path: Path, whole: Whole) -> None:
    run_search(config(), out=tmp_path / "two", workers=2, progress=QuietProgress())
    assert contents(whole[0]) == contents(tmp_path / "two")


@pytest.mark.parametrize("after", [0, 2])
def test_an_interrupted_run_goes_on_to_the_same_end(tmp_path: Path, whole: Whole, after: int) -> None:
    cut = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        run_search(config(), out=cut, workers=1, progress=Interrupting(after))
    assert not (cut / "champion.rule").exists()
    resume_run(cut, workers=1, progress=QuietProgress())
    assert contents(whole[0]) == contents(cut)
    with pytest.raises(StoreError, match="finished"):
        resume_run(cut, workers=1, progress=QuietProgress())


def test_a_longer_run_begins_with_the_shorter_one(tmp_path: Path, whole: Whole) -> None:
    run_search(config(generations=1), out=tmp_path / "short", workers=1, progress=QuietProgress())
    with (
        Store.open(tmp_path / "short", readonly=True) as short,
        Store.open(whole[0], readonly=True) as long,
    ):
        assert short.candidates() == [c for c in long.candidates() if c.generation == 0]
        assert short.generations() == long.generations()[:1]


def test_another_seed_is_another_search(tmp_path: Path, whole: Whole) -> None:
    other = parse_config({**SMALL, "seed": 4})
    run_search(other, out=tmp_path / "b", workers=1, progress=QuietProgress())
    assert contents(whole[0])[0] != contents(tmp_path / "b")[0]


def test_the_report_says_what_was_found(whole: Whole) -> None:
    folder, report = whole
    assert json.loads(json.dumps(report, allow_nan=False))
    champion = report["champion"]
    assert set(champion) >= {"id", "text", "nodes", "states", "known_as", "speedup", "simplified"}
    assert set(champion["speedup"]) == {"search", "validation"}
    assert set(champion["speedup"]["search"]) == {"vs_best_single", "vs_oracle", "vs_adam"}
    assert [row["name"] for row in report["baselines"]] and report["carries_over"]
    assert "the one workload that was searched on" in report["gap"]["words"]
    assert report["front"][0]["workloads"]["teacher_student"]["vs_oracle"] > 0
    funnel = report["funnel"]
    assert funnel["proposed"] >= funnel["unique"] >= funnel["distinct"] == funnel["rung_0"] >= funnel["full"]
    assert parse((folder / "champion.rule").read_text()).rule.nodes <= champion["nodes"]


def test_the_run_keeps_a_log_of_its_generations(whole: Whole) -> None:
    lines = (whole[0] / "log.txt").read_text(encoding="utf-8").splitlines()
    said = [line.partition(" ")[2] for line in lines]
    assert [line.split(":")[0] for line in said if line.startswith("generation ")] == [
        "generation 1",
        "generation 2",
        "generation 3",
    ]
    assert any(line.startswith("final: ") for line in said)


def test_every_candidate_has_a_place_in_the_store(whole: Whole) -> None:
    with Store.open(whole[0], readonly=True) as store:
        trained = store.candidates(status="trained")
        assert {row.candidate for row in store.evaluations(rung=0)} == {c.id for c in trained}
        assert {row.workload for row in store.evaluations(rung=1)} == {"teacher_student"}
        assert not store.check()


LATE = """
import torch
from ruleforge.tasks import Task

def loss(params, batch, key):
    {fault}
    return ((batch[0] @ params["w"]) ** 2).mean() * scale

def factory():
    return Task(
        "late",
        lambda generator: {{"w": torch.randn(8, generator=generator)}},
        lambda generator: (torch.randn(8, 8, generator=generator),),
        loss,
        lambda params: {{"loss": (params["w"] ** 2).mean()}},
        12,
    )
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_that_raises_in_training_is_named_with_its_line(tmp_path: Path, workers: int) -> None:
    fault = "scale = 1.0 if key < 4 else {}['row 17']"
    (tmp_path / "late.py").write_text(LATE.format(fault=fault))
    training = {**SMALL["training"], "workloads": ["late.py:factory"], "batch_size": None}
    late = parse_config({**SMALL, "training": _without_none(training)}, folder=tmp_path)
    with pytest.raises(TaskError, match="KeyError: 'row 17'") as caught:
        run_search(late, out=tmp_path / "run", workers=workers, progress=QuietProgress())
    assert caught.value.file == str(tmp_path / "late.py")
    assert (caught.value.line, caught.value.exit_code) == (6, 1)


def test_a_search_on_which_no_baseline_learns_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(LATE.format(fault="scale = 1.0 if key < 4 else float('nan')"))
    training = {**SMALL["training"], "workloads": ["late.py:factory"], "batch_size": None}
    late = parse_config({**SMALL, "training": _without_none(training)}, folder=tmp_path)
    with pytest.raises(RunError, match="no baseline learns anything"):
        run_search(late, out=tmp_path / "run", workers=1, progress=QuietProgress())
    with Store.open(tmp_path / "run", readonly=True) as store:
        assert store.check() == []


def _without_none(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value is not None}


def test_random_search_runs_on_the_same_rails(tmp_path: Path) -> None:
    report = run_search(
        config(strategy="random", generations=1), out=tmp_path / "run", workers=1, progress=QuietProgress()
    )
    assert report["champion"] is not None


def test_a_search_with_every_option_goes_on_to_the_same_end(tmp_path: Path) -> None:
    options = config(
        strategy="islands", islands=2, migrate_every=1, selection="epsilon_lexicase", tune_top=2,
        tune_moves=1, restarts=2, rescore=2, rescore_seeds=1, novelty=True, validate_every=0, confirm=2,
    )  # fmt: skip
    run_search(options, out=tmp_path / "whole", workers=1, progress=QuietProgress())
    for after in (0, 1):
        cut = tmp_path / f"cut{after}"
        with pytest.raises(KeyboardInterrupt):
            run_search(options, out=cut, workers=1, progress=Interrupting(after))
        resume_run(cut, workers=1, progress=QuietProgress())
        assert contents(cut) == contents(tmp_path / "whole")
    with Store.open(tmp_path / "whole", readonly=True) as store:
        more = {row.candidate: row.value for row in store.fitness(objective="speedup_rescored")}
        told = {row.candidate: row.value for row in store.fitness(rung=1, objective="speedup_vs_oracle")}
        assert 2 <= len(more) < len(told) and all(told[n] == value for n, value in more.items())


def test_a_search_ends_by_the_lane_steps_that_it_spent(tmp_path: Path) -> None:
    ended = config(generations=9, lane_steps=1, validate_every=0, confirm=0)
    report = run_search(ended, out=tmp_path / "run", workers=1, progress=QuietProgress())
    assert report["generations"] == 1 and report["funnel"]["lane_steps"] >= 1


def test_a_search_without_the_full_rung_trains_in_full_at_its_end(tmp_path: Path) -> None:
    """Its highest rung may leave workloads out, which second look and final do not."""
    training = {**SMALL["training"], "workloads": ["teacher_student", "hills_radial"], "full_rung": False}
    search = {**SMALL["search"], "rescore": 2, "rescore_seeds": 1}
    text = {**SMALL, "training": training, "search": search, "limits": {"scale_free": True}}
    report = run_search(parse_config(text), out=tmp_path / "run", workers=1, progress=QuietProgress())
    assert list(report["funnel"])[:4] == ["proposed", "unique", "distinct", "rung_0"]
    assert "full" not in report["funnel"]
    assert {"teacher_student", "hills_radial"} < set(report["champion"]["workloads"])
    with Store.open(tmp_path / "run") as store:
        rows = store.evaluations(rung=0)
        assert {(row.workload, row.steps) for row in rows} == {("teacher_student", 6)}
        second = store.results()["second_look"]
    assert {"teacher_student", "hills_radial"} < set(second[0]["workloads"])
