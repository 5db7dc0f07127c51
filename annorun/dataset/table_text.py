"""Long tables in text files (CSV, TSV, JSON lines), read in blocks, with the line of every row."""

import csv
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from annorun.dataset.table_columns import Encoder, Faults, Form, LongTable, joined, locate
from annorun.votes import Ints

# few enough rows that their strings are still in the processor's cache when they are encoded
BLOCK = 1024
MAGIC = {
    b"PK\x03\x04": "a zip or Excel file",
    b"\x1f\x8b": "a gzip file",
    b"PAR1": "a Parquet file",
}
SEPARATORS = {",": "commas (.csv)", "\t": "tabs (.tsv)", ";": "semicolons", "|": "bars"}


class Constant(str):
    """NaN or Infinity, written without quotes."""


class _Reader(Protocol):
    """What `csv.reader` returns."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...
    def __next__(self) -> list[str]: ...


def read_csv(path: Path, names: Mapping[str, str], form: Form, faults: Faults) -> LongTable | None:
    """Read comma-separated values (RFC 4180, UTF-8, a first line of column names)."""
    return _read_delimited(path, names, form, faults, ",")


def read_tsv(path: Path, names: Mapping[str, str], form: Form, faults: Faults) -> LongTable | None:
    """Read tab-separated values, quoted as in CSV."""
    return _read_delimited(path, names, form, faults, "\t")


def _read_delimited(
    path: Path, names: Mapping[str, str], form: Form, faults: Faults, delimiter: str
) -> LongTable | None:
    if _binary(path, faults):
        return None
    header: list[str] = []
    found: dict[str, int] = {}
    encoders: dict[int, Encoder] = {}
    pieces: list[Ints] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        for rows, lines in _blocks(reader, path, faults):
            rows, lines = _without_blank(rows, lines)
            if rows and not header:
                header, line = rows[0], int(lines[0])
                rows, lines = rows[1:], lines[1:]
                if _other_delimiter(header, delimiter, faults, line):
                    return None
                found = locate(header, names, form, faults, line=line)
                encoders = {index: Encoder() for index in found.values()}
            rows, lines = _even(rows, lines, len(header), faults)
            columns = list(zip(*rows, strict=True)) or [()] * len(header)
            for index, encoder in encoders.items():
                encoder.extend(columns[index])
            pieces.append(lines)
    if not header:
        if not faults:
            wanted = ", ".join(form.needed)
            faults.add(f"an empty file; the first line names the columns: {wanted}")
        return None
    used = {key: encoders[index].column(header[index]) for key, index in found.items()}
    return LongTable(used, joined(pieces))


def _blocks(reader: _Reader, path: Path, faults: Faults) -> Iterator[tuple[list[list[str]], Ints]]:
    """Yield rows and the line that each starts on, up to the end or a fault."""
    line, whole = 0, True
    while whole:
        rows: list[list[str]] = []
        broken = ""
        try:
            # extend, not list(): it keeps the rows that were read before an exception
            rows.extend(islice(reader, BLOCK))
        except csv.Error as error:
            whole, broken = False, str(error)
        except UnicodeDecodeError:
            whole = False
            _undecodable(path, faults)
        if reader.line_num - line == len(rows):
            lines = np.arange(line + 1, line + len(rows) + 1)
            line += len(rows)
        else:
            sizes = np.array([1 + sum(map(_newlines, row)) for row in rows], dtype=np.int64)
            lines = line + 1 + np.cumsum(sizes) - sizes
            line += int(sizes.sum())
        if broken:
            faults.add(_csv_fault(broken), line=line + 1)
        if not rows and whole:
            return
        yield rows, lines


def _newlines(cell: str) -> int:
    return cell.count("\n") + cell.count("\r") - cell.count("\r\n")


def _csv_fault(error: str) -> str:
    if "unexpected end of data" in error:
        return "a quote is opened in this row and never closed"
    if "field larger than" in error:
        return f"{error}; is a quote opened in this row and never closed?"
    return (
        f"{error}; a cell that starts with a quote ends with one, and a quote inside it is doubled"
    )


def _without_blank(rows: list[list[str]], lines: Ints) -> tuple[list[list[str]], Ints]:
    if all(rows):
        return rows, lines
    keep = [k for k, row in enumerate(rows) if row]
    return [rows[k] for k in keep], lines[keep]


def _even(
    rows: list[list[str]], lines: Ints, width: int, faults: Faults
) -> tuple[list[list[str]], Ints]:
    """Return the rows that are as long as the header; the others become faults."""
    if set(map(len, rows)) <= {width}:
        return rows, lines
    keep = []
    for k, row in enumerate(rows):
        if len(row) == width:
            keep.append(k)
            continue
        hint = "; a cell that holds the separator needs quotes" if len(row) > width else ""
        text = f"{len(row)} cells, and the header has {width}; every row needs {width}{hint}"
        faults.add(text, line=int(lines[k]))
    return [rows[k] for k in keep], lines[keep]


def _other_delimiter(header: list[str], delimiter: str, faults: Faults, line: int) -> bool:
    if len(header) != 1:
        return False
    for other in SEPARATORS:
        if other != delimiter and other in header[0]:
            faults.add(
                f"one column only, {header[0]!r}; the cells look separated by {SEPARATORS[other]}, "
                f"this suffix needs {SEPARATORS[delimiter]}",
                line=line,
            )
            return True
    return False


def read_jsonl(
    path: Path, names: Mapping[str, str], form: Form, faults: Faults
) -> LongTable | None:
    """Read one JSON object a line; numbers keep the digits they are written with."""
    if _binary(path, faults):
        return None
    decoder = json.JSONDecoder(
        object_pairs_hook=_object, parse_float=str, parse_int=str, parse_constant=Constant
    )
    example = json.dumps(form.needed)
    encoders = {key: Encoder() for key in names}
    header: dict[str, None] = {}
    rows, lines = list[dict[str, Any]](), list[int]()
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        try:
            for line, text in enumerate(file, 1):
                row = _json_row(text, decoder, line, example, faults)
                if row is None:
                    continue
                if row.keys() != header.keys():
                    header.update(dict.fromkeys(row))
                rows.append(row)
                lines.append(line)
                if len(rows) == BLOCK:
                    _encode(rows, lines[-len(rows) :], names, form, encoders, faults)
        except UnicodeDecodeError:
            _undecodable(path, faults)
    _encode(rows, lines[-len(rows) :], names, form, encoders, faults)
    if not header:
        if not faults:
            faults.add(f"no JSON object; one a line is needed, like {example}")
        return None
    found = locate(list(header), names, form, faults)
    columns = {key: encoders[key].column(names[key]) for key in found}
    return LongTable(columns, np.array(lines, dtype=np.int64))


def _encode(
    rows: list[dict[str, Any]],
    lines: list[int],
    names: Mapping[str, str],
    form: Form,
    encoders: Mapping[str, Encoder],
    faults: Faults,
) -> None:
    """Move the rows' cells into the encoders."""
    for key, name in names.items():
        cells = [row.get(name) for row in rows]
        if not set(map(type, cells)) <= {str, type(None)}:
            free = key in form.free
            cells = [
                _json_text(cell, name, line, faults, free)
                for cell, line in zip(cells, lines, strict=True)
            ]
        encoders[key].extend(cells)
    rows.clear()


def _json_text(cell: Any, name: str, line: int, faults: Faults, free: bool) -> str | None:
    if isinstance(cell, Constant):
        # elsewhere the word NaN is a fault, with quotes or without
        if free:
            faults.add(f"{cell} without quotes is no text; text is allowed", line=line, column=name)
        return str(cell)
    if cell is None or isinstance(cell, str):
        return cell
    if not isinstance(cell, bool):
        kind = "a list" if isinstance(cell, list) else "an object"
        faults.add(f"{kind}; allowed: text, a number, true, false", line=line, column=name)
    return json.dumps(cell)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is there twice; once is allowed")
    return row


def _json_row(
    text: str, decoder: json.JSONDecoder, line: int, example: str, faults: Faults
) -> dict[str, Any] | None:
    if not text.strip():
        return None
    try:
        row = decoder.decode(text)
    except json.JSONDecodeError as error:
        faults.add(f"not JSON: {error.msg} at character {error.colno}; like {example}", line=line)
    except (ValueError, RecursionError) as error:
        faults.add(str(error), line=line)
    else:
        if isinstance(row, dict):
            return row
        faults.add(f"not a JSON object; one a line is needed, like {example}", line=line)
    return None


def _binary(path: Path, faults: Faults) -> bool:
    with path.open("rb") as file:
        head = file.read(65536).split(b"\n", 1)[0]
    what = next((text for magic, text in MAGIC.items() if head.startswith(magic)), "")
    if not what and b"\0" in head:
        what = "NUL bytes in the first line: UTF-16 or a binary file"
    if what:
        faults.add(f"not a text file ({what}); needed: text in UTF-8, or a .parquet file", line=1)
    return bool(what)


def _undecodable(path: Path, faults: Faults) -> None:
    data = path.read_bytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        faults.add(
            f"byte {error.start} (0x{data[error.start]:02x}) is not UTF-8; save the file as UTF-8",
            line=1 + _newlines(before),
        )
