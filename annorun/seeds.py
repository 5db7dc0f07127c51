"""Named children of a seed: adding a consumer of randomness does not move the draws of another."""

import hashlib

import numpy as np


def child(seed: int, name: str) -> int:
    """Return the 63-bit seed called `name` below `seed`; 0 is a seed like any other."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def rng(seed: int, name: str) -> np.random.Generator:
    """Return numpy's generator for the child `name` of `seed`."""
    return np.random.default_rng(child(seed, name))
