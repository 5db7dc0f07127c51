"""Readers of labels with explanations: VariErr NLI and Paraphrase, four annotators each.

VariErr (Weber-Genzel et al. 2024): inference, as the authors' JSON lines (github
mainlp/VariErr-NLI, 500 items, 1933 explanations) or as LeWiDi 2025's files. An annotator may give
an item several labels, each with its own explanation. Paraphrase (LeWiDi 2025): labels -5 to 5,
one each.

The authors' file has no parts: of its items a tenth are validated on, a tenth tested on, drawn by
`data_seed`; LeWiDi's files are the parts. No pair is in two; a context is, of 4 in 50 test items.
The authors' annotators 0 to 3 are LeWiDi's Ann1 to Ann4 (by the texts of all 1891 explanations that
both have). In LeWiDi's form the explanations go with the list of annotators, in which whoever gives
several labels is repeated; the labels of one annotator come in the same order (by the 150 that
tell).

There is no truth. The explanations of the test items are those of `Items.held_out`.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from annorun.dataset.files import refuse, text_of
from annorun.dataset.lewidi import LABELS_2025, Entry, entries_of, text_2025
from annorun.errors import ConfigError
from annorun.votes import Items, Votes

PARTS = {"train": "train", "dev": "val", "test": "test"}
# of the authors' entries, and of one response there
NEEDED = {"id": str, "context": str, "statement": str} | dict.fromkeys(
    LABELS_2025["VariErrNLI"], list
)
RESPONSE = {"annotator": int, "reason": str}


class Said(NamedTuple):
    """One response: the item's place, who, what, why."""

    item: int
    who: str
    label: str
    why: str


def explained(
    *, rng: np.random.Generator, path: str, subset: Literal["Paraphrase", "VariErrNLI"]
) -> tuple[Items, Votes]:
    """Read one of the two.

    Args:
        rng: draws the parts of the authors' VariErr file; not used for LeWiDi's.
        path: the authors' varierr.json, or the folder that holds LeWiDi's `<subset>/`.
        subset: which of the two.

    Raises:
        ConfigError: a file is missing, or not in its form.
    """
    file = Path(path).expanduser()
    if file.is_file():
        if subset != "VariErrNLI":
            raise ConfigError(f"dataset.path={path}: a file; {subset} is read from a folder")
        names, texts, said = _authors(file)
        parts = np.repeat(["train", "val", "test"], sizes(len(names)))
        return assembled(said, texts, names, rng.permutation(parts), LABELS_2025[subset], True)
    entries = entries_of(file / subset, subset, dict)
    refuse([fault for entry in entries for fault in _faults(entry)])
    said = [one for i, entry in enumerate(entries) for one in _said(i, entry)]
    # where there is no training part, as of some of LeWiDi's sets, the second trains
    whole = any(entry.part == "train" for entry in entries)
    parts_of = PARTS if whole else PARTS | {"dev": "train"}
    return assembled(
        said,
        [text_2025(entry) for entry in entries],
        [f"{entry.part}-{entry.name}" for entry in entries],
        np.array([parts_of[entry.part] for entry in entries]),
        LABELS_2025[subset],
        subset == "VariErrNLI",
    )


def assembled(
    said: Sequence[Said],
    texts: Sequence[str],
    names: Sequence[str],
    split: np.ndarray[Any, Any],  # (n_items,)
    labels: Sequence[str],
    multi_label: bool,
) -> tuple[Items, Votes]:
    """Return items and the responses outside of the test part; annotators by their names.

    Raises:
        ConfigError: a label is not one of those, or an explanation is empty.
    """
    who = sorted({one.who for one in said}, key=lambda name: (len(name), name))
    faults = [
        f"item {names[one.item]}, {one.who}: label {one.label!r}; allowed: {', '.join(labels)}"
        for one in said
        if one.label not in labels
    ]
    faults += [
        f"item {names[one.item]}, {one.who}: the explanation is empty; allowed is a text"
        for one in said
        if not one.why.strip()
    ]
    refuse(faults)
    votes = Votes(
        item=np.array([one.item for one in said], dtype=np.int64),
        annotator=np.array([who.index(one.who) for one in said], dtype=np.int64),
        label=np.array([list(labels).index(one.label) for one in said], dtype=np.int64),
        n_items=len(texts),
        n_annotators=len(who),
        n_classes=len(labels),
        explanation=tuple(one.why for one in said),
        multi_label=multi_label,
    )
    items = Items(
        kind="explain",
        inputs={"text": list(texts)},
        split=split,
        n_classes=len(labels),
        held_out=votes.on(split == "test"),
        names=names,
        class_names=labels,
        annotator_names=who,
    )
    return items, votes.on(split != "test")


def sizes(n: int) -> tuple[int, int, int]:
    """Return how many items train, validate and test: 400, 50 and 50 of 500."""
    return n - 2 * (n // 10), n // 10, n // 10


def _authors(file: Path) -> tuple[list[str], list[str], list[Said]]:
    """Return names, texts and responses of the authors' JSON lines."""
    names: list[str] = []
    texts: list[str] = []
    said: list[Said] = []
    faults: list[str] = []
    # not splitlines: a text may hold what Unicode calls the end of a line
    for number, line in enumerate(text_of(file).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            faults.append(f"{where}: not JSON ({error.msg})")
            continue
        if found := list(_line_faults(entry)):
            faults += [f"{where}: {words}" for words in found]
            continue
        names.append(entry["id"])
        texts.append(f"{entry['context']}\n{entry['statement']}")
        for label in LABELS_2025["VariErrNLI"]:
            for one in entry[label]:
                who = f"Ann{one['annotator'] + 1}"
                said.append(Said(len(names) - 1, who, label, one["reason"]))
    for kind, own in (("id", names), ("context and statement", texts)):
        if len(set(own)) < len(own):
            twice = next(one for one in own if own.count(one) > 1)
            faults.append(f"{file}: {kind} {twice[:60]!r} is there more than once")
    if not said and not faults:
        faults.append(f"{file}: holds no response")
    refuse(faults)
    return names, texts, said


def _line_faults(entry: Any) -> Iterator[str]:
    """Yield what of an authors' entry is missing or of another kind; nothing is coerced."""
    if not isinstance(entry, dict):
        yield f"needed is an object with {', '.join(NEEDED)}"
        return
    wrong = [key for key, kind in NEEDED.items() if type(entry.get(key)) is not kind]
    if wrong:
        yield f"{', '.join(wrong)}: missing or of another kind; needed are texts and lists"
        return
    for label in LABELS_2025["VariErrNLI"]:
        given = []
        for one in entry[label]:
            if not isinstance(one, dict) or any(
                type(one.get(key)) is not kind for key, kind in RESPONSE.items()
            ):
                yield f"{label}: needed is an annotator, a number, and a reason, a text"
            elif one["annotator"] < 0:
                yield f"{label}: annotator {one['annotator']}; needed is 0 or more"
            else:
                given.append(one["annotator"])
        if len(set(given)) < len(given):
            yield f"{label}: an annotator is there more than once"


def _faults(entry: Entry) -> Iterator[str]:
    """Yield what hinders the explanations of an entry from being told apart."""
    listed = [name.strip() for name in entry.said["annotators"].split(",")]
    whys = entry.said.get("other_info", {}).get("explanations")
    if not isinstance(whys, list) or not all(isinstance(why, str) for why in whys):
        yield f"{entry.where}: other_info.explanations is no list of texts"
        return
    if len(whys) != len(listed):
        yield f"{entry.where}: {len(listed)} annotators, {len(whys)} explanations"
    given = {
        who: len(labels.split(",")) for who, labels in entry.said["annotations"].items() if labels
    }
    if given != {who: listed.count(who) for who in listed}:
        yield f"{entry.where}: annotators {','.join(listed)} and annotations do not agree"


def _said(item: int, entry: Entry) -> Iterator[Said]:
    """Yield the responses of one of LeWiDi's entries."""
    left = {who: labels.split(",") for who, labels in entry.said["annotations"].items()}
    for who, why in zip(
        entry.said["annotators"].split(","), entry.said["other_info"]["explanations"], strict=True
    ):
        yield Said(item, who.strip(), left[who.strip()].pop(0).strip(), why)
