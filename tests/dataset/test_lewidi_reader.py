"""LeWiDi 2023 and 2025: small files of our own in the organisers' form, then the real ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annorun.dataset.lewidi import LABELS_2025, lewidi2023, lewidi2025
from annorun.errors import ConfigError
from annorun.scores.soft import shares, yes_shares

NOTHING = np.random.default_rng(0)
GROUPS = {"annotators group": "group1,group2", "group1": "target", "group2": "control"}


def old(text: str, annotators: str, annotations: str, **info: Any) -> dict[str, Any]:
    return {"text": text, "annotators": annotators, "annotations": annotations, "other_info": info}


def new(text: dict[str, str], **annotations: str) -> dict[str, Any]:
    return {"text": text, "annotators": ",".join(annotations), "annotations": annotations}


def write(folder: Path, subset: str, **entries: list[dict[str, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    for split, found in entries.items():
        text = json.dumps({str(k): entry for k, entry in enumerate(found)})
        (folder / f"{subset}_{split}.json").write_text(text)


def read23(folder: Path, subset: str):
    return lewidi2023(rng=NOTHING, path=str(folder), subset=subset)


def read25(folder: Path, subset: str, attribute: str = "Gender"):
    return lewidi2025(rng=NOTHING, path=str(folder), subset=subset, attribute=attribute)


def triples(votes: Any) -> list[tuple[int, int, int]]:
    rows = zip(votes.item, votes.annotator, votes.label, strict=True)
    return [tuple(int(v) for v in row) for row in rows]


def test_hs_brexit_by_hand(tmp_path: Path) -> None:
    """Groups in the order of their names; the test file's votes are held out."""
    one = [old("a", "Ann1,Ann2", "0,1", **GROUPS)]
    other = [old("b", "Ann2,Ann1", "1, 0", **{**GROUPS, "annotators group": "group2,group1"})]
    write(tmp_path / "HS-Brexit_dataset", "HS-Brexit", train=one, dev=other, test=one)
    items, votes = read23(tmp_path, "HS-Brexit")
    assert items.split.tolist() == ["train", "val", "test"]
    assert items.names == ["train-0", "dev-0", "test-0"] and items.inputs["text"] == ["a", "b", "a"]
    assert items.group_names == ["control", "target"] and votes.group.tolist() == [1, 0]
    assert triples(votes) == [(0, 0, 0), (0, 1, 1), (1, 0, 0), (1, 1, 1)]
    assert triples(items.held_out) == [(2, 0, 0), (2, 1, 1)]
    assert items.truth is None


def test_conv_abuse_is_abuse_below_zero_and_armis_names_its_annotators(tmp_path: Path) -> None:
    talk = json.dumps({"agent": "Hi", "user": "You"})
    one = [old(talk, "Ann1,Ann2,Ann3", "-3,0,1", bot="x")]
    write(tmp_path / "ConvAbuse_dataset", "ConvAbuse", train=one, test=one)
    items, votes = read23(tmp_path, "ConvAbuse")
    assert triples(votes) == [(0, 0, 1), (0, 1, 0), (0, 2, 0)]
    assert votes.group is None and items.inputs["text"][0] == "Hi\nYou"
    one = [old("x", "Ann1,Ann2", "1,0", Ann1="Moderate_Female", Ann2="Conservative_Male")]
    write(tmp_path / "ArMIS_dataset", "ArMIS", train=one, test=one)
    items, votes = read23(tmp_path, "ArMIS")
    assert [items.group_names[g] for g in votes.group] == ["Moderate_Female", "Conservative_Male"]


def test_an_annotator_who_is_twice_on_an_item_keeps_both_votes(tmp_path: Path) -> None:
    one = [old("a", "Ann1,Ann2,Ann1", "0,0,1", domain="x")]
    write(tmp_path / "MD-Agreement_dataset", "MD-Agreement", train=one, test=one)
    items, votes = read23(tmp_path, "MD-Agreement")
    assert items.annotator_names == ["Ann1", "Ann2", "Ann1 (2)"]
    assert votes.counts()[0].tolist() == [2, 1]


def test_2025_by_hand_with_commas_that_json_forbids(tmp_path: Path) -> None:
    """Without a training file the dev file trains; MP's metadata call Ann0 plain 0."""
    folder = tmp_path / "MP"
    pair = {"post": "p", "reply": "r, ]"}
    write(folder, "MP", dev=[new(pair, Ann0="1", Ann10="0", Ann2="0")], test=[new(pair, Ann2="1")])
    (folder / "MP_annotators_meta.json").write_text(
        '{"0": {"Gender": "Male", "Age": "19.0",},\n "10": {"Gender": "DATA_EXPIRED", "Age": "40",'
        ' }, "2": {"Gender": "Female", "Age": "71"}, }'
    )
    items, votes = read25(tmp_path, "MP")
    assert items.split.tolist() == ["train", "test"] and items.inputs["text"][0] == "p\nr, ]"
    assert items.annotator_names == ["Ann0", "Ann2", "Ann10"]
    assert [items.group_names[g] for g in votes.group] == ["Male", "Female", "unknown"]
    assert triples(votes) == [(0, 0, 1), (0, 1, 0), (0, 2, 0)]
    assert triples(items.held_out) == [(1, 1, 1)]
    items, votes = read25(tmp_path, "MP", "Age")
    assert [items.group_names[g] for g in votes.group] == ["18-29", "60+", "40-49"]


def test_varierr_is_multi_label_and_paraphrase_starts_below_zero(tmp_path: Path) -> None:
    nli = [new({"context": "c", "statement": "s"}, Ann1="neutral", Ann2="entailment,neutral")]
    write(tmp_path / "VariErrNLI", "VariErrNLI", train=nli, test=nli)
    meta = '{"Ann1": {"Gender": "Male"}, "Ann2": {"Gender": "Male"}}'
    (tmp_path / "VariErrNLI" / "VariErrNLI_annotators_meta.json").write_text(meta)
    _, votes = read25(tmp_path, "VariErrNLI")
    assert votes.multi_label and triples(votes) == [(0, 0, 2), (0, 1, 1), (0, 1, 2)]
    assert yes_shares(votes)[0].tolist() == [0, 0.5, 1]
    pair = [new({"Question1": "a", "Question2": "b"}, Ann1="-5", Ann2="5")]
    write(tmp_path / "Paraphrase", "Paraphrase", train=pair, dev=pair, test=pair)
    (tmp_path / "Paraphrase" / "Paraphrase_annotators_meta.json").write_text(meta)
    items, votes = read25(tmp_path, "Paraphrase")
    assert triples(votes) == [(0, 0, 0), (0, 1, 10), (1, 0, 0), (1, 1, 10)]
    assert items.class_names == [str(k) for k in range(-5, 6)] and not votes.multi_label


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "CSC"
    one = [new({"context": "c", "response": "r"}, Ann1="6")]
    write(folder, "CSC", test=one)
    with pytest.raises(ConfigError, match=r"there is CSC_test.json; needed: CSC_test.json and"):
        read25(tmp_path, "CSC")
    write(folder, "CSC", dev=one)
    with pytest.raises(ConfigError, match=r"there is no .*CSC_annotators_meta\.json"):
        read25(tmp_path, "CSC")
    (folder / "CSC_annotators_meta.json").write_text('{"Ann1": {"Gender": "Male"}}')
    with pytest.raises(ConfigError, match=r"dataset.attribute=Race: .* has Gender"):
        read25(tmp_path, "CSC", "Race")
    write(folder, "CSC", dev=[new({"context": "c", "response": "r"}, Ann1="0")])
    with pytest.raises(
        ConfigError, match=r"CSC_dev.json, item 0: annotation '0'; allowed: 1, 2, 3"
    ):
        read25(tmp_path, "CSC")
    (folder / "CSC_dev.json").write_text("{")
    with pytest.raises(ConfigError, match="line 1: not JSON"):
        read25(tmp_path, "CSC")
    bad = [old("a", "Ann1,Ann2", "0")]
    write(tmp_path / "ArMIS_dataset", "ArMIS", train=bad, test=bad)
    with pytest.raises(ConfigError, match=r"ArMIS_train.json, item 0: 2 annotators, 1 annotations"):
        read23(tmp_path, "ArMIS")


# what an entry of item 0 becomes -> what is said of it
BROKEN_2023 = {
    "null": (None, "null; needed is a mapping with text"),
    "null text": ({"text": None}, "text null; needed is a text"),
    "text is a mapping": ({"text": {"a": "b"}}, 'text {"a": "b"}; needed is a text'),
    "number": ({"annotations": 3}, "annotations 3; needed is a text"),
    "list": ({"annotations": ["0", "1"]}, 'annotations ["0", "1"]; needed is a text'),
    "null annotators": ({"annotators": None}, "annotators null; needed is a text"),
    "words": ({"annotations": "a,b"}, "annotation 'a'; allowed: -3, -2, -1, 0, 1"),
    "off the scale": ({"annotations": "-4,0"}, "annotation '-4'; allowed"),
    "groups": ({"other_info": {"annotators group": "g"}}, "2 annotators, 1 groups"),
    "one group": ({"other_info": {"Ann1": "g"}}, "annotator Ann2 has no group, and others do"),
    "info": ({"other_info": None}, "other_info null; needed is a mapping"),
}


@pytest.mark.parametrize("name", BROKEN_2023)
def test_a_broken_entry_of_2023_is_named(name: str, tmp_path: Path) -> None:
    change, words = BROKEN_2023[name]
    good = old("a", "Ann1,Ann2", "0,1")
    bad = good | change if change else change
    write(tmp_path / "ConvAbuse_dataset", "ConvAbuse", train=[bad], test=[good])
    with pytest.raises(ConfigError) as error:
        read23(tmp_path, "ConvAbuse")
    (fault,) = error.value.faults
    assert fault.startswith(str(tmp_path)) and f"ConvAbuse_train.json, item 0: {words}" in fault


BROKEN_2025 = {
    "null": (None, "null; needed is a mapping with text"),
    "null annotation": ({"annotations": {"Ann1": None}}, 'annotations {"Ann1": null}; needed is'),
    "number": ({"annotations": 3}, "annotations 3; needed is a mapping of texts"),
    "list": ({"annotations": ["1"]}, 'annotations ["1"]; needed is a mapping of texts'),
    "text": ({"text": "words"}, 'text "words"; needed is a mapping of texts'),
}


@pytest.mark.parametrize("name", BROKEN_2025)
def test_a_broken_entry_of_2025_is_named(name: str, tmp_path: Path) -> None:
    change, words = BROKEN_2025[name]
    good = new({"context": "c", "response": "r"}, Ann1="6")
    bad = good | change if change else change
    write(tmp_path / "CSC", "CSC", dev=[good, bad], test=[good])
    with pytest.raises(ConfigError) as error:
        read25(tmp_path, "CSC")
    (fault,) = error.value.faults
    assert fault.startswith(str(tmp_path)) and f"CSC_dev.json, item 1: {words}" in fault


def test_files_that_are_not_utf_8_or_empty_and_broken_metadata(tmp_path: Path) -> None:
    folder = tmp_path / "CSC"
    good = new({"context": "c", "response": "r"}, Ann1="6")
    write(folder, "CSC", dev=[good], test=[good])
    (folder / "CSC_annotators_meta.json").write_text('{"Ann1": null}')
    with pytest.raises(ConfigError, match=r"meta.json, annotator Ann1: null; needed is a mapping"):
        read25(tmp_path, "CSC")
    meta = '\ufeff{"Ann1": {"Gender": null, "Age": 1e999}}'
    (folder / "CSC_annotators_meta.json").write_text(meta, encoding="utf-8")
    for attribute in ("Gender", "Age"):
        assert read25(tmp_path, "CSC", attribute)[0].group_names == ["unknown"]
    (folder / "CSC_dev.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"CSC_dev.json: needed is one object"):
        read25(tmp_path, "CSC")
    (folder / "CSC_dev.json").write_bytes(b'{"a":\n "\xe4"}')
    with pytest.raises(ConfigError, match=r"CSC_dev.json, line 2: byte 8 \(0xe4\) is not UTF-8"):
        read25(tmp_path, "CSC")


# subset -> items in train, val, test; annotators; groups
SIZES_2023 = {
    "ArMIS": (657, 141, 145, 3, 3),
    "ConvAbuse": (2398, 812, 840, 8, 0),
    "HS-Brexit": (784, 168, 168, 6, 2),
    # 819 people, one of whom is there as two
    "MD-Agreement": (6592, 1104, 3057, 820, 0),
}
SIZES_2025 = {
    "CSC": (704, 0, 704, 872, 3),
    "MP": (3005, 0, 3756, 506, 3),
    "Paraphrase": (400, 50, 50, 4, 2),
    "VariErrNLI": (388, 50, 50, 4, 2),
}


def sizes(items: Any, votes: Any) -> tuple[int, ...]:
    parts = [int((items.split == s).sum()) for s in ("train", "val", "test")]
    return (*parts, votes.n_annotators, len(items.group_names or ()))


@pytest.mark.parametrize("subset", SIZES_2023)
def test_2023_is_what_the_organisers_counted(subset: str, data: Path) -> None:
    items, votes = read23(data / "lewidi2023", subset)
    assert sizes(items, votes) == SIZES_2023[subset]
    if subset == "HS-Brexit":
        assert [items.group_names[g] for g in votes.group] == ["target group"] * 3 + [
            "control group"
        ] * 3
    file = data / "lewidi2023" / f"{subset}_dataset" / f"{subset}_test.json"
    official = [e["soft_label"]["1"] for e in json.loads(file.read_text()).values()]
    ours = shares(items.held_out.counts())[items.split == "test", 1]
    # they round to two digits
    np.testing.assert_allclose(ours, official, atol=0.0051)


@pytest.mark.parametrize("subset", SIZES_2025)
def test_2025_is_what_the_organisers_counted(subset: str, data: Path) -> None:
    items, votes = read25(data / "lewidi2025", subset)
    assert sizes(items, votes) == SIZES_2025[subset]
    file = data / "lewidi2025" / subset / f"{subset}_test.json"
    soft = [e["soft_label"] for e in json.loads(file.read_text()).values()]
    if subset == "VariErrNLI":
        official = [[float(s[k]["1"]) for k in LABELS_2025[subset]] for s in soft]
        ours = yes_shares(items.held_out)
    else:
        soft = [{str(int(float(k))): v for k, v in s.items()} for s in soft]
        official = [[float(s.get(k, 0)) for k in LABELS_2025[subset]] for s in soft]
        ours = shares(items.held_out.counts())
    np.testing.assert_allclose(ours[items.split == "test"], official, atol=0.0101)
