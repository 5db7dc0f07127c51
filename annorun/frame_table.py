"""What may stand in a table in memory, and the votes that it holds."""

import numbers
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annorun.signature import nearest
from annorun.votes import Ints, Votes

REQUIRED = ("task", "worker", "label")
OPTIONAL = ("subpopulation", "control")
# what pandas writes for a missing value: they equal nothing, not even themselves
MISSING = ("NAType", "NaTType")

# what gives a name to a task, a worker or a class: any key of a dict
Name = Any
Kinds = NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class Table:
    """The votes, and the names of what they number, in sorted order.

    Attributes:
        names: by column; those of `label` are the classes, with those that only a control has.
        known: (n_tasks,) the labels of control tasks, else -1; None without any.
    """

    names: dict[str, list[Name]]
    votes: Votes
    known: Ints | None


def read(frame: Any, faults: list[str]) -> Table | None:
    """Return the table, or None and what is wrong with it."""
    columns = _columns(frame, faults)
    return _table(columns, faults) if columns else None


def _columns(frame: Any, faults: list[str]) -> dict[str, list[Any]]:
    """Return the columns as lists, none if they cannot be told or differ in length."""
    # a polars frame is iterated by column, a dict and a pandas frame by name
    header = [str(name) for name in getattr(frame, "columns", frame)]
    before = len(faults)
    for key in REQUIRED:
        if key not in header:
            shown = ", ".join(header[:20]) or "none"
            faults.append(f"no column {key!r}; there are: {shown}{nearest(key, header)}")
    for key in (*REQUIRED, *OPTIONAL):
        if header.count(key) > 1:
            faults.append(f"column {key}: is there {header.count(key)} times; one is allowed")
    if len(faults) > before:
        return {}
    wanted = [*REQUIRED, *(key for key in OPTIONAL if key in header)]
    # tolist: Python's own numbers and texts instead of numpy's
    columns = {
        key: frame[key].tolist() if hasattr(frame[key], "tolist") else list(frame[key])
        for key in wanted
    }
    sizes = {key: len(cells) for key, cells in columns.items()}
    if len(set(sizes.values())) > 1:
        faults.append(f"the columns differ in length: {sizes}")
        return {}
    if not sizes["task"]:
        faults.append("no votes: the table has no row")
        return {}
    return columns


def _table(columns: dict[str, list[Any]], faults: list[str]) -> Table | None:
    before = len(faults)
    named = {key: _named(key, cells, faults) for key, cells in columns.items()}
    told = named.pop("control", np.zeros(0, dtype=np.bool_))
    rows = np.flatnonzero(np.logical_and.reduce(list(named.values())))
    used = {key: [columns[key][row] for row in rows.tolist()] for key in named}
    controls = [columns["control"][row] for row in np.flatnonzero(told).tolist()]
    names = {key: _in_order({*cells}) for key, cells in used.items()}
    # the labels first: of equals such as 1 and 1.0 a set keeps the first
    names["label"] = _in_order({*used["label"], *controls})
    for key in REQUIRED:
        _check_kinds(key, used[key] + (controls if key == "label" else []), faults)
    codes = {key: _codes(cells, names[key]) for key, cells in used.items()}
    task, worker, label = (codes[key] for key in REQUIRED)
    again = np.ones(len(rows), dtype=np.bool_)
    again[np.unique(task * len(names["worker"]) + worker, return_index=True)[1]] = False
    words = "the worker labelled the task before; one vote a task and worker"
    _note(rows[again], columns, words, faults)
    group, known = None, None
    if "subpopulation" in codes:
        group, differs = _by_owner(worker, codes["subpopulation"], len(names["worker"]))
        words = "the worker has another subpopulation; one a worker"
        _note(rows[differs], columns, words, faults)
    if controls:
        control = np.full(len(told), -1)
        control[told] = _codes(controls, names["label"])
        known, differs = _by_owner(task, control[rows], len(names["task"]))
        _note(rows[differs], columns, "the task has another control; one a task", faults)
    # with other faults this may be untrue: a faulty row may hold the class that is missed
    if len(faults) == before and len(names["label"]) < 2:
        faults.append(f"every label is {names['label'][0]!r}; at least 2 classes are needed")
    if len(faults) > before:
        return None
    n_items, n_annotators, n_classes = (len(names[key]) for key in REQUIRED)
    votes = Votes(task, worker, label, n_items, n_annotators, n_classes, group)
    return Table(names, votes, known)


def _codes(cells: list[Any], names: list[Name]) -> Ints:
    place = {name: k for k, name in enumerate(names)}
    return np.fromiter(map(place.__getitem__, cells), np.int64, len(cells))


def _by_owner(owner: Ints, code: Ints, n_owners: int) -> tuple[Ints, NDArray[np.bool_]]:
    """Return the first code of each owner, -1 without one, and the rows that have another."""
    rows = np.flatnonzero(code >= 0)
    found = np.full(n_owners, -1)
    owners, first = np.unique(owner[rows], return_index=True)
    found[owners] = code[rows[first]]
    return found, (code >= 0) & (found[owner] != code)


def _named(key: str, cells: list[Any], faults: list[str]) -> NDArray[np.bool_]:
    """Return which cells are names, and note those that may not stand there."""
    kinds = _kinds(cells)
    wrong = ["unfit"] if key == "control" else ["unfit", "missing"]
    rows = np.flatnonzero(np.isin(kinds, wrong))
    if len(rows):
        words = "cannot be names" if key == "control" else "are missing or cannot be names"
        needed = "leave empty those of no control" if key == "control" else "every row needs one"
        faults.append(
            f"column {key}: {len(rows)} cells {words}, the first in row {rows[0]} "
            f"({cells[rows[0]]!r}); {needed}"
        )
    rows = np.flatnonzero(kinds == "blanks")
    if len(rows):
        faults.append(
            f"column {key}: {len(rows)} cells, the first in row {rows[0]}: {cells[rows[0]]!r} has "
            "blanks at an end; names are compared letter by letter: remove them"
        )
    named: NDArray[np.bool_] = kinds == "name"
    return named


def _kinds(cells: list[Any]) -> Kinds:
    with suppress(TypeError):  # a cell that has no hash is found below
        # a look at each different cell is far cheaper than one at each cell
        if all(_kind(cell) == "name" for cell in set(cells)):
            return np.full(len(cells), "name")
    return np.array([_kind(cell) for cell in cells])


def _kind(cell: Any) -> str:
    if cell is None or type(cell).__name__ in MISSING:
        return "missing"
    try:
        hash(cell)
    except TypeError:
        return "unfit"
    if cell != cell or cell == "":
        return "missing"
    return "blanks" if isinstance(cell, str) and cell != cell.strip() else "name"


def _check_kinds(key: str, cells: list[Any], faults: list[str]) -> None:
    types = set(map(type, cells))
    truths = {kind for kind in types if issubclass(kind, bool | np.bool_)}
    if truths and any(issubclass(kind, numbers.Number) for kind in types - truths):
        faults.append(
            f"column {key}: holds both numbers and True or False, and to Python True is 1; one "
            "kind is allowed"
        )


def _note(rows: Ints, columns: dict[str, list[Any]], words: str, faults: list[str]) -> None:
    if len(rows):
        row = int(rows[0])
        task, worker = columns["task"][row], columns["worker"][row]
        faults.append(
            f"rows: {len(rows)}, the first is row {row} (task {task!r}, worker {worker!r}): "
            f"{words} is allowed"
        )


def _in_order(names: set[Any]) -> list[Name]:
    try:
        return sorted(names)
    except TypeError:  # text and numbers in one column
        return sorted(names, key=lambda name: (type(name).__name__, repr(name)))
