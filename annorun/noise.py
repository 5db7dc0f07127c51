"""Simulated votes: one function an option, from truth, pool and generator to `Votes`.

Every option here but `spam` moves the truth y by a random shift, label = (y + s) mod K, and differs
only in the law of s, one row an annotator: `shift_law`; in `confusion` one row an annotator and
truth. The votes and what recovery is compared with (`planted_accuracy`) come from that one law.
`spam` is a mixture of truth and guess, as is `uniform` with `semantics: mixture`, but every group
has its own truth and every annotator a limit of work.

What the expertise rho_m of annotator m means (REALM 4.4) is `semantics`:
    accuracy: P(label right) = rho_m, "the probability that their label matches the ground truth".
    mixture:  the truth with probability rho_m, else a draw uniform over all K classes, as in REALM
        Eq. 1. Then P(label right) = rho_m + (1 - rho_m) / K. `asymmetric` and `systematic` keep
        this probability and replace only how the errors fall; a uniform draw over all K would leave
        nothing of either.
    confusion: nothing; the annotator's confusion matrix says it all.

Every annotator draws from a child generator of its own: in `shared` mode, annotator m votes the
same however many others there are.
"""

from typing import Literal

import numpy as np

from annorun.errors import ConfigError
from annorun.kinds import Positive
from annorun.votes import Floats, Ints, Pool, Votes
from annorun.workload import assign


def none(
    *,
    truth: Ints,  # (n_items,)
    pool: Pool,
    n_classes: int,
    rng: np.random.Generator,
    annotation: Literal["shared", "exclusive"] = "shared",
) -> Votes:
    """Return votes that are all right, whatever the expertise."""
    return _draw(truth, shift_law(pool=pool, n_classes=n_classes), annotation, rng)


def uniform(
    *,
    truth: Ints,  # (n_items,)
    pool: Pool,
    n_classes: int,
    rng: np.random.Generator,
    semantics: Literal["accuracy", "mixture"] = "accuracy",
    annotation: Literal["shared", "exclusive"] = "shared",
) -> Votes:
    """Return votes whose errors are uniform over the K - 1 wrong classes."""
    law = shift_law(pool=pool, n_classes=n_classes, semantics=semantics)
    return _draw(truth, law, annotation, rng)


def asymmetric(
    *,
    truth: Ints,  # (n_items,)
    pool: Pool,
    n_classes: int,
    rng: np.random.Generator,
    semantics: Literal["accuracy", "mixture"] = "accuracy",
    annotation: Literal["shared", "exclusive"] = "shared",
    weight: Positive = 5.0,
) -> Votes:
    """Return votes whose errors prefer the next class.

    Among the errors (y + 1) mod K has `weight`, each other wrong class 1. With K = 2 it is uniform.
    """
    law = shift_law(pool=pool, n_classes=n_classes, semantics=semantics, weight=weight)
    return _draw(truth, law, annotation, rng)


def systematic(
    *,
    truth: Ints,  # (n_items,)
    pool: Pool,
    n_classes: int,
    rng: np.random.Generator,
    semantics: Literal["accuracy", "mixture"] = "accuracy",
    annotation: Literal["shared", "exclusive"] = "shared",
    offset: Literal["distinct", "naive"] = "distinct",
) -> Votes:
    """Return votes whose errors are always (y + offset_m) mod K, m = 1..M.

    `distinct` is offset_m = 1 + (m mod (K - 1)), never 0. `naive` is offset_m = m, which is the
    truth itself where K divides m: that annotator is always right, whatever its expertise.
    """
    law = shift_law(pool=pool, n_classes=n_classes, semantics=semantics, offset=offset)
    return _draw(truth, law, annotation, rng)


def confusion(
    *,
    truth: Ints,  # (n_items,)
    pool: Pool,
    n_classes: int,
    rng: np.random.Generator,
    semantics: Literal["confusion"] = "confusion",
    annotation: Literal["shared", "exclusive"] = "shared",
) -> Votes:
    """Return votes drawn from the annotator's confusion matrix, in the row of the truth.

    Raises:
        ConfigError: the pool has no confusion matrices, or they are of other classes.
    """
    rates = _rates(pool, n_classes)
    true = np.arange(n_classes)[:, None]
    law = rates[:, true, (true + true.T) % n_classes]  # [annotator, true, shift]
    return _draw(truth, law, annotation, rng)


def spam(
    *,
    truth: Ints,  # (n_items, n_groups)
    pool: Pool,
    n_classes: int,
    rng: np.random.Generator,
    semantics: Literal["mixture"] = "mixture",
) -> Votes:
    """Return votes for the truth of the annotator's group, or uniform over all K classes (NUTMEG).

    Each item has `pool.per_item` annotators, and none has more than `pool.most_items` items.

    Raises:
        ConfigError: the pool has no groups or workload, or the items have another number of groups.
    """
    if pool.group is None or pool.per_item is None or pool.most_items is None:
        raise ConfigError("noise=spam: wants a pool of groups, annotator_dist=subpopulations")
    n_groups = int(pool.group.max()) + 1
    if truth.ndim != 2 or truth.shape[1] != n_groups:
        shape = ", ".join(map(str, truth.shape))
        raise ConfigError(
            f"noise=spam: a pool of {n_groups} groups, truths of shape ({shape}); "
            "allowed is one size of annotator_dist.shares and dataset.n_groups"
        )
    who, guess, knows = rng.spawn(3)
    annotator = assign(len(truth), pool.n_annotators, pool.per_item, pool.most_items, rng=who)
    item = np.repeat(np.arange(len(truth)), pool.per_item)
    annotator = annotator.ravel()
    right = knows.random(len(item)) < pool.expertise[annotator]
    own = truth[item, pool.group[annotator]]
    return Votes(
        item=item,
        annotator=annotator,
        label=np.where(right, own, guess.integers(n_classes, size=len(item))),
        n_items=len(truth),
        n_annotators=pool.n_annotators,
        n_classes=n_classes,
        group=pool.group,
    )


def planted_accuracy(
    *,
    pool: Pool,
    n_classes: int,
    truth: Ints | None = None,  # (n_items,) or (n_items, n_groups)
    semantics: Literal["accuracy", "mixture", "confusion"] | None = None,
    annotation: Literal["shared", "exclusive"] = "shared",
    weight: Positive = 1.0,
    offset: Literal["distinct", "naive"] | None = None,
) -> Floats:  # (n_annotators,)
    """Return the probability that a vote is right, for the YAML keys of any option of this file.

    `planted_accuracy(pool=pool, n_classes=K, **keys)`, keys being those of the noise node: who asks
    need not know which option it is. Without `semantics` it is `none`. With `confusion` it is the
    mean of the diagonal, over the classes as often as they are in `truth`; equally without it.
    """
    if semantics == "confusion":
        right = _rates(pool, n_classes).diagonal(axis1=1, axis2=2)
        share = np.ones(n_classes) if truth is None else np.bincount(truth, minlength=n_classes)
        return np.average(right, axis=1, weights=share)
    law = shift_law(
        pool=pool, n_classes=n_classes, semantics=semantics, weight=weight, offset=offset
    )
    return law[:, 0]


def shift_law(
    *,
    pool: Pool,
    n_classes: int,
    semantics: Literal["accuracy", "mixture"] | None = None,
    weight: Positive = 1.0,
    offset: Literal["distinct", "naive"] | None = None,
) -> Floats:  # (n_annotators, n_classes)
    """Return P(label = (truth + s) mod K) in column s; column 0 is that of a right label.

    Args:
        pool: the annotators' expertise.
        n_classes: K.
        semantics: what expertise means; None: everyone is always right.
        weight: of shift 1 among the errors, against 1 for every other; 1 is uniform noise.
        offset: if given, all errors of an annotator have this one shift.
    """
    if n_classes < 2:
        raise ConfigError(f"noise: {n_classes} classes; an error needs at least 2")
    rho, n_annotators = pool.expertise, pool.n_annotators
    right = np.ones(n_annotators)
    if semantics is not None:
        right = {"accuracy": rho, "mixture": rho + (1 - rho) / n_classes}[semantics]
    error = np.zeros((n_annotators, n_classes))
    if offset is None:
        error[:, 1:] = 1
        error[:, 1] = weight
        error /= error.sum(axis=1, keepdims=True)
    else:
        m = np.arange(1, n_annotators + 1)
        shift = {"distinct": 1 + m % (n_classes - 1), "naive": m % n_classes}[offset]
        error[m - 1, shift] = 1
    law = (1 - right[:, None]) * error
    law[:, 0] += right
    return law


def _rates(pool: Pool, n_classes: int) -> Floats:  # (n_annotators, n_classes, n_classes)
    if pool.confusion is None:
        raise ConfigError(
            "noise=confusion: wants a pool of confusion matrices, such as "
            "annotator_dist=expert_hammer_spammer"
        )
    if pool.confusion.shape != (pool.n_annotators, n_classes, n_classes):
        raise ConfigError(
            f"noise=confusion: the pool's matrices are of shape {pool.confusion.shape}; allowed is "
            f"{(pool.n_annotators, n_classes, n_classes)}: annotator, true, observed"
        )
    return pool.confusion


def _draw(
    truth: Ints,  # (n_items,)
    law: Floats,  # (n_annotators, n_classes), or (n_annotators, n_classes, n_classes) by truth
    annotation: Literal["shared", "exclusive"],
    rng: np.random.Generator,
) -> Votes:
    n_annotators, n_classes = len(law), law.shape[-1]
    n_items = len(truth)
    _check_truth(truth, n_classes)
    partition, *own = rng.spawn(1 + n_annotators)
    order = partition.permutation(n_items)
    turns = {
        "shared": [np.arange(n_items)] * n_annotators,
        "exclusive": [order[m::n_annotators] for m in range(n_annotators)],
    }[annotation]
    cumulative = law.reshape(n_annotators, -1, n_classes).cumsum(axis=2)
    # rounding may leave the last value below 1: a draw above it would be a class nobody asked for
    cumulative /= cumulative[:, :, -1:]
    cumulative = np.broadcast_to(cumulative, (n_annotators, n_classes, n_classes))
    shift = [
        (cumulative[m, truth[turn]] <= own[m].random(len(turn))[:, None]).sum(axis=1)
        for m, turn in enumerate(turns)
    ]
    item = np.concatenate(turns)
    return Votes(
        item=item,
        annotator=np.repeat(np.arange(n_annotators), [len(turn) for turn in turns]),
        label=(truth[item] + np.concatenate(shift)) % n_classes,
        n_items=n_items,
        n_annotators=n_annotators,
        n_classes=n_classes,
    )


def _check_truth(truth: Ints, n_classes: int) -> None:
    if truth.ndim != 1:
        raise ConfigError(f"noise: needs one truth an item, got an array of shape {truth.shape}")
    bad = np.flatnonzero((truth < 0) | (truth >= n_classes))
    if len(bad):
        what = "unknown (-1)" if truth[bad[0]] == -1 else str(truth[bad[0]])
        raise ConfigError(
            f"noise: the truth of item {bad[0]} is {what}, and of {len(bad)} items it is not in "
            f"0..{n_classes - 1}; simulated votes need it for every item"
        )
