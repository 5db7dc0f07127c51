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

from annorun.dataset.table_checks import check_table, unknown
from annorun.dataset.table_columns import UNUSED, Column, Faults, Form, LongTable
from annorun.dataset.table_parquet import read_parquet
from annorun.dataset.table_text import read_csv, read_jsonl, read_tsv
from annorun.votes import Ints, Items, Votes

Reader = Callable[[Path, Mapping[str, str], Form, Faults], LongTable | None]
READERS: dict[str, Reader] = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
}
VOTES = Form(
    needed={"task": "q1", "worker": "ann", "label": "yes"},
    words={
        "task": "every vote needs a task",
        "worker": "every vote needs a worker",
        "label": "every vote needs a label",
        "subpopulation": f"every row needs one (or do without: dataset.subpopulation={UNUSED})",
        "split": f"allowed: train, test (or do without: dataset.split={UNUSED})",
        "gold": "leave the cell empty where it is unknown",
        "control": "leave the cell empty where the task is no control",
    },
    owner={"gold": "task", "control": "task", "split": "task", "subpopulation": "worker"},
    vote=("task", "worker"),
    parts=("train", "test"),
    partial=("gold", "control"),
)


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
    return _assemble(checked(path, wanted, VOTES))


def checked(path: str, wanted: Mapping[str, str], form: Form) -> LongTable:
    """Read a file of any of the formats and hold it against its form.

    Args:
        path: the file.
        wanted: name of the column of each key; `none`, for one that is not needed: do without.
        form: what is needed and allowed.

    Raises:
        ConfigError: all that is wrong with the file.
    """
    names = {key: name for key, name in wanted.items() if key in form.needed or name != UNUSED}
    faults = Faults(path)
    _check_names(names, form, faults)
    read = _read(path, names, form, faults)
    if read is not None:
        check_table(read, form, faults)
    if faults or read is None:
        raise faults.error()
    return read


def _check_names(names: Mapping[str, str], form: Form, faults: Faults) -> None:
    for key, name in names.items():
        same = [other for other in names if names[other] == name]
        if same[0] != key:
            faults.add(
                f"dataset.{same[0]} and dataset.{key} are both {name!r}; each needs its own column"
                + ("" if key in form.needed else f" (or do without: dataset.{key}={UNUSED})")
            )


def _read(path: str, names: Mapping[str, str], form: Form, faults: Faults) -> LongTable | None:
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
        return reader(file, names, form, faults)
    return None


def _assemble(read: LongTable) -> tuple[Items, Votes]:
    columns = read.columns
    item, names = ranked(columns["task"])
    annotator, annotator_names = ranked(columns["worker"])
    labels = [columns[key] for key in ("label", *VOTES.partial) if key in columns]
    class_names = _in_order(value for column in labels for value in column.values if value)
    split = np.full(len(names), "train")
    if "split" in columns:
        split[item] = np.array(columns["split"].values, dtype=np.str_)[columns["split"].codes]
    group, group_names = None, None
    if "subpopulation" in columns:
        of_row, group_names = ranked(columns["subpopulation"])
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


def ranked(column: Column) -> tuple[Ints, list[str]]:
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
