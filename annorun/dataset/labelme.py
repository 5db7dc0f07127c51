"""LabelMe (Rodrigues & Pereira, 2018): scenes labelled by real Mechanical Turk workers, 8 classes.

The files are those of github.com/fmenat/PyLearningCrowds, folder `data/LabelMe`. Training images
have the votes of 59 annotators and gold, test images gold alone. The 500 images of the authors'
validation files have gold and no votes; they are left out, because validation here is a share of
the voted training items. Neither the files nor their README name the classes: they are 0 to 7.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from annorun.errors import ConfigError
from annorun.votes import Ints, Items, Votes

N_CLASSES = 8
SHOWN = 20
SPLITS = ("train", "test")
ANSWERS = "answers.txt"
FEATURES = "LabelMe_VGG_avg_{}.npy"
GOLD = "LabelMe_Z_{}.txt"

Features = NDArray[np.float32]


def labelme(*, rng: np.random.Generator, path: str) -> tuple[Items, Votes]:
    """Read the images' features, gold and votes; train items first, then test, in file order.

    The features are the authors' averaged VGG16 outputs as they are (0 to about 100), not
    standardised.

    Args:
        rng: not used; the split is the authors'.
        path: the folder with the authors' files.

    Raises:
        ConfigError: files are missing, or what is wrong inside them, all of it.
    """
    folder = Path(path).expanduser()
    _refuse_missing(folder)
    faults: list[str] = []
    features = [_features(folder / FEATURES.format(split), faults) for split in SPLITS]
    gold = [_gold(folder / GOLD.format(split), faults) for split in SPLITS]
    dense = _answers(folder / ANSWERS, faults)
    if not faults:
        _compare(folder, features, gold, dense, faults)
    if faults:
        more = len(faults) - SHOWN
        raise ConfigError(*faults[:SHOWN], *([f"{folder}: and {more} more"] if more > 0 else []))
    item, annotator = np.nonzero(dense >= 0)
    names = [
        f"{split}-{k}" for split, part in zip(SPLITS, gold, strict=True) for k in range(len(part))
    ]
    items = Items(
        kind="features",
        inputs={"x": np.concatenate(features)},
        split=np.repeat(SPLITS, [len(part) for part in gold]),
        n_classes=N_CLASSES,
        truth=np.concatenate(gold),
        names=names,
    )
    votes = Votes(
        item=item,
        annotator=annotator,
        label=dense[item, annotator],
        n_items=len(items),
        n_annotators=dense.shape[1],
        n_classes=N_CLASSES,
    )
    return items, votes


def _refuse_missing(folder: Path) -> None:
    wanted = [ANSWERS, *(name.format(split) for split in SPLITS for name in (FEATURES, GOLD))]
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"dataset.path: in {folder} (looked in {folder.absolute()}) there is no "
            f"{', '.join(missing)}; expected: {', '.join(wanted)}, as in data/LabelMe of "
            f"github.com/fmenat/PyLearningCrowds; set dataset.path=FOLDER to their folder, "
            f"or ANNORUN_DATA to the folder that holds it as labelme/"
        )


def _features(file: Path, faults: list[str]) -> Features:
    """Return (n, d), or nothing but a fault."""
    try:
        x = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        faults.append(f"{file}: not an array in NumPy's format: {error}")
        return np.empty((0, 0), dtype=np.float32)
    if not isinstance(x, np.ndarray) or x.ndim != 2 or x.dtype.kind != "f":
        found = f"{x.dtype} of shape {x.shape}" if isinstance(x, np.ndarray) else "an archive"
        faults.append(f"{file}: {found}; needed: floating-point numbers of shape (n_items, d)")
        return np.empty((0, 0), dtype=np.float32)
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        row, column = bad[0]
        faults.append(
            f"{file}, row {row}, column {column} (from 0): {x[row, column]}; "
            f"needed: finite numbers ({len(bad)} are not)"
        )
    return x.astype(np.float32)


def _gold(file: Path, faults: list[str]) -> Ints:
    """Return (n,) labels."""
    return _integers(file, 0, faults, width=1)[:, 0]


def _answers(file: Path, faults: list[str]) -> Ints:
    """Return (n, n_annotators) labels, -1 where there is no vote."""
    return _integers(file, -1, faults)


def _integers(file: Path, lowest: int, faults: list[str], width: int = 0) -> Ints:
    """Return the file's integers, a row a line; without a width the first line sets it."""
    allowed = f"allowed: {lowest} to {N_CLASSES - 1}" + (" (-1: no vote)" if lowest < 0 else "")
    rows: list[list[int]] = []
    before = len(faults)
    for line, text in enumerate(_lines(file), 1):
        cells = text.split()
        width = width or len(cells)
        if len(cells) != width or not cells:
            faults.append(f"{file}, line {line}: {len(cells)} columns; needed: {max(width, 1)}")
            continue
        row = [_label(cell, lowest) for cell in cells]
        for column, value in enumerate(row, 1):
            if value is None:
                faults.append(
                    f"{file}, line {line}, column {column}: {cells[column - 1]!r}; {allowed}"
                )
        rows.append([value for value in row if value is not None])
    if not rows and len(faults) == before:
        faults.append(f"{file}: an empty file; needed: one line an image")
    if len(faults) > before:
        return np.empty((0, max(width, 1)), dtype=np.int64)
    return np.array(rows, dtype=np.int64)


def _lines(file: Path) -> list[str]:
    # bytes that are no text stand out as labels that are not allowed
    return file.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()


def _label(cell: str, lowest: int) -> int | None:
    names = {str(k): k for k in range(lowest, N_CLASSES)}
    return names.get(cell)


def _compare(
    folder: Path,
    features: Sequence[Features],
    gold: Sequence[Ints],
    dense: Ints,
    faults: list[str],
) -> None:
    """Add a fault for every two files that disagree in size."""
    for split, x, z in zip(SPLITS, features, gold, strict=True):
        if len(x) != len(z):
            faults.append(
                f"{folder / GOLD.format(split)}, line {len(z)}: the file ends after {len(z)} "
                f"labels, but {FEATURES.format(split)} has {len(x)} rows; one label a row is needed"
            )
    if len(dense) != len(features[0]):
        faults.append(
            f"{folder / ANSWERS}, line {len(dense)}: the file ends after {len(dense)} images, but "
            f"{FEATURES.format('train')} has {len(features[0])} rows; one line a row is needed"
        )
    widths = [x.shape[1] for x in features]
    if widths[0] != widths[1]:
        faults.append(
            f"{folder / FEATURES.format('test')}: {widths[1]} features an image, but "
            f"{FEATURES.format('train')} has {widths[0]}; the same number is needed"
        )
