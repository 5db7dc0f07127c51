"""Readers of questions: by hand, on real files, from a folder like the hub's, on bad files."""

import inspect
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from annorun import config, results
from annorun.dataset import ai2_questions
from annorun.dataset.piqa import piqa
from annorun.dataset.pubmedqa import pubmedqa
from annorun.errors import ConfigError
from annorun.votes import Items

READERS = {
    name: getattr(ai2_questions, name)
    for name in ("openbookqa", "arc", "commonsenseqa", "riddlesense")
} | {"piqa": piqa, "pubmedqa": pubmedqa}


def read(name: str, path: Path, seed: int = 0, hub: str | None = None, **keys: Any) -> Items:
    reader = READERS[name]
    items, votes = reader(rng=np.random.default_rng(seed), path=str(path), hub=hub, **keys)
    assert votes is None
    return items


def line(name: str, answer: str = "A", labels: str = "ABCD", **more: Any) -> dict[str, Any]:
    """Return a question whose options are its name and their label."""
    choices = [{"text": f"{name} {label}", "label": label} for label in labels]
    return {"id": name, "question": {"stem": f"{name}?", "choices": choices}, "answerKey": answer}


def write(file: Path, rows: list[Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def by_part(items: Items, part: str) -> list[str]:
    assert items.names is not None
    return [str(items.names[i]) for i in np.flatnonzero(items.split == part)]


@pytest.fixture
def obqa(tmp_path: Path) -> Path:
    write(tmp_path / "train.jsonl", [line("t0", "D"), line("t1", "B")])
    write(tmp_path / "test.jsonl", [line("u0", "C")])
    return tmp_path


def test_openbookqa_by_hand(obqa: Path) -> None:
    items = read("openbookqa", obqa)
    assert items.kind == "choice" and items.n_classes == 4 and items.classes() == list("abcd")
    assert items.names == ["t0", "t1", "u0"]
    assert items.split.tolist() == ["train", "train", "test"]
    assert items.truth is not None and items.truth.tolist() == [3, 1, 2]
    assert items.inputs["question"] == ["t0?", "t1?", "u0?"]
    assert items.inputs["options"][1] == ["t1 A", "t1 B", "t1 C", "t1 D"]
    assert "context" not in items.inputs


def test_line_ends_and_odd_separators_inside_a_text(obqa: Path) -> None:
    """U+2028 and U+0085 end no line of JSON; a Windows line end and a missing last one are fine."""
    row = line("t0", "D")
    row["question"]["stem"] = "one\u2028two\u0085three"
    text = "\r\n".join(json.dumps(r, ensure_ascii=False) for r in (row, line("t1")))
    (obqa / "train.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    items = read("openbookqa", obqa)
    assert len(items) == 3 and items.inputs["question"][0] == "one\u2028two\u0085three"


def test_arc_takes_digits_and_leaves_out_what_has_not_four_options(tmp_path: Path) -> None:
    """Labels 1 to 4 with key 3: the third. Labels in another order: the place counts."""
    rows = [line("x", "3", "1234"), line("y", "E", "ABCDE"), line("z", "B", "DCBA")]
    write(tmp_path / "ARC-Easy/ARC-Easy-Train.jsonl", rows)
    write(tmp_path / "ARC-Easy/ARC-Easy-Test.jsonl", [line("v", "A", "ABC"), line("w", "D")])
    items = read("arc", tmp_path, subset="ARC-Easy")
    assert items.names == ["x", "z", "w"] and by_part(items, "test") == ["w"]
    assert items.truth is not None and items.truth.tolist() == [2, 2, 3]
    write(tmp_path / "ARC-Easy/ARC-Easy-Test.jsonl", [line("v", "A", "ABC")])
    with pytest.raises(ConfigError, match=r"^dataset.subset=ARC-Easy: no question of four options"):
        read("arc", tmp_path, subset="ARC-Easy")
    with pytest.raises(ConfigError, match=r"there is no ARC-Challenge/ARC-Challenge-Train.jsonl, "):
        read("arc", tmp_path, subset="ARC-Challenge")


def test_riddlesense_tests_on_a_drawn_part_of_dev(tmp_path: Path) -> None:
    write(tmp_path / "rs_train.jsonl", [line(f"t{k}", "E", "ABCDE") for k in range(3)])
    write(tmp_path / "rs_dev.jsonl", [line(f"d{k}", "A", "ABCDE") for k in range(41)])
    items = read("riddlesense", tmp_path, n_test=20)
    test = by_part(items, "test")
    assert by_part(items, "train") == ["t0", "t1", "t2"] and len(items) == 23
    assert len(set(test)) == 20 and {name[0] for name in test} == {"d"}
    assert test == sorted(test, key=lambda name: int(name[1:]))
    assert by_part(read("riddlesense", tmp_path, n_test=20), "test") == test
    assert by_part(read("riddlesense", tmp_path, seed=1, n_test=20), "test") != test
    # 41 draws of 20: each of the dev items is a test item of about half of 200 runs
    runs = [by_part(read("riddlesense", tmp_path, seed=s, n_test=20), "test") for s in range(200)]
    often = [sum(f"d{k}" in run for run in runs) for k in range(41)]
    # mean 97.6, standard deviation 7.1: five of them
    assert min(often) > 62 and max(often) < 133
    with pytest.raises(ConfigError, match=r"^dataset.n_test=42: allowed is 1 to 41$"):
        read("riddlesense", tmp_path, n_test=42)


def test_rows_without_an_id_are_named_by_their_place(tmp_path: Path) -> None:
    rows = [line(f"t{k}", "E", "ABCDE") for k in range(2)]
    for row in rows:
        del row["id"]
    write(tmp_path / "rs_train.jsonl", rows)
    write(tmp_path / "rs_dev.jsonl", rows)
    assert read("riddlesense", tmp_path, n_test=2).names == [
        *("train-0", "train-1"),
        *("validation-0", "validation-1"),
    ]


def goal(k: int) -> dict[str, str]:
    return {"goal": f"g{k}", "sol1": f"one {k}", "sol2": f"two {k}"}


@pytest.fixture
def physics(tmp_path: Path) -> Path:
    write(tmp_path / "train.jsonl", [goal(0), goal(1), goal(2)])
    (tmp_path / "train-labels.lst").write_text("0\n1\n1\n")
    write(tmp_path / "valid.jsonl", [goal(3)])
    (tmp_path / "valid-labels.lst").write_text("1\n")
    return tmp_path


def test_piqa_by_hand(physics: Path) -> None:
    items = read("piqa", physics)
    assert items.truth is not None and items.truth.tolist() == [0, 1, 1, 1]
    assert items.names == ["train-0", "train-1", "train-2", "validation-0"]
    assert items.inputs["question"][3] == "g3" and items.classes() == ["a", "b"]
    assert items.inputs["options"][1] == ["one 1", "two 1"]
    assert by_part(items, "test") == ["validation-0"]


def abstract(k: int, answer: str = "maybe") -> dict[str, Any]:
    return {"QUESTION": f"q{k}?", "CONTEXTS": [f"a{k}.", f"b{k}."], "final_decision": answer}


@pytest.fixture
def abstracts(tmp_path: Path) -> Path:
    """Items 0 to 9; 4 to 8 are the official test."""
    told = {str(k): abstract(k, ("yes", "no", "maybe")[k % 3]) for k in range(10)}
    (tmp_path / "ori_pqal.json").write_text(json.dumps(told, indent=1))
    official = {str(k): told[str(k)]["final_decision"] for k in (8, 7, 6, 5, 4)}
    (tmp_path / "test_ground_truth.json").write_text(json.dumps(official))
    return tmp_path


def test_pubmedqa_by_hand(abstracts: Path) -> None:
    items = read("pubmedqa", abstracts, n_test=5)
    assert items.names == [*"01239", *"45678"] and by_part(items, "train") == [*"01239"]
    assert items.truth is not None
    assert items.truth.tolist() == [int(name) % 3 for name in items.names]
    assert items.inputs["context"][4] == "a9. b9." and items.inputs["question"][4] == "q9?"
    assert items.classes() == ["yes", "no", "maybe"] == items.inputs["options"][7]
    fewer = read("pubmedqa", abstracts, n_test=3)
    assert by_part(fewer, "train") == [*"01239"] and len(fewer) == 8
    assert set(by_part(fewer, "test")) < set("45678")
    with pytest.raises(ConfigError, match=r"^dataset.n_test=6: allowed is 1 to 5$"):
        read("pubmedqa", abstracts, n_test=6)


def change(name: str, old: str, new: str) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return spoil


def replaced(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


TRAIN, LABELS = "train.jsonl", "train-labels.lst"
ORI, OFFICIAL = "ori_pqal.json", "test_ground_truth.json"
BAD: dict[str, tuple[str, Callable[[Path], object], str, str]] = {
    "no JSON": ("obqa", change(TRAIN, '{"id": "t1"', '{"id"; "t1"'), "line 2, column 6", "JSON"),
    "blank line": ("obqa", change(TRAIN, "\n", "\n\n"), "train.jsonl, line 2", "not JSON"),
    "a list": ("obqa", replaced(TRAIN, b"[1]\n"), "line 1: [1]", "needed is an object"),
    "key": ("obqa", change(TRAIN, '"B"}\n', '"E"}\n'), 'line 2: answerKey "E"', "A, B, C, D"),
    "list for key": ("obqa", change(TRAIN, '"B"}\n', '["B"]}\n'), "line 2: answerKey", "A, B"),
    "no key": ("obqa", change(TRAIN, '"answerKey"', '"key"'), "line 1: answerKey null", "A, B"),
    "no choices": ("obqa", change(TRAIN, '"choices"', '"chosen"'), "line 1: ", "choices null"),
    "a number": ("obqa", change(TRAIN, '"t0 C"', "7"), "line 1: question.choices", "both texts"),
    "blank option": ("obqa", change(TRAIN, '"t0 C"', '" "'), "line 1: ", "both texts"),
    "blank stem": ("obqa", change(TRAIN, '"t1?"', '""'), 'line 2: question.stem ""', "a text"),
    "half": ("obqa", change(TRAIN, '"t1?"', '"\\ud800"'), "line 2: question.stem", "a text"),
    "label": ("obqa", change(TRAIN, '"B"}', '"A"}'), "line 1: labels A, A, C, D", "each once"),
    "K": ("obqa", lambda f: write(f / TRAIN, [line("x", "A", "ABC")]), "line 1: 3", "needed: 4"),
    "id": (
        "obqa",
        change("test.jsonl", '"u0"', '"t1"'),
        "test.jsonl, line 1: id",
        "line 2 already",
    ),
    "id 7": ("obqa", change(TRAIN, '"t1"', "7"), "line 2: id 7", "needed is a text"),
    "empty": ("obqa", replaced(TRAIN, b""), "train.jsonl: an empty file", "one line an item"),
    "Latin-1": ("obqa", replaced(TRAIN, b"{}\n\xe9\n"), "line 2: byte 3", "not UTF-8"),
    "piqa label": ("physics", replaced(LABELS, b"0\n2\n1\n"), "labels.lst, line 2: '2'", "0, 1"),
    "piqa few": ("physics", replaced(LABELS, b"0\n1\n"), "labels.lst, line 2: ", "has 3 lines"),
    "piqa many": ("physics", replaced(LABELS, b"0\n" * 4), "labels.lst, line 4: ", "3 lines"),
    "piqa none": ("physics", replaced(LABELS, b""), "labels.lst: an empty file", "one line"),
    "sol2": ("physics", change(TRAIN, '"sol2"', '"sol3"'), "line 1: sol2 null", "a text"),
    "piqa list": ("physics", replaced("valid.jsonl", b"3\n"), "valid.jsonl, line 1: 3", "goal"),
    "answer": ("abstracts", change(ORI, '"final_decision": "no"', '"final": 1'), "item 1: ", "yes"),
    "contexts": ("abstracts", change(ORI, '"CONTEXTS"', '"CONTEXT"'), "item 0: ", "list of texts"),
    "pubmed JSON": ("abstracts", change(ORI, '"q0?",', '"q0?"'), "ori_pqal.json, line 4", "JSON"),
    "twice": ("abstracts", change(ORI, '"2":', '"1":'), "key '1' is there twice", "once"),
    "array": ("abstracts", replaced(OFFICIAL, b"[]"), "ground_truth.json: []", "PubMed id"),
    "stranger": ("abstracts", change(OFFICIAL, '"8"', '"88"'), "item 88: ", "not in ori_pqal.json"),
    "other": ("abstracts", change(OFFICIAL, "maybe", "yes"), 'item 8: "yes", but', 'says "maybe"'),
}
KEYS = {
    "obqa": ("openbookqa", {}),
    "physics": ("piqa", {}),
    "abstracts": ("pubmedqa", {"n_test": 1}),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_content_is_named_with_its_place(case: str, request: pytest.FixtureRequest) -> None:
    fixture, spoil, place, allowed = BAD[case]
    folder: Path = request.getfixturevalue(fixture)
    name, keys = KEYS[fixture]
    read(name, folder, **keys)
    spoil(folder)
    with pytest.raises(ConfigError) as error:
        read(name, folder, **keys)
    hits = [fault for fault in error.value.faults if place in fault and allowed in fault]
    assert len(hits) == 1, error.value.faults
    assert all("\n" not in fault for fault in error.value.faults)


def test_all_faults_come_at_once_and_twenty_are_shown(obqa: Path) -> None:
    write(obqa / "train.jsonl", [line(f"t{k}", "X") for k in range(21)])
    write(obqa / "test.jsonl", [line("u0", "X"), line("u0")])
    with pytest.raises(ConfigError) as error:
        read("openbookqa", obqa)
    assert len(error.value.faults) == 21 and error.value.faults[-1] == "and 2 more"
    write(obqa / "train.jsonl", [line("t0", "X")])
    with pytest.raises(ConfigError) as error:
        read("openbookqa", obqa)
    places = [fault.removeprefix(str(obqa)).split(":")[0] for fault in error.value.faults]
    assert places == ["/train.jsonl, line 1", "/test.jsonl, line 1"]


@pytest.mark.parametrize("name", READERS)
def test_missing_files_say_where_what_and_how(name: str, tmp_path: Path) -> None:
    keys = {"arc": {"subset": "ARC-Easy"}, "riddlesense": {"n_test": 1}, "pubmedqa": {"n_test": 1}}
    for path, hub in ((tmp_path, "some/hub"), (tmp_path / "absent", None)):
        with pytest.raises(ConfigError) as error:
            read(name, path, hub=hub, **keys.get(name, {}))
        (fault,) = error.value.faults
        assert fault.startswith(f"dataset.path: in {path} (looked in ")
        assert "dataset.path=FOLDER" in fault and f"scripts/fetch_data.py {name}`" in fault


def test_piqa_says_which_file_is_not_there(physics: Path) -> None:
    """The authors' training texts are what may be had last; the unlabelled tests do not count."""
    (physics / "train.jsonl").rename(physics / "tests.jsonl")
    with pytest.raises(ConfigError) as error:
        read("piqa", physics)
    assert "there is no train.jsonl; expected: train.jsonl, train-labels.lst, " in str(error.value)


def parquet(folder: Path, **parts: list[dict[str, Any]]) -> str:
    """Write a folder as the hub's: a Parquet file a split, named as there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in parts.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}-00000-of-00001.parquet")
    return str(folder)


def flat(row: dict[str, Any], stem: str = "question") -> dict[str, Any]:
    """Return a question as the hub has it."""
    choices = row["question"]["choices"]
    columns = {key: [choice[key] for choice in choices] for key in ("text", "label")}
    kept = {k: v for k, v in row.items() if k in ("id", "answerKey")}
    return {**kept, stem: row["question"]["stem"], "choices": columns}


@pytest.fixture
def absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a path that is not there; what `datasets` caches goes below tmp_path."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "absent"


def same(one: Items, other: Items) -> bool:
    return (
        one.inputs == other.inputs
        and one.names == other.names
        and one.split.tolist() == other.split.tolist()
        and one.truth is not None
        and other.truth is not None
        and one.truth.tolist() == other.truth.tolist()
    )


def test_a_folder_of_the_hubs_columns_gives_the_same_items(obqa: Path, absent: Path) -> None:
    train, test = [line("t0", "D"), line("t1", "B")], [line("u0", "C")]
    parts = {
        "train": [flat(r, "question_stem") for r in train],
        "validation": [flat(line("no"), "question_stem")],
    }
    hub = parquet(obqa / "hub", **parts, test=[flat(r, "question_stem") for r in test])
    assert same(read("openbookqa", absent, hub=hub), read("openbookqa", obqa))
    # the files come first, and a folder of JSON lines is as good
    assert same(read("openbookqa", obqa, hub="no/such"), read("openbookqa", obqa))
    for split in ("train", "test"):
        (obqa / "lines").mkdir(exist_ok=True)
        (obqa / f"{split}.jsonl").rename(obqa / "lines" / f"{split}.jsonl")
    again = read("openbookqa", absent, hub=str(obqa / "lines"))
    assert same(again, read("openbookqa", absent, hub=hub))


def test_the_hubs_riddles_goals_and_abstracts(tmp_path: Path, absent: Path) -> None:
    rows = [flat(line(f"t{k}", "E", "ABCDE")) for k in range(3)]
    for row in rows:
        del row["id"]
    riddles = parquet(tmp_path / "r", train=rows, validation=rows[:2], test=rows)
    items = read("riddlesense", absent, hub=riddles, n_test=2)
    assert by_part(items, "test") == ["validation-0", "validation-1"]
    both = {s: [flat(line(s, "B", "ABCDE"))] for s in ("train", "validation", "test")}
    common = read("commonsenseqa", absent, hub=parquet(tmp_path / "c", **both))
    assert common.names == ["train", "validation"] and common.n_classes == 5
    goals = [{**goal(k), "label": k % 2} for k in range(3)]
    items = read("piqa", absent, hub=parquet(tmp_path / "p", train=goals, validation=goals[1:]))
    assert items.truth is not None and items.truth.tolist() == [0, 1, 0, 1, 0]
    entries = [
        {"pubid": k, "question": "q?", "context": {"contexts": ["a", "b"]}, "final_decision": "no"}
        for k in range(5)
    ]
    papers = parquet(tmp_path / "m", train=entries)
    items = read("pubmedqa", absent, hub=papers, n_test=4)
    assert len(by_part(items, "test")) == 4 and set(items.names or ()) == set("01234")
    assert items.inputs["context"] == ["a b"] * 5 and items.truth is not None
    assert items.truth.tolist() == [1] * 5
    with pytest.raises(ConfigError, match=r"^dataset.n_test=5: allowed is 1 to 4$"):
        read("pubmedqa", absent, hub=papers, n_test=5)


def test_a_folder_may_have_one_for_each_configuration(tmp_path: Path, absent: Path) -> None:
    for subset in ("ARC-Easy", "ARC-Challenge"):
        rows = {split: [flat(line(f"{subset}-{split}"))] for split in ("train", "test")}
        parquet(tmp_path / "hub" / subset, **rows)
    items = read("arc", absent, hub=str(tmp_path / "hub"), subset="ARC-Easy")
    assert items.names == ["ARC-Easy-train", "ARC-Easy-test"]


HUB_BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "answer": ("openbookqa", flat(line("t", "E")), 'train, row 0: answerKey "E"; allowed: A, B'),
    "columns": ("openbookqa", {"text": "x"}, "train, row 0: question.stem null; needed is a text"),
    "hidden": ("piqa", {**goal(0), "label": -1}, "train, row 0: label -1; allowed: 0, 1"),
    "unlabelled": ("piqa", dict(goal(0)), "train, row 0: label null; allowed: 0, 1"),
    "lengths": (
        "openbookqa",
        {**flat(line("t")), "choices": {"text": ["a"], "label": ["A", "B"]}},
        "train, row 0: question.choices []; needed is a list",
    ),
}


@pytest.mark.parametrize("case", HUB_BAD)
def test_bad_rows_of_the_hub_are_named(case: str, tmp_path: Path, absent: Path) -> None:
    name, row, expected = HUB_BAD[case]
    hub = parquet(tmp_path / "hub", train=[row], test=[row], validation=[row])
    with pytest.raises(ConfigError) as error:
        read(name, absent, hub=hub)
    assert any(fault.startswith(f"{hub}, {expected}") for fault in error.value.faults)


def test_offline_nothing_tries_the_network(absent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: tried.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: tried.append(address))
    for hub, keys in (("allenai/openbookqa", {}), ("no name", {}), ("", {})):
        with pytest.raises(ConfigError) as error:
            read("openbookqa", absent, hub=hub, **keys)
        (fault,) = error.value.faults
        assert fault.startswith(f"dataset.hub={hub}: cannot be read (") and "\n" not in fault
        assert "expected: train.jsonl, test.jsonl" in fault
        assert "scripts/fetch_data.py openbookqa` gets them" in fault
    assert not tried


def test_what_is_cached_of_the_hub_is_used_offline(tmp_path: Path, absent: Path) -> None:
    """The cache is `datasets`' own, made from a folder and named as it names a repository's."""
    rows = [flat(line(f"t{k}", "E", "ABCDE")) for k in range(3)]
    read(
        "riddlesense",
        absent,
        hub=parquet(tmp_path / "r", train=rows, validation=[rows[0] | {"id": "d"}]),
        n_test=1,
    )
    (tmp_path / "cache" / "r").rename(tmp_path / "cache" / "INK-USC___riddle_sense")
    for arrow in (tmp_path / "cache").rglob("r-*.arrow"):
        arrow.rename(arrow.with_name(arrow.name.replace("r-", "riddle_sense-", 1)))
    items = read("riddlesense", absent, hub="INK-USC/riddle_sense", n_test=1)
    assert items.names == ["t0", "t1", "t2", "d"]


def test_the_identity_holds_what_is_read(
    compose: Callable[..., Any], obqa: Path, absent: Path, tmp_path: Path
) -> None:
    plain = config.plain(compose("dataset=openbookqa", f"dataset.path={obqa}"))

    def identity(path: Path, hub: str | None) -> str:
        return results.identity(
            {**plain, "dataset": {**plain["dataset"], "path": str(path), "hub": hub}}
        )

    # the files are there: the hub does not matter, their content does
    by_file = identity(obqa, "allenai/openbookqa")
    assert by_file == identity(obqa, None) == identity(obqa, "mine/openbookqa")
    # they are not: it does, and where they would be does not
    by_hub = identity(absent, "allenai/openbookqa")
    assert by_hub == identity(tmp_path / "nowhere", "allenai/openbookqa")
    assert len({by_file, by_hub, identity(absent, "mine/openbookqa")}) == 3
    # a local folder counts by what is in it
    one = identity(absent, parquet(tmp_path / "one", train=[flat(line("t"))]))
    assert one == identity(absent, parquet(tmp_path / "two", train=[flat(line("t"))]))
    assert one != identity(absent, parquet(tmp_path / "two", train=[flat(line("u"))]))


COUNTS: list[tuple[str, dict[str, Any], int, int, int]] = [
    ("openbookqa", {}, 4, 4957, 500),
    # 1119 and 1172, 2251 and 2376 less those without exactly four options
    ("arc", {"subset": "ARC-Challenge"}, 4, 1119 - 2, 1172 - 7),
    ("arc", {"subset": "ARC-Easy"}, 4, 2251 - 10, 2376 - 11),
    ("commonsenseqa", {}, 5, 9741, 1221),
    ("pubmedqa", {"n_test": 400}, 3, 500, 400),
]


@pytest.mark.parametrize(("name", "keys", "n_classes", "n_train", "n_test"), COUNTS)
def test_the_real_files(
    data: Path, name: str, keys: dict[str, Any], n_classes: int, n_train: int, n_test: int
) -> None:
    if not (data / name).is_dir():
        pytest.skip(f"no {name} there")
    items = read(name, data / name, **keys)
    train, test = by_part(items, "train"), by_part(items, "test")
    assert (len(train), len(test)) == (n_train, n_test) and len(items) == n_train + n_test
    assert len({*train, *test}) == len(items)
    assert items.n_classes == n_classes and {len(o) for o in items.inputs["options"]} == {n_classes}
    assert items.truth is not None and set(items.truth.tolist()) == set(range(n_classes))
    # no option is right half of the time, but for PubMedQA's yes, 552 of 1000
    most = np.bincount(items.truth).max() / len(items)
    assert most < 0.3 if n_classes > 3 else 0.5 < most < 0.6


def test_the_real_pubmed_split(data: Path) -> None:
    if not (data / "pubmedqa").is_dir():
        pytest.skip("no pubmedqa there")
    official = set(json.loads((data / "pubmedqa/test_ground_truth.json").read_text()))
    items = read("pubmedqa", data / "pubmedqa", n_test=400)
    assert set(by_part(items, "test")) < official and not official & set(by_part(items, "train"))
    assert min(map(len, items.inputs["context"])) > 100


def test_the_real_piqa(data: Path, tmp_path: Path) -> None:
    """Where the training texts are missing, it says so; validation is right against its labels."""
    folder = data / "piqa"
    if not folder.is_dir():
        pytest.skip("no piqa there")
    if not (folder / "train.jsonl").is_file():
        with pytest.raises(ConfigError, match=r"there is no train.jsonl; expected: "):
            read("piqa", folder)
    for part in ("train", "valid"):
        (tmp_path / f"{part}.jsonl").symlink_to(folder / "valid.jsonl")
        (tmp_path / f"{part}-labels.lst").symlink_to(folder / "valid-labels.lst")
    items = read("piqa", tmp_path)
    assert len(by_part(items, "test")) == 1838 == len(by_part(items, "train"))
    assert items.truth is not None and {len(o) for o in items.inputs["options"]} == {2}
    assert items.truth[items.split == "test"].sum() == 928


@pytest.mark.parametrize("name", READERS)
def test_the_yaml_names_the_reader_and_what_it_takes(name: str) -> None:
    file = OmegaConf.load(config.conf_dir() / "dataset" / f"{name}.yaml")
    said = OmegaConf.to_container(file, resolve=True)
    assert isinstance(said, dict)
    reader = READERS[name]
    assert said["_target_"] == f"{reader.__module__}.{reader.__name__}"
    declared = {"_target_", "kind", "provides", "prompt", "max_length"}
    assert said.keys() - declared == inspect.signature(reader).parameters.keys() - {"rng"}
    assert Path(said["path"]).name == name and said["kind"] == "choice"
    assert said["prompt"].endswith("Question: {question}\n{options}\nAnswer:")
