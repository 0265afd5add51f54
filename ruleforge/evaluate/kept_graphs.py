"""Compiled functions on disk, under names, so that a process loads one without tracing it first.

Tracing a workload's gradients and finding them in torch's own cache takes one to three seconds, in every
process, for each number of lanes; loading by name takes a tenth. Files lie in torch's cache folder, and are
trusted as much as the machine code there. What prepares a batch is kept as an exported program.
"""

from __future__ import annotations

import logging
import os
import platform
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

_log = logging.getLogger(__name__)
_SOURCES = ("graphs.py", "gradients.py", "kept_graphs.py")


def load(identity: str) -> tuple[Any, Any] | None:
    """What prepares a batch, and the compiled rest; None where nothing is kept that can be loaded."""
    from torch._inductor.standalone_compile import CompiledArtifact

    if not is_kept(identity):
        return None
    batch_part, lanes_part = places(identity)
    try:
        prologue = torch.export.load(batch_part).module()
        return prologue, CompiledArtifact.load(path=str(lanes_part), format="binary")
    except Exception as error:  # files of another's making fail in any way; what is lost is time
        _log.warning("%s cannot be loaded and is compiled again: %s", lanes_part, error)
        return None


def keep(identity: str, prologue: fx.GraphModule, batch: Sequence[Tensor], rest: Any) -> None:
    """Keep a function; where no file can be written it is traced in every process."""
    batch_part, lanes_part = places(identity)
    try:
        batch_part.parent.mkdir(parents=True, exist_ok=True)
        exported = torch.export.export(prologue, tuple(batch))
        with warnings.catch_warnings():  # of constants that are views; they are kept all the same
            warnings.filterwarnings("ignore", "No complete tensor")
            _write(batch_part, lambda place: torch.export.save(exported, place))
        _write(lanes_part, lambda place: rest.save(path=place, format="binary"))
    except OSError as error:
        _log.warning(
            "compiled gradients cannot be kept in %s, and are traced in every process: %s",
            batch_part.parent,
            error,
        )


def _write(path: Path, write: Callable[[str], None]) -> None:
    part = path.with_name(f"{os.getpid()}.{path.name}")
    write(str(part))
    part.replace(path)


def is_kept(identity: str) -> bool:
    """Whether a function of this name was kept before."""
    return all(place.exists() for place in places(identity))


def places(identity: str) -> tuple[Path, Path]:
    """The files of a function: what prepares a batch, and the compiled rest."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    name = blake2b(f"{identity} {_machine()}".encode(), digest_size=16).hexdigest()
    folder = Path(cache_dir()) / "ruleforge"
    return folder / f"{name}.pt2", folder / f"{name}.compiled"


@cache
def _machine() -> str:
    """All that decides machine code besides the function."""
    here = Path(__file__).parent
    sources = blake2b(b"".join((here / name).read_bytes() for name in _SOURCES), digest_size=16).hexdigest()
    return f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()} {platform.machine()} {sources}"
