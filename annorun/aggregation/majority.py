"""Majority vote, as shares.

Model: none. q_ik = (votes of item i for class k) / (votes of item i). An item without votes has the
share of each class among all votes, and without any vote at all 1/K. An annotator's accuracy is its
mean agreement with these shares, mean over its votes of q_{i, z}: it counts the annotator's own
vote too, so it is too high where items have few votes.

Example:
    >>> from annorun.votes import Votes
    >>> votes = Votes(
    ...     item=[0, 0, 0, 1], annotator=[0, 1, 2, 0], label=[1, 1, 0, 0],
    ...     n_items=2, n_annotators=3, n_classes=2,
    ... )
    >>> majority(votes).probs.round(3).tolist()
    [[0.333, 0.667], [1.0, 0.0]]
"""

import numpy as np

from annorun.votes import Posterior, Votes


def majority(votes: Votes) -> Posterior:
    """Return the vote shares of each item."""
    counts = votes.counts()
    n_votes = counts.sum(axis=1, keepdims=True)
    total = counts.sum(axis=0)
    prior = total / total.sum() if len(votes) else np.full(votes.n_classes, 1 / votes.n_classes)
    probs = np.where(n_votes > 0, counts / np.maximum(n_votes, 1), prior)
    agreed = np.bincount(
        votes.annotator, weights=probs[votes.item, votes.label], minlength=votes.n_annotators
    )
    given = np.bincount(votes.annotator, minlength=votes.n_annotators)
    accuracy = np.where(given > 0, agreed / np.maximum(given, 1), np.nan)
    return Posterior(probs=probs, accuracy=accuracy)
