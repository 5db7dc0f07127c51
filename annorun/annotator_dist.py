"""Simulated crowds: one function an option, giving what is planted in each annotator."""

from difflib import get_close_matches
from typing import Literal

import numpy as np

from annorun.errors import ConfigError
from annorun.kinds import Count, Natural, Probability
from annorun.votes import Pool

TYPES = ("expert", "hammer", "spammer", "pair_flip", "class_spammer")


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


def types(
    *,
    n_classes: int,
    rng: np.random.Generator,
    n_annotators: Count,
    train: dict[str, Probability],
    test: list[dict[str, Probability]],
    expert: Probability = 0.95,
    hammer: tuple[Probability, Probability] = (0.6, 0.8),
    flip: Probability = 0.4,
    spammed: Probability = 0.5,
    part: Literal["train", "test"] = "train",
    mixture: Natural = 0,
) -> Pool:
    """Return annotators of several types, each with a confusion matrix.

    The pseudo-annotators of Kumagai et al. (arXiv 2506.10259, p(B) of Algorithm 1). The type is
    drawn for each annotator alone. An `expert` and a `hammer` err alike in all classes; a `spammer`
    says anything; a `pair_flip` says the next class, (k + 1) mod K, or the true one; a
    `class_spammer` says anything where the truth is one of some classes, his own draw, and is right
    in the others. The expertise is the mean of the diagonal.

    Args:
        n_classes: K.
        rng: draws the types, the hammers' diagonals and the class spammers' classes.
        n_annotators: to be drawn.
        train: share of each of these types; one that is not named has none.
        test: likewise, one mixture after another.
        expert: an expert's probability of a right label.
        hammer: lowest and highest of a hammer's, drawn uniformly, the same for all classes.
        flip: probability of the next class.
        spammed: share of the classes that a class spammer does not know; one class at least.
        part: who is drawn, `train` or one of `test`.
        mixture: number of the mixture in this part.

    Raises:
        ConfigError: a mixture names an unknown type or does not sum to one, there is none of that
            number, the hammers' range is empty, or there are fewer than two classes.
    """
    faults = type_faults(train=train, test=test, hammer=hammer, part=part, mixture=mixture)
    if n_classes < 2:
        faults.append(f"annotator_dist: {n_classes} classes; a confusion needs at least 2")
    if faults:
        raise ConfigError(*faults)
    shares = train if part == "train" else test[mixture]
    share = np.array([shares.get(name, 0.0) for name in TYPES])
    who, level, known = rng.spawn(3)
    kind = who.choice(len(TYPES), size=n_annotators, p=share / share.sum())
    right = level.uniform(*hammer, size=(n_annotators, 1, 1))
    order = known.random((n_annotators, n_classes)).argsort(axis=1)
    unknown = order[:, :, None] < max(1, round(spammed * n_classes))
    truth, any_class = np.eye(n_classes), np.full((n_classes, n_classes), 1 / n_classes)
    wrong = (1 - truth) / (n_classes - 1)
    matrices = [  # in the order of TYPES
        expert * truth + (1 - expert) * wrong,
        right * truth + (1 - right) * wrong,
        any_class,
        (1 - flip) * truth + flip * np.roll(truth, 1, axis=1),
        np.where(unknown, any_class, truth),
    ]
    confusion = np.choose(kind[:, None, None], matrices)
    return Pool(confusion.diagonal(axis1=1, axis2=2).mean(axis=1), confusion=confusion)


def type_faults(
    *,
    train: dict[str, Probability],
    test: list[dict[str, Probability]],
    hammer: tuple[Probability, Probability] = (0.6, 0.8),
    part: Literal["train", "test"] = "train",
    mixture: Natural = 0,
) -> list[str]:
    """Return what is wrong with values of `types`, beyond their kinds; the config check asks, too.

    A meta-learner draws in the middle of a run: too late to refuse a mixture.
    """
    faults = _mixture_faults("annotator_dist.train", train)
    for i, shares in enumerate(test):
        faults += _mixture_faults(f"annotator_dist.test[{i}]", shares)
    n_mixtures = {"train": 1, "test": len(test)}[part]
    if not 0 <= mixture < n_mixtures:
        faults.append(
            f"annotator_dist.mixture={mixture}: allowed is 0 or above and below {n_mixtures}, "
            f"the number of mixtures in annotator_dist.{part}"
        )
    if not 0 <= hammer[0] <= hammer[1] <= 1:
        faults.append(
            f"annotator_dist.hammer={list(hammer)}: allowed is two numbers in [0, 1], lowest first"
        )
    return faults


def _mixture_faults(path: str, shares: dict[str, Probability]) -> list[str]:
    """Return what is wrong with the shares of the types; what YAML gave may be anything."""
    if not isinstance(shares, dict):
        return [f"{path}={shares}: allowed is a share of each of {', '.join(TYPES)}"]
    faults = []
    for name, share in shares.items():
        if name not in TYPES:
            near = "".join(f"; did you mean '{m}'?" for m in get_close_matches(str(name), TYPES, 1))
            faults.append(f"{path}.{name}={share}: unknown type; allowed: {', '.join(TYPES)}{near}")
        elif isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            faults.append(f"{path}.{name}={share}: allowed is a number in [0, 1]")
    if not faults and abs(sum(shares.values()) - 1) > 1e-9:
        faults.append(f"{path}={shares}: sum to {sum(shares.values()):g}; allowed is 1")
    return faults


def real() -> None:
    """Return nothing: the votes are the data's own."""
