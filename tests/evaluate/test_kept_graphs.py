"""A compiled function that is kept is loaded without being traced, and answers bit for bit as before."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ruleforge.evaluate import graphs, kept_graphs, train
from ruleforge.evaluate.graphs import CompiledFunction
from ruleforge.tasks import WORKLOADS
from ruleforge.tasks.workload import USER_SUITE

pytestmark = pytest.mark.skipif(bool(graphs.why_not()), reason="no C++ compiler")

LANES = torch.linspace(-1, 1, 12).reshape(3, 4)
BATCH = (torch.arange(4.0), torch.tensor([2, 0, 1, 1]))
TABLE = torch.linspace(0, 1, 6).reshape(2, 3)[1]  # a constant that is a view


def function(lanes: Tensor, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    hot = (labels[:, None] == torch.arange(3)).float() * TABLE
    return (lanes * x).tanh() @ hot, lanes.sum(1)


def answers(made: CompiledFunction) -> tuple[Tensor, ...]:
    return made(LANES, made.prepared(BATCH))


@pytest.mark.filterwarnings("error:No complete tensor")
def test_what_is_kept_is_loaded_untraced_and_answers_alike(
    kept_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = answers(CompiledFunction(function, LANES, BATCH, "mine"))
    assert all(map(torch.allclose, first, function(LANES, *BATCH)))
    assert sorted(path.name for path in kept_folder.iterdir()) == ["mine.compiled", "mine.pt2"]
    monkeypatch.setattr(graphs, "trace", lambda *args: pytest.fail("traced again"))
    again = answers(CompiledFunction(function, LANES, BATCH, "mine"))
    assert all(map(torch.equal, first, again))


def test_a_damaged_file_is_told_and_written_anew(kept_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = answers(CompiledFunction(function, LANES, BATCH, "mine"))
    for path in kept_folder.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    with caplog.at_level(logging.WARNING, kept_graphs.__name__):
        again = answers(CompiledFunction(function, LANES, BATCH, "mine"))
    assert all(map(torch.equal, first, again))
    assert "cannot be loaded and is compiled again" in caplog.text
    assert kept_graphs.load("mine") is not None


def test_without_a_name_nothing_is_kept(kept_folder: Path) -> None:
    CompiledFunction(function, LANES, BATCH)
    assert not list(kept_folder.iterdir())


def test_another_workload_or_size_has_another_name() -> None:
    names = {kept_graphs.places(f"{w.source_hash()} {n}") for w in WORKLOADS.values() for n in (24, 72)}
    assert len(names) == 2 * len(WORKLOADS)


def test_a_users_task_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file may import what its digest does not cover."""
    named: dict[str, str] = {}

    def made(task: object, layout: object, weights: Tensor, batch: object, identity: str) -> None:
        named["last"] = identity

    monkeypatch.setattr(train, "CompiledPlane", made)
    for suite, expected in ((USER_SUITE, False), ("search", True)):
        train.gradient_plane.__wrapped__(replace(WORKLOADS["quadratic"], suite=suite), 3, True)
        assert bool(named["last"]) is expected
