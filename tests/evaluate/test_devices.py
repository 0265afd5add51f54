"""Tasks that hold data on the CPU, trained where they know nothing of.

torch's fake tensors have a device and no memory, and refuse to meet one of another device, as a GPU does.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.func import vmap

from ruleforge.core.known import KNOWN
from ruleforge.errors import InputError
from ruleforge.evaluate.devices import OnDevice, on_device, products
from ruleforge.evaluate.lanes import ChunkJob, LaneSpec, Plan, RuleLanes
from ruleforge.evaluate.train import train_chunk
from ruleforge.tasks import load_workload

REMOTE = torch.device("cuda" if torch.backends.cuda.is_built() else "meta")


def scores(workload_name: str) -> dict[str, Tensor]:
    """What a task's functions make of weights and a batch that lie on a GPU that is not there."""
    workload = load_workload(workload_name)
    with unset_fake_temporarily():
        data = workload.data(0, 1)
        workload.task.evaluate(data.params)  # what it loads when first asked, it loads for real

    def remote(tensor: Tensor, *lanes: int) -> Tensor:
        return torch.empty((*lanes, *tensor.shape), dtype=tensor.dtype, device=REMOTE)

    params = {name: remote(value, 3) for name, value in data.params.items()}
    batch = tuple(remote(column[0]) for column in data.batches)
    with torch.no_grad():
        losses: Any = vmap(workload.task.loss, in_dims=(0, None, None))(params, batch, 1)
        return {"train": losses, **vmap(workload.task.evaluate)(params)}


@pytest.mark.parametrize("name", ["quadratic", "teacher_student", "image_coords", "matrix_factorization"])
def test_a_tasks_own_data_comes_along(name: str) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        with pytest.raises(RuntimeError, match="same device"):
            scores(name)
        with OnDevice(REMOTE):
            made = scores(name)
    assert {value.device.type for value in made.values()} == {REMOTE.type}


def test_what_was_moved_is_kept_as_long_as_its_original() -> None:
    class Elsewhere(OnDevice):
        moves = 0

        def _moved(self, tensor: Tensor) -> Tensor:
            before = len(self._kept)
            made = super()._moved(tensor)
            Elsewhere.moves += len(self._kept) - before
            return made

    with FakeTensorMode(allow_non_fake_inputs=True):
        held, there = torch.ones(3), torch.ones(3, device=REMOTE)
        mode = Elsewhere(REMOTE)
        with mode:
            for _ in range(4):
                there + held
        assert mode.moves == 1 and len(mode._kept) == 1
        del held
        assert len(mode._kept) == 0


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="runs Triton's interpreter")
def test_a_chunk_trains_on_the_triton_plane_as_on_numbas() -> None:
    """The training loop with the GPU's plane, in its interpreter; lr scales are measured on it too."""
    from ruleforge.backends.triton_interpreter import quick_interpreter

    lanes = (LaneSpec(0.1, "constant"), LaneSpec(0.3, "cosine"))
    rules = tuple(RuleLanes(str(KNOWN[name].rule), lanes) for name in ("adam", "lion"))
    plans = [Plan(update_plane=name, weight_decay=0.01) for name in ("triton", "numba")]
    assert [plan.device for plan in plans] == ["cpu", "cpu"]
    with quick_interpreter():
        ours, theirs = (
            train_chunk(ChunkJob(load_workload("quadratic"), 0, 8, rules, plan, 5)) for plan in plans
        )
    np.testing.assert_allclose(ours.curves, theirs.curves, rtol=1e-5)
    np.testing.assert_allclose(ours.lrs, theirs.lrs, rtol=1e-5)


def test_where_a_plan_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    planes = ("numba", "torch", "triton", "triton_straight")
    assert [Plan(update_plane=name).device for name in planes] == ["cpu", "cpu", "cuda", "cuda"]


def test_on_the_cpu_nothing_changes() -> None:
    with on_device("cpu"), products("cpu", "tf32"):
        assert (torch.ones(2) + 1).device.type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has a GPU")
def test_without_a_gpu_it_is_refused() -> None:
    with pytest.raises(InputError, match="torch sees no CUDA device"), on_device("cuda"):
        pass
