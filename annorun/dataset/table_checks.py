"""What may stand in a long table: cells one by one, then rows against each other."""

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from annorun.dataset.table_columns import Faults, Form, LongTable
from annorun.votes import Ints

HALF = re.compile("[\ud800-\udfff]")
# letters of a free text that a fault shows
SHOWN = 60

Known = NDArray[np.bool_]


def check_table(table: LongTable, form: Form, faults: Faults) -> None:
    """Add every fault of the table to `faults`."""
    known = {key: _check_cells(key, table, form, faults) for key in table.columns}
    if known.keys() >= set(form.vote):
        _check_duplicates(table, known, form, faults)
    for key, owner in form.owner.items():
        if key in known and owner in known:
            _check_constant(table, key, known[key] & known[owner], form, faults)
    # with other faults these two may be untrue: a faulty row may be the vote or the class missed
    if not faults and not len(table.lines):
        faults.add("no votes: there is a header and no row below it")
    elif not faults:
        _check_classes(table, known, form, faults)


def unknown(value: str | None) -> bool:
    """Return whether a cell of a label that need not be known says that it is not."""
    return value is None or value == ""


def _check_cells(key: str, table: LongTable, form: Form, faults: Faults) -> Known:
    """Return which rows have a usable cell."""
    column = table.columns[key]
    texts = {code: _fault(key, value, form) for code, value in enumerate(column.values)}
    wrong = {code: text for code, text in texts.items() if text}
    usable = np.ones(len(column.values), dtype=np.bool_)
    if wrong:
        usable[list(wrong)] = False
        rows = np.flatnonzero(~usable[column.codes])
        faults.add_rows(rows, table.lines, column.name, lambda row: wrong[int(column.codes[row])])
    if key in form.partial:
        usable &= np.array([not unknown(value) for value in column.values], dtype=np.bool_)
    return usable[column.codes]


def _fault(key: str, value: str | None, form: Form) -> str:
    """Return what is wrong with a cell, or nothing."""
    if key in form.partial and unknown(value):
        return ""
    if value is None:
        return f"null or absent; {form.words[key]}"
    bare = value.strip()
    if not bare:
        return f"{'only blanks' if value else 'empty'}; {form.words[key]}"
    if "\0" in value:
        shown = _shown(key, value, form, value.index("\0"))
        return f"{shown} holds a NUL byte; text without it is allowed"
    if len(bare) < len(value) and key not in form.free:
        return f"{value!r} has blanks at an end; names are compared letter by letter: remove them"
    if bare.lower().lstrip("+-") == "nan" and key not in form.free:
        return f"{value!r} stands for a missing value; {form.words[key]}"
    if not value.isascii() and (half := HALF.search(value)):
        shown = _shown(key, value, form, half.start())
        return f"{shown} holds half a character (a lone surrogate); valid text is allowed"
    if key == "split" and value not in form.parts:
        return f"{value!r}; {form.words[key]}"
    return ""


def _shown(key: str, value: str, form: Form, place: int) -> str:
    """Return a cell in quotes; of a long free text, what stands around a place."""
    if len(value) <= SHOWN or key not in form.free:
        return repr(value)
    start = max(0, place - SHOWN // 2)
    end = start + SHOWN
    return f"{'...' * (start > 0)}{value[start:end]!r}{'...' * (end < len(value))}"


def _check_duplicates(
    table: LongTable, known: Mapping[str, Known], form: Form, faults: Faults
) -> None:
    task, worker, *more = (table.columns[key] for key in form.vote)
    rows = np.flatnonzero(np.logical_and.reduce([known[key] for key in form.vote]))
    same = task.codes[rows] * len(worker.values) + worker.codes[rows]
    for column in more:
        # numbered anew: the product of three counts may not fit
        same = np.unique(same, return_inverse=True)[1] * len(column.values) + column.codes[rows]
    first = _first_rows(same, rows)
    again = first != rows
    earlier = dict(zip(rows[again].tolist(), first[again].tolist(), strict=True))
    unique = f"{', '.join(form.vote[:-1])} and {form.vote[-1]}"

    def text(row: int) -> str:
        cells = " ".join(repr(column.cell(row)) for column in (task, *more))
        return (
            f"{worker.cell(row)!r} labelled task {cells} already in "
            f"{faults.place} {table.lines[earlier[row]]}; one vote a {unique} is allowed"
        )

    faults.add_rows(rows[again], table.lines, table.columns[form.vote[-1]].name, text)


def _check_constant(table: LongTable, key: str, known: Known, form: Form, faults: Faults) -> None:
    column, owner = table.columns[key], table.columns[form.owner[key]]
    rows = np.flatnonzero(known)
    first = _first_rows(owner.codes[rows], rows)
    differs = column.codes[first] != column.codes[rows]
    earlier = dict(zip(rows[differs].tolist(), first[differs].tolist(), strict=True))

    def text(row: int) -> str:
        own, other = str(column.cell(row)), str(column.cell(earlier[row]))
        place = _parting(own, other)
        return (
            f"{_shown(key, own, form, place)}, but {form.owner[key]} {owner.cell(row)!r} has "
            f"{_shown(key, other, form, place)} in {faults.place} {table.lines[earlier[row]]}; "
            f"one {key} a {form.owner[key]} is allowed"
        )

    faults.add_rows(rows[differs], table.lines, column.name, text)


def _parting(one: str, other: str) -> int:
    """Return the place of the first letter that differs; where one goes on, the other's end."""
    letters = enumerate(zip(one, other, strict=False))
    return next((k for k, (a, b) in letters if a != b), min(len(one), len(other)))


def _first_rows(codes: Ints, rows: Ints) -> Ints:
    """Return for each of `rows` the first row that has the same code."""
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return rows[first[inverse]]


def _check_classes(
    table: LongTable, known: Mapping[str, Known], form: Form, faults: Faults
) -> None:
    classes = {
        column.values[code]
        for key, column in table.columns.items()
        if key in ("label", *form.partial)
        for code in np.unique(column.codes[known[key]])
    }
    if len(classes) == 1:
        faults.add(
            f"every label is {classes.pop()!r}; at least 2 classes are needed",
            column=table.columns["label"].name,
        )
