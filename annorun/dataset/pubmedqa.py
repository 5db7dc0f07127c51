"""PubMedQA (Jin et al. 2019), the labelled part: yes, no or maybe, with the abstract less its end.

The files are those of github.com/pubmedqa/pubmedqa, folder `data`: `ori_pqal.json`, PubMed id ->
entry, and `test_ground_truth.json`, the official test ids -> answer. The truth is the entries'
`final_decision`. The two further fields that look like annotators, `reasoning_required_pred` and
`reasoning_free_pred`, are not read.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from annorun.dataset.files import refuse, text_of
from annorun.dataset.questions import (
    Question,
    Row,
    Source,
    brief,
    choice_items,
    drawn,
    hub_rows,
    is_text,
    located,
    repeated,
)
from annorun.errors import ConfigError
from annorun.kinds import Count
from annorun.votes import Items

ANSWERS = ("yes", "no", "maybe")
ENTRIES, OFFICIAL = "ori_pqal.json", "test_ground_truth.json"
PUBMEDQA = Source(
    name="pubmedqa",
    origin="data of github.com/pubmedqa/pubmedqa",
    files=(ENTRIES, OFFICIAL),
    splits=("train",),
    config="pqa_labeled",
)


def pubmedqa(
    *, rng: np.random.Generator, path: str, hub: str | None, n_test: Count
) -> tuple[Items, None]:
    """Read the 500 items that are not official test, and n_test of the 500 that are.

    The other official test items are left out. The hub does not say which they are: from there,
    n_test of all 1000 items are the test, and all others train.

    Args:
        rng: draws the test items.
        path: the folder with the authors' files.
        hub: hub name or local folder, read where `path` is not there; null: never.
        n_test: test items.

    Raises:
        ConfigError: there are fewer, files are missing, or what is wrong inside them, all of it.
    """
    faults: list[str] = []
    folder = located(path, hub, PUBMEDQA)
    if folder is None:
        (rows,) = hub_rows(hub, PUBMEDQA)
        rows = [_upper(row) for row in rows]
        questions = list(_questions(rows, faults))
        faults += repeated(questions)
        refuse(faults)
        test, train = drawn(questions, n_test, len(questions) - 1, rng)
        return choice_items(train, test, ANSWERS, context=True), None
    entries, official = (_object(folder / name, faults) for name in PUBMEDQA.files)
    rows = [
        Row(f"{folder / ENTRIES}, item {name}", {"name": name, "said": said})
        for name, said in entries.items()
    ]
    questions = list(_questions(rows, faults))
    faults += _contradictions(folder / OFFICIAL, official, entries)
    refuse(faults)
    train = [q for q in questions if q.name not in official]
    if not train:
        raise ConfigError(f"{folder / OFFICIAL}: names every item; needed: some that are not test")
    held = [q for q in questions if q.name in official]
    test, _ = drawn(held, n_test, len(held), rng)
    return choice_items(train, test, ANSWERS, context=True), None


def _object(file: Path, faults: list[str]) -> dict[str, Any]:
    """Return what the file holds, or nothing but a fault."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            again = next(name for name in names if names.count(name) > 1)
            faults.append(f"{file}: key {again!r} is there twice in one object; needed: once")
        return found

    try:
        found = json.loads(text_of(file), object_pairs_hook=once)
    except json.JSONDecodeError as error:
        faults.append(f"{file}, line {error.lineno}: not JSON ({error.msg})")
    except ConfigError as error:
        faults += error.faults
    else:
        if isinstance(found, dict) and found:
            return found
        faults.append(f"{file}: {brief(found)}; needed is one object, PubMed id -> entry")
    return {}


def _upper(row: Row) -> Row:
    """Return a row of the hub in the form of the files' entries."""
    said: dict[str, Any] = row.said
    context = said.get("context")
    entry = {
        "QUESTION": said.get("question"),
        "CONTEXTS": context.get("contexts") if isinstance(context, dict) else None,
        "final_decision": said.get("final_decision"),
    }
    return Row(row.where, {"name": str(said.get("pubid")), "said": entry})


def _questions(rows: list[Row], faults: list[str]) -> Iterator[Question]:
    """Yield the rows that are as they should be, and add what is wrong with the others."""
    for where, row in rows:
        said = row["said"]
        wrong = [f"{where}: {fault}" for fault in _faults(said)]
        faults += wrong
        if not wrong:
            yield Question(
                where=where,
                name=row["name"],
                stem=said["QUESTION"],
                options=list(ANSWERS),
                gold=ANSWERS.index(said["final_decision"]),
                context=" ".join(said["CONTEXTS"]),
            )


def _faults(said: Any) -> Iterator[str]:
    if not isinstance(said, dict):
        yield f"{brief(said)}; needed is an object with QUESTION, CONTEXTS and final_decision"
        return
    if not is_text(said.get("QUESTION")):
        yield f"QUESTION {brief(said.get('QUESTION'))}; needed is a text"
    contexts = said.get("CONTEXTS")
    if not isinstance(contexts, list) or not contexts or not all(map(is_text, contexts)):
        yield f"CONTEXTS {brief(contexts)}; needed is a list of texts"
    if said.get("final_decision") not in ANSWERS:
        yield f"final_decision {brief(said.get('final_decision'))}; allowed: {', '.join(ANSWERS)}"


def _contradictions(
    file: Path, official: Mapping[str, Any], entries: Mapping[str, Any]
) -> Iterator[str]:
    """Yield where the test file names an item that is not there, or another answer."""
    for name, answer in official.items():
        entry = entries.get(name)
        if entry is None:
            if entries:
                yield f"{file}, item {name}: is not in {ENTRIES}"
        elif isinstance(entry, dict) and answer != (truth := entry.get("final_decision")):
            yield f"{file}, item {name}: {brief(answer)}, but {ENTRIES} says {brief(truth)}"
