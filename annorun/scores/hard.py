"""Scores of one answer an item. Items whose truth is unknown (-1) have no part in any of them."""

import numpy as np

from annorun.votes import Floats, Ints


def accuracy(
    probs: Floats,  # (n_items, n_classes)
    truth: Ints,  # (n_items,)
) -> float:
    """Return the share of items whose most probable class is the truth; NaN if no truth is known.

    If n classes share the highest probability and the truth is among them, the item counts 1/n: the
    expectation of `votes.hard_labels`, which draws among them.
    """
    known = truth >= 0
    return float(top_share(probs[known], truth[known]).mean()) if known.any() else float("nan")


def top_share(
    probs: Floats,  # (n_items, n_classes)
    truth: Ints,  # (n_items,)
) -> Floats:  # (n_items,)
    """Return the probability that a draw among the most probable classes (ties: 1e-9) is right."""
    top = probs >= probs.max(axis=1, keepdims=True) - 1e-9
    share: Floats = top[np.arange(len(truth)), truth] / top.sum(axis=1)
    return share


def macro_f1(
    predicted: Ints,  # (n_items,)
    truth: Ints,  # (n_items,)
    n_classes: int,
) -> float:
    """Return the mean over classes of F1 = 2 TP / (2 TP + FP + FN); NaN if no truth is known.

    A class that is neither predicted nor true is left out of the mean; one that is only predicted
    or only true has F1 = 0 and stays in.
    """
    known = truth >= 0
    predicted, truth = predicted[known], truth[known]
    hit = np.bincount(truth[predicted == truth], minlength=n_classes)
    seen = np.bincount(truth, minlength=n_classes) + np.bincount(predicted, minlength=n_classes)
    present = seen > 0
    return float((2 * hit[present] / seen[present]).mean()) if present.any() else float("nan")
