r"""Reader of anyone's long table: one row a vote, in CSV, TSV, JSON lines or Parquet.

    task,worker,label
    q1,ann,yes
    q1,bob,no

Cells are text and are compared letter by letter: `1`, `1.0` and `01` are three labels, `Yes` and
`yes` two. Nothing is trimmed, filled in, dropped or coerced: what is not usable is a fault, and all
faults of a file are reported at once, each with its line and column. These are the rules:

- `task`, `worker` and `label` are needed in every row. `subpopulation` (of a worker), `gold` and
  `control` (of a task) and `split` (of a task: train or test) are used when the file has them: gold
  judges the labels, a control is told to the aggregator as the truth; `dataset.gold=none`
  does without. Other columns are not read.
- Empty cells, null and `nan` are faults; so are blanks at the ends of a cell. Only `gold` and
  `control` may be empty or null: not known. They may stand in one row of a task or in all. One that
  nobody voted for is a class.
- A line with nothing in it holds no vote and is passed over. Text is UTF-8, with or without a byte
  order mark. TSV is quoted as CSV is.
- In JSON lines and Parquet, true and false are the texts `true` and `false`, and 1 is the text `1`.
  Numbers in JSON keep the digits they are written with. Floating-point columns of Parquet are
  refused: nobody can say if theirs is 1 or 1.0.
- Ids are given in sorted order (by number where all are integers), so that shuffled rows give the
  same votes to the bit.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from annorun.dataset.table_checks import PARTIAL, check_table, unknown
from annorun.dataset.table_columns import REQUIRED, UNUSED, Column, Faults, LongTable
from annorun.dataset.table_parquet import read_parquet
from annorun.dataset.table_text import read_csv, read_jsonl, read_tsv
from annorun.votes import Ints, Items, Votes

READERS: dict[str, Callable[[Path, Mapping[str, str], Faults], LongTable | None]] = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
}


def table(
    *,
    rng: np.random.Generator,
    path: str,
    task: str = "task",
    worker: str = "worker",
    label: str = "label",
    subpopulation: str = "subpopulation",
    gold: str = "gold",
    control: str = "control",
    split: str = "split",
) -> tuple[Items, Votes]:
    """Read a long table of votes.

    Args:
        rng: not used; a table is read, not drawn.
        path: the file; its suffix says the format: .csv, .tsv, .jsonl or .parquet.
        task: name of the column of the item that was labelled.
        worker: name of the column of the annotator.
        label: name of the column of the answer.
        subpopulation: name of the optional column of the annotator's group; `none` does without.
        gold: name of the optional column of the item's truth; `none` does without.
        control: name of the optional column of the labels that the aggregator is told.
        split: name of the optional column of the item's split; `none` does without: all are train.

    Raises:
        ConfigError: all that is wrong with the file.
    """
    wanted = dict(
        task=task,
        worker=worker,
        label=label,
        subpopulation=subpopulation,
        gold=gold,
        control=control,
        split=split,
    )
    names = {key: name for key, name in wanted.items() if key in REQUIRED or name != UNUSED}
    faults = Faults(path)
    _check_names(names, faults)
    read = _read(path, names, faults)
    if read is not None:
        check_table(read, faults)
    if faults or read is None:
        raise faults.error()
    return _assemble(read)


def _check_names(names: Mapping[str, str], faults: Faults) -> None:
    for key, name in names.items():
        same = [other for other in names if names[other] == name]
        if same[0] != key:
            faults.add(
                f"dataset.{same[0]} and dataset.{key} are both {name!r}; each needs its own column"
                + ("" if key in REQUIRED else f" (or do without: dataset.{key}={UNUSED})")
            )


def _read(path: str, names: Mapping[str, str], faults: Faults) -> LongTable | None:
    file = Path(path).expanduser()
    reader = READERS.get(file.suffix.lower())
    if file.is_dir():
        faults.add(f"a folder; dataset.path=FILE takes one file: {', '.join(READERS)}")
    elif reader is None:
        found = file.suffix or "none"
        faults.add(f"the suffix is {found}; allowed: {', '.join(READERS)} (unpacked)")
    elif not file.exists():
        faults.add(f"no such file (looked for {file.absolute()}); set dataset.path=FILE")
    elif not os.access(file, os.R_OK):
        faults.add("the file may not be read: permission denied")
    else:
        return reader(file, names, faults)
    return None


def _assemble(read: LongTable) -> tuple[Items, Votes]:
    columns = read.columns
    item, names = _ranked(columns["task"])
    annotator, annotator_names = _ranked(columns["worker"])
    labels = [columns[key] for key in ("label", *PARTIAL) if key in columns]
    class_names = _in_order(value for column in labels for value in column.values if value)
    split = np.full(len(names), "train")
    if "split" in columns:
        split[item] = np.array(columns["split"].values, dtype=np.str_)[columns["split"].codes]
    group, group_names = None, None
    if "subpopulation" in columns:
        of_row, group_names = _ranked(columns["subpopulation"])
        group = np.zeros(len(annotator_names), dtype=np.int64)
        group[annotator] = of_row
    items = Items(
        kind="votes",
        inputs={},
        split=split,
        n_classes=len(class_names),
        truth=_labels(columns.get("gold"), item, len(names), class_names),
        known=_labels(columns.get("control"), item, len(names), class_names),
        names=names,
        class_names=class_names,
        annotator_names=annotator_names,
        group_names=group_names,
    )
    votes = Votes(
        item=item,
        annotator=annotator,
        label=_codes(columns["label"], class_names),
        n_items=len(names),
        n_annotators=len(annotator_names),
        n_classes=len(class_names),
        group=group,
    )
    return items, votes


def _labels(column: Column | None, item: Ints, n_items: int, class_names: list[str]) -> Ints | None:
    """Return (n_items,) labels, -1 where unknown; None when none is known."""
    if column is None:
        return None
    known = np.array([not unknown(value) for value in column.values], dtype=np.bool_)[column.codes]
    if not known.any():
        return None
    truth = np.full(n_items, -1, dtype=np.int64)
    truth[item[known]] = _codes(column, class_names)[known]
    return truth


def _ranked(column: Column) -> tuple[Ints, list[str]]:
    """Return the column as numbers, (n_rows,), and the name of each number."""
    names = _in_order(value for value in column.values if value)
    return _codes(column, names), names


def _codes(column: Column, names: list[str]) -> Ints:
    """Return the place of each row's cell in `names`, (n_rows,); -1 for one that is not there."""
    place = {name: k for k, name in enumerate(names)}
    ranks = [-1 if value is None else place.get(value, -1) for value in column.values]
    return np.array(ranks, dtype=np.int64)[column.codes]


def _in_order(names: Iterable[str]) -> list[str]:
    """Return each name once, by number where all are integers, by letters otherwise."""
    once = set(names)
    if all(re.fullmatch(r"[+-]?[0-9]{1,18}", name) for name in once):
        return sorted(once, key=lambda name: (int(name), name))
    return sorted(once)
