"""Named random streams grown from one seed. Pure.

A stream has no state to save: the name says where in the run a draw happens (for example
``("batches", phase, epoch)``), so the same seed and the same name give the same numbers in a first
run, in a resumed one and on another machine.
"""

from __future__ import annotations

import hashlib

import numpy as np

Name = str | int


def seed_for(seed: int, *name: Name) -> int:
    """Return the 63-bit seed of the stream called ``name``, for generators that are not numpy's."""
    words = "\x1f".join([str(seed), *(f"{type(part).__name__}:{part}" for part in name)])
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *name: Name) -> np.random.Generator:
    """Return a fresh numpy generator (Philox) for the stream called ``name``."""
    return np.random.Generator(np.random.Philox(key=seed_for(seed, *name)))
