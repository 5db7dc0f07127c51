"""EmoBank (Buechel & Hahn, EACL 2017): sentences with the single ratings behind each label.

The files are those of github.com/JULIELab/EmoBank, folder `corpus`: the texts stand in emobank.csv,
some five ratings of each, from 1 to 5, in individual_reader_ratings.csv and
individual_writer_ratings.csv. Who rated is not told: the ratings are `Items.soft`, counts without
annotators, and the label is the one that most of them gave, as SeedBERT's (arXiv 2211.13196, 3) is
the emotion that most of five raters named. Stands in for MOSI-Subjectivity, which is not public.

Texts that emobank.csv leaves out (486 of 10,548) are left out.
"""

from pathlib import Path
from typing import Literal

import numpy as np

from annorun.dataset.files import refuse, rows_of
from annorun.dataset.folds import in_folds
from annorun.errors import ConfigError
from annorun.kinds import Count, Natural
from annorun.votes import Floats, Ints, Items, hard_labels

LOWEST, HIGHEST = 1, 5
TEXTS = "emobank.csv"
RATINGS = "individual_{}_ratings.csv"


def emobank(
    *,
    rng: np.random.Generator,
    path: str,
    perspective: Literal["reader", "writer"],
    dimension: Literal["V", "A", "D"],
    bins: list[float],
    ties: Literal["drop", "random"],
    n_items: Count | None,
    balanced: bool,
    items_seed: Natural,
    folds: Count,
    fold: Natural | None,
) -> tuple[Items, None]:
    """Read the sentences, the label that most raters gave, and the counts of their ratings.

    Args:
        rng: draws the folds: repeats of a cross-validation are over the same items.
        path: the folder with the authors' files.
        perspective: whose feeling was rated.
        dimension: valence, arousal or dominance.
        bins: where one class ends and the next begins, in rising order, between the ratings.
        ties: an item whose most frequent labels are several is left out, or one of them is drawn.
        n_items: drawn of all; null: all.
        balanced: as many of each label as of any other, but for one.
        items_seed: draws ties and items.
        folds: k of the cross-validation.
        fold: the one that is tested on; null: none.

    Raises:
        ConfigError: files are missing, what is wrong inside them, all of it; or the keys ask for
            what is not there.
    """
    edges = np.array(bins, dtype=np.float64)
    if (
        not len(edges)
        or not LOWEST < edges.min() <= edges.max() < HIGHEST
        or (np.diff(edges) <= 0).any()
    ):
        raise ConfigError(
            f"dataset.bins={bins}: allowed are numbers in rising order between 1 and 5"
        )
    names_of_classes, draw = _names(edges), np.random.default_rng(items_seed)
    folder, faults = Path(path).expanduser(), list[str]()
    told = _columns(folder / TEXTS, ("id", "text"), faults)
    rated = _columns(folder / RATINGS.format(perspective), ("id", dimension), faults)
    texts = _texts(folder / TEXTS, told, faults)
    ratings = _ratings(folder / RATINGS.format(perspective), dimension, rated, faults)
    refuse(faults)
    names = [name for name in texts if name in ratings]
    counts = np.zeros((len(names), len(edges) + 1))
    for i, name in enumerate(names):
        np.add.at(counts[i], np.searchsorted(edges, ratings[name]), 1)
    truth = hard_labels(counts, rng=draw)
    tied = (counts == counts.max(axis=1, keepdims=True)).sum(axis=1) > 1
    kept = np.flatnonzero(~tied | (ties == "random"))
    kept = np.sort(kept[_drawn(truth[kept], n_items, balanced, counts.shape[1], draw)])
    items = Items(
        kind="text",
        inputs={"text": [texts[names[i]] for i in kept]},
        split=in_folds(len(kept), folds, fold, rng),
        n_classes=counts.shape[1],
        truth=truth[kept],
        soft=counts[kept],
        names=[names[i] for i in kept],
        class_names=names_of_classes,
    )
    return items, None


def _drawn(
    truth: Ints, n_items: int | None, balanced: bool, n_classes: int, rng: np.random.Generator
) -> Ints:
    """Return the places of the items that are drawn."""
    order = rng.permutation(len(truth))
    n = len(truth) if n_items is None else n_items
    if not balanced:
        if n > len(truth):
            raise ConfigError(f"dataset.n_items={n}: allowed is at most {len(truth)}, or null")
        return order[:n]
    there = np.bincount(truth, minlength=n_classes)
    if n_items is None:
        n = int(there.min()) * n_classes
    wanted = n // n_classes + (np.arange(n_classes) < n % n_classes)
    if (wanted > there).any():
        k = int(np.argmax(wanted - there))
        raise ConfigError(
            f"dataset.n_items={n}: balanced, {wanted[k]} items of class {k}, and there are "
            f"{there[k]}; allowed is fewer, other dataset.bins, or dataset.balanced=false"
        )
    return np.concatenate([order[truth[order] == k][: wanted[k]] for k in range(n_classes)])


def _names(edges: Floats) -> list[str]:
    """Return which ratings each class has, such as 1-2."""
    ratings = np.arange(LOWEST, HIGHEST + 1)
    place = np.searchsorted(edges, ratings)
    names = []
    for k in range(len(edges) + 1):
        own = ratings[place == k]
        if not len(own):
            raise ConfigError(
                f"dataset.bins={edges.tolist()}: no rating lies in class {k}; allowed are numbers "
                "between which there is one, such as 2.5 and 3.5"
            )
        names.append(f"{own[0]}-{own[-1]}" if len(own) > 1 else str(own[0]))
    return names


def _columns(file: Path, wanted: tuple[str, str], faults: list[str]) -> list[tuple[int, str, str]]:
    """Return line number and two columns of a file."""
    if not file.is_file():
        raise ConfigError(
            f"dataset.path: there is no {file} (looked in {file.parent.absolute()}); expected: the "
            "folder `corpus` of github.com/JULIELab/EmoBank; set dataset.path=FOLDER to it, or "
            "ANNORUN_DATA to the folder that holds it as emobank/"
        )
    one, other = wanted
    return [(line, row[one], row[other]) for line, row in rows_of(file, wanted, faults)]


def _texts(file: Path, rows: list[tuple[int, str, str]], faults: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line, name, text in rows:
        if not name or not text.strip():
            faults.append(f"{file}, line {line}: id {name!r}, text {text!r}; needed are both")
        elif name in found:
            faults.append(f"{file}, line {line}: {name} is there already")
        found[name] = text.strip()
    return found


def _ratings(
    file: Path, column: str, rows: list[tuple[int, str, str]], faults: list[str]
) -> dict[str, list[int]]:
    allowed = {str(r): r for r in range(LOWEST, HIGHEST + 1)}
    found: dict[str, list[int]] = {}
    for line, name, rating in rows:
        if rating not in allowed or not name:
            words = f"id {name!r}, {column} {rating!r}"
            faults.append(f"{file}, line {line}: {words}; allowed: an id, and {', '.join(allowed)}")
        else:
            found.setdefault(name, []).append(allowed[rating])
    return found
