"""The metrics of a run, by name: of a network's answers, and of an aggregator's labels."""

from collections.abc import Sequence

import numpy as np

from annorun.scores import calibration, hard, recovery
from annorun.scores.agreement import (
    fleiss_kappa,
    krippendorff_alpha,
    mean_cohen_kappa,
    multi_select_kappa,
)
from annorun.votes import Floats, Ints, Posterior, Votes


def of_answers(
    split: str,
    probs: Floats,  # (n_items, n_classes)
    truth: Ints,  # (n_items,), -1 where unknown
    labels: Ints | None = None,  # (n_items,), instead of the most probable class
    decided: bool = False,
) -> dict[str, float]:
    """Return accuracy, macro-F1, NLL, ECE and Brier score, `split/name`, where truth is known.

    Args:
        split: of the metrics' names.
        probs: rows sum to one.
        truth: what is right.
        labels: instead of the most probable class.
        decided: the labels are by a rule for ties; else they are drawn, and the accuracy is the
            expectation.
    """
    known = truth >= 0
    probs, truth = probs[known], truth[known]
    guess = probs.argmax(axis=1) if labels is None else labels[known]
    certain = np.eye(probs.shape[1])[guess] if decided else probs
    return {
        f"{split}/acc": hard.accuracy(certain, truth),
        f"{split}/macro_f1": hard.macro_f1(guess, truth, probs.shape[1]),
        f"{split}/nll": calibration.nll(probs, truth),
        f"{split}/ece": calibration.ece(probs, truth),
        f"{split}/brier": calibration.brier(probs, truth),
    }


def of_labels(
    posterior: Posterior,
    labels: Ints,  # (n_items,)
    group_labels: Ints | None,  # (n_items, n_groups), -1 where not estimated
    votes: Votes,
    truth: Ints | None,  # (n_items,) or (n_items, n_groups), -1 where unknown
    groups: Sequence[str],
) -> dict[str, float]:
    """Return how the aggregator ended, and how good its labels are where the truth is known.

    Items without a vote have no part in it. With a truth a group, an aggregator of one label an
    item gives it to all groups; `labels/NAME_GROUP` is of one group, `labels/NAME` of all together.
    An inferred group stands for the known ones that have most of their annotators in it.
    """
    found = {
        "labels/iterations": float(len(posterior.trace)),
        "labels/converged": float(posterior.converged),
    }
    if posterior.group is not None:
        found["annotators/groups"] = float(posterior.group.max(initial=0) + 1)
        if votes.group is not None:
            found["annotators/rand"] = recovery.adjusted_rand(posterior.group, votes.group)
    voted = np.unique(votes.item)
    if posterior.disagreement is not None and np.isfinite(posterior.disagreement[voted]).any():
        found["labels/disagreement"] = float(np.nanmean(posterior.disagreement[voted]))
    if group_labels is not None and (group_labels[voted] >= 0).all():
        found["labels/disagreement_argmax"] = _differing(group_labels[voted])
    if truth is None or not (truth[voted] >= 0).any():
        return found
    if truth.ndim == 1:
        return found | of_answers("labels", posterior.probs[voted], truth[voted], labels[voted])
    complete = voted[(truth[voted] >= 0).all(axis=1)]
    if len(complete):
        found["labels/disagreement_true"] = _differing(truth[complete])
    probs = posterior.group_probs
    if probs is None or group_labels is None:
        probs = np.repeat(posterior.probs[:, None], truth.shape[1], axis=1)
        group_labels = np.repeat(labels[:, None], truth.shape[1], axis=1)
    if posterior.group is not None and votes.group is not None:
        own_group = recovery.counterpart(posterior.group, votes.group)
        probs, group_labels = probs[:, own_group], group_labels[:, own_group]
    known = np.where(group_labels >= 0, truth, -1)[voted]
    probs, group_labels = probs[voted], group_labels[voted]
    for g, name in enumerate(groups):
        own = of_answers("labels", probs[:, g], known[:, g], group_labels[:, g])
        found |= {f"{key}_{name}": value for key, value in own.items()}
    pairs = probs.reshape(-1, probs.shape[2])
    return found | of_answers("labels", pairs, known.ravel(), group_labels.ravel())


def _differing(labels: Ints) -> float:
    """Return the share of the rows that are not all one."""
    return float((labels != labels[:, :1]).any(axis=1).mean()) if len(labels) else float("nan")


def of_annotators(
    learned: Floats,  # (n_annotators,)
    planted: Floats,  # (n_annotators,)
    group: Ints | None,  # (n_annotators,)
    groups: Sequence[str],
) -> dict[str, float]:
    """Return how well reliability was recovered: of all, and `NAME_GROUP` of each group."""
    found = recovery.recovery(learned, planted)
    for g, name in enumerate(groups if group is not None else ()):
        own = recovery.recovery(learned[group == g], planted[group == g])
        found |= {f"{key}_{name}": value for key, value in own.items()}
    return found


def of_agreement(
    votes: Votes, classes: Sequence[str], *, rng: np.random.Generator
) -> dict[str, float]:
    """Return the coefficients of agreement with their 95 % intervals, NaN where undefined.

    Of several labels an item it is Cohen's kappa alone: of each label, given or not, and the mean.
    """
    each: dict[str, float] = {}
    if votes.multi_label:
        kappa, of_label = multi_select_kappa(votes, rng=rng)
        found = {"mean_cohen_kappa": kappa}
        named = zip(classes, of_label.tolist(), strict=True)
        each = {f"agreement/cohen_kappa_{name}": value for name, value in named}
    else:
        counts = votes.counts()
        found = {
            "krippendorff_alpha": krippendorff_alpha(counts, rng=rng),
            "fleiss_kappa": fleiss_kappa(counts, rng=rng),
            "mean_cohen_kappa": mean_cohen_kappa(votes, rng=rng),
        }
    return each | {
        f"agreement/{name}{end}": number
        for name, coefficient in found.items()
        for end, number in zip(("", "_low", "_high"), coefficient, strict=True)
    }
