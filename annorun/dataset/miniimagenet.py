"""MiniImageNet (Vinyals et al. 2016): photographs of 100 classes of ImageNet, 600 of each.

The folder is the usual one: `images/` with the pictures, or with a folder of them for each class,
and the lists `train.csv`, `val.csv`, `test.csv` of Ravi & Larochelle (2017), columns `filename`
and `label`. ImageNet may not be passed on: users who have it put it there.

All 60,000 pictures are 5.1 GB as float32 of 84 x 84, which is what networks take; `per_class`
keeps fewer of them.
"""

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from annorun.dataset.files import refuse, text_of
from annorun.dataset.images import (
    SPLITS,
    Images,
    Names,
    area_mean,
    class_items,
    draw_classes,
    pixels,
)
from annorun.errors import ConfigError
from annorun.kinds import Count, Natural
from annorun.votes import Items

COLUMNS = ("filename", "label")


class Picture(NamedTuple):
    """A line of a list: its file's name, its class, and the list's split."""

    file: str
    label: str
    split: str


def miniimagenet(
    *,
    rng: np.random.Generator,
    path: str,
    classes: tuple[Count, Natural, Count] | None,
    per_class: Count,
    size: Count,
) -> tuple[Items, None]:
    """Read pictures as (3, size, size), colours in [0, 1]; the votes are simulated.

    Args:
        rng: draws which classes are train, val and test, and then which pictures are kept.
        path: the folder with images/ and the lists.
        classes: numbers of train, val and test classes, out of all lists together; what is left
            over is left out; null: the lists' own split (64, 16, 20).
        per_class: pictures of a class at most, drawn; only these are opened.
        size: pixels each way; pictures of another size are averaged over areas, whatever their
            shape was.

    Raises:
        ConfigError: files are missing, more classes than there are, or what is wrong inside.
    """
    folder = Path(path).expanduser()
    _refuse_missing(folder)
    listed = _listed(folder)
    members: dict[str, list[Picture]] = {label: [] for label in sorted({p.label for p in listed})}
    for picture in listed:
        members[picture.label].append(picture)
    drawn = (
        _as_listed(folder, members)
        if classes is None
        else draw_classes(len(members), classes, where=str(folder), rng=rng)
    )
    kept = {
        label: [found[k] for k in np.sort(rng.permutation(len(found))[:per_class])]
        for (label, found), part in zip(members.items(), drawn, strict=True)
        if part
    }
    pictures = [picture for found in kept.values() for picture in found]
    items = class_items(
        _read(folder / "images", pictures, size),
        np.repeat(np.arange(len(kept)), [len(found) for found in kept.values()]),
        split=drawn[drawn != ""],
        class_names=list(kept),
        names=[picture.file for picture in pictures],
    )
    return items, None


def _refuse_missing(folder: Path) -> None:
    lists = [f"{split}.csv" for split in SPLITS]
    missing = [name for name in lists if not (folder / name).is_file()]
    missing += [] if (folder / "images").is_dir() else ["images/"]
    if missing:
        raise ConfigError(
            f"dataset.path: in {folder} (looked in {folder.absolute()}) there is no "
            f"{', '.join(missing)}; expected: {', '.join(lists)} (columns filename,label) as in "
            f"data/miniImagenet of github.com/twitter-research/meta-learning-lstm, and images/ "
            f"with the pictures that they name; ImageNet asks its users to register "
            f"(image-net.org), so fetch_data.py has no line for it; set dataset.path=FOLDER, or "
            f"ANNORUN_DATA to the folder that holds it as miniimagenet/"
        )


def _listed(folder: Path) -> list[Picture]:
    """Return the lines of all lists."""
    faults: list[str] = []
    found: list[Picture] = []
    seen: dict[str, str] = {}
    for split in SPLITS:
        file = folder / f"{split}.csv"
        rows = csv.reader(StringIO(text_of(file), newline=""))
        header = [cell.strip() for cell in next(rows, [])]
        if not set(COLUMNS) <= set(header):
            shown = ", ".join(header) or "nothing"
            faults.append(f"{file}, line 1: {shown}; needed: the columns filename,label")
            continue
        places = [header.index(column) for column in COLUMNS]
        for row in filter(None, rows):
            where = f"{file}, line {rows.line_num}"
            if len(row) != len(header) or not all(row[k] for k in places):
                faults.append(f"{where}: {','.join(row)!r}; needed: a value in each column")
                continue
            name, label = (row[k] for k in places)
            if name in seen:
                faults.append(f"{where}: {name} is in {seen[name]} too; allowed is once")
            seen[name] = where
            found.append(Picture(name, label, split))
    if not found and not faults:
        faults.append(f"{folder}: its lists name no picture; needed: some")
    refuse(faults)
    return found


def _as_listed(folder: Path, members: dict[str, list[Picture]]) -> Names:
    """Return the split of each class, or raise ConfigError where a class is in two lists."""
    splits = {label: sorted({p.split for p in found}) for label, found in members.items()}
    refuse(
        [
            f"{folder}: class {label} is in {' and '.join(f'{s}.csv' for s in found)}; allowed is "
            f"one list, or dataset.classes with three numbers"
            for label, found in splits.items()
            if len(found) > 1
        ]
    )
    return np.array([found[0] for found in splits.values()], dtype="<U5")


def _read(folder: Path, pictures: Sequence[Picture], size: int) -> Images:
    """Return (n, 3, size, size); missing and broken files are told at once."""
    files = [_file(folder, picture) for picture in pictures]
    refuse(
        [
            f"{folder}: there is no {p.file}, nor {p.label}/{p.file}; {p.split}.csv names it"
            for p, file in zip(pictures, files, strict=True)
            if file is None
        ]
    )
    faults: list[str] = []
    # filled in place: a list of pictures and their stack would need twice the memory
    x = np.zeros((len(pictures), 3, size, size), dtype=np.float32)
    for row, file in zip(x, files, strict=True):
        assert file is not None
        try:
            colours = pixels(file, "RGB").transpose(2, 0, 1).astype(np.float32)
        except ValueError as error:
            faults.append(f"{file}: {error}")
            continue
        same = colours.shape == row.shape
        row[:] = (colours if same else area_mean(colours, size)) / np.float32(255)
    refuse(faults)
    return x


def _file(folder: Path, picture: Picture) -> Path | None:
    beside = (folder / picture.file, folder / picture.label / picture.file)
    return next((file for file in beside if file.is_file()), None)
