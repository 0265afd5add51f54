"""The thread that a training runs in: part of the definition of a training."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Final

import torch

# Of glibc's mallopt(3): up to the first, free memory at the heap's end is kept; up to the second, memory
# comes from the heap.
_TRIM_THRESHOLD: Final = (-1, 1 << 30)
_MMAP_THRESHOLD: Final = (-3, 1 << 25)

# Otherwise MKL adds up the products of a small matrix in an order that depends on where it lies in memory,
# and so on a lane's place among the others. MKL reads this before its first product; it costs nothing.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")


@lru_cache(maxsize=1)
def _keep_freed_memory() -> None:
    """Once a process: what a training step frees stays, since the next step asks for it again.

    Given back to the system in between, as Dask's workers even ask for, it costs up to a quarter of the
    time in page faults. An allocator without these settings is left as it is.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for setting in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            mallopt(*setting)


@contextmanager
def training_thread() -> Iterator[None]:
    """One thread, denormals flushed, for as long as it lasts.

    Denormals cost ten times a normal number, and whether they are flushed decides bits; so it is
    decided here, for every training and every probe, in whichever process they run. Afterwards the
    caller's number of threads is back and denormals are kept again.
    """
    _keep_freed_memory()
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(n_threads)
