"""The thread that a training runs in: part of the definition of a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def training_thread() -> Iterator[None]:
    """One thread, denormals flushed, for as long as it lasts.

    Denormals cost ten times a normal number, and whether they are flushed decides bits; so it is
    decided here, for every training and every probe, in whichever process they run. Afterwards the
    caller's number of threads is back and denormals are kept again.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(n_threads)
