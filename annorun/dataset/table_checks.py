"""What may stand in a long table: cells one by one, then rows against each other."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from annorun.dataset.table_columns import UNUSED, Faults, LongTable
from annorun.votes import Ints

NEEDED = {
    "task": "every vote needs a task",
    "worker": "every vote needs a worker",
    "label": "every vote needs a label",
    "subpopulation": f"every row needs one (or do without: dataset.subpopulation={UNUSED})",
    "split": f"allowed: train, test (or do without: dataset.split={UNUSED})",
    "gold": "leave the cell empty where it is unknown",
    "control": "leave the cell empty where the task is no control",
}
# labels of a task that need not be known
PARTIAL = ("gold", "control")
OWNER = {"gold": "task", "control": "task", "split": "task", "subpopulation": "worker"}

Known = NDArray[np.bool_]


def check_table(table: LongTable, faults: Faults) -> None:
    """Add every fault of the table to `faults`."""
    known = {key: _check_cells(key, table, faults) for key in table.columns}
    if known.keys() >= {"task", "worker"}:
        _check_duplicates(table, known, faults)
    for key, owner in OWNER.items():
        if key in known and owner in known:
            _check_constant(table, key, known[key] & known[owner], faults)
    # with other faults these two may be untrue: a faulty row may be the vote or the class missed
    if not faults and not len(table.lines):
        faults.add("no votes: there is a header and no row below it")
    elif not faults:
        _check_classes(table, known, faults)


def unknown(value: str | None) -> bool:
    """Return whether a cell of a label that need not be known says that it is not."""
    return value is None or value == ""


def _check_cells(key: str, table: LongTable, faults: Faults) -> Known:
    """Return which rows have a usable cell."""
    column = table.columns[key]
    texts = {code: _fault(key, value) for code, value in enumerate(column.values)}
    wrong = {code: text for code, text in texts.items() if text}
    usable = np.ones(len(column.values), dtype=np.bool_)
    if wrong:
        usable[list(wrong)] = False
        rows = np.flatnonzero(~usable[column.codes])
        faults.add_rows(rows, table.lines, column.name, lambda row: wrong[int(column.codes[row])])
    if key in PARTIAL:
        usable &= np.array([not unknown(value) for value in column.values], dtype=np.bool_)
    return usable[column.codes]


def _fault(key: str, value: str | None) -> str:
    """Return what is wrong with a cell, or nothing."""
    if key in PARTIAL and unknown(value):
        return ""
    if value is None:
        return f"null or absent; {NEEDED[key]}"
    bare = value.strip()
    if not bare:
        return f"{'only blanks' if value else 'empty'}; {NEEDED[key]}"
    if "\0" in value:
        return f"{value!r} holds a NUL byte; text without it is allowed"
    if len(bare) < len(value):
        return f"{value!r} has blanks at an end; names are compared letter by letter: remove them"
    if bare.lower().lstrip("+-") == "nan":
        return f"{value!r} stands for a missing value; {NEEDED[key]}"
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        return f"{value!r} holds half a character (a lone surrogate); valid text is allowed"
    if key == "split" and value not in ("train", "test"):
        return f"{value!r}; {NEEDED[key]}"
    return ""


def _check_duplicates(table: LongTable, known: Mapping[str, Known], faults: Faults) -> None:
    task, worker = table.columns["task"], table.columns["worker"]
    rows = np.flatnonzero(known["task"] & known["worker"])
    pair = task.codes[rows] * len(worker.values) + worker.codes[rows]
    first = _first_rows(pair, rows)
    again = first != rows
    earlier = dict(zip(rows[again].tolist(), first[again].tolist(), strict=True))

    def text(row: int) -> str:
        return (
            f"{worker.cell(row)!r} labelled task {task.cell(row)!r} already in "
            f"{faults.place} {table.lines[earlier[row]]}; one vote a task and worker is allowed"
        )

    faults.add_rows(rows[again], table.lines, worker.name, text)


def _check_constant(table: LongTable, key: str, known: Known, faults: Faults) -> None:
    column, owner = table.columns[key], table.columns[OWNER[key]]
    rows = np.flatnonzero(known)
    first = _first_rows(owner.codes[rows], rows)
    differs = column.codes[first] != column.codes[rows]
    earlier = dict(zip(rows[differs].tolist(), first[differs].tolist(), strict=True))

    def text(row: int) -> str:
        return (
            f"{column.cell(row)!r}, but {OWNER[key]} {owner.cell(row)!r} has "
            f"{column.cell(earlier[row])!r} in {faults.place} {table.lines[earlier[row]]}; "
            f"one {key} a {OWNER[key]} is allowed"
        )

    faults.add_rows(rows[differs], table.lines, column.name, text)


def _first_rows(codes: Ints, rows: Ints) -> Ints:
    """Return for each of `rows` the first row that has the same code."""
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return rows[first[inverse]]


def _check_classes(table: LongTable, known: Mapping[str, Known], faults: Faults) -> None:
    classes = {
        column.values[code]
        for key, column in table.columns.items()
        if key in ("label", *PARTIAL)
        for code in np.unique(column.codes[known[key]])
    }
    if len(classes) == 1:
        faults.add(
            f"every label is {classes.pop()!r}; at least 2 classes are needed",
            column=table.columns["label"].name,
        )
