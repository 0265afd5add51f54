"""How rules run. `PLANES` names the update planes; `load_plane` imports one when it is wanted."""

from __future__ import annotations

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


def fastest_plane() -> str:
    """The plane that `auto` stands for on this machine."""
    return "numba" if find_spec("numba") and find_spec("ruleforge.backends.numba_lanes") else "torch"
