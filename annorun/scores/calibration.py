"""Whether probabilities mean what they say.

Items whose truth is unknown (-1) have no part; the score is NaN if none is known.
"""

import numpy as np

from annorun.scores.hard import top_share
from annorun.votes import Floats, Ints

FLOOR = 1e-12


def nll(
    probs: Floats,  # (n_items, n_classes)
    truth: Ints,  # (n_items,)
) -> float:
    """Return the mean of -ln p(truth), in nats.

    p is raised to 1e-12, so that one item costs at most 27.6.
    """
    known = np.flatnonzero(truth >= 0)
    if not len(known):
        return float("nan")
    return float(-np.log(np.maximum(probs[known, truth[known]], FLOOR)).mean())


def brier(
    probs: Floats,  # (n_items, n_classes)
    truth: Ints,  # (n_items,)
) -> float:
    """Return the mean over items of sum_k (p_k - [k = truth])^2, in [0, 2]."""
    known = np.flatnonzero(truth >= 0)
    if not len(known):
        return float("nan")
    distance = probs[known]  # a copy: `known` is an index array
    distance[np.arange(len(known)), truth[known]] -= 1
    return float((distance**2).sum(axis=1).mean())


def ece(
    probs: Floats,  # (n_items, n_classes)
    truth: Ints,  # (n_items,)
    n_bins: int = 15,
) -> float:
    """Return the expected calibration error of the highest probability of each item.

    The bins are (0, 1/n], (1/n, 2/n], ...; the error is the mean over items of |accuracy -
    confidence| of the item's bin. Ties count as in `hard.accuracy`.
    """
    known = truth >= 0
    if not known.any():
        return float("nan")
    confidence = probs[known].max(axis=1)
    edges = np.linspace(0, 1, n_bins + 1)
    # side="left" puts a confidence on an edge into the lower bin
    which = np.searchsorted(edges[1:-1], confidence, side="left")
    gap = top_share(probs[known], truth[known]) - confidence
    return float(np.abs(np.bincount(which, weights=gap, minlength=n_bins)).sum() / len(gap))
