"""What readers of other people's files share: their text, and faults told all at once."""

from collections.abc import Sequence
from pathlib import Path

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


def refuse(faults: Sequence[str]) -> None:
    """Raise a ConfigError of the first faults and the number of the others, if there are any."""
    if faults:
        more = len(faults) - SHOWN
        raise ConfigError(*faults[:SHOWN], *([f"and {more} more"] if more > 0 else []))
