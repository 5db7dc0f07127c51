"""A long table while it is read: columns of codes, the lines they stand in, the faults so far."""

import difflib
import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from annorun.errors import ConfigError
from annorun.votes import Ints

UNUSED = "none"
SHOWN = 20


@dataclass(frozen=True)
class Column:
    """One column: its name, each different cell once (None: null), and a code for each row."""

    name: str
    values: list[str | None]
    codes: Ints  # (n_rows,)

    def cell(self, row: int) -> str | None:
        """Return the cell of one row."""
        return self.values[int(self.codes[row])]


@dataclass(frozen=True)
class Form:
    """What one kind of long table holds, by key (`task`, `worker`, ...).

    Attributes:
        needed: the columns that must be there, each with a cell as an example.
        words: what is said of a column where a cell is missing or not allowed.
        owner: whose a column is; its cell is the same in all rows of one owner.
        vote: the columns whose cells no two rows share, all together.
        parts: what a split may be.
        partial: labels of a task that need not be known: a cell may be empty.
        free: texts that nobody compares: blanks at their ends and the word `nan` are theirs.
    """

    needed: Mapping[str, str]
    words: Mapping[str, str]
    owner: Mapping[str, str]
    vote: tuple[str, ...]
    parts: tuple[str, ...]
    partial: tuple[str, ...] = ()
    free: tuple[str, ...] = ()


@dataclass(frozen=True)
class LongTable:
    """The columns that are used, by key (`task`, `worker`, ...), and the line of each row."""

    columns: Mapping[str, Column]
    lines: Ints  # (n_rows,)


class Encoder:
    """Gathers one column piece by piece; holds each different cell once."""

    def __init__(self) -> None:
        """Start an empty column."""
        self._index: defaultdict[str | None, int] = defaultdict(itertools.count().__next__)
        self._pieces: list[Ints] = []

    def extend(self, cells: Sequence[str | None]) -> None:
        """Append cells."""
        codes = map(self._index.__getitem__, cells)
        self._pieces.append(np.fromiter(codes, np.int64, len(cells)))

    def column(self, name: str) -> Column:
        """Return the column gathered so far."""
        return Column(name, list(self._index), joined(self._pieces))


def joined(pieces: Sequence[Ints]) -> Ints:
    """Return the pieces as one array, empty if there are none."""
    return np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int64)


class Faults:
    """Collects what is wrong with one file, to be raised all at once, in the order of the file.

    Only the first `SHOWN` faults are put into words; the others are counted.
    """

    def __init__(self, path: str, place: str = "line"):
        """Start without faults; `place` is what the rows of the file are counted in."""
        self.path = path
        self.place = place
        self._found: list[tuple[int, str]] = []
        self._count = 0

    def add(self, text: str, *, line: int = 0, column: str = "") -> None:
        """Note a fault; line 0 is the file as a whole."""
        where = f", {self.place} {line}" if line else ""
        where += f", column {column}" if column else ""
        self._found.append((line, f"{self.path}{where}: {text}"))
        self._count += 1
        if len(self._found) > 100 * SHOWN:
            self._cut()

    def add_rows(
        self,
        rows: Ints,
        lines: Ints,  # of all rows of the table, rising
        column: str,
        text: Callable[[int], str],
    ) -> None:
        """Note a fault of every row in `rows`; `text` says what is wrong with one."""
        first = np.sort(rows)[:SHOWN]
        for row in first.tolist():
            self.add(text(row), line=int(lines[row]), column=column)
        self._count += len(rows) - len(first)

    def _cut(self) -> None:
        self._found = sorted(self._found, key=lambda fault: fault[0])[:SHOWN]

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return self._count > 0

    def error(self) -> ConfigError:
        """Return the first faults and the number of the others, to be raised."""
        self._cut()
        shown = [text for _, text in self._found]
        more = self._count - len(shown)
        return ConfigError(*shown, *([f"{self.path}: and {more} more"] if more else []))


def locate(
    header: Sequence[str], names: Mapping[str, str], form: Form, faults: Faults, *, line: int = 0
) -> dict[str, int]:
    """Return where each key's column stands in the header; missing or repeated ones become faults.

    `names` gives each key its column. An optional one may be absent if it has the key's own name.
    """
    found: dict[str, int] = {}
    absent = 0
    for key, name in names.items():
        if name in header:
            found[key] = header.index(name)
            if header.count(name) > 1:
                faults.add(
                    f"{header.count(name)} columns have this name; one is allowed",
                    line=line,
                    column=name,
                )
        elif key in form.needed or name != key:
            absent += key in form.needed
            faults.add(_absent(key, name, form, header), line=line)
    if absent == len(form.needed):
        faults.add("none of the needed columns is there: names of columns come first", line=line)
    return found


def _absent(key: str, name: str, form: Form, header: Sequence[str]) -> str:
    lowered = {column.strip().lower(): column for column in reversed(header)}
    near = difflib.get_close_matches(name.lower(), lowered, n=1)
    nearest = f" (nearest: {lowered[near[0]]!r})" if near else ""
    shown = ", ".join(repr(column) for column in header[:SHOWN]) or "none"
    more = f" and {len(header) - SHOWN} more" if len(header) > SHOWN else ""
    unused = "" if key in form.needed else f", or do without: dataset.{key}={UNUSED}"
    return (
        f"no column {name!r}{nearest}; there are: {shown}{more}; "
        f"name yours with dataset.{key}=COLUMN{unused}"
    )
