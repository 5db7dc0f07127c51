"""Whether voters lean towards labels of their own: heads of an ensemble, or people.

A voter's marginal m_r is how often he gives each label; the bias is the mean over voters of
JSD(m_r, m), m the mean of the m_r (`annorun.scores.soft`). Voters who draw from one distribution
differ by chance: p is the share of 999 shuffles, of who said what about each item, with as much
bias or more (E. J. G. Pitman, Significance tests which may be applied to samples from any
populations, 1937).

Example:
    >>> votes = Votes(
    ...     item=[0, 0, 1, 1], annotator=[0, 1, 0, 1], label=[0, 1, 0, 1],
    ...     n_items=2, n_annotators=2, n_classes=2,
    ... )
    >>> label_bias(votes, rng=np.random.default_rng(0)).marginals.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
"""

from typing import NamedTuple

import numpy as np

from annorun.scores.soft import jsd, shares
from annorun.votes import Floats, Ints, Votes

DRAWS = 999


class Bias(NamedTuple):
    """How far voters lean apart.

    Attributes:
        marginals: (n_annotators, n_classes); NaN without votes.
        bias: in nats, 0 to ln 2; of one voter 0, NaN without votes.
        p: of as much among voters who are alike.
    """

    marginals: Floats
    bias: float
    p: float


def label_bias(votes: Votes, *, rng: np.random.Generator) -> Bias:
    """Return each voter's marginal, and how far they lie apart.

    Args:
        votes: of whom; heads of an ensemble vote on every item.
        rng: draws the shuffles.
    """
    own = marginals(votes, votes.label)
    if not len(votes):
        return Bias(own, float("nan"), float("nan"))
    seen = spread(own)
    # votes are sorted by item: a draw within each item, by sorting on a second, random key
    alike = 0
    for _ in range(DRAWS):
        order = np.lexsort((rng.random(len(votes)), votes.item))
        # rounding must not part what is equal
        alike += spread(marginals(votes, votes.label[order])) >= seen - 1e-12
    return Bias(own, seen, (alike + 1) / (DRAWS + 1))


def marginals(
    votes: Votes,
    label: Ints,  # (n_votes,), in the place of the votes' own
) -> Floats:  # (n_annotators, n_classes)
    """Return how often each voter gives each label; NaN without votes."""
    cell = votes.annotator * votes.n_classes + label
    flat = np.bincount(cell, minlength=votes.n_annotators * votes.n_classes)
    return shares(flat.reshape(votes.n_annotators, votes.n_classes).astype(np.float64))


def spread(
    marginals: Floats,  # (n_annotators, n_classes)
) -> float:
    """Return the mean JSD of the voters' marginals to the mean of them."""
    known = marginals[np.isfinite(marginals[:, 0])]
    return float(jsd(known, np.broadcast_to(known.mean(axis=0), known.shape)).mean())
