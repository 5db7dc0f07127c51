"""Agreement: vote shares, and how often each annotator agrees with the others.

Model: none, and no truth. q_ik = (votes of item i for class k) / (votes of item i), as in
`majority`. With n_ik of the n_i votes of item i for class k, an annotator's `accuracy` is the mean
over its votes z, on items with a vote of somebody else, of
    (n_iz - 1) / (n_i - 1),
the share of the *other* votes that say the same: leave-one-out agreement. It is no probability of a
right label, but falls short of one by about as much as the others err; NaN where nobody shares an
item with the annotator. Of several labels an item, it is the share of the other annotators who say
of a label what the annotator says, given or not given, the mean over items and labels.
The coefficients that correct it for chance are in `scores/agreement.py`.

Example:
    >>> from annorun.votes import Votes
    >>> votes = Votes(
    ...     item=[0, 0, 0, 1], annotator=[0, 1, 2, 0], label=[1, 1, 0, 0],
    ...     n_items=2, n_annotators=3, n_classes=2,
    ... )
    >>> agreement(votes).accuracy.tolist()
    [0.5, 0.5, 0.0]
"""

from dataclasses import replace

import numpy as np

from annorun.aggregation.majority import majority
from annorun.votes import Floats, Ints, Posterior, Votes


def agreement(votes: Votes) -> Posterior:
    """Return the vote shares of each item and each annotator's agreement with the other votes."""
    if votes.multi_label:
        return replace(majority(votes), accuracy=_several(votes))
    counts = votes.counts()
    others = counts.sum(axis=1)[votes.item] - 1
    shared = others > 0
    same = counts[votes.item, votes.label][shared] - 1
    share = _mean(votes.annotator[shared], same / others[shared], votes.n_annotators)
    return replace(majority(votes), accuracy=share)


def _several(votes: Votes) -> Floats:  # (n_annotators,)
    """Return the agreement with the other annotators about each label, given or not."""
    pair, place = np.unique(votes.item * votes.n_annotators + votes.annotator, return_inverse=True)
    item, who = np.divmod(pair, votes.n_annotators)
    gave = np.zeros((len(pair), votes.n_classes))
    gave[place, votes.label] = 1
    others = np.bincount(item, minlength=votes.n_items)[item] - 1
    like_me = np.where(gave > 0, votes.counts()[item] - 1, others[:, None] - votes.counts()[item])
    shared = others > 0
    same = like_me[shared].mean(axis=1) / others[shared]
    return _mean(who[shared], same, votes.n_annotators)


def _mean(
    who: Ints,  # (n,)
    weight: Floats,  # (n,)
    n_annotators: int,
) -> Floats:  # (n_annotators,)
    """Return the mean weight of each annotator, NaN without any."""
    given = np.bincount(who, minlength=n_annotators)
    agreed = np.bincount(who, weights=weight, minlength=n_annotators)
    share: Floats = np.full(n_annotators, np.nan)
    np.divide(agreed, given, out=share, where=given > 0)
    return share
