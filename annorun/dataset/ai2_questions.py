"""Questions in the layout of the Allen Institute: OpenBookQA, ARC, CommonsenseQA, RiddleSense.

A line of their files is a JSON object: `id`, `question.stem`, `question.choices` (each `text` and
`label`) and `answerKey`, which is one of the labels: letters, in some questions of ARC digits. The
hub has the same flat, with `choices` as two lists. Where a row has no `id` (RiddleSense on the
hub), the item's name is its split and place, from 0.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from annorun.dataset.files import refuse
from annorun.dataset.questions import (
    Question,
    Row,
    Source,
    brief,
    choice_items,
    drawn,
    hub_rows,
    is_text,
    json_lines,
    located,
    repeated,
)
from annorun.errors import ConfigError
from annorun.kinds import Count
from annorun.votes import LETTERS, Items

OPENBOOKQA = Source(
    name="openbookqa",
    origin="Data/Main of OpenBookQA-V1-Sep2018 (allenai.org/data/open-book-qa)",
    files=("train.jsonl", "test.jsonl"),
    splits=("train", "test"),
    config="main",
)
ARC = Source(
    name="arc",
    origin="ARC-V1-Feb2018 (allenai.org/data/arc)",
    files=("{0}/{0}-Train.jsonl", "{0}/{0}-Test.jsonl"),
    splits=("train", "test"),
)
COMMONSENSEQA = Source(
    name="commonsenseqa",
    origin="the random split of tau-nlp.org/commonsenseqa",
    files=("train_rand_split.jsonl", "dev_rand_split.jsonl"),
    splits=("train", "validation"),
)
RIDDLESENSE = Source(
    name="riddlesense",
    origin="github.com/INK-USC/RiddleSense, whose authors ask for a form",
    files=("rs_train.jsonl", "rs_dev.jsonl"),
    splits=("train", "validation"),
    # the main branch is a script, which datasets 4 does not run
    revision="refs/convert/parquet",
)


def openbookqa(*, rng: np.random.Generator, path: str, hub: str | None) -> tuple[Items, None]:
    """Read OpenBookQA (Mihaylov et al. 2018): 4957 train, 500 test, 4 options; dev left out.

    Args:
        rng: not used; the split is the authors'.
        path: the folder with the authors' files.
        hub: hub name or local folder, read where `path` is not there; null: never.

    Raises:
        ConfigError: files are missing, or what is wrong inside them, all of it.
    """
    train, test = _read(OPENBOOKQA, path, hub, 4)
    return choice_items(train, test, LETTERS[:4]), None


def arc(
    *,
    rng: np.random.Generator,
    path: str,
    hub: str | None,
    subset: Literal["ARC-Challenge", "ARC-Easy"],
) -> tuple[Items, None]:
    """Read one part of ARC (Clark et al. 2018); dev left out.

    Questions without exactly four options are left out. Challenge: 2 of 1119 train, 7 of 1172 test,
    so 1117 and 1165 stay; Easy: 10 of 2251 and 11 of 2376, so 2241 and 2365 stay.

    Args:
        rng: not used; the split is the authors'.
        path: the folder that holds `ARC-Challenge/` and `ARC-Easy/`.
        hub: hub name or local folder, read where `path` is not there; null: never.
        subset: which part.

    Raises:
        ConfigError: files are missing, or what is wrong inside them, all of it.
    """
    files = tuple(name.format(subset) for name in ARC.files)
    parts = _read(replace(ARC, files=files, config=subset), path, hub, None)
    train, test = ([q for q in part if len(q.options) == 4] for part in parts)
    if not train or not test:
        raise ConfigError(f"dataset.subset={subset}: no question of four options in train or test")
    return choice_items(train, test, LETTERS[:4]), None


def commonsenseqa(*, rng: np.random.Generator, path: str, hub: str | None) -> tuple[Items, None]:
    """Read CommonsenseQA (Talmor et al. 2019): 9741 train, 5 options; dev, 1221, is the test.

    The labels of the authors' test file are hidden; it is not read.

    Args:
        rng: not used; the split is the authors'.
        path: the folder with the authors' files.
        hub: hub name or local folder, read where `path` is not there; null: never.

    Raises:
        ConfigError: files are missing, or what is wrong inside them, all of it.
    """
    train, test = _read(COMMONSENSEQA, path, hub, 5)
    return choice_items(train, test, LETTERS[:5]), None


def riddlesense(
    *, rng: np.random.Generator, path: str, hub: str | None, n_test: Count
) -> tuple[Items, None]:
    """Read RiddleSense (Lin et al. 2021): 3510 train, 5 options; a part of dev, 1021, is the test.

    The labels of the authors' test file are hidden; it is not read. The rest of dev is left out.

    Args:
        rng: draws the test items out of dev.
        path: the folder with the authors' files.
        hub: hub name or local folder, read where `path` is not there; null: never.
        n_test: test items.

    Raises:
        ConfigError: dev has fewer, files are missing, or what is wrong inside them, all of it.
    """
    train, dev = _read(RIDDLESENSE, path, hub, 5)
    test, _ = drawn(dev, n_test, len(dev), rng)
    return choice_items(train, test, LETTERS[:5]), None


def _read(
    source: Source, path: str, hub: str | None, n_options: int | None
) -> list[list[Question]]:
    """Return the questions of both parts; any number of options where `n_options` is None."""
    faults: list[str] = []
    folder = located(path, hub, source)
    if folder is None:
        parts = [[_nested(row) for row in rows] for rows in hub_rows(hub, source)]
    else:
        parts = [json_lines(folder / name, faults) for name in source.files]
    questions = [
        list(_questions(rows, split, n_options, faults))
        for rows, split in zip(parts, source.splits, strict=True)
    ]
    faults += repeated([q for part in questions for q in part])
    refuse(faults)
    return questions


def _nested(row: Row) -> Row:
    """Return a row of the hub in the form of the files' lines."""
    said: dict[str, Any] = row.said
    if isinstance(said.get("question"), dict):
        return row
    choices = said.get("choices")
    columns = choices if isinstance(choices, dict) else {}
    texts, labels = columns.get("text") or [], columns.get("label") or []
    # lists of two lengths stay apart: no choices, which is a fault
    pairs = list(zip(texts, labels, strict=True)) if len(texts) == len(labels) else []
    question = {
        "stem": said.get("question_stem", said.get("question")),
        "choices": [{"text": text, "label": label} for text, label in pairs],
    }
    return Row(row.where, {**said, "question": question})


def _questions(
    rows: Sequence[Row], split: str, n_options: int | None, faults: list[str]
) -> Iterator[Question]:
    """Yield the rows that are as they should be, and add what is wrong with the others."""
    for place, (where, said) in enumerate(rows):
        wrong = [f"{where}: {fault}" for fault in _faults(said, n_options)]
        faults += wrong
        if not wrong:
            choices = said["question"]["choices"]
            labels = [choice["label"] for choice in choices]
            yield Question(
                where=where,
                name=said.get("id", f"{split}-{place}"),
                stem=said["question"]["stem"],
                options=[choice["text"] for choice in choices],
                gold=labels.index(said["answerKey"]),
            )


def _faults(said: Any, n_options: int | None) -> Iterator[str]:
    if not isinstance(said, dict) or not isinstance(question := said.get("question"), dict):
        yield f"{brief(said)}; needed is an object with question.stem and question.choices"
        return
    if "id" in said and not is_text(said["id"]):
        yield f"id {brief(said['id'])}; needed is a text"
    if not is_text(question.get("stem")):
        yield f"question.stem {brief(question.get('stem'))}; needed is a text"
    choices = question.get("choices")
    if not isinstance(choices, list) or not choices or not all(map(_is_choice, choices)):
        yield f"question.choices {brief(choices)}; needed is a list of text and label, both texts"
        return
    labels = [choice["label"] for choice in choices]
    if len(set(labels)) < len(labels):
        yield f"labels {', '.join(labels)}; needed: each once"
    if said.get("answerKey") not in labels:
        yield f"answerKey {brief(said.get('answerKey'))}; allowed: {', '.join(labels)}"
    if n_options is not None and len(choices) != n_options:
        yield f"{len(choices)} choices; needed: {n_options}"


def _is_choice(choice: Any) -> bool:
    return isinstance(choice, dict) and is_text(choice.get("text")) and is_text(choice.get("label"))
