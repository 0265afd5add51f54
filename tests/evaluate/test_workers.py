"""Whatever becomes of a worker: the innocent get their results, the culprit is found and set aside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ruleforge.errors import InputError, RunError
from ruleforge.evaluate.blame import halves, joined
from ruleforge.evaluate.lanes import ChunkJob, ChunkResult, sample_steps
from ruleforge.evaluate.workers import Workers
from tests.evaluate.faulty import (
    LANES,
    chunk,
    double,
    lane_value,
    refuse_all,
    rule,
    texts_with_marks,
    train,
)

JOBS = [chunk(*(rule(4 * k + i) for i in range(4))) for k in range(6)]


@pytest.fixture
def pool() -> Iterator[Workers]:
    with Workers(2, limit_s=60) as workers:
        yield workers


def expected(job: ChunkJob) -> list[float]:
    return [lane_value(r.text, spec) for r in job.rules for spec in r.lanes]


def values(result: ChunkResult) -> list[float]:
    assert result.curves.shape[1] == len(sample_steps(8))
    return [float(v) for v in result.metrics]


@pytest.mark.parametrize(("n", "parallel"), [(1, "loky"), (2, "loky"), (3, "threads")])
def test_results_come_in_the_order_of_the_jobs(n: int, parallel: str) -> None:
    told: list[tuple[int, int]] = []
    with Workers(n, parallel) as workers:
        results = workers.map(train, JOBS, lambda k, total: told.append((k, total)))
        assert workers.map(double, list(range(20))) == [2 * k for k in range(20)]
        assert workers.map(double, []) == []
    assert [values(r) for r in results] == [expected(job) for job in JOBS]
    assert told == [(k + 1, 6) for k in range(6)]


def test_a_worker_killed_from_outside_costs_one_more_try(pool: Workers, tmp_path: Path) -> None:
    said: list[str] = []
    pool.say = said.append
    jobs = [*JOBS, chunk(rule(90), rule(91, f"kill-once {tmp_path / 'flag'}"))]
    results = pool.map(train, jobs)
    assert (tmp_path / "flag").exists()
    assert [values(r) for r in results] == [expected(job) for job in jobs]
    assert pool.set_aside == []
    assert any("SIGKILL" in line and "tried again" in line for line in said)


def test_a_rule_that_always_kills_its_worker_is_found_and_set_aside(pool: Workers) -> None:
    job = chunk(rule(90), rule(91), rule(92, "kill"), rule(93), rule(94))
    results = pool.map(train, [*JOBS, job])
    assert [values(r) for r in results[:-1]] == [expected(job) for job in JOBS]
    found, wanted = values(results[-1]), expected(job)
    assert found[:4] == wanted[:4] and found[6:] == wanted[6:]
    assert np.isnan(found[4:6]).all()
    assert list(results[-1].diverged_at) == [0, 0, 0, 0, 1, 1, 0, 0, 0, 0]
    assert [(s.text, s.workload) for s in pool.set_aside] == [(job.rules[2].text, "teacher_student")]
    assert "died" in pool.set_aside[0].reason


@pytest.mark.slow
def test_a_rule_that_hangs_is_stopped_found_and_set_aside() -> None:
    job = chunk(rule(90), rule(91, "hang"), rule(92))
    with Workers(2, limit_s=1.5) as pool:
        results = pool.map(train, [*JOBS, job])
    assert [values(r) for r in results[:-1]] == [expected(job) for job in JOBS]
    assert values(results[-1])[:2] + values(results[-1])[4:] == expected(job)[:2] + expected(job)[4:]
    assert [s.text for s in pool.set_aside] == [job.rules[1].text]
    assert "longer than 1.5 s" in pool.set_aside[0].reason


@pytest.mark.parametrize("n", [1, 2])
def test_a_rule_on_which_the_task_raises_is_set_aside_with_its_traceback(n: int) -> None:
    job = chunk(rule(90), rule(91, "raise"), rule(92))
    with Workers(n) as pool:
        result = pool.map(train, [job])[0]
    assert list(result.diverged_at) == [0, 0, 1, 1, 0, 0]
    assert [s.text for s in pool.set_aside] == [job.rules[1].text]
    assert "no such row" in pool.set_aside[0].reason
    assert "faulty.py" in pool.set_aside[0].traceback


@pytest.mark.parametrize("n", [1, 2])
def test_a_task_that_raises_on_every_rule_is_an_error_and_no_rule_is_blamed(n: int) -> None:
    with Workers(n) as pool, pytest.raises(RunError, match="it rains"):
        pool.map(train, [chunk(rule(1), rule(2), seed=13)])
    assert pool.set_aside == []


@pytest.mark.slow
def test_baselines_are_never_set_aside(pool: Workers) -> None:
    with pool.strict():
        with pytest.raises(RunError, match="no such row"):
            pool.map(train, [chunk(rule(1, "raise"), rule(2))])
        with pytest.raises(RunError, match="lost every time"):
            pool.map(train, [chunk(rule(1, "kill"), rule(2))])
    assert pool.set_aside == []
    assert values(pool.map(train, JOBS[:1])[0]) == expected(JOBS[0])


@pytest.mark.slow
def test_probes_give_up_the_text_at_fault_alone(pool: Workers) -> None:
    found: list[Any] = pool.map(texts_with_marks, [["a", "bb"], ["ccc", "# kill", "dddd"]])
    assert found[0] == [1, 2]
    assert (found[1][0], found[1][2]) == (3, 4)
    assert "set aside" in found[1][1].reason
    assert [s.text for s in pool.set_aside] == ["# kill"]


def test_a_job_about_no_candidate_fails_as_a_whole(pool: Workers) -> None:
    with pytest.raises(RunError, match="not 7"):
        pool.map(refuse_all, [7])


def test_a_worker_sets_aside_what_stays_so_that_collecting_garbage_is_cheap() -> None:
    with Workers(2) as pool:
        pool.map(alive, [0] * 8)
        tracked = pool.map(alive, [0] * 4)
    assert max(tracked) < 50_000, "torch alone is several times that"


def alive(_: int) -> int:
    """Objects that a collection in this process would go through."""
    import gc

    import torch  # noqa: F401

    return len(gc.get_objects())


def test_an_unknown_way_of_running_is_refused() -> None:
    with pytest.raises(InputError, match="'slurm'"):
        Workers(2, "slurm")
    with pytest.raises(InputError, match="'loky:here'"):
        Workers(2, "loky:here")


def test_halves_make_up_the_whole() -> None:
    first, second = halves(JOBS[0]) or (None, None)
    assert first is not None and second is not None
    assert first.size == second.size == JOBS[0].size
    whole, parts = train(JOBS[0]), joined(train(first), train(second))
    for name in ("curves", "metrics", "lrs", "train_losses", "diverged_at"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
    assert halves(chunk(rule(1))) is None
    assert len(LANES) == 2


class Kept(dict[str, str]):
    """A journal in memory that counts what it is asked."""

    flushed = 0

    def put(self, key: str, text: str) -> None:
        self[key] = text

    def set_aside(self, key: str, rule: Any) -> None:
        self[f"aside {key}"] = rule.text

    def flush(self) -> None:
        self.flushed += 1


def test_what_the_journal_holds_is_not_run_again() -> None:
    journal = Kept()
    bad = chunk(rule(90), rule(91, "raise"))
    with Workers(1, journal=journal) as pool:
        before = pool.map(train, [*JOBS, bad])
    assert len(journal) == len(JOBS) + 2 and journal.flushed == 1
    job = chunk(rule(90), rule(91, "raise"))
    assert job == bad
    with Workers(1, journal=journal) as again:
        told: list[int] = []
        after = again.map(train, [*JOBS, job], lambda k, n: told.append(k))
        assert again.set_aside == [] and told == list(range(1, 8))
    for one, other in zip(before, after, strict=True):
        for name in ("curves", "metrics", "lrs", "train_losses", "diverged_at"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "no json",
        "[1, 2]",
        '{"c":"ruleforge.evaluate.lanes:ChunkResult","v":[1,2,3,4,5,6]}',
        '{"c":"os:stat_result","v":[]}',
        '{"c":"ruleforge.store.store:Store","v":[]}',
        "[" * 100_000,
        '{"a":"|O8","s":[1],"b":"AAAA"}',
    ],
)
def test_a_damaged_journal_is_computed_again(damage: str) -> None:
    journal = Kept()
    with Workers(1, journal=journal) as pool:
        pool.map(train, JOBS[:1])
        key = next(iter(journal))
        whole, journal[key] = journal[key], damage
        assert values(pool.map(train, JOBS[:1])[0]) == expected(JOBS[0])
    assert journal[key] == whole
