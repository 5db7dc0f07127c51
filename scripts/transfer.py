"""Get a file over HTTP, whole or a member of a ZIP; go on after a break; check what came.

Standard library only. Proxies are those of the environment.
"""

import hashlib
import http.client
import io
import shutil
import time
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, build_opener

TIMEOUT = 30.0  # seconds without a byte
TRIES = 3
PAUSE = 2.0  # seconds before the next try
BLOCK = 1 << 18
BROKEN = (OSError, http.client.HTTPException, zipfile.BadZipFile)
T = TypeVar("T")


class Missing(Exception):
    """Why a file is not there; one line."""


def again(step: Callable[[], T]) -> T:
    """Return what `step` does, tried anew when the connection or the server breaks down."""
    for left in reversed(range(TRIES)):
        try:
            return step()
        except BROKEN as error:
            refused = isinstance(error, HTTPError) and error.code < 500
            if refused or not left:
                raise
            time.sleep(PAUSE)
    raise AssertionError("unreachable")


def ask(url: str, first: int = 0, last: int | None = None) -> Any:
    """Open a URL, from byte `first` to `last` if the server can do so; proxies as in the shell."""
    wanted = {"Range": f"bytes={first}-{'' if last is None else last}"}
    request = Request(url, headers=wanted if first or last is not None else {})
    return build_opener().open(request, timeout=TIMEOUT)


def download(url: str, part: Path) -> None:
    """Write a URL to `part`, after what is already there of it.

    Raises:
        OSError, HTTPException: it broke off; `part` holds what came.
    """
    have = part.stat().st_size if part.exists() else 0
    try:
        answer = ask(url, have)
    except HTTPError as error:
        if error.code != 416:
            raise
        # nothing comes after these bytes: all of it, or of something else
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return
        part.unlink()
        raise ConnectionError(f"{part.name} was longer than the file") from error
    with answer:
        goes_on = answer.status == 206
        if goes_on and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise ConnectionError("the server sent another part than was asked for")
        with part.open("ab" if goes_on else "wb") as file:
            shutil.copyfileobj(answer, file, BLOCK)
        told = answer.headers.get("Content-Length")
    came = part.stat().st_size - (have if goes_on else 0)
    # http.client takes an early end for the end
    if told is not None and came != int(told):
        raise ConnectionError(f"broke off after {came} of {told} bytes")


class Ranged(io.RawIOBase):
    """A file on a server that answers ranges, so that one member of a large ZIP can be read."""

    def __init__(self, url: str, length: int):
        self.url, self.length, self.at = url, length, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move, and return where to."""
        self.at = (0, self.at, self.length)[whence] + offset
        return self.at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as the file goes; return the number of bytes."""
        last = min(self.at + len(buffer), self.length) - 1
        if last < self.at:
            return 0
        data = again(lambda: self._read(last))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)

    def _read(self, last: int) -> bytes:
        with ask(self.url, self.at, last) as answer:
            data: bytes = answer.read()
        if answer.status != 206 or len(data) != last + 1 - self.at:
            raise ConnectionError(f"{len(data)} bytes instead of {last + 1 - self.at}")
        return data


def length_of(url: str) -> int | None:
    """Return how long the file is, or None where the server does not answer ranges."""
    with ask(url, 0, 0) as answer:
        total: str = answer.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if answer.status == 206 and total.isdigit() else None


class Archives:
    """The ZIPs of a run, each opened once: by ranges, or whole where its checksum is known."""

    def __init__(self, stack: ExitStack):
        self.stack, self.open = stack, dict[str, zipfile.ZipFile]()

    def member(self, url: str, sha256: str, folder: Path) -> Any:
        """Open `url#member` for reading; a whole ZIP lies in `folder` until the stack ends."""
        url, _, name = url.partition("#")
        if url not in self.open:
            length = None if sha256 else again(lambda: length_of(url))
            if length is None:
                raw: Any = self._whole(url, sha256, folder)
            else:
                raw = io.BufferedReader(Ranged(url, length), BLOCK)
            self.open[url] = self.stack.enter_context(zipfile.ZipFile(raw))
        try:
            return self.open[url].open(name)
        except KeyError as error:
            raise Missing(f"{url} has no member {name}") from error

    def _whole(self, url: str, sha256: str, folder: Path) -> Path:
        part = folder / f"{Path(urlsplit(url).path).name}.part"
        again(lambda: download(url, part))
        check(part, sha256, url)
        self.stack.callback(part.unlink, missing_ok=True)
        return part


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(part: Path, sha256: str, url: str) -> None:
    """Remove a file that has another checksum, where one is known.

    Raises:
        Missing: with both checksums.
    """
    if sha256 and (got := checksum(part)) != sha256:
        part.unlink()
        raise Missing(f"{url} has sha256 {got}, expected {sha256}; not kept")
