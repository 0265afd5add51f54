"""How rules run. `PLANES` names the update planes; `load_plane` imports one when it is wanted."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

PLANES: dict[str, tuple[str, str]] = {
    "torch": ("ruleforge.backends.torch_lanes", "TorchLanes"),
    "numba": ("ruleforge.backends.numba_lanes", "NumbaLanes"),
    "reference": ("ruleforge.backends.reference_lanes", "ReferenceLanes"),
}


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


def prepare_plane(name: str, say: Callable[[str], None] = lambda text: None) -> None:
    """Compile what a plane compiles, once, before workers start; `say` is told if it takes long."""
    if name == "numba":
        import_module("ruleforge.backends.numba_lanes").warm_up(say)
