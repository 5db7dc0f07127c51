"""A run's folder: its identity, its state, its row, and the files beside it.

`row.json` exists exactly when the run is finished: it is written last, to a temporary file that is
synced and then renamed. A failed run has `error.txt` instead.
"""

import csv
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, dropwhile, repeat
from pathlib import Path
from typing import Any, Literal

import numpy as np

from annorun.check import GROUPS
from annorun.check_network import TRANSFORMERS, family, is_path
from annorun.errors import ConfigError
from annorun.votes import Floats, Ints, Items, Posterior, Votes

State = Literal["absent", "failed", "done"]
# what cannot change the result
VOLATILE = (
    "name",
    "out_root",
    "mode",
    "logger",
    "choices",
    "overrides",
    "also",
    "smoke",
    "keys",
    "metric",
    "figures",
    "compare",
    "folds",
)
PLACEMENT = ("accelerator", "threads")


def identity(config: dict[str, Any]) -> str:
    """Return 16 hex digits of everything in a resolved config that can change the result.

    Sizes and checksums stand in place of paths; of data from the hub, the hub's name.
    """
    kept = {k: v for k, v in config.items() if k not in VOLATILE}
    kept["trainer"] = {k: v for k, v in config["trainer"].items() if k not in PLACEMENT}
    kept["dataset"] = config["dataset"] | _data(config["dataset"])
    module = config["method"]["module"] or {}
    named = {k: v for k in ("encoder", "llm") if (v := module.get(k)) and is_path(v)}
    named |= {"personas": module["personas"]} if module.get("personas") else {}
    module = module | {k: checksum(Path(v).expanduser()) for k, v in named.items()}
    kept["method"] = config["method"] | {"module": module or None}
    used = family(config)
    # names of networks that this run does not use cannot matter
    kept["model_size"] = {"start": config["model_size"]["start"]} if used else {}
    if used:
        model = config["model_size"][used]
        if used == "encoder":
            kept["model_size"]["pooling"] = config["model_size"]["pooling"]
            # of a prompt, an encoder takes the context or leaves it
            if prompt := config["dataset"].get("prompt"):
                kept["dataset"]["prompt"] = "{context}" in prompt
        if used in TRANSFORMERS:
            kept["model_size"]["lora"] = config["model_size"]["lora"]
        kept["model_size"][used] = checksum(Path(model).expanduser()) if is_path(model) else model
    else:
        kept.pop("trainer")
        kept["method"]["module"] = None
    text = json.dumps(kept, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _data(dataset: dict[str, Any]) -> dict[str, Any]:
    """Return what stands in place of `path` and `hub`: only the one that is read matters."""
    path, hub = dataset.get("path"), dataset.get("hub")
    if not isinstance(path, str):
        return {}
    if isinstance(hub, str) and not Path(path).expanduser().exists():
        folder = Path(hub).expanduser()
        return {"path": None, "hub": checksum(folder) if folder.is_dir() else hub}
    found = {"path": checksum(Path(path).expanduser())}
    return {**found, "hub": None} if "hub" in dataset else found


def checksum(path: Path) -> list[Any]:
    """Return [name, size, sha256] of a file, or of every file of a folder by its relative name."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    found = []
    for file in files:
        try:
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read ({error.strerror})") from None
        name = file.relative_to(path).as_posix() if file != path else ""
        found.append([name, file.stat().st_size, digest])
    return found


def folder(config: dict[str, Any], identity: str) -> Path:
    """Return where a run's files go; the name says what it is."""
    choices = config["choices"]
    words = [choices[g] for g in ("method", "dataset", "noise", "annotator_dist", "model_size")]
    leaf = "-".join([*words, f"s{config['seed']}", identity[:8]])
    return Path(config["out_root"]).expanduser() / str(config["name"]) / leaf


def state(folder: Path) -> State:
    """Return the state of a run's folder."""
    if (folder / "row.json").is_file():
        return "done"
    return "failed" if (folder / "error.txt").is_file() else "absent"


def begin(folder: Path) -> None:
    """Make an empty folder for a run; what an earlier try left there goes."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def fail(folder: Path, text: str) -> None:
    """Leave error.txt, in a folder of its own if an earlier try is still there."""
    if not folder.is_dir() or state(folder) == "done":
        begin(folder)
    (folder / "error.txt").write_text(text, encoding="utf-8")


def write_row(folder: Path, row: dict[str, Any]) -> None:
    """Write row.json, atomically: from here on the run is done."""
    temporary = folder / "row.json.part"
    with temporary.open("w", encoding="utf-8") as stream:
        json.dump(row, stream, indent=1, allow_nan=False)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    temporary.rename(folder / "row.json")


def read_row(folder: Path) -> dict[str, Any]:
    """Return the row of a finished run."""
    row: dict[str, Any] = json.loads((folder / "row.json").read_text(encoding="utf-8"))
    return row


def read_rows(root: Path) -> list[dict[str, Any]]:
    """Return the rows of all finished runs below a folder, in the order of their folders' names."""
    return [read_row(path.parent) for path in sorted(root.rglob("row.json"))]


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table; floats in full precision, None as an empty cell."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV; lines above the header that begin with # are comments."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(dropwhile(lambda line: line.startswith("#"), stream)))


def new_row(config: dict[str, Any], identity: str) -> dict[str, Any]:
    """Return the part of a row that is known before the run."""
    head, dirty = revision()
    return {
        "id": identity,
        "name": config["name"],
        "status": "done",
        "choices": {g: config["choices"][g] for g in GROUPS},
        "overrides": config["overrides"],
        "seed": config["seed"],
        "data_seed": config["data_seed"],
        "versions": dict(_versions()),
        "commit": head,
        "dirty": dirty,
    }


@cache
def _versions() -> dict[str, str]:
    found = {}
    for name in ("annorun", "torch", "lightning", "transformers", "numpy", "scipy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


@cache
def revision() -> tuple[str | None, bool | None]:
    """Return the checkout's commit and whether it was changed; None for an installed wheel.

    Of the process: what it has imported stays, whatever happens to the files.
    """
    here = Path(__file__).parent
    if not (here.parent / ".git").exists():
        return None, None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def write_annotators(
    folder: Path,
    items: Items,
    votes: Votes,
    learned: Floats | None,
    planted: Floats | None,
    group: Ints | None,  # (n_annotators,) given or inferred
    groups: Sequence[str],
) -> None:
    """Write annotators.csv; learned and planted are on one scale, NaN and None are empty cells."""
    names = items.annotator_names or range(votes.n_annotators)
    count = np.bincount(votes.annotator, minlength=votes.n_annotators)
    own = [""] * votes.n_annotators if group is None else [groups[g] for g in group]
    header = ("annotator", "votes", "group", "task", "expertise", "true_expertise")
    columns = (names, count.tolist(), own, [""] * votes.n_annotators)
    numbers = (_cells(learned, votes.n_annotators), _cells(planted, votes.n_annotators))
    write_csv(folder / "annotators.csv", header, zip(*columns, *numbers, strict=True))


def write_labels(
    folder: Path,
    items: Items,
    votes: Votes,
    posterior: Posterior,
    labels: Ints,  # (n_items,)
    group_labels: Ints | None,  # (n_items, n_groups), -1 where not estimated
    groups: Sequence[str],
) -> None:
    """Write labels.csv: what the aggregator says of every item that has a vote, all groups first.

    The group of a line is empty where the label is the one for all.
    """
    voted = np.unique(votes.item)
    parts = [("", voted, posterior.probs, labels)]
    if posterior.group_probs is not None and group_labels is not None:
        for g, name in enumerate(groups):
            known = voted[group_labels[voted, g] >= 0]
            parts.append((name, known, posterior.group_probs[:, g], group_labels[:, g]))
    header = ("item", "group", "label", *_columns(items.classes()))
    write_csv(folder / "labels.csv", header, chain(*(_lines(items, *part) for part in parts)))


def _lines(
    items: Items, group: str, place: Ints, probs: Floats, labels: Ints
) -> Iterable[Sequence[Any]]:
    names = map(items.name, place.tolist())
    chosen = map(items.classes().__getitem__, labels[place].tolist())
    # a row at a time of `probs` would cost more than the writing
    return zip(names, repeat(group), chosen, *probs[place].T.tolist(), strict=False)


def write_predictions(
    folder: Path,
    items: Items,
    probs: Floats,  # (n_test, n_classes)
    labels: Ints | None = None,  # (n_test,), instead of the most probable class
) -> None:
    """Write predictions.csv: what the network says of every test item, and how many people what."""
    chosen = probs.argmax(axis=1) if labels is None else labels
    classes = items.classes()
    test = np.flatnonzero(items.split == "test")
    truth = np.full(len(items), -1) if items.truth is None else items.truth
    held = items.held_out
    counts = held.counts() if items.soft is None and held else items.soft
    said = np.empty((len(items), 0)) if counts is None else counts.astype(np.int64)
    right = ("" if k < 0 else classes[k] for k in truth[test])
    rows = (
        (items.name(i), classes[label], known, *p.tolist(), *said[i].tolist())
        for i, label, known, p in zip(test.tolist(), chosen, right, probs, strict=True)
    )
    people = [] if counts is None else [f"n_{name}" for name in classes]
    header = ("item", "label", "truth", *_columns(classes), *people)
    write_csv(folder / "predictions.csv", header, rows)


def _columns(classes: list[str]) -> list[str]:
    return [f"p_{name}" for name in classes]


def _cells(values: Floats | None, n: int) -> list[float | None]:
    return [None] * n if values is None else [None if np.isnan(v) else float(v) for v in values]
