"""Wawa, worker agreement with aggregate: a majority vote weighted by agreement with the majority.

Appen (CrowdFlower), platform documentation, "worker agreement with aggregate"; no paper. As written
down in crowd-kit, https://github.com/Toloka/crowd-kit (wawa.py): one round, no iterations.

Model: none. T_i are the labels with the most votes of item i, |T_i| > 1 in a tie.
    w_a = mean over a's votes of [z in T_i] / |T_i|
    q_ik = sum_{a: z_ia = k} w_a / sum_a w_a
An annotator's accuracy is w_a: it counts its own vote in the majority, so it is too high where
items have few votes. An item without votes has each label's share of the weight of all votes.

Deviations from crowd-kit:
    1. A vote for one of t tied labels agrees by 1/t, what breaking the tie at random gives on
       average. crowd-kit breaks it by the order of the labels, so renaming them changes the answer.

Example:
    >>> from annorun.votes import Votes
    >>> votes = Votes(
    ...     item=[0, 0, 0, 1, 1, 1, 2, 2], annotator=[0, 1, 2, 0, 1, 2, 0, 2],
    ...     label=[0, 0, 1, 1, 1, 0, 0, 1],
    ...     n_items=3, n_annotators=3, n_classes=2,
    ... )
    >>> posterior = wawa(votes)
    >>> posterior.accuracy.round(3).tolist(), posterior.probs[2].round(3).tolist()
    ([0.833, 1.0, 0.167], [0.833, 0.167])
"""

import numpy as np

from annorun.aggregation import control
from annorun.aggregation.majority import majority
from annorun.aggregation.tally import by_label, mean_by_annotator
from annorun.votes import Floats, Posterior, Votes


def agreement(votes: Votes) -> Floats:
    """Return how often each annotator agrees with the majority, (n_annotators,), NaN without votes.

    A vote for one of t tied labels counts 1/t.
    """
    counts = votes.counts()
    top = counts == counts.max(axis=1, keepdims=True, initial=0)
    share = top / top.sum(axis=1, keepdims=True)
    return mean_by_annotator(votes, share[votes.item, votes.label])


def wawa(votes: Votes) -> Posterior:
    """Return the weighted vote shares of each item.

    Args:
        votes: at most one label an item and annotator.
    """
    control.checked(votes, None, "wawa")
    skill = agreement(votes)
    weight = by_label(votes, skill[votes.annotator])
    # above 0 for every item with a vote: whoever names a top label agrees at least there
    total = weight.sum(axis=1, keepdims=True)
    probs = majority(votes).probs
    np.divide(weight, total, out=probs, where=total > 0)
    if total.sum() > 0:
        unvoted = np.bincount(votes.item, minlength=votes.n_items) == 0
        probs[unvoted] = weight.sum(axis=0) / total.sum()
    return Posterior(probs, skill)
