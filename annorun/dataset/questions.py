"""Question sets with gold answers: what their readers share.

A reader takes the authors' files below `dataset.path`. Where that path is not there and
`dataset.hub` is set, it takes the same columns through `datasets`: from the hub, from what
`datasets` has cached of it (all there is with HF_HUB_OFFLINE=1), or from a local folder of Parquet
or JSON-lines files, whose names say `train`, `test` or `validation`.

The authors' development splits are left out, because validation is a share of the voted training
items, except where the test labels are hidden: there they are the test items.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from annorun.dataset.files import text_of
from annorun.errors import ConfigError
from annorun.votes import Items


@dataclass(frozen=True)
class Source:
    """Where a question set is published.

    Attributes:
        name: its folder below ANNORUN_DATA and its name for `scripts/fetch_data.py`.
        origin: who has the files.
        files: their names, below `dataset.path`.
        splits: the hub's splits that are read, the training items' first.
        config, revision: the hub's; None for the only one and the newest.
    """

    name: str
    origin: str
    files: tuple[str, ...]
    splits: tuple[str, ...]
    config: str | None = None
    revision: str | None = None

    def wanted(self) -> str:
        """Return what to put where, for messages."""
        return (
            f"expected: {', '.join(self.files)}, as in {self.origin}; "
            f"`python scripts/fetch_data.py {self.name}` gets them or says how; set "
            f"dataset.path=FOLDER to their folder, or ANNORUN_DATA to the folder that holds it as "
            f"{self.name}/"
        )


class Row(NamedTuple):
    """What is said in one place of a file or of the hub, and that place, for messages."""

    where: str
    said: Any


class Question(NamedTuple):
    """One question that was found right; `gold` is the place of the answer among the options."""

    where: str
    name: str
    stem: str
    options: list[str]
    gold: int
    context: str = ""


def located(path: str, hub: str | None, source: Source) -> Path | None:
    """Return the folder with the files; None where the hub is to be read.

    Raises:
        ConfigError: the folder lacks a file, or is not there and no hub is named.
    """
    folder = Path(path).expanduser()
    if hub is not None and not folder.exists():
        print(f"{folder} is not there: reading {hub} from the hub or its cache", flush=True)
        return None
    return with_files(folder, source)


def with_files(folder: Path, source: Source) -> Path:
    """Return the folder, or raise ConfigError where it lacks one of the source's files."""
    missing = [name for name in source.files if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"dataset.path: in {folder} (looked in {folder.absolute()}) there is no "
            f"{', '.join(missing)}; {source.wanted()}"
        )
    return folder


def hub_rows(hub: str | None, source: Source) -> list[list[Row]]:
    """Return the rows of each of the source's splits.

    Raises:
        ConfigError: the hub, its cache or the local folder does not give them, whatever the cause.
    """
    import datasets

    name = str(hub)
    config, revision = source.config, source.revision
    try:
        if not name:
            # as a folder it is the one that the command runs in, with all that lies there
            raise ValueError("it is empty")
        if (folder := Path(name).expanduser()).is_dir():
            # a plain folder knows no configurations; it may have a folder for each
            if config and config not in datasets.get_dataset_config_names(str(folder)):
                folder = folder / config if (folder / config).is_dir() else folder
                config = None
            name, revision = str(folder), None
        parts = [
            list(datasets.load_dataset(name, config, split=split, revision=revision))
            for split in source.splits
        ]
    except Exception as error:
        # requests, pyarrow, YAML, the cache's files: the causes share no type
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(
            f"dataset.hub={hub}: cannot be read ({reason}); allowed is a hub name or a folder that "
            f"has {', '.join(source.splits)}, or the files: {source.wanted()}"
        ) from None
    empty = [split for split, part in zip(source.splits, parts, strict=True) if not part]
    if empty:
        raise ConfigError(f"dataset.hub={hub}: {', '.join(empty)} has no row; needed: one or more")
    return [
        [Row(f"{hub}, {split}, row {k}", said) for k, said in enumerate(part)]
        for split, part in zip(source.splits, parts, strict=True)
    ]


def lines_of(file: Path, faults: list[str]) -> list[Row]:
    """Return the file's lines as texts, and add to the faults if it is empty or not UTF-8."""
    try:
        text = text_of(file)
    except ConfigError as error:
        faults += error.faults
        return []
    # splitlines would also cut at U+2028 and the like, which JSON allows inside a text
    lines = text.rstrip("\r\n").split("\n")
    if lines == [""]:
        faults.append(f"{file}: an empty file; needed: one line an item")
        return []
    return [Row(f"{file}, line {k}", line.removesuffix("\r")) for k, line in enumerate(lines, 1)]


def json_lines(file: Path, faults: list[str]) -> list[Row]:
    """Return what each line of the file holds, and add the lines that are no JSON to the faults."""
    rows = []
    for where, text in lines_of(file, faults):
        try:
            rows.append(Row(where, json.loads(text)))
        except json.JSONDecodeError as error:
            faults.append(f"{where}, column {error.colno}: not JSON ({error.msg})")
    return rows


def brief(value: object) -> str:
    """Return the value as JSON, cut."""
    return json.dumps(value, default=str)[:60]


def is_text(value: object) -> bool:
    """Say whether it is a text that can be read: not blank, no half a character."""
    if not isinstance(value, str) or not value.strip():
        return False
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def repeated(questions: Sequence[Question]) -> Iterator[str]:
    """Yield where an id is there for the second time."""
    seen: dict[str, str] = {}
    for question in questions:
        first = seen.setdefault(question.name, question.where)
        if first != question.where:
            yield f"{question.where}: id {question.name!r} is in {first} already; needed: each once"


def drawn(
    questions: Sequence[Question], n_test: int, most: int, rng: np.random.Generator
) -> tuple[list[Question], list[Question]]:
    """Return n_test questions, all as likely, and the others; both in the order they had.

    Raises:
        ConfigError: n_test is above `most`.
    """
    if n_test > most:
        raise ConfigError(f"dataset.n_test={n_test}: allowed is 1 to {most}")
    chosen = set(rng.permutation(len(questions))[:n_test].tolist())
    return (
        [q for k, q in enumerate(questions) if k in chosen],
        [q for k, q in enumerate(questions) if k not in chosen],
    )


def choice_items(
    train: Sequence[Question],
    test: Sequence[Question],
    class_names: Sequence[str],
    context: bool = False,
) -> Items:
    """Return the questions as items, train first; column `context` only where asked for."""
    questions = [*train, *test]
    inputs: dict[str, list[Any]] = {
        "question": [q.stem for q in questions],
        "options": [q.options for q in questions],
    }
    if context:
        inputs["context"] = [q.context for q in questions]
    return Items(
        kind="choice",
        inputs=inputs,
        split=np.repeat(("train", "test"), (len(train), len(test))),
        n_classes=len(class_names),
        truth=np.array([q.gold for q in questions], dtype=np.int64),
        names=[q.name for q in questions],
        class_names=list(class_names),
    )
