"""The frozen dataclasses that every room shares: what was asked, and who answered what.

Index order everywhere is item, annotator, class; a confusion matrix is `[annotator, true,
observed]`. There is no `-1` in `Votes`: an absent vote is absent. Only `Votes.dense` writes -1, for
those who ask for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from annorun.errors import ConfigError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
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
        ConfigError: lengths differ, an index is out of range, or a vote is there twice.
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
        order = np.lexsort((columns["label"], columns["annotator"], columns["item"]))
        for name, column in columns.items():
            column = column[order]
            column.setflags(write=False)
            object.__setattr__(self, name, column)
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

    def dense(self) -> Ints:
        """Return the votes as (n_items, n_annotators), -1 where there is none."""
        if self.multi_label:
            raise ValueError("multi-label votes have no dense form")
        table = np.full((self.n_items, self.n_annotators), -1, dtype=np.int64)
        table[self.item, self.annotator] = self.label
        return table

    def counts(self) -> Floats:
        """Return how often each item got each label, (n_items, n_classes)."""
        flat = np.bincount(
            self.item * self.n_classes + self.label, minlength=self.n_items * self.n_classes
        )
        return flat.reshape(self.n_items, self.n_classes).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Items:
    """What is asked: inputs by kind, and the truth where it is known.

    Attributes:
        kind: `choice` (inputs: `question` n_items texts, `options` n_items x K texts), `text`
            (`text`), `features` (`x` (n_items, d) float32), `image` (`x` (n_items, channels,
            height, width) float32), `votes` (none).
        inputs: column name -> array or list of length n_items.
        split: (n_items,) of "train" or "test"; validation items come out of "train" later.
        n_classes: number of answers.
        truth: (n_items,) labels, -1 where unknown; (n_items, n_groups) later; None if never known.
        task: (n_items,) task index, or None for one task.
        soft: (n_items, n_classes) counts of ratings without annotator ids, or None.
        names: (n_items,) the items' own names, written to the result files; None -> 0, 1, 2, ...
        class_names, annotator_names, group_names: likewise.
    """

    kind: Kind
    inputs: Mapping[str, Any]
    split: NDArray[np.str_]
    n_classes: int
    truth: Ints | None = None
    task: Ints | None = None
    soft: Floats | None = None
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
    """

    kind: str
    n_classes: int
    n_annotators: int
    input_shape: tuple[int, ...] = field(default=())

    def plain(self) -> dict[str, Any]:
        """Return a dict of plain values, for a checkpoint."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Pool:
    """A simulated crowd: what was planted.

    Attributes:
        expertise: (n_annotators,) in [0, 1]; what it means is the noise model's `semantics`.
    """

    expertise: Floats

    @property
    def n_annotators(self) -> int:
        """Number of annotators."""
        return len(self.expertise)


@dataclass(frozen=True, eq=False)
class Posterior:
    """What an aggregator believes.

    Attributes:
        probs: (n_items, n_classes), rows sum to one; an item without a vote has the class prior.
        accuracy: (n_annotators,) estimated probability of a right label; NaN without votes.
        confusion: (n_annotators, n_classes, n_classes) `[annotator, true, observed]`, or None.
        trace: objective after each iteration; empty for one without iterations.
        converged: False when the iterations ended before the tolerance was met.
    """

    probs: Floats
    accuracy: Floats
    confusion: Floats | None = None
    trace: tuple[float, ...] = ()
    converged: bool = True


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
