"""Random numbers that belong to a row, not to a batch, a shard or a process."""

import hashlib

import numpy as np


def row_generator(*key: str | int) -> np.random.Generator:
    """A generator that depends on the key alone, the same on every machine (Philox, counter-based)."""
    hashed = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(hashed[:16], "little")))
