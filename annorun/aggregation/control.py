"""Control items: their truth is given, so their posterior is certain and they inform the rest.

`known` holds one label an item, -1 where the truth is not known. In the E-step every other class of
a control item gets the log joint -inf: the evidence is then that of the votes and the known labels,
and EM raises it as before. A control item counts for the class prior even without a vote.
"""

import numpy as np

from annorun.aggregation.majority import majority
from annorun.errors import ConfigError
from annorun.votes import Floats, Ints, Votes


def checked(votes: Votes, known: Ints | None, name: str) -> Ints:
    """Return the known label of each item, (n_items,), -1 where there is none.

    Raises:
        ConfigError: the votes are multi-label, or `known` is not one label or -1 an item.
    """
    if votes.multi_label:
        raise ConfigError(f"{name}: wants one label an item and annotator, not several")
    if known is None:
        return np.full(votes.n_items, -1, dtype=np.int64)
    label = np.asarray(known, dtype=np.int64)
    if label.shape != (votes.n_items,) or ((label < -1) | (label >= votes.n_classes)).any():
        raise ConfigError(
            f"{name}: known: allowed is a label in 0..{votes.n_classes - 1} for each of the "
            f"{votes.n_items} items, or -1"
        )
    return label


def start(votes: Votes, known: Ints) -> Floats:
    """Return the vote shares, (n_items, n_classes), and certainty for the control items."""
    probs = majority(votes).probs
    given = np.flatnonzero(known >= 0)
    probs[given] = np.eye(votes.n_classes)[known[given]]
    return probs


def clamp(
    log_joint: Floats,  # (n_items, n_classes)
    known: Ints,  # (n_items,), -1 where unknown
) -> Floats:
    """Return the log joint with -inf, in place, for what a control item is not."""
    given = np.flatnonzero(known >= 0)
    kept = log_joint[given, known[given]]
    log_joint[given] = -np.inf
    log_joint[given, known[given]] = kept
    return log_joint


def counted(votes: Votes, known: Ints) -> Floats:
    """Return 1 for the items that have a vote or a known label, (n_items,), else 0."""
    voted = np.bincount(votes.item, minlength=votes.n_items) > 0
    return (voted | (known >= 0)).astype(np.float64)
