"""Simulated crowds: one function an option, giving what is planted in each annotator."""

import numpy as np

from annorun.errors import ConfigError
from annorun.kinds import Count, Probability
from annorun.votes import Pool


def fixed(expertise: list[Probability]) -> Pool:
    """Return the pool whose annotators have these values, one an annotator.

    Raises:
        ConfigError: the list is empty or a value is not in [0, 1].
    """
    if not expertise:
        raise ConfigError("annotator_dist.expertise: empty; give one value in [0, 1] an annotator")
    faults = [
        f"annotator_dist.expertise[{m}]: {value} is not a number in [0, 1]"
        for m, value in enumerate(expertise)
        if not 0 <= value <= 1
    ]
    if faults:
        raise ConfigError(*faults)
    return Pool(np.array(expertise, dtype=np.float64))


def linspace(n_annotators: Count, highest: Probability, lowest: Probability) -> Pool:
    """Return a pool evenly spaced from `highest` down to `lowest`; one annotator has `highest`.

    Raises:
        ConfigError: there is no annotator or an end is not in [0, 1].
    """
    if n_annotators < 1:
        raise ConfigError(f"annotator_dist.n_annotators: {n_annotators} is not 1 or more")
    return fixed(np.linspace(highest, lowest, n_annotators).tolist())


def subpopulations(
    *,
    n_items: int,
    rng: np.random.Generator,
    shares: list[Probability],
    spam: list[Probability],
    variability: list[Probability],
    per_item: Count,
    most_items: Count,
) -> Pool:
    """Return a crowd of several groups, just large enough for its work (NUTMEG's code).

    It has floor(n_items (per_item + 1) / most_items) annotators. The probability to spam of one is
    drawn from Beta(s, 1 - s), of mean s and nearly 0 or 1: few spam much, most not at all. One who
    does not spam still votes at random with the `variability` of his group; his expertise is the
    probability that neither happens.

    Args:
        n_items: to be labelled.
        rng: draws who is in which group, and the rates.
        shares: of each group among the annotators; they sum to one.
        spam: expected rate s of each group.
        variability: of each group.
        per_item: annotators an item.
        most_items: items an annotator, at most.

    Raises:
        ConfigError: the lists differ in length, the shares do not sum to one, or the annotators are
            too few for an item.
    """
    faults = []
    if not len(shares) == len(spam) == len(variability) > 0:
        lengths = f"{len(shares)}, {len(spam)} and {len(variability)}"
        faults.append(
            f"annotator_dist: shares, spam and variability have {lengths} values; "
            "allowed is one of each a group"
        )
    if abs(sum(shares) - 1) > 1e-9:
        faults.append(f"annotator_dist.shares={shares}: sum to {sum(shares):g}; allowed is 1")
    n_annotators = n_items * (per_item + 1) // most_items
    if n_annotators < per_item:
        faults.append(
            f"annotator_dist.per_item={per_item}: {n_items} items at {most_items} an annotator "
            f"make {n_annotators} annotators; allowed is at most that many an item"
        )
    if faults:
        raise ConfigError(*faults)
    # as released: every group is rounded up, then the largest gives back what is too much
    size = np.ceil(np.array(shares) * n_annotators - 1e-9).astype(np.int64)
    while size.sum() > n_annotators:
        size[size.argmax()] -= 1
    if not size.all():
        raise ConfigError(
            f"annotator_dist.shares={shares}: of {n_annotators} annotators group "
            f"{size.argmin()} gets none; allowed is one or more in each"
        )
    group = rng.permutation(np.repeat(np.arange(len(shares)), size))
    mean = np.clip(np.array(spam, dtype=np.float64)[group], 1e-10, 1 - 1e-10)
    expertise = (1 - rng.beta(mean, 1 - mean)) * (1 - np.array(variability)[group])
    return Pool(expertise, group=group, per_item=per_item, most_items=most_items)


def real() -> None:
    """Return nothing: the votes are the data's own."""
