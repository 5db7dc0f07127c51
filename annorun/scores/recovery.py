"""How well the annotators' planted reliability was found.

A mixture says: the truth with probability rho, else a uniform guess over all K classes (Eq. 1 of
REALM). Its probability of a right label is a = rho + (1 - rho) / K; an estimated rho is compared
with the rho that belongs to the planted a.
"""

import numpy as np

from annorun.votes import Floats, Ints, Votes


def from_mixture(
    rho: Floats,  # (n_annotators,)
    n_classes: int,
) -> Floats:  # (n_annotators,)
    """Return the probability of a right label under a mixture of truth and uniform guess."""
    return rho + (1 - rho) / n_classes


def mixture_equivalent(
    accuracy: Floats,  # (n_annotators,)
    n_classes: int,
) -> Floats:  # (n_annotators,)
    """Return the rho whose mixture has this accuracy, (K a - 1) / (K - 1), clipped to [0, 1].

    No mixture is worse than a guess: below 1/K the nearest it can come is rho = 0.
    """
    rho: Floats = np.clip((n_classes * accuracy - 1) / (n_classes - 1), 0.0, 1.0)
    return rho


def empirical_accuracy(
    votes: Votes,
    truth: Ints,  # (n_items,), -1 where unknown
) -> Floats:  # (n_annotators,)
    """Return each annotator's share of right votes on items of known truth; NaN without any."""
    known = truth[votes.item] >= 0
    right = known & (votes.label == truth[votes.item])
    n_right = np.bincount(votes.annotator, weights=right, minlength=votes.n_annotators)
    n_known = np.bincount(votes.annotator, weights=known, minlength=votes.n_annotators)
    share: Floats = np.full(len(n_known), np.nan)
    np.divide(n_right, n_known, out=share, where=n_known > 0)
    return share


def recovery(
    estimate: Floats,  # (n_annotators,)
    planted: Floats,  # (n_annotators,)
) -> dict[str, float]:
    """Return the errors and correlations of an estimate, over the annotators where neither is NaN.

    Without such annotators the dict is empty. With fewer than three, or where one side is constant,
    a correlation says nothing and is left out.
    """
    both = ~(np.isnan(estimate) | np.isnan(planted))
    estimate, planted = estimate[both], planted[both]
    if not len(planted):
        return {}
    error = np.abs(estimate - planted)
    found = {
        "annotators/mae": float(error.mean()),
        "annotators/max_error": float(error.max()),
    }
    # 1e-9: equal but for rounding is constant
    if len(planted) >= 3 and min(np.ptp(estimate), np.ptp(planted)) > 1e-9:
        found["annotators/pearson"] = correlation(estimate, planted)
        found["annotators/spearman"] = correlation(ranks(estimate), ranks(planted))
    return found


def adjusted_rand(
    found: Ints,  # (n_annotators,)
    planted: Ints,  # (n_annotators,)
) -> float:
    """Return the adjusted Rand index of two partitions (Hubert and Arabie 1985, equation 5).

    1: the same but for names; 0: as alike as two random ones of these sizes. Two partitions without
    any pair to tell apart, all in one group or all alone, are the same: 1.
    """
    table = np.zeros((found.max(initial=0) + 1, planted.max(initial=0) + 1))
    np.add.at(table, (found, planted), 1)

    def pairs(n: Floats) -> float:
        return float((n * (n - 1) / 2).sum())

    both, rows, columns = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    n = len(found)
    chance = rows * columns / max(n * (n - 1) / 2, 1)
    most = (rows + columns) / 2
    return 1.0 if most == chance else (both - chance) / (most - chance)


def counterpart(
    found: Ints,  # (n_annotators,)
    planted: Ints,  # (n_annotators,)
) -> Ints:  # (n_planted,)
    """Return, for each planted group, the found one that holds most of its annotators."""
    table = np.zeros((planted.max(initial=0) + 1, found.max(initial=0) + 1))
    np.add.at(table, (planted, found), 1)
    most: Ints = table.argmax(axis=1)
    return most


def correlation(
    a: Floats,  # (n,)
    b: Floats,  # (n,)
) -> float:
    """Return Pearson's correlation; NaN where one is constant but for rounding."""
    a, b = a - a.mean(), b - b.mean()
    if min(np.abs(a).max(initial=0), np.abs(b).max(initial=0)) < 1e-12:
        return float("nan")
    # clip: rounding can leave a perfect correlation at 1 + 2e-16
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))


def ranks(
    values: Floats,  # (n,)
) -> Floats:  # (n,)
    """Return ranks from 1, equal values sharing the mean of theirs."""
    # not scipy.stats.rankdata: the import costs more than a whole aggregation of a small table
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    found: Floats = (last - (count - 1) / 2)[place]
    return found
