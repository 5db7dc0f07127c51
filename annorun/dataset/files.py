"""What readers of other people's files share: their text, and faults told all at once."""

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from annorun.errors import ConfigError

SHOWN = 20


def text_of(file: Path) -> str:
    """Return the file's text, without the mark that Excel puts before it.

    Raises:
        ConfigError: it is not UTF-8.
    """
    raw = file.read_bytes()
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = 1 + raw.count(b"\n", 0, error.start)
        raise ConfigError(
            f"{file}, line {line}: byte {error.start} (0x{raw[error.start]:02x}) is not UTF-8; "
            "save the file as UTF-8"
        ) from None


def rows_of(
    file: Path, wanted: Sequence[str], faults: list[str]
) -> list[tuple[int, dict[str, str]]]:
    """Return line number and wanted columns of a CSV's rows; add to the faults what is wrong."""
    reader = csv.DictReader(io.StringIO(text_of(file), newline=""), strict=True)
    try:
        missing = [name for name in wanted if name not in (reader.fieldnames or ())]
        if missing:
            faults.append(f"{file}, line 1: no column {', '.join(missing)}")
            return []
        # a short line has None where nothing is
        return [(reader.line_num, {k: row[k] or "" for k in wanted}) for row in reader]
    except csv.Error as error:
        faults.append(f"{file}, line {reader.reader.line_num}: {error}")
        return []


def refuse(faults: Sequence[str]) -> None:
    """Raise a ConfigError of the first faults and the number of the others, if there are any."""
    if faults:
        more = len(faults) - SHOWN
        raise ConfigError(*faults[:SHOWN], *([f"and {more} more"] if more > 0 else []))


def mapping_of(file: Path) -> dict[str, Any]:
    """Return what the file holds; a comma before a closing bracket is forgiven."""
    text = text_of(file)
    try:
        try:
            found = json.loads(text)
        except json.JSONDecodeError:
            # the organisers' metadata has such commas; no text of theirs that has been seen does
            found = json.loads(re.sub(r",(\s*[}\]])", r"\1", text))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file}, line {error.lineno}: not JSON ({error.msg})") from None
    if not isinstance(found, dict) or not found:
        raise ConfigError(f"{file}: needed is one object, name -> entry, that is not empty")
    return found
