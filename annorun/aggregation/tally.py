"""Sums of one number a vote, over the votes of an item, of a label of an item, of an annotator.

Each is one pass over the votes, in their sorted order: the same votes give the same bits.

Example:
    >>> from annorun.votes import Votes
    >>> votes = Votes([0, 0, 1], [0, 1, 0], [1, 1, 0], n_items=2, n_annotators=3, n_classes=2)
    >>> weight = np.array([1.0, 2.0, 5.0])
    >>> by_label(votes, weight).tolist(), mean_by_annotator(votes, weight).tolist()
    ([[0.0, 3.0], [5.0, 0.0]], [3.0, 2.0, nan])
"""

from functools import reduce

import numpy as np

from annorun.votes import Floats, Ints, Votes

NARROW = 16


def sums(
    index: Ints,  # (n_votes,)
    weight: Floats,  # (n_votes,)
    size: int,
) -> Floats:
    """Return the sum of the weights at each index, (size,)."""
    # no votes: bincount of nothing counts in integers
    return np.bincount(index, weights=weight, minlength=size).astype(np.float64, copy=False)


def by_item(votes: Votes, weight: Floats) -> Floats:
    """Return the sum over each item's votes, (n_items,)."""
    return sums(votes.item, weight, votes.n_items)


def by_label(votes: Votes, weight: Floats) -> Floats:
    """Return the sum over each item's votes for each label, (n_items, n_classes)."""
    flat = sums(votes.item * votes.n_classes + votes.label, weight, votes.n_items * votes.n_classes)
    return flat.reshape(votes.n_items, votes.n_classes)


def by_annotator(votes: Votes, weight: Floats) -> Floats:
    """Return the sum over each annotator's votes, (n_annotators,)."""
    return sums(votes.annotator, weight, votes.n_annotators)


def mean_by_annotator(votes: Votes, weight: Floats) -> Floats:
    """Return the mean over each annotator's votes, (n_annotators,), NaN without votes."""
    return where_voted(votes, by_annotator(votes, weight) / np.maximum(_given(votes), 1))


def where_voted(votes: Votes, value: Floats) -> Floats:
    """Return one value an annotator, (n_annotators,), NaN for those without votes."""
    return np.where(_given(votes) > 0, value, np.nan)


def population(votes: Votes) -> Ints:
    """Return the number of annotators with a vote in each group, (n_groups,)."""
    assert votes.group is not None
    return np.bincount(votes.group[_given(votes) > 0], minlength=votes.n_groups)


def _given(votes: Votes) -> Ints:
    return np.bincount(votes.annotator, minlength=votes.n_annotators)


def posterior(
    log_joint: Floats,  # (n_items, n_classes), overwritten
) -> tuple[Floats, Floats]:
    """Return the shares of exp(log_joint) in each row, and the log of the row's sum, (n_items,).

    One pass of exp for both; scipy's logsumexp and a second exp take four times as long.
    """
    # rows of a few numbers: whole columns at a time are faster than a loop within each row; one
    # column would be its own maximum, overwritten below
    narrow = 1 < log_joint.shape[1] <= NARROW
    top = reduce(np.maximum, log_joint.T) if narrow else log_joint.max(axis=1)
    log_joint -= top[:, None]
    probs = np.exp(log_joint, out=log_joint)
    total = reduce(np.add, probs.T) if narrow else probs.sum(axis=1)
    probs /= total[:, None]
    return probs, np.log(total) + top
