"""POPQUORN (Pei & Jurgens 2023): texts rated by annotators who told their age, gender and so on.

The files are those of github.com/Jiaxin-Pei/Potato-Prolific-Dataset, folder `dataset`; prepared as
by NUTMEG's authors (github.com/jonathanivey/NUTMEG, `data/preprocess_data.py`): the label is
whether the rating is 3 or more; ages are merged into decades; and the ratings of an annotator who
is outside the groups below *in any of the four attributes* are dropped, whichever attribute is
chosen, so that all four have the same items, annotators and votes.

Their splits (`data/splits` there) are read from a folder beside the ratings. Without, items are
drawn in the same proportions: of 1500 items 1050 train, 150 validate, 300 test; of 3718, 2602, 372,
744. Groups that nobody is in are left out.
Votes on test items are `Items.held_out`: no aggregator and no training sees them.
"""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from annorun.dataset.files import refuse, text_of
from annorun.errors import ConfigError
from annorun.votes import Items, Votes

THRESHOLD = 3
FOLDERS = {"offensiveness": "offensiveness", "politeness": "politeness_rating"}
SPLITS = ("train", "val", "test")
AGES = {
    **{"18-24": "18-29", "25-29": "18-29", "30-34": "30-39", "35-39": "30-39"},
    # "54-59" is how the authors' files write it
    **{"40-44": "40-49", "45-49": "40-49", "50-54": "50-59", "54-59": "50-59"},
    **{"60-64": "60+", ">65": "60+"},
}
GROUPS = {
    "age": ("18-29", "30-39", "40-49", "50-59", "60+"),
    "education": (
        "High school diploma or equivalent",
        "College degree",
        "Graduate degree",
    ),
    "gender": ("Man", "Woman"),
    "race": ("Asian", "Black or African American", "Hispanic or Latino", "White"),
}
# fewer than 5 % of the offensiveness ratings
LEFT_OUT = {"offensiveness": {"Hispanic or Latino"}, "politeness": set[str]()}

Row = dict[str, str]


def popquorn(
    *,
    rng: np.random.Generator,
    path: str,
    task: Literal["offensiveness", "politeness"],
    attribute: Literal["age", "education", "gender", "race"],
    splits: str | None,
) -> tuple[Items, Votes]:
    """Read one task's ratings as votes of 0 or 1; items and annotators in the order of their ids.

    Args:
        rng: draws the split where the authors' is not there.
        path: the folder that holds `offensiveness/` or `politeness_rating/`.
        task: what was rated.
        attribute: whose values are the groups.
        splits: the folder inside `path` that holds the authors' split ids; null: drawn.

    Raises:
        ConfigError: files are missing, or what is wrong inside them, all of it.
    """
    folder = Path(path).expanduser()
    file = folder / FOLDERS[task] / "raw_data.csv"
    rows = _kept_rows(file, task)
    names = sorted({row["instance_id"] for row in rows}, key=by_number)
    who = sorted({row["user_id"] for row in rows}, key=by_number)
    used = {row[attribute] for row in rows}
    groups = [g for g in GROUPS[attribute] if g in used]
    own = {row["user_id"]: groups.index(row[attribute]) for row in rows}
    number = {name: i for i, name in enumerate(names)}
    place = {name: i for i, name in enumerate(who)}
    split = _drawn(len(names), rng) if splits is None else _read(folder, splits, task, names)
    item = np.array([number[row["instance_id"]] for row in rows], dtype=np.int64)
    annotator = np.array([place[row["user_id"]] for row in rows], dtype=np.int64)
    label = np.array([float(row[task]) >= THRESHOLD for row in rows], dtype=np.int64)
    group = np.array([own[w] for w in who], dtype=np.int64)
    votes = Votes(item, annotator, label, len(names), len(who), 2, group)
    texts = {row["instance_id"]: row["text"] for row in rows}
    items = Items(
        kind="text",
        inputs={"text": [texts[name] for name in names]},
        split=split,
        n_classes=2,
        held_out=votes.on(split == "test"),
        names=names,
        annotator_names=who,
        group_names=groups,
    )
    return items, votes.on(split != "test")


def by_number(name: str) -> tuple[int, str]:
    """Sort 9 before 10."""
    return len(name), name


def _rows(file: Path, task: str, faults: list[str]) -> list[Row]:
    """Return the file's rows with merged ages, and add what is wrong with them to the faults."""
    if not file.is_file():
        raise ConfigError(
            f"dataset.path: there is no {file} (looked in {file.parent.absolute()}); expected: the "
            "folder `dataset` of github.com/Jiaxin-Pei/Potato-Prolific-Dataset; set "
            "dataset.path=FOLDER to it, or ANNORUN_DATA to the folder that holds it as popquorn/"
        )
    wanted = ("instance_id", "user_id", "text", task, *GROUPS)
    reader = csv.DictReader(io.StringIO(text_of(file), newline=""), strict=True)
    try:
        missing = [name for name in wanted if name not in (reader.fieldnames or ())]
        if missing:
            raise ConfigError(f"{file}, line 1: no column {', '.join(missing)}")
        numbered = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ConfigError(f"{file}, line {reader.reader.line_num}: {error}") from None
    empty = [
        f"{file}, line {line}, column {name}: empty; every row needs one"
        for line, row in numbered
        for name in wanted
        # an attribute that is not told is one that is in no group
        if row[name] is None or (name.endswith("_id") and not row[name])
    ]
    if empty:
        # what is empty cannot be held against other rows
        faults += empty
        return []
    faults += _bad_cells(file, task, numbered)
    faults += _contradictions(file, numbered)
    return [{**row, "age": AGES.get(row["age"], "")} for _, row in numbered]


def _bad_cells(file: Path, task: str, numbered: list[tuple[int, Row]]) -> Iterator[str]:
    for line, row in numbered:
        try:
            good = 1 <= float(row[task]) <= 5
        except (TypeError, ValueError):
            good = False
        if not good:
            yield f"{file}, line {line}, column {task}: {row[task]!r}; allowed: 1 to 5"
        if row["age"] not in AGES and row["age"] != "Prefer not to disclose":
            allowed = ", ".join([*AGES, "Prefer not to disclose"])
            yield f"{file}, line {line}, column age: {row['age']!r}; allowed: {allowed}"


def _contradictions(file: Path, numbered: list[tuple[int, Row]]) -> Iterator[str]:
    """Yield where an annotator's attribute or an item's text changes, and where a vote is twice."""
    seen: dict[tuple[str, ...], tuple[int, str]] = {}
    for line, row in numbered:
        user, item = row["user_id"], row["instance_id"]
        facts = {("annotator", user, a): row[a] for a in GROUPS} | {
            ("item", item, "text"): row["text"]
        }
        for key, value in facts.items():
            first, before = seen.setdefault(key, (line, value))
            if value != before:
                yield (
                    f"{file}, line {line}: {key[0]} {key[1]} has {key[2]} {value!r}, but {before!r}"
                    f" in line {first}; needed: one {key[2]} for each {key[0]}"
                )
        first, _ = seen.setdefault(("vote", item, user), (line, ""))
        if first != line:
            yield f"{file}, line {line}: annotator {user} rated item {item} in line {first} already"


def _kept_rows(file: Path, task: str) -> list[Row]:
    """Return the file's ratings by annotators who are in a group of every attribute."""
    faults: list[str] = []
    rows = [row for row in _rows(file, task, faults) if _kept(row, task)]
    refuse(faults)
    if not rows:
        raise ConfigError(f"{file}: no rating by an annotator of the groups; needed is one or more")
    return rows


def _kept(row: Row, task: str) -> bool:
    return all(row[a] in kept and row[a] not in LEFT_OUT[task] for a, kept in GROUPS.items())


def _drawn(n: int, rng: np.random.Generator) -> NDArray[np.str_]:
    """Return "train", "val" or "test" for each of n items, by chance."""
    n_train, n_val = 7 * n // 10, math.ceil(n / 10)
    sizes = (n_train, n_val, n - n_train - n_val)
    drawn: NDArray[np.str_] = np.repeat(SPLITS, sizes)[rng.permutation(n)]
    return drawn


def _read(path: Path, splits: str, task: str, names: Sequence[str]) -> NDArray[np.str_]:
    """Return "train", "val" or "test" for each item, as a folder inside `path` says."""
    folder = path / splits
    # a run's identity covers what is inside path, and nothing else
    if not folder.resolve().is_relative_to(path.resolve()):
        raise ConfigError(f"dataset.splits={splits}: allowed is a folder inside {path}, or null")
    if not folder.is_dir():
        raise ConfigError(
            f"dataset.splits={splits}: there is no folder {folder}; it is data/splits of "
            "github.com/jonathanivey/NUTMEG; dataset.splits=null draws a split of the same sizes"
        )
    of: dict[str, str] = {}
    for split in SPLITS:
        file = folder / f"{task}_{split}_split"
        if not file.is_file():
            raise ConfigError(
                f"dataset.splits: there is no {file}; allowed is a folder that has it"
            )
        for name in text_of(file).split()[1:]:
            if of.setdefault(name, split) != split:
                raise ConfigError(f"{file}: item {name} is in {of[name]} already")
    lost = [name for name in names if name not in of]
    if lost:
        raise ConfigError(f"{folder}: item {lost[0]} and {len(lost) - 1} more are in no split")
    return np.array([of[name] for name in names])
