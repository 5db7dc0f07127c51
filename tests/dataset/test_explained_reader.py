"""VariErr in both forms and Paraphrase: small files of our own, bad files, the authors' counts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annorun.dataset.explained import explained
from annorun.errors import ConfigError
from annorun.votes import Items, Votes

Read = Callable[..., tuple[Items, Votes]]


def read(path: Path, subset: str = "VariErrNLI", seed: int = 0) -> tuple[Items, Votes]:
    return explained(rng=np.random.default_rng(seed), path=str(path), subset=subset)


def entry(name: int, **said: list[tuple[int, str]]) -> dict[str, Any]:
    labels = {
        label: [{"annotator": who, "reason": why} for who, why in said.get(label, [])]
        for label in ("entailment", "neutral", "contradiction")
    }
    return {"id": f"i{name}", "context": f"c{name}", "statement": f"s{name}", **labels}


@pytest.fixture
def authors(tmp_path: Path) -> Path:
    """Return twenty items; the annotator 2 gives item 0 two labels."""
    entries = [entry(k, neutral=[(0, f"n{k}")], entailment=[(2, f"e{k}")]) for k in range(20)]
    entries[0]["contradiction"] = [{"annotator": 2, "reason": "also"}]
    path = tmp_path / "varierr.json"
    path.write_text("\n".join(map(json.dumps, entries)), encoding="utf-8")
    return path


def lewidi(folder: Path, subset: str, **changes: Any) -> Path:
    said = {
        "text": {"context": "c", "statement": "s"},
        "annotators": "Ann1,Ann3,Ann3",
        "annotations": {"Ann1": "neutral", "Ann3": "neutral,entailment"},
        "other_info": {"explanations": ["one", "two", "three"]},
    }
    (folder / subset).mkdir()
    for part in ("train", "test"):
        file = folder / subset / f"{subset}_{part}.json"
        file.write_text(json.dumps({"7": said | changes}), encoding="utf-8")
    return folder


def responses(items: Items, votes: Votes) -> list[tuple[str, str, str]]:
    who, what = list(items.annotator_names or ()), items.classes()
    return [
        (who[a], what[k], why)
        for a, k, why in zip(votes.annotator, votes.label, votes.explanation or (), strict=True)
    ]


def test_the_authors_file_is_cut_by_item_and_no_item_is_in_two_parts(authors: Path) -> None:
    items, votes = read(authors)
    assert [int((items.split == part).sum()) for part in ("train", "val", "test")] == [16, 2, 2]
    assert items.kind == "explain" and items.inputs["text"][3] == "c3\ns3"
    assert items.annotator_names == ["Ann1", "Ann3"]
    held = items.held_out
    assert held is not None and len(votes) + len(held) == 41
    assert set(items.split[held.item]) == {"test"}
    assert set(items.split[votes.item]) == {"train", "val"}
    both = responses(items, votes) + responses(items, held)
    assert {("Ann3", "contradiction", "also"), ("Ann3", "entailment", "e0")} < set(both)
    assert len(set(both)) == 41


def test_annotators_are_ordered_by_number(authors: Path) -> None:
    """Ann10 comes after Ann2, and each keeps their responses."""
    entries = [entry(k, neutral=[(9, f"nine {k}"), (1, f"one {k}")]) for k in range(10)]
    authors.write_text("\n".join(map(json.dumps, entries)), encoding="utf-8")
    items, votes = read(authors)
    assert items.annotator_names == ["Ann2", "Ann10"]
    assert {(who, why.split()[0]) for who, _, why in responses(items, votes)} == {
        ("Ann2", "one"),
        ("Ann10", "nine"),
    }


def test_the_data_seed_draws_the_parts(authors: Path) -> None:
    one, again, other = (read(authors, seed=s)[0].split.tolist() for s in (0, 0, 1))
    assert one == again != other


def test_lewidis_explanations_go_with_the_repeated_list(tmp_path: Path) -> None:
    items, votes = read(lewidi(tmp_path, "VariErrNLI"))
    assert items.split.tolist() == ["train", "test"]
    assert items.names == ["train-7", "test-7"]
    assert sorted(responses(items, votes)) == [
        ("Ann1", "neutral", "one"),
        ("Ann3", "entailment", "three"),
        ("Ann3", "neutral", "two"),
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"other_info": {}}, "no list of texts"),
        ({"other_info": {"explanations": ["a"]}}, "3 annotators, 1 explanations"),
        ({"annotations": {"Ann1": "neutral", "Ann3": "neutral"}}, "do not agree"),
        ({"annotators": "Ann1,Ann2,Ann3"}, "do not agree"),
        ({"other_info": {"explanations": ["a", " ", "b"]}}, "explanation is empty"),
        ({"annotations": {"Ann1": "maybe", "Ann3": "neutral,neutral"}}, "label 'maybe'"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read(lewidi(tmp_path, "VariErrNLI", **changes))


def changed(**keys: Any) -> str:
    return json.dumps(entry(99, neutral=[(0, "n")]) | keys)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        '{"id": 1}',
        "[]",
        changed(id=1),
        changed(context=None),
        changed(neutral={}),
        changed(neutral=[{"annotator": 0, "reason": None}]),
        changed(neutral=[{"annotator": 0.9, "reason": "n"}]),
        changed(neutral=[{"annotator": -1, "reason": "n"}]),
        changed(neutral=[{"annotator": 0, "reason": "n"}] * 2),
    ],
)
def test_a_line_that_is_no_entry_is_named(authors: Path, line: str) -> None:
    authors.write_text(authors.read_text("utf-8") + "\n" + line, encoding="utf-8")
    with pytest.raises(ConfigError, match="line 21"):
        read(authors)


def test_an_item_that_is_there_twice_is_refused(authors: Path) -> None:
    text = authors.read_text("utf-8")
    authors.write_text(f"{text}\n{changed(id='i3')}", encoding="utf-8")
    with pytest.raises(ConfigError, match="id 'i3' is there more than once"):
        read(authors)
    authors.write_text(f"{text}\n{changed(context='c3', statement='s3')}", encoding="utf-8")
    with pytest.raises(ConfigError, match="context and statement"):
        read(authors)


def test_a_text_may_hold_what_unicode_calls_the_end_of_a_line(authors: Path) -> None:
    line = json.dumps(entry(99, neutral=[(0, "a\u2028b")]), ensure_ascii=False)
    authors.write_text(authors.read_text("utf-8") + f"\n{line}\n\n", encoding="utf-8")
    assert len(read(authors)[0]) == 21


def test_without_a_training_part_the_second_trains(tmp_path: Path) -> None:
    folder = lewidi(tmp_path, "VariErrNLI") / "VariErrNLI"
    (folder / "VariErrNLI_train.json").rename(folder / "VariErrNLI_dev.json")
    assert read(tmp_path)[0].split.tolist() == ["train", "test"]


def test_an_empty_file_and_a_file_of_the_other_are_refused(authors: Path) -> None:
    with pytest.raises(ConfigError, match="Paraphrase is read from a folder"):
        read(authors, "Paraphrase")
    authors.write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="no response"):
        read(authors)


def test_the_real_files_have_the_authors_counts_and_are_one_data_set(data: Path) -> None:
    own = read(data / "varierr" / "varierr.json")
    theirs = read(data / "lewidi2025")
    found = []
    for items, votes in (own, theirs):
        held = items.held_out
        assert held is not None
        parts = [int((items.split == part).sum()) for part in ("train", "val", "test")]
        texts = items.inputs["text"]
        said = {
            (texts[i], who, what, why.strip())
            for part in (votes, held)
            for i, (who, what, why) in zip(part.item, responses(items, part), strict=True)
        }
        found.append((parts, len(votes) + len(held), said))
    assert found[0][:2] == ([400, 50, 50], 1933)
    assert found[1][:2] == ([388, 50, 50], 1891)
    # every explanation of LeWiDi's is the authors', of the same annotator and label
    assert len(found[1][2]) == 1891 and found[1][2] <= found[0][2]


def test_the_real_paraphrases(data: Path) -> None:
    items, votes = read(data / "lewidi2025", "Paraphrase")
    assert [int((items.split == part).sum()) for part in ("train", "val", "test")] == [400, 50, 50]
    assert np.bincount(votes.annotator).tolist() == [450] * 4 and not votes.multi_label
    assert items.classes() == [str(k) for k in range(-5, 6)]
