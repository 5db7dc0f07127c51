"""Agreement: vote shares, and how often each annotator agrees with the others.

Model: none, and no truth. q_ik = (votes of item i for class k) / (votes of item i), as in
`majority`. With n_ik of the n_i votes of item i for class k, an annotator's `accuracy` is the mean
over its votes z, on items with a vote of somebody else, of
    (n_iz - 1) / (n_i - 1),
the share of the *other* votes that say the same: leave-one-out agreement. It is no probability of a
right label, but falls short of one by about as much as the others err; NaN where nobody shares an
item with the annotator. The coefficients that correct it for chance are in `scores/agreement.py`.

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
from annorun.errors import ConfigError
from annorun.votes import Floats, Posterior, Votes


def agreement(votes: Votes) -> Posterior:
    """Return the vote shares of each item and each annotator's agreement with the other votes."""
    if votes.multi_label:
        raise ConfigError("agreement: wants one label an item and annotator, not several")
    counts = votes.counts()
    others = counts.sum(axis=1)[votes.item] - 1
    shared = others > 0
    same = counts[votes.item, votes.label][shared] - 1
    who = votes.annotator[shared]
    given = np.bincount(who, minlength=votes.n_annotators)
    agreed = np.bincount(who, weights=same / others[shared], minlength=votes.n_annotators)
    share: Floats = np.full(votes.n_annotators, np.nan)
    np.divide(agreed, given, out=share, where=given > 0)
    return replace(majority(votes), accuracy=share)
