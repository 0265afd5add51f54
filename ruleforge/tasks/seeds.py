"""Randomness by name: a generator is a pure function of the words that describe its use.

Knows nothing of tasks. No draw depends on the process, on the worker, or on what was drawn before
for another purpose, so that every candidate sees equal weights and equal batches.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_from(*words: str | int) -> int:
    """A seed in [0, 2**63) from words and integers; order and type count.

    Example:
        >>> seed_from("digits_mlp", 0, "init") == seed_from("digits_mlp", "0", "init")
        False
    """
    digest = hashlib.blake2b(repr(words).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_from(*words: str | int) -> torch.Generator:
    """A fresh CPU generator seeded by `seed_from(*words)`."""
    return torch.Generator().manual_seed(seed_from(*words))


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Within, the global generators of torch (CPU), numpy and random start at `seed`; restored after.

    For code that is not ours: a module draws its initial weights from torch's global generator, and a
    task file may split its data with numpy's.
    """
    kept_numpy, kept_random = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(kept_numpy)
            random.setstate(kept_random)
