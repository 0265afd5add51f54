"""Faults under Dask and Ray, whose workers are real processes: as under loky, the search goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ruleforge.errors import RunError
from ruleforge.evaluate import far as far_transports

ROOT = Path(__file__).resolve().parents[2]
KINDS = [("dask", "distributed"), ("ray", "ray")]


def far(kind: str, module: str, *fault: str) -> dict[str, Any]:
    pytest.importorskip(module)
    done = subprocess.run(
        [sys.executable, "-m", "tests.evaluate.far_workers", kind, *fault],
        cwd=ROOT, capture_output=True, text=True, timeout=1500,
    )  # fmt: skip
    assert done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "module"), KINDS)
def test_a_rule_that_always_kills_its_worker_is_found_and_set_aside(kind: str, module: str) -> None:
    found = far(kind, module, "kill")
    assert found["wrong"] == found["fault_at"]
    assert [(text, workload) for text, workload, _, _ in found["set_aside"]] == [
        ("# kill\nupdate = 92 * g\n", "teacher_student")
    ]
    assert "died" in found["set_aside"][0][2]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "module"), KINDS)
def test_a_rule_that_hangs_is_stopped_found_and_set_aside(kind: str, module: str) -> None:
    found = far(kind, module, "hang")
    assert found["wrong"] == found["fault_at"]
    assert [text for text, _, _, _ in found["set_aside"]] == ["# hang\nupdate = 92 * g\n"]
    assert "longer than 5 s" in found["set_aside"][0][2]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "module"), KINDS)
def test_a_rule_on_which_the_task_raises_is_set_aside_with_its_traceback(kind: str, module: str) -> None:
    found = far(kind, module, "raise")
    assert found["wrong"] == found["fault_at"]
    assert "no such row" in found["set_aside"][0][2] and "faulty.py" in found["set_aside"][0][3]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "module"), KINDS)
def test_a_worker_killed_once_costs_one_more_try(kind: str, module: str) -> None:
    found = far(kind, module, "kill-once")
    assert found["wrong"] == [] and found["set_aside"] == []
    assert any("tried again" in line for line in found["said"])


@pytest.mark.slow
def test_workers_of_a_dask_scheduler_join_and_leave_while_a_run_goes_on() -> None:
    found = far("joining", "distributed")
    assert found["done"] == list(range(1, 91))
    assert any("waiting for one" in line for line in found["said"])
    first, last = found["pids"][0], found["pids"][-1]
    assert first != last and len(set(found["pids"])) == 2


@pytest.mark.slow
def test_a_worker_that_dies_while_dask_starts_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    tries: list[dict[str, Any]] = []

    def dying(**given: Any) -> str:
        tries.append(given)
        if len(tries) < 3:
            raise RuntimeError("Nanny failed to start.")
        return "a cluster"

    monkeypatch.setattr(distributed, "LocalCluster", dying)
    assert far_transports._local_cluster(2) == "a cluster" and len(tries) == 3
    assert tries[0]["n_workers"] == 2
    tries.clear()
    monkeypatch.setattr(far_transports, "_STARTS", 2)
    with pytest.raises(RunError, match="do not start: Nanny failed"):
        far_transports._local_cluster(2)
