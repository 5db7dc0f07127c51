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
for its probability of l given that they all have l; that depends only on which groups voted.
"""

from collections.abc import Callable

import numpy as np

from annorun.errors import ConfigError
from annorun.votes import Bools, Floats

# numbers worked on at once
BLOCK = 2**18
# numbers in the conditional tables: 800 MB
MOST = 10**8


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
    """Infer them from the groups that voted.

    Raises:
        ConfigError: too many groups and classes.
    """
    n_items, n_groups, n_classes = probs.shape
    given = conditional(probs, voted)
    # -inf for what a group never says
    with np.errstate(divide="ignore"):
        log_prior = np.log(frequency(probs, voted))
    who, which = np.unique(voted, axis=0, return_inverse=True)
    absent_agree, which = _absent_agree(who, given, log_prior), which.reshape(-1)
    filled, disagreement = probs.copy(), np.empty(n_items)
    for here in _blocks(n_items, n_groups * n_classes):
        _fill(filled[here], voted[here], given, log_prior)
        agreed = np.where(voted[here][..., None], probs[here], 1.0).prod(axis=1)
        disagreement[here] = 1 - (agreed * absent_agree[which[here]]).sum(axis=1)
    return filled, disagreement


def _fill(
    probs: Floats,  # (n, n_groups, n_classes), filled in place
    voted: Bools,  # (n, n_groups)
    given: Floats,  # (n_groups, n_groups, n_classes, n_classes)
    log_prior: Floats,  # (n_groups, n_classes)
) -> None:
    for k in range(len(log_prior)):
        absent = np.flatnonzero(~voted[:, k])
        log_q = np.tile(log_prior[k], (len(absent), 1))
        for other in range(len(log_prior)):
            here = voted[absent, other]
            log_q[here] += np.log(probs[absent[here], other] @ given[other, k])
        probs[absent, k] = _softmax(log_q)


def _absent_agree(
    who: Bools,  # (n_sets, n_groups) that voted
    given: Floats,  # (n_groups, n_groups, n_classes, n_classes)
    log_prior: Floats,  # (n_groups, n_classes)
) -> Floats:
    """Return the probability of l in all other groups if those have it, (n_sets, n_classes)."""
    n_groups, n_classes = log_prior.shape
    agree = np.ones((len(who), n_classes))
    for part in _blocks(len(who), n_classes**2):
        for k in range(n_groups):
            absent = np.flatnonzero(~who[part, k])
            # row l: T_k's posterior if every group that voted has l
            log_if = np.tile(log_prior[k], (len(absent), n_classes, 1))
            for other in range(n_groups):
                log_if[who[part][absent, other]] += np.log(given[other, k])
            agree[part][absent] *= np.diagonal(_softmax(log_if), axis1=1, axis2=2)
    return agree


def _blocks(length: int, width: int) -> list[slice]:
    """Cut rows of `width` numbers into runs of about BLOCK."""
    step = max(BLOCK // width, 1)
    return [slice(first, first + step) for first in range(0, length, step)]


def conditional(
    probs: Floats,  # (n_items, n_groups, n_classes)
    voted: Bools,  # (n_items, n_groups)
) -> Floats:
    """Return p(T_a = row | T_b = column), (n_groups a, n_groups b, n_classes, n_classes)."""
    n_items, n_groups, n_classes = probs.shape
    if (size := (n_groups * n_classes) ** 2) > MOST:
        raise ConfigError(
            f"imputation: naive_bayes wants {size} numbers, ({n_groups} groups x {n_classes} "
            f"classes)^2; allowed are {MOST}, or imputation=none"
        )
    counts = np.zeros((n_groups, n_groups, n_classes, n_classes))
    for here in _blocks(n_items, n_groups * n_classes):
        seen = np.where(voted[here][..., None], probs[here], 0.0)
        counts += np.einsum("iak,ibl->abkl", seen, seen, optimize=True)
    counts += 1 / n_classes
    counts /= counts.sum(axis=2, keepdims=True)
    return counts


def frequency(
    probs: Floats,  # (n_items, n_groups, n_classes)
    voted: Bools,  # (n_items, n_groups)
) -> Floats:
    """Return the mean posterior of each group's own items, (n_groups, n_classes)."""
    total = probs.sum(axis=0, where=voted[..., None])
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
