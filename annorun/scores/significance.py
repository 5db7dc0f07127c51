"""Is one method better than another, on the same runs? Paired, and for several at once.

R. A. Fisher: The Design of Experiments, 1935, section 21: if the two methods were alike, each
difference of a pair could as well have the other sign. S. Holm: A simple sequentially rejective
multiple test procedure. Scandinavian Journal of Statistics 6, 1979, 65-70. C. Nadeau, Y. Bengio:
Inference for the generalization error. Machine Learning 52, 2003, 239-281, section 4. B. Efron,
R. Tibshirani: An introduction to the bootstrap, 1993, section 13.3.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtr

from annorun.votes import Floats

# pairs up to which every sign is tried: 2^14 sums
EXACT = 14
DRAWS = 9999


def sign_flip(
    difference: Floats,  # (n_pairs,)
    *,
    rng: np.random.Generator,
) -> float:
    """Return the two-sided p of a mean difference of 0; NaN without pairs.

    Exact for few pairs; else of random signs, those of the data counted among them, so that p is
    never 0 (Phipson and Smyth 2010). With n pairs it cannot be below 2^(1 - n).
    """
    n = len(difference)
    if not n:
        return float("nan")
    if n <= EXACT:
        signs = 1.0 - 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    else:
        signs = np.ones((DRAWS + 1, n))
        signs[1:] = rng.choice([-1.0, 1.0], size=(DRAWS, n))
    # rounding must not part sums that are equal
    seen = np.abs(difference.sum()) * (1 - 1e-9)
    return float((np.abs(signs @ difference) >= seen).mean())


def paired_bootstrap(
    difference: Floats,  # (n_pairs,)
    *,
    rng: np.random.Generator,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the percentile interval of the mean difference over resampled pairs; NaN without any.

    Of few pairs it is too narrow: with n of them by about sqrt((n - 1) / n), and by more below ten.
    """
    n = len(difference)
    if not n:
        return float("nan"), float("nan")
    means = difference[rng.integers(n, size=(DRAWS, n))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def corrected_resampled_t(
    difference: Floats,  # (n_folds,)
    test_share: float,
) -> float:
    """Return the two-sided p of a mean difference of 0 over folds of repeated cross-validation.

    Folds share training items, so that their variance is too small: with J of them
        t = mean / sqrt((1/J + n_test / n_train) var), J - 1 degrees of freedom
    (Nadeau and Bengio, 5.4; Bouckaert and Frank 2004 for repeats). NaN below two folds; of
    differences that are all one, 1 if that is 0, else 0.

    Args:
        difference: of each fold, of all repeats.
        test_share: n_test / n_train, 1 / (k - 1) for k folds.
    """
    n = len(difference)
    if n < 2:
        return float("nan")
    mean, variance = float(difference.mean()), float(difference.var(ddof=1))
    if variance < 1e-30:
        return float(abs(mean) < 1e-15)
    return float(2 * stdtr(n - 1, -abs(mean) / np.sqrt((1 / n + test_share) * variance)))


def holm(p: Sequence[float]) -> list[float]:
    """Return the p adjusted for being several, in the order given.

    The k-th smallest of m is multiplied by m - k + 1, and none is below one before it.
    """
    order = np.argsort(p, kind="stable")
    scaled = np.asarray(p, dtype=np.float64)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted.tolist()
