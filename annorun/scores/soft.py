"""How near predicted distributions are to what the annotators said.

Distributions p (predicted) and q (empirical) over the classes, one a row; the functions return one
number a row, and the mean over the rows is the score.

    jsd(p, q)         = (KL(p || m) + KL(q || m)) / 2, m = (p + q) / 2: nats, 0 to ln 2   (NUTMEG 6)
    manhattan(p, q)   = sum_c |p_c - q_c|: 0 to 2                                 (LeWiDi 2025, A)
    wasserstein(p, q) = sum_c |sum_{d <= c} (p_d - q_d)|: classes in order, one apart      (2025, A)
    cross_entropy     = -sum_c q_c ln p_c: nats                                   (LeWiDi 2023)
    kl(p, q)          = sum_c q_c ln (q_c / p_c): nats, cross-entropy less what no p can save
and of labels, one a vote:
    error_rate        = share of votes that are not the prediction                (LeWiDi 2025, B)
    absolute_distance = mean |predicted - voted| / (K - 1)                        (LeWiDi 2025, B)

LeWiDi's bins: CSC is scored over 0 to 6, where no vote is 0; an empty bin adds nothing to any of
these, and absolute distance takes the number of steps from `steps`.

Example:
    >>> p, q = np.array([[0.5, 0.5, 0.0]]), np.array([[0.0, 0.5, 0.5]])
    >>> manhattan(p, q).item(), wasserstein(p, q).item(), round(jsd(p, q).item(), 4)
    (1.0, 1.0, 0.3466)
"""

import numpy as np
from scipy.special import entr, rel_entr

from annorun.scores.agreement import begins
from annorun.scores.hard import accuracy, macro_f1
from annorun.scores.recovery import correlation, ranks
from annorun.votes import Floats, Ints, Votes

FLOOR = 1e-12


def jsd(
    p: Floats,  # (n, n_classes)
    q: Floats,  # (n, n_classes)
) -> Floats:  # (n,)
    """Return the Jensen-Shannon divergence in nats (not its root)."""
    m = (p + q) / 2
    divergence: Floats = (rel_entr(p, m) + rel_entr(q, m)).sum(axis=-1) / 2
    return divergence


def manhattan(
    p: Floats,  # (n, n_classes)
    q: Floats,  # (n, n_classes)
) -> Floats:  # (n,)
    """Return the sum of the absolute differences, not divided by the number of classes."""
    distance: Floats = np.abs(p - q).sum(axis=-1)
    return distance


def wasserstein(
    p: Floats,  # (n, n_classes)
    q: Floats,  # (n, n_classes)
) -> Floats:  # (n,)
    """Return the cost of moving p to q, where moving all of it to the next class costs 1."""
    distance: Floats = np.abs(np.cumsum(p - q, axis=-1)).sum(axis=-1)
    return distance


def cross_entropy(
    p: Floats,  # (n, n_classes)
    q: Floats,  # (n, n_classes)
) -> Floats:  # (n,)
    """Return -sum q ln p in nats; p is raised to 1e-12."""
    cost: Floats = -(q * np.log(np.maximum(p, FLOOR))).sum(axis=-1)
    return cost


def kl(
    p: Floats,  # (n, n_classes)
    q: Floats,  # (n, n_classes)
) -> Floats:  # (n,)
    """Return KL(q || p) in nats; p is raised to 1e-12."""
    divergence: Floats = cross_entropy(p, q) - entr(q).sum(axis=-1)
    return divergence


def entropy_correlation(
    p: Floats,  # (n, n_classes)
    q: Floats,  # (n, n_classes)
) -> float:
    """Return Pearson's correlation of the entropies over the rows; NaN where one is constant.

    It asks whether the model is unsure where people disagree (Uma et al. 2021).
    """
    return correlation(entr(p).sum(axis=-1), entr(q).sum(axis=-1))


def entropy_rank_correlation(
    p: Floats,  # (n, n_classes)
    q: Floats,  # (n, n_classes)
) -> float:
    """Return Spearman's correlation of the entropies over the rows; NaN where one is constant."""
    # entropies of equal rows differ in the last bits, and must tie
    a, b = (ranks(np.round(entr(x).sum(axis=-1), 12)) for x in (p, q))
    return correlation(a, b)


def error_rate(
    predicted: Ints,  # (n_votes,)
    label: Ints,  # (n_votes,)
) -> float:
    """Return the share of votes that are not the label predicted for that annotator."""
    return float((predicted != label).mean()) if len(label) else float("nan")


def absolute_distance(
    predicted: Ints,  # (n_votes,)
    label: Ints,  # (n_votes,)
    steps: int,  # the number of ordered classes less 1
) -> float:
    """Return the mean distance from the vote as a share of the greatest possible, 0 to 1."""
    return float(np.abs(predicted - label).mean() / steps) if len(label) else float("nan")


def binary_f1(
    predicted: Ints,  # (n,), 0 or 1
    label: Ints,  # (n,), 0 or 1
) -> float:
    """Return F1 of class 1 = 2 TP / (2 TP + FP + FN); 0 where it is neither predicted nor there."""
    both = int(((predicted == 1) & (label == 1)).sum())
    seen = int((predicted == 1).sum() + (label == 1).sum())
    return 2 * both / seen if seen else 0.0


def shares(counts: Floats) -> Floats:
    """Return counts over the last axis as shares of their sum; NaN where nothing was counted."""
    total = counts.sum(axis=-1, keepdims=True)
    empty: Floats = np.full(counts.shape, np.nan)
    share: Floats = np.divide(counts, total, out=empty, where=total > 0)
    return share


def group_counts(
    votes: Votes,
    n_groups: int,
) -> Floats:  # (n_items, n_groups, n_classes)
    """Return how often each group gave each item each label."""
    if votes.group is None:
        raise ValueError("group_counts: the votes have no groups")
    cell = votes.item * n_groups + votes.group[votes.annotator]
    shape = (votes.n_items, n_groups, votes.n_classes)
    flat = np.bincount(cell * votes.n_classes + votes.label, minlength=int(np.prod(shape)))
    return flat.reshape(shape).astype(np.float64)


def yes_shares(
    votes: Votes,  # multi-label
) -> Floats:  # (n_items, n_classes)
    """Return the share of an item's annotators who gave each label; NaN without annotators.

    LeWiDi 2025 scores VariErrNLI by Manhattan of (1 - share, share), averaged over the labels.
    """
    n = np.bincount(votes.item[begins(votes)], minlength=votes.n_items)[:, None].astype(np.float64)
    empty: Floats = np.full((votes.n_items, votes.n_classes), np.nan)
    share: Floats = np.divide(votes.counts(), n, out=empty, where=n > 0)
    return share


def group_means(
    probs: Floats,  # (n_items, n_heads, n_classes)
    group: Ints,  # (n_heads,)
    n_groups: int,
) -> Floats:  # (n_items, n_groups, n_classes)
    """Return the mean over the heads of each group; over all heads for a group without any."""
    member = (group == np.arange(n_groups)[:, None]).astype(np.float64)
    member[member.sum(axis=1) == 0] = 1
    weight = member / member.sum(axis=1, keepdims=True)
    mean: Floats = np.einsum("gh,ihk->igk", weight, probs)
    return mean


def by_item(
    probs: Floats,  # (n_items, n_classes)
    counts: Floats,  # (n_items, n_classes), of votes or ratings
    labels: Ints | None = None,  # (n_items,), by a rule for ties
) -> dict[str, float]:
    """Return the soft scores against the shares of all votes, over the items that have one.

    `voted_acc` and `voted_macro_f1` are against the label with the most votes; where several have
    the most, the item has no part in them.
    """
    q = shares(counts)
    seen = ~np.isnan(q[:, 0])
    p, q = probs[seen], q[seen]
    if not len(q):
        return {}
    rows = {f.__name__: f(p, q) for f in (jsd, manhattan, wasserstein, cross_entropy, kl)}
    found = {f"soft_{name}": float(values.mean()) for name, values in rows.items()}
    top = q >= q.max(axis=1, keepdims=True) - 1e-9
    most = np.where(top.sum(axis=1) == 1, top.argmax(axis=1), -1)
    certain = p if labels is None else np.eye(p.shape[1])[labels[seen]]
    return found | {
        "soft_entropy_correlation": entropy_correlation(p, q),
        "soft_entropy_rank_correlation": entropy_rank_correlation(p, q),
        "voted_acc": accuracy(certain, most),
        "voted_macro_f1": macro_f1(certain.argmax(axis=1), most, p.shape[1]),
    }


def by_group(
    probs: Floats,  # (n_items, n_groups, n_classes)
    held_out: Votes,
    names: list[str],  # of the groups
) -> dict[str, float]:
    """Return NUTMEG's downstream scores, over the (item, group) pairs that have a vote.

    JSD as above; F1 of class 1, for two classes, of the most probable class against the group's
    majority, a tie being class 0 as in the authors' argmax. `jsd` and `f1` are means over groups.
    """
    q = shares(group_counts(held_out, len(names)))
    found: dict[str, float] = {}
    for g, name in enumerate(names):
        seen = ~np.isnan(q[:, g, 0])
        if not seen.any():
            continue
        p_g, q_g = probs[seen, g], q[seen, g]
        found[f"jsd_{name}"] = float(jsd(p_g, q_g).mean())
        if held_out.n_classes == 2:
            found[f"f1_{name}"] = binary_f1(p_g.argmax(axis=1), q_g.argmax(axis=1))
    for metric in ("jsd", "f1"):
        values = [v for k, v in found.items() if k.startswith(f"{metric}_")]
        if values:
            found[metric] = float(np.mean(values))
    return found
