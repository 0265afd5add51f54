"""Randomness by name: a generator is a pure function of the words that describe its use.

Knows nothing of tasks. No draw depends on the process, on the worker, or on what was drawn before
for another purpose, so that every candidate sees equal weights and equal batches.
"""

from __future__ import annotations

import hashlib

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
