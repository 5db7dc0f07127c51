"""The Learning-With-Disagreements shared tasks: LeWiDi 2023 and 2025, in the organisers' JSON.

2023 (Leonardelli et al., SemEval-2023 task 11): ArMIS, ConvAbuse, HS-Brexit, MD-Agreement, all of
them binary. Groups: HS-Brexit's target group and control group, three annotators each; ArMIS's
three annotators are each a group; the other two have none. ConvAbuse's severities -3 to 1 are
abuse below 0, as in the organisers' soft labels.

2025 (le-wi-di.github.io): CSC (sarcasm, 1 to 6), MP (irony, 0 or 1), Paraphrase (-5 to 5) and
VariErrNLI (several labels an annotator). Groups: an attribute of the annotators' metadata.

A file `<subset>_train.json` trains, `_dev.json` validates, `_test.json` tests; without the first
(CSC and MP are given so here and there), the second trains. The test files' annotations are
`Items.held_out`. There is no truth: the organisers' hard label is a majority vote.

Readings of the files: an annotator who is twice on one item (MD-Agreement, one item) is there as
two, so that soft labels are the organisers'; VariErrNLI lists annotators once an explanation, and
its labels are those of `annotations`; the explanations are not read.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from annorun.dataset.files import mapping_of, refuse
from annorun.dataset.popquorn import AGES
from annorun.errors import ConfigError
from annorun.votes import Items, Votes

SPLITS = ("train", "dev", "test")
LABELS_2025: dict[str, list[str]] = {
    "CSC": [str(k) for k in range(1, 7)],
    "MP": ["0", "1"],
    "Paraphrase": [str(k) for k in range(-5, 6)],
    "VariErrNLI": ["contradiction", "entailment", "neutral"],
}
UNKNOWN = "unknown"
# what Prolific and the organisers write where an annotator's answer is not to be had
UNTOLD = ("", "nan", "DATA_EXPIRED", "CONSENT_REVOKED", "Prefer not to say")

# what ConvAbuse's annotators say -> whether it is abuse
SEVERITY = {"-3": "1", "-2": "1", "-1": "1", "0": "0", "1": "0"}
# what JSON must hold where Python has the other
KINDS: dict[type, str] = {str: "a text", dict: "a mapping of texts"}


class Entry(NamedTuple):
    """One item: split, name, its file and name for messages, and what the file says."""

    part: str
    name: str
    where: str
    said: dict[str, Any]


def lewidi2023(
    *,
    rng: np.random.Generator,
    path: str,
    subset: Literal["ArMIS", "ConvAbuse", "HS-Brexit", "MD-Agreement"],
) -> tuple[Items, Votes]:
    """Read one data set of the second edition.

    Args:
        rng: not used; the split is the organisers'.
        path: the folder with `ArMIS_dataset/` and so on.
        subset: which of the four.

    Raises:
        ConfigError: there is no test file, nothing to train on, or a file is not in their form.
    """
    entries = entries_of(Path(path).expanduser() / f"{subset}_dataset", subset, str)
    votes = [_votes_2023(entry, subset) for entry in entries]
    groups: dict[str, str] = {}
    for entry, said in zip(entries, votes, strict=True):
        groups |= _groups_2023(entry, [who for who, _ in said])
    return _assembled(entries, votes, ["0", "1"], _text_2023, groups)


def lewidi2025(
    *,
    rng: np.random.Generator,
    path: str,
    subset: Literal["CSC", "MP", "Paraphrase", "VariErrNLI"],
    attribute: str,
) -> tuple[Items, Votes]:
    """Read one data set of the third edition.

    Args:
        rng: not used; the split is the organisers'.
        path: the folder with `CSC/` and so on.
        subset: which of the four.
        attribute: a field of the annotators' metadata whose values are the groups; ages are merged
            into decades as in POPQUORN, and whoever has not told is of the group `unknown`.

    Raises:
        ConfigError: there is no test file, nothing to train on, no such attribute, or a file is not
            in their form.
    """
    folder = Path(path).expanduser() / subset
    entries = entries_of(folder, subset, dict)
    votes = [
        [(who, label) for who, said in e.said["annotations"].items() for label in said.split(",")]
        for e in entries
    ]
    told = _metadata(folder / f"{subset}_annotators_meta.json", attribute)
    groups = {who: told.get(who, UNKNOWN) for said in votes for who, _ in said}
    return _assembled(entries, votes, LABELS_2025[subset], text_2025, groups, subset[0] == "V")


def _assembled(
    entries: list[Entry],
    said: list[list[tuple[str, str]]],
    labels: list[str],
    text: Callable[[Entry], str],
    groups: Mapping[str, str],
    multi_label: bool = False,
) -> tuple[Items, Votes]:
    """Return items and votes; annotators and groups are in the order of their names."""
    rows = [(i, who, label) for i, one in enumerate(said) for who, label in one]
    who = sorted({name for _, name, _ in rows}, key=lambda name: (len(name), name))
    place = {name: k for k, name in enumerate(who)}
    index = {label: k for k, label in enumerate(labels)}
    for i, name, label in rows:
        if label not in index:
            raise ConfigError(
                f"{entries[i].where}: annotation {label!r}; allowed: {', '.join(labels)}"
            )
        if groups and name not in groups:
            raise ConfigError(f"{entries[i].where}: annotator {name} has no group, and others do")
    kinds = sorted(set(groups.values()))
    votes = Votes(
        item=np.array([i for i, _, _ in rows], dtype=np.int64),
        annotator=np.array([place[name] for _, name, _ in rows], dtype=np.int64),
        label=np.array([index[label] for _, _, label in rows], dtype=np.int64),
        n_items=len(entries),
        n_annotators=len(who),
        n_classes=len(labels),
        group=np.array([kinds.index(groups[name]) for name in who]) if groups else None,
        multi_label=multi_label,
    )
    present = {entry.part for entry in entries}
    parts = {"train": "train", "test": "test", "dev": "val" if "train" in present else "train"}
    split = np.array([parts[entry.part] for entry in entries])
    items = Items(
        kind="text",
        inputs={"text": [text(entry) for entry in entries]},
        split=split,
        n_classes=len(labels),
        held_out=votes.on(split == "test"),
        names=[f"{entry.part}-{entry.name}" for entry in entries],
        class_names=labels,
        annotator_names=who,
        group_names=kinds if groups else None,
    )
    return items, votes.on(split != "test")


def entries_of(folder: Path, subset: str, kind: type) -> list[Entry]:
    """Return every item, in file order; texts and annotations are of the edition's kind."""
    files = {split: folder / f"{subset}_{split}.json" for split in SPLITS}
    there = [split for split in SPLITS if files[split].is_file()]
    if "test" not in there or len(there) < 2:
        raise ConfigError(
            f"dataset.path: in {folder} (looked in {folder.absolute()}) there is "
            f"{', '.join(files[s].name for s in there) or 'no data'}; needed: {subset}_test.json "
            f"and {subset}_train.json or {subset}_dev.json, from le-wi-di.github.io; set "
            "dataset.path=FOLDER to the folder that holds this one"
        )
    entries = [
        Entry(split, str(name), f"{files[split]}, item {name}", said)
        for split in there
        for name, said in mapping_of(files[split]).items()
    ]
    kinds = {"text": kind, "annotators": str, "annotations": kind}
    refuse([fault for entry in entries for fault in _faults(entry, kinds)])
    return entries


def _faults(entry: Entry, kinds: dict[str, type]) -> Iterator[str]:
    """Yield what of an entry is missing or not of its kind."""
    if not isinstance(entry.said, dict):
        yield f"{entry.where}: {_brief(entry.said)}; needed is a mapping with {', '.join(kinds)}"
        return
    lost = [key for key in kinds if key not in entry.said]
    if lost:
        yield f"{entry.where}: has no {', '.join(lost)}"
    for key in kinds.keys() & entry.said.keys():
        value = entry.said[key]
        parts = value.values() if isinstance(value, dict) else ()
        if not isinstance(value, kinds[key]) or not all(isinstance(v, str) for v in parts):
            yield f"{entry.where}: {key} {_brief(value)}; needed is {KINDS[kinds[key]]}"
    if not isinstance(info := entry.said.get("other_info", {}), dict):
        yield f"{entry.where}: other_info {_brief(info)}; needed is a mapping"


def _brief(value: Any) -> str:
    """Return the value as JSON, cut."""
    return json.dumps(value, ensure_ascii=False)[:60]


def _votes_2023(entry: Entry, subset: str) -> list[tuple[str, str]]:
    names = [name.strip() for name in entry.said["annotators"].split(",")]
    said = [label.strip() for label in entry.said["annotations"].split(",")]
    if len(names) != len(said):
        raise ConfigError(f"{entry.where}: {len(names)} annotators, {len(said)} annotations")
    if subset == "ConvAbuse":
        wrong = [label for label in said if label not in SEVERITY]
        if wrong:
            raise ConfigError(
                f"{entry.where}: annotation {wrong[0]!r}; allowed: {', '.join(SEVERITY)}"
            )
        said = [SEVERITY[label] for label in said]
    seen = [names[:k].count(name) for k, name in enumerate(names)]
    again = [f"{name} ({n + 1})" if n else name for name, n in zip(names, seen, strict=True)]
    return list(zip(again, said, strict=True))


def _groups_2023(entry: Entry, names: list[str]) -> dict[str, str]:
    """Return the annotators' groups by name, or nothing where the data set has none."""
    info = entry.said.get("other_info", {})
    if "annotators group" in info:
        listed = str(info["annotators group"]).split(",")
        if len(listed) != len(names):
            raise ConfigError(f"{entry.where}: {len(names)} annotators, {len(listed)} groups")
        groups = [str(info.get(g.strip(), g.strip())) for g in listed]
        return dict(zip(names, groups, strict=True))
    return {name: str(info[name]) for name in names if name in info}


def _text_2023(entry: Entry) -> str:
    """Return the text; ConvAbuse's is a JSON object of turns in a text, here one turn a line."""
    text = str(entry.said["text"])
    try:
        turns = json.loads(text)
    except json.JSONDecodeError:
        return text
    return "\n".join(map(str, turns.values())) if isinstance(turns, dict) else text


def text_2025(entry: Entry) -> str:
    """Return the texts of the item, one a line."""
    return "\n".join(map(str, entry.said["text"].values()))


def _metadata(file: Path, attribute: str) -> dict[str, str]:
    """Return one attribute of every annotator who told it, by name."""
    if not file.is_file():
        raise ConfigError(f"dataset.path: there is no {file}; it comes with the data")
    told = mapping_of(file)
    for who, facts in told.items():
        if not isinstance(facts, dict):
            raise ConfigError(f"{file}, annotator {who}: {_brief(facts)}; needed is a mapping")
    fields = list(dict.fromkeys(key for facts in told.values() for key in facts))
    if attribute not in fields:
        raise ConfigError(
            f"dataset.attribute={attribute}: {file.name} has {', '.join(fields)}; one is needed"
        )
    # MP's file names them 0, 1, ...; all data files Ann0, Ann1, ...
    named = {
        f"Ann{who.removeprefix('Ann')}": ""
        if (value := facts.get(attribute)) is None
        else str(value)
        for who, facts in told.items()
    }
    if attribute == "Age":
        named = {who: _decade(age) for who, age in named.items()}
    return {who: value for who, value in named.items() if value not in UNTOLD}


def _decade(age: str) -> str:
    try:
        years = int(float(age))
    except (ValueError, OverflowError):
        return ""
    low = min(max(years // 10 * 10, 20), 60)
    return next(v for v in AGES.values() if v.startswith({20: "18", 60: "60"}.get(low, str(low))))
