"""Trainings on a GPU, of tasks that know nothing of it.

A task's functions hold data of their own, such as validation rows, and that lies on the CPU. Within
`on_device` it is taken along to the device where it meets a tensor that lies there, and kept there for the
next time. The module knows no rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.weak import WeakIdKeyDictionary

from ruleforge.errors import InputError

Precision = Literal["float32", "tf32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")


class OnDevice(TorchFunctionMode):
    """Moves what a task holds on the CPU to the device of the tensors that it meets."""

    def __init__(self, device: torch.device, kept: MutableMapping[Any, Any] | None = None) -> None:
        super().__init__()
        self.device = device
        self._kept: Any = WeakIdKeyDictionary() if kept is None else kept

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves, shape = tree_flatten((args, kwargs or {}))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if any(t.device.type == self.device.type for t in tensors):
            leaves = [self._moved(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        args, kwargs = tree_unflatten(leaves, shape)
        return func(*args, **kwargs)

    def _moved(self, tensor: Tensor) -> Tensor:
        if tensor.device.type == self.device.type:
            return tensor
        if tensor not in self._kept:
            self._kept[tensor] = tensor.to(self.device)
        there: Tensor = self._kept[tensor]
        return there


_KEPT: dict[str, Any] = {}
"""What has been moved to each device; an entry lives as long as the tensor that it copies."""


@contextmanager
def on_device(device: str) -> Iterator[None]:
    """Run tasks on a device for as long as it lasts; on "cpu" nothing changes.

    Raises:
        InputError: there is no such device.
    """
    if device == "cpu":
        yield
        return
    if not torch.cuda.is_available():
        raise InputError(
            f"training on {device!r} needs a GPU, and torch sees no CUDA device here",
            hint="use --backend numba, or see `ruleforge doctor`",
        )
    with OnDevice(torch.device(device), _KEPT.setdefault(device, WeakIdKeyDictionary())):
        yield


@contextmanager
def products(device: str, precision: Precision) -> Iterator[None]:
    """Matrix products on a GPU in a precision, for as long as it lasts; on "cpu" nothing changes.

    Args:
        device: torch device.
        precision: "float32"; "tf32", which rounds factors to 10 bits; or "bfloat16", to 7.
    """
    if device == "cpu":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    rounded = torch.autocast("cuda", torch.bfloat16) if precision == "bfloat16" else nullcontext()
    try:
        with rounded:
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def graphed(step: Callable[[], Any], *, warm_up: int = 3) -> Callable[[], Any]:
    """A step of fixed arguments as one CUDA graph: the same kernels, without the time to launch them.

    The step must read and write the same tensors each time; what it returns is overwritten by the next.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warm_up):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = step()

    def run() -> Any:
        graph.replay()
        return made

    return run
