"""Which items are the test items of one fold of a repeated k-fold cross-validation."""

import numpy as np
from numpy.typing import NDArray

from annorun.errors import ConfigError


def in_folds(n: int, folds: int, fold: int | None, rng: np.random.Generator) -> NDArray[np.str_]:
    """Return "test" for the items of one fold and "train" for the others, (n,).

    Folds are drawn once, whichever is asked for, and differ in size by one item at most.

    Args:
        n: items.
        folds: k.
        fold: 0 to k - 1; None: nothing is tested.
        rng: draws all folds; of another `data_seed`, those of another repeat.

    Raises:
        ConfigError: there are fewer than two folds, fewer items than folds, or no such fold.
    """
    if not 2 <= folds <= n:
        raise ConfigError(f"dataset.folds={folds}: allowed is 2 to {n}, the number of items")
    if fold is None:
        return np.full(n, "train")
    if not 0 <= fold < folds:
        raise ConfigError(f"dataset.fold={fold}: allowed is 0 to {folds - 1}, or null")
    return np.where(rng.permutation(n) % folds == fold, "test", "train")
