"""The frozen dataclasses that every room shares: what was asked, and who answered what.

Index order everywhere is item, annotator, class; a confusion matrix is `[annotator, true,
observed]`. There is no `-1` in `Votes`: an absent vote is absent; only `Votes.dense` writes -1.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from annorun.errors import ConfigError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
# what the options of a question are called: a token each, or a byte for the byte-level tokenizer
LETTERS = "abcdefghijklmnopqrstuvwxyz"
Kind = Literal["choice", "text", "features", "image", "explain", "votes"]


@dataclass(frozen=True, eq=False)
class Votes:
    """Triplets (item, annotator, label), sorted: shuffled rows are the same votes to the bit.

    Attributes:
        item, annotator, label: int64 (n_votes,), each at least 0 and below its count.
        n_items, n_annotators, n_classes: sizes; an item or annotator may have no vote.
        group: (n_annotators,) the subpopulation of each annotator, or None.
        explanation: one text a vote, or None.
        multi_label: an annotator may give one item several labels.

    Raises:
        ConfigError: lengths differ, an index or group is out of range, or a vote is there twice.
    """

    item: Ints
    annotator: Ints
    label: Ints
    n_items: int
    n_annotators: int
    n_classes: int
    group: Ints | None = None
    explanation: tuple[str, ...] | None = None
    multi_label: bool = False

    def __post_init__(self) -> None:
        columns = {
            name: np.asarray(getattr(self, name), dtype=np.int64)
            for name in ("item", "annotator", "label")
        }
        if len({column.shape for column in columns.values()}) != 1 or columns["item"].ndim != 1:
            shapes = ", ".join(f"{name} {column.shape}" for name, column in columns.items())
            raise ConfigError(f"votes: the columns differ in shape: {shapes}")
        sizes = {"item": self.n_items, "annotator": self.n_annotators, "label": self.n_classes}
        for name, column in columns.items():
            bad = np.flatnonzero((column < 0) | (column >= sizes[name]))
            if len(bad):
                raise ConfigError(
                    f"votes: {name} {column[bad[0]]} (vote {bad[0]}) is not in 0..{sizes[name] - 1}"
                )
        order = _order(*columns.values(), shape=tuple(int(size) for size in sizes.values()))
        for name, column in columns.items():
            column = column[order]
            column.setflags(write=False)
            object.__setattr__(self, name, column)
        if self.group is not None:
            group = np.asarray(self.group, dtype=np.int64)
            if group.shape != (self.n_annotators,) or (group < 0).any():
                raise ConfigError("votes: allowed is one group, 0 or above, for each annotator")
            object.__setattr__(self, "group", group)
        if self.explanation is not None:
            object.__setattr__(self, "explanation", tuple(self.explanation[i] for i in order))
        self._refuse_duplicates()

    def _refuse_duplicates(self) -> None:
        same = (np.diff(self.item) == 0) & (np.diff(self.annotator) == 0)
        if self.multi_label:
            same &= np.diff(self.label) == 0
        if same.any():
            k = int(np.flatnonzero(same)[0])
            raise ConfigError(
                f"votes: annotator {self.annotator[k]} labelled item {self.item[k]} more than once "
                f"(one vote an item and annotator is allowed)"
            )

    def __len__(self) -> int:
        return len(self.item)

    @property
    def n_groups(self) -> int:
        """Number of groups; 0 without."""
        return 0 if self.group is None else int(self.group.max(initial=-1)) + 1

    def dense(self) -> Ints:
        """Return the votes as (n_items, n_annotators), -1 where there is none."""
        if self.multi_label:
            raise ValueError("multi-label votes have no dense form")
        table = np.full((self.n_items, self.n_annotators), -1, dtype=np.int64)
        table[self.item, self.annotator] = self.label
        return table

    def on(
        self,
        items: NDArray[np.bool_],  # (n_items,)
    ) -> "Votes":
        """Return the votes on some of the items; all sizes stay."""
        kept = np.flatnonzero(items[self.item])
        columns = {k: getattr(self, k)[kept] for k in ("item", "annotator", "label")}
        said = self.explanation
        return replace(self, **columns, explanation=said and tuple(said[k] for k in kept))

    def counts(self) -> Floats:
        """Return how often each item got each label, (n_items, n_classes)."""
        flat = np.bincount(
            self.item * self.n_classes + self.label, minlength=self.n_items * self.n_classes
        )
        return flat.reshape(self.n_items, self.n_classes).astype(np.float64)


def _order(item: Ints, annotator: Ints, label: Ints, *, shape: tuple[int, ...]) -> Ints:
    """Return what sorts the votes by item, annotator, label, (n_votes,)."""
    if math.prod(shape) >= 2**63:
        return np.lexsort((label, annotator, item))
    # one packed key sorts ten times faster than three; equal keys are refused, so no order is lost
    key = (item * shape[1] + annotator) * shape[2] + label
    return np.argsort(key) if (key[1:] < key[:-1]).any() else np.arange(len(key))


@dataclass(frozen=True, eq=False)
class Items:
    """What is asked: inputs by kind, and the truth where it is known.

    Attributes:
        kind: `choice` (inputs: `question` n_items texts, `options` n_items x K texts), `text` and
            `explain` (`text`), `features` (`x` (n_items, d) float32), `image` (`x` (n_items,
            channels, height, width) float32), `votes` (none).
        inputs: column name -> array or list of length n_items.
        split: (n_items,) of "train", "val" or "test"; without "val", validation items come out of
            "train" later.
        n_classes: number of answers.
        truth: (n_items,) labels, -1 where unknown; (n_items, n_groups) later; None if never known.
        known: (n_items,) labels of control items, which the aggregator is told, -1 elsewhere; None
            without.
        task: (n_items,) task index, or None for one task.
        soft: (n_items, n_classes) counts of ratings without annotator ids, or None.
        held_out: votes on test items, by the same annotators, in the same groups; predictions are
            held against them, nothing learns from them.
        names, class_names, annotator_names, group_names: their own, for files; None -> 0, 1, ...
    """

    kind: Kind
    inputs: Mapping[str, Any]
    split: NDArray[np.str_]
    n_classes: int
    truth: Ints | None = None
    known: Ints | None = None
    task: Ints | None = None
    soft: Floats | None = None
    held_out: Votes | None = None
    names: Sequence[str] | None = None
    class_names: Sequence[str] | None = None
    annotator_names: Sequence[str] | None = None
    group_names: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.split)

    def name(self, index: int) -> str:
        """Return the item's own name, or its number."""
        return str(index) if self.names is None else str(self.names[index])

    def classes(self) -> list[str]:
        """Return one name a class."""
        return (
            list(self.class_names) if self.class_names else [str(k) for k in range(self.n_classes)]
        )


@dataclass(frozen=True)
class TaskSpec:
    """The numbers that only the data know; plain values, so that a checkpoint can hold it.

    Attributes:
        input_shape: shape of one `features` or `image` input, () otherwise.
        n_groups, group: number of subpopulations, and the one of each annotator; 0 and () without.
    """

    kind: str
    n_classes: int
    n_annotators: int
    input_shape: tuple[int, ...] = field(default=())
    n_groups: int = 0
    group: tuple[int, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return a dict of plain values, for a checkpoint."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Pool:
    """A simulated crowd: what was planted.

    Attributes:
        expertise: (n_annotators,) in [0, 1]; what it means is the noise model's `semantics`.
        group: (n_annotators,) the subpopulation of each annotator, or None.
        per_item: annotators an item; None: the noise model's `annotation` says who labels what.
        most_items: items an annotator labels at most, with `per_item`.
        confusion: (n_annotators, n_classes, n_classes) `[annotator, true, observed]`, or None.
    """

    expertise: Floats
    group: Ints | None = None
    per_item: int | None = None
    most_items: int | None = None
    confusion: Floats | None = None

    @property
    def n_annotators(self) -> int:
        """Number of annotators."""
        return len(self.expertise)


@dataclass(frozen=True, eq=False)
class Posterior:
    """What an aggregator believes.

    Attributes:
        probs: (n_items, n_classes), rows sum to one; an item without a vote has the class prior.
            Where each group has a truth of its own, the mean over the groups, weighted by their
            annotators.
        accuracy: (n_annotators,) estimated probability of a right label; NaN without votes. A right
            label is the truth of the annotator's own group.
        confusion: (n_annotators, n_classes, n_classes) `[annotator, true, observed]`, or None.
        trace: objective after each iteration, of the restart that is kept; empty for an aggregator
            without iterations.
        converged: False when the iterations ended before the tolerance was met.
        competence: (n_annotators,) estimated probability of answering the truth instead of
            guessing, for a model that tells the two apart, else None; NaN without votes.
        group_probs: (n_items, n_groups, n_classes) the truth of each group, or None for one truth;
            NaN rows where it is not estimated.
        disagreement: (n_items,) probability that the groups' truths are not all one, or None; NaN
            where it is not estimated.
        group: (n_annotators,) the groups that were inferred, or None.
        restarts: the final objective of each restart; empty without restarts.
        numbers: what an analysis found beside that, by its metric's name.
    """

    probs: Floats
    accuracy: Floats
    confusion: Floats | None = None
    trace: tuple[float, ...] = ()
    converged: bool = True
    competence: Floats | None = None
    group_probs: Floats | None = None
    disagreement: Floats | None = None
    group: Ints | None = None
    restarts: tuple[float, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)


def hard_labels(
    probs: Floats,  # (n_items, n_classes)
    *,
    rng: np.random.Generator,
) -> Ints:
    """Return the most probable label of each item, (n_items,); exact ties (1e-9) are drawn.

    One number is drawn for every cell, tied or not: a tie moves no other item's draw.
    """
    draw = rng.random(probs.shape)
    tied = probs >= probs.max(axis=1, keepdims=True) - 1e-9
    label: Ints = np.where(tied, draw, -1.0).argmax(axis=1)
    return label


def group_labels(posterior: Posterior, *, rng: np.random.Generator) -> Ints | None:
    """Return the most probable label of each item and group, (n_items, n_groups), ties drawn.

    -1 where it is not estimated; None where there is one truth for all.
    """
    if posterior.group_probs is None:
        return None
    n_items, n_groups, n_classes = posterior.group_probs.shape
    flat = posterior.group_probs.reshape(-1, n_classes)
    labels = hard_labels(np.nan_to_num(flat), rng=rng)
    labels[np.isnan(flat[:, 0])] = -1
    return labels.reshape(n_items, n_groups)


def group_names(
    group: Ints | None,  # (n_annotators,)
    names: Sequence[str] | None,
) -> list[str]:
    """Return the name of each group, its number where it has none; none without groups."""
    return [] if group is None else list(names or map(str, range(int(group.max(initial=-1)) + 1)))
