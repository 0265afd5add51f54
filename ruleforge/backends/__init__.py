"""How rules run. `PLANES` names the update planes; `load_plane` imports one when it is wanted."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

PLANES: dict[str, tuple[str, str]] = {
    "torch": ("ruleforge.backends.torch_lanes", "TorchLanes"),
    "numba": ("ruleforge.backends.numba_lanes", "NumbaLanes"),
    "reference": ("ruleforge.backends.reference_lanes", "ReferenceLanes"),
    "triton": ("ruleforge.backends.triton_lanes", "TritonLanes"),
    "triton_straight": ("ruleforge.backends.triton_lanes", "StraightLanes"),
}


def is_on_gpu(name: str) -> bool:
    """Whether a plane steps lanes on a GPU."""
    return name.startswith("triton")


def load_plane(name: str) -> Any:
    """The class of an update plane.

    Raises:
        KeyError: no plane has this name.
    """
    module, attribute = PLANES[name]
    return getattr(import_module(module), attribute)


def fastest_plane(say: Callable[[str], None] = lambda text: None) -> str:
    """The plane that `auto` stands for on this machine; a fallback is said in one line."""
    if find_spec("numba") is not None:
        return "numba"
    say("numba is not installed: rules run on the slower torch plane (pip install numba)")
    return "torch"


def prepare_plane(
    name: str, say: Callable[[str], None] = lambda text: None, *, dtype: str = "float32"
) -> None:
    """Compile what a plane compiles, once, before workers start; `say` is told if it takes long.

    Args:
        name: of the plane.
        say: told.
        dtype: of the lanes: training's float32, or the float64 in which rules are named.
    """
    if name == "numba":
        import torch

        import_module("ruleforge.backends.numba_lanes").warm_up(say, getattr(torch, dtype))
    elif is_on_gpu(name):
        import_module("ruleforge.backends.triton_lanes").warm_up(say)


def available_planes() -> dict[str, str]:
    """Each update plane, and why it cannot run here: "" for one that can."""
    import torch

    reasons = dict.fromkeys(PLANES, "")
    if find_spec("numba") is None:
        reasons["numba"] = "numba is not installed"
    why = "triton is not installed" if find_spec("triton") is None else ""
    if not why and not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
        why = "torch sees no CUDA device"
    return reasons | {name: why for name in PLANES if is_on_gpu(name)}
