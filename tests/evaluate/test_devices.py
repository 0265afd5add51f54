"""Tasks that hold data on the CPU, trained where they know nothing of.

torch's fake tensors have a device and no memory, and refuse to meet one of another device, as a GPU does.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.func import vmap

from ruleforge.errors import InputError
from ruleforge.evaluate.devices import OnDevice, on_device
from ruleforge.tasks import load_workload

REMOTE = torch.device("cuda")


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
    assert {value.device.type for value in made.values()} == {"cuda"}


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


def test_on_the_cpu_nothing_changes() -> None:
    with on_device("cpu"):
        assert (torch.ones(2) + 1).device.type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has a GPU")
def test_without_a_gpu_it_is_refused() -> None:
    with pytest.raises(InputError, match="torch sees no CUDA device"), on_device("cuda"):
        pass
