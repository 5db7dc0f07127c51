"""PIQA (Bisk et al. 2020): a goal and two ways to it, one of them right.

The files are those of yonatanbisk.com/piqa/data: a line of `train.jsonl` and `valid.jsonl` is a
JSON object (`goal`, `sol1`, `sol2`), the same line of `train-labels.lst` and `valid-labels.lst` is
0 where the first is right, else 1. The labels of the authors' `tests.jsonl` are hidden; it is not
read, and the 1838 validation items are the test. The items have no ids: their names are their split
and place, from 0.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from annorun.dataset.files import refuse
from annorun.dataset.questions import (
    Question,
    Row,
    Source,
    brief,
    choice_items,
    hub_rows,
    is_text,
    json_lines,
    lines_of,
    located,
)
from annorun.votes import LETTERS, Items

FILES = (("train.jsonl", "train-labels.lst"), ("valid.jsonl", "valid-labels.lst"))
TEXTS = ("goal", "sol1", "sol2")
PIQA = Source(
    name="piqa",
    origin="yonatanbisk.com/piqa/data",
    files=tuple(name for names in FILES for name in names),
    splits=("train", "validation"),
    # the main branch is a script, which datasets 4 does not run
    revision="refs/convert/parquet",
)


def piqa(*, rng: np.random.Generator, path: str, hub: str | None) -> tuple[Items, None]:
    """Read 16113 train and 1838 test questions of 2 options.

    Args:
        rng: not used; the split is the authors'.
        path: the folder with the authors' files.
        hub: hub name or local folder, read where `path` is not there; null: never.

    Raises:
        ConfigError: files are missing, or what is wrong inside them, all of it.
    """
    faults: list[str] = []
    folder = located(path, hub, PIQA)
    if folder is None:
        parts = [
            [Row(row.where, {"label": None, **row.said}) for row in rows]
            for rows in hub_rows(hub, PIQA)
        ]
    else:
        parts = [_labelled(folder / texts, folder / labels, faults) for texts, labels in FILES]
    train, test = (
        list(_questions(rows, split, faults))
        for rows, split in zip(parts, PIQA.splits, strict=True)
    )
    refuse(faults)
    return choice_items(train, test, LETTERS[:2]), None


def _labelled(file: Path, label_file: Path, faults: list[str]) -> list[Row]:
    """Return the file's lines, each with the label of its line where no label is wrong."""
    before = len(faults)
    rows, labels = json_lines(file, faults), lines_of(label_file, faults)
    allowed = {"0": 0, "1": 1}
    faults += [
        f"{where}: {text.strip()!r}; allowed: 0, 1"
        for where, text in labels
        if text.strip() not in allowed
    ]
    # lines that are no JSON are not among the rows: their number says nothing then
    if len(faults) == before and len(rows) != len(labels):
        faults.append(
            f"{labels[-1].where}: the file ends after {len(labels)} labels, but {file.name} has "
            f"{len(rows)} lines; one label a line is needed"
        )
    if len(faults) > before:
        return rows
    return [
        Row(
            where,
            {**said, "label": allowed[label.said.strip()]} if isinstance(said, dict) else said,
        )
        for (where, said), label in zip(rows, labels, strict=True)
    ]


def _questions(rows: list[Row], split: str, faults: list[str]) -> Iterator[Question]:
    """Yield the rows that are as they should be, and add what is wrong with the others."""
    for place, (where, said) in enumerate(rows):
        wrong = [f"{where}: {fault}" for fault in _faults(said)]
        faults += wrong
        # without a label, what is wrong with the labels is among the faults already
        if not wrong and "label" in said:
            options = [said["sol1"], said["sol2"]]
            yield Question(where, f"{split}-{place}", said["goal"], options, said["label"])


def _faults(said: Any) -> Iterator[str]:
    if not isinstance(said, dict):
        yield f"{brief(said)}; needed is an object with {', '.join(TEXTS)}"
        return
    for key in TEXTS:
        if not is_text(said.get(key)):
            yield f"{key} {brief(said.get(key))}; needed is a text"
    if said.get("label", 0) not in (0, 1):
        yield f"label {brief(said['label'])}; allowed: 0, 1"
