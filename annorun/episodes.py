"""Episodes: small tasks out of data with many classes, and who labels their examples; numpy only.

A task is K of the classes, a few support examples of each, and queries. Kumagai et al.,
Meta-learning Representations for Learning from Multiple Annotators, arXiv 2506.10259: the support
of a training task is labelled by pseudo-annotators (Algorithm 1), that of a target task by real
ones, or by annotators drawn from another mixture.

Classes of the parts train, val and test are disjoint where the data's split says so, by class.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from annorun.errors import ConfigError
from annorun.kinds import Count, Natural, Probability
from annorun.votes import Floats, Ints, Items


@dataclass(frozen=True)
class Episodes:
    """What a task looks like.

    Attributes:
        way: K, classes a task.
        shots: support examples a class.
        queries: query examples a class.
        annotators: R; of a training task one of these, drawn; a target task is judged with each,
            unless its votes are real.
        per_item: how many of the R label an example, drawn for each; None: all.
        tasks: target tasks, the same for each R and mixture; half as many are for validation.
        pseudo: the support of a training task is labelled by pseudo-annotators; else its labels
            are right.
        source_noise: share of the examples of a training task whose class is wrong.
        real: the support of target tasks has the votes of the data's own annotators, and training
            tasks are of other classes (`annorun.real_tasks`).

    Raises:
        ConfigError: K is below 2, there is no R, or an R is below per_item.
    """

    way: Count
    shots: Count
    queries: Count
    annotators: list[Count]
    tasks: Count
    per_item: Natural | None = None
    pseudo: bool = True
    source_noise: Probability = 0.0
    real: bool = False

    def __post_init__(self) -> None:
        if self.way < 2:
            raise ConfigError(f"method.episodes.way={self.way}: allowed is 2 or more")
        if not self.annotators:
            raise ConfigError("method.episodes.annotators=[]: allowed is one number or more")
        if len(set(self.annotators)) < len(self.annotators):
            raise ConfigError(
                f"method.episodes.annotators={self.annotators}: allowed is each number once"
            )
        if self.per_item is not None and not 1 <= self.per_item <= min(self.annotators):
            raise ConfigError(
                f"method.episodes.per_item={self.per_item}: allowed is null, or 1 to "
                f"{min(self.annotators)}, the least of method.episodes.annotators"
            )


@dataclass(frozen=True, eq=False)
class Drawn:
    """Some tasks, by the numbers of their items.

    Attributes:
        support: (n_tasks, way * shots) items, class after class.
        query: (n_tasks, way * queries) likewise.
        support_truth, query_truth: of these, 0 to way - 1: which of the task's classes.
        classes: (n_tasks, way) which of the groups that they were drawn from.
        seed: (n_tasks,) of what a method draws while it adapts.
    """

    support: Ints
    query: Ints
    support_truth: Ints
    query_truth: Ints
    classes: Ints
    seed: Ints


def by_class(items: Items, part: str, least: int, way: int) -> list[Ints]:
    """Return the items of each class that has `least` or more in a part of the data.

    Raises:
        ConfigError: fewer than `way` classes have.
    """
    assert items.truth is not None  # `check` holds: needs truth
    index = np.flatnonzero((items.split == part) & (items.truth >= 0))
    truth = items.truth[index]
    order = np.argsort(truth, kind="stable")
    bounds = np.searchsorted(truth[order], np.arange(items.n_classes + 1))
    groups = [index[order[a:b]] for a, b in pairwise(bounds)]
    found = [g for g in groups if len(g) >= least]
    if len(found) < way:
        raise ConfigError(
            f"method.episodes.way={way}: {len(found)} classes have {least} examples (of shots "
            f"and queries) in the {part} part; allowed is that many at most, fewer shots or "
            "queries, or other data"
        )
    return found


def hold_out(
    groups: list[Ints],  # items of each class
    share: float,
    least: int,
    rng: np.random.Generator,
) -> tuple[list[Ints], list[Ints]]:
    """Return items to learn from and to validate on, where the data have no classes for that.

    Of each class a share is held out, `least` at least; a class without enough for both is whole.
    """
    kept, held = [], []
    for group in groups:
        n = max(round(share * len(group)), least) if share else 0
        if n and len(group) - n >= least:
            order = rng.permutation(group)
            held.append(np.sort(order[:n]))
            kept.append(np.sort(order[n:]))
        else:
            kept.append(group)
    return kept, held


def draw(
    groups: list[Ints],  # items of each class
    episodes: Episodes,
    n_tasks: int,
    rng: np.random.Generator,
    voted: list[Ints] | None = None,
) -> Drawn:
    """Draw tasks: classes without replacement, then support and queries of each likewise.

    The support comes out of `voted`, items of the same classes, where that is given.
    """
    way, shots, queries = episodes.way, episodes.shots, episodes.queries
    classes = rng.random((n_tasks, len(groups))).argpartition(way - 1, axis=1)[:, :way]
    # argpartition leaves the K in no random order
    classes = rng.permuted(classes, axis=1)
    chosen = np.empty((n_tasks, way, shots + queries), dtype=np.int64)
    for t, k in np.ndindex(classes.shape):
        group = groups[classes[t, k]]
        if voted is None:
            chosen[t, k] = rng.choice(group, shots + queries, replace=False)
        else:
            chosen[t, k, :shots] = rng.choice(voted[classes[t, k]], shots, replace=False)
            chosen[t, k, shots:] = rng.choice(group, queries, replace=False)
    truth = np.broadcast_to(np.arange(way)[:, None], (n_tasks, way, shots + queries))
    return Drawn(
        support=chosen[..., :shots].reshape(n_tasks, -1),
        query=chosen[..., shots:].reshape(n_tasks, -1),
        support_truth=truth[..., :shots].reshape(n_tasks, -1),
        query_truth=truth[..., shots:].reshape(n_tasks, -1),
        classes=classes,
        seed=rng.integers(2**62, size=n_tasks),
    )


def annotate(
    truth: Ints,  # (n_tasks, n_support)
    confusion: Floats,  # (n_tasks, n_annotators, way, way) [task, annotator, true, observed]
    per_item: int | None,
    rng: np.random.Generator,
) -> Ints:  # (n_tasks, n_support, n_annotators), -1: no vote
    """Draw the votes of each task's annotators, y ~ Cat(B[true]) (2.4)."""
    n_tasks, n_annotators = confusion.shape[:2]
    rows = confusion[np.arange(n_tasks)[:, None], :, truth]
    # rounding may leave the last value below 1
    cumulative = rows.cumsum(axis=-1) / rows.sum(axis=-1, keepdims=True)
    dice = rng.random((*rows.shape[:-1], 1))
    votes: Ints = (dice >= cumulative[..., :-1]).sum(axis=-1)
    if per_item is not None and per_item < n_annotators:
        rank = rng.random(votes.shape).argsort(axis=-1).argsort(axis=-1)
        votes = np.where(rank < per_item, votes, -1)
    return votes


def mislabelled(
    truth: Ints,  # (...)
    way: int,
    share: float,
    rng: np.random.Generator,
) -> Ints:
    """Return classes of which a share is wrong, each wrong class as likely as another."""
    wrong = rng.random(truth.shape) < share
    return np.where(wrong, (truth + rng.integers(1, way, truth.shape)) % way, truth)
