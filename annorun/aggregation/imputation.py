"""What a subpopulation that did not vote on an item would have said, from those that did.

J. Ivey, S. Gauch, D. Jurgens: NUTMEG, EMNLP 2025, and its code's intent. On the items that both
groups voted on, soft counts say how their truths go together:

    n_{k'k}(l', l) = sum_i q_ik'(l') q_ik(l),
    p(T_k' = l' | T_k = l) = (n_{k'k}(l', l) + 1/L) / sum_l' (n_{k'k}(l', l) + 1/L)

and a group k without a vote on item i has

    q_ik(l)  prop. to  pi_k(l) prod_{k' voted} sum_l' q_ik'(l') p(T_k' = l' | T_k = l),

pi_k being k's mean posterior over its own items: the votes of the others, taken as independent
given T_k (naive Bayes). An item without any vote has pi_k.

Each function takes and returns (n_items, n_groups, n_classes); the second value returned is the
probability that an item's truths are not all one, (n_items,). With no group to fill it is
1 - sum_l prod_k q_ik(l); a group filled by naive Bayes hangs on the others' labels, and is asked
for its probability of l given that they all have l.
"""

from collections.abc import Callable

import numpy as np

from annorun.votes import Bools, Floats


def none(
    probs: Floats,  # (n_items, n_groups, n_classes)
    voted: Bools,  # (n_items, n_groups)
) -> tuple[Floats, Floats]:
    """Leave them NaN, and the disagreement of such items too."""
    kept = np.where(voted[..., None], probs, np.nan)
    return kept, 1 - kept.prod(axis=1).sum(axis=1)


def released(
    probs: Floats,  # (n_items, n_groups, n_classes)
    voted: Bools,  # (n_items, n_groups)
) -> tuple[Floats, Floats]:
    """Give them all the first label, as the released code does by mistake."""
    first = np.eye(probs.shape[2])[0]
    filled = np.where(voted[..., None], probs, first)
    return filled, 1 - filled.prod(axis=1).sum(axis=1)


def naive_bayes(
    probs: Floats,  # (n_items, n_groups, n_classes)
    voted: Bools,  # (n_items, n_groups)
) -> tuple[Floats, Floats]:
    """Infer them from the groups that voted."""
    n_groups, n_classes = probs.shape[1:]
    given = conditional(probs, voted)
    # -inf for what a group never says
    with np.errstate(divide="ignore"):
        log_prior = np.log(frequency(probs, voted))
    filled, agreed = probs.copy(), np.where(voted[..., None], probs, 1.0).prod(axis=1)
    for k in range(n_groups):
        absent = ~voted[:, k]
        log_q = np.tile(log_prior[k], (int(absent.sum()), 1))
        # row l: T_k's posterior if every group that voted has l
        log_if = np.tile(log_prior[k], (len(log_q), n_classes, 1))
        for other in range(n_groups):
            if other != k:
                here = voted[absent, other]
                said = probs[absent, other][here]
                log_q[here] += np.log(said @ given[other, k])
                log_if[here] += np.log(given[other, k])
        filled[absent, k] = _softmax(log_q)
        agreed[absent] *= np.diagonal(_softmax(log_if), axis1=1, axis2=2)
    return filled, 1 - agreed.sum(axis=1)


def conditional(
    probs: Floats,  # (n_items, n_groups, n_classes)
    voted: Bools,  # (n_items, n_groups)
) -> Floats:
    """Return p(T_a = row | T_b = column), (n_groups a, n_groups b, n_classes, n_classes)."""
    seen = np.where(voted[..., None], probs, 0.0)
    counts = np.einsum("iak,ibl->abkl", seen, seen, optimize=True) + 1 / probs.shape[2]
    share: Floats = counts / counts.sum(axis=2, keepdims=True)
    return share


def frequency(
    probs: Floats,  # (n_items, n_groups, n_classes)
    voted: Bools,  # (n_items, n_groups)
) -> Floats:
    """Return the mean posterior of each group's own items, (n_groups, n_classes)."""
    total = np.where(voted[..., None], probs, 0.0).sum(axis=0)
    count = voted.sum(axis=0)[:, None]
    uniform = np.full(total.shape, 1 / total.shape[1])
    mean: Floats = np.divide(total, count, out=uniform, where=count > 0)
    return mean


def _softmax(log: Floats) -> Floats:
    q: Floats = np.exp(log - log.max(axis=-1, keepdims=True))
    q /= q.sum(axis=-1, keepdims=True)
    return q


FILL: dict[str, Callable[[Floats, Bools], tuple[Floats, Floats]]] = {
    "none": none,
    "released": released,
    "naive_bayes": naive_bayes,
}
