"""POPQUORN: NUTMEG's preparation, by hand, on the real file, and against published numbers."""

import csv
from pathlib import Path

import numpy as np
import pytest

from annorun.dataset.popquorn import popquorn
from annorun.errors import ConfigError
from annorun.scores.soft import binary_f1, group_counts, shares

HEADER = "instance_id,user_id,text,offensiveness,gender,race,age,occupation,education"
PERSON = {
    "7": "Woman,White,18-24,x,College degree",
    "10": "Man,Asian,54-59,x,Graduate degree",
    "8": "Man,White,>65,x,College degree",
    "9": "Non-binary,White,18-24,x,College degree",
    "11": "Woman,Hispanic or Latino,18-24,x,College degree",
    "12": "Woman,White,18-24,x,Other",
    "13": "Woman,White,Prefer not to disclose,x,College degree",
}
# (item, annotator, rating); of annotators 9, 11, 12, 13 each fails one of the four filters
RATINGS = [
    *[("100", "7", "3.0"), ("100", "10", "2.0"), ("20", "7", "1.0"), ("20", "8", "5.0")],
    *[("3", "8", "4.0"), ("3", "10", "1.0"), ("20", "9", "5.0"), ("20", "11", "5.0")],
    *[("3", "12", "5.0"), ("100", "13", "5.0"), ("4", "9", "5.0")],
]
NOTHING = np.random.default_rng(0)


def lines(ratings: list[tuple[str, str, str]]) -> list[str]:
    return [HEADER] + [f"{i},{a},text {i},{r},{PERSON[a]}" for i, a, r in ratings]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "offensiveness").mkdir()
    (tmp_path / "offensiveness" / "raw_data.csv").write_text("\n".join(lines(RATINGS)) + "\n")
    (tmp_path / "own").mkdir()
    for split, name in (("train", "100"), ("val", "3"), ("test", "20")):
        (tmp_path / "own" / f"offensiveness_{split}_split").write_text(f"instance_id\n{name}\n")
    return tmp_path


def read(folder: Path, attribute: str = "gender", splits: str | None = "own", seed: int = 0):
    keys = {"task": "offensiveness", "attribute": attribute, "splits": splits}
    return popquorn(rng=np.random.default_rng(seed), path=str(folder), **keys)


def test_items_votes_and_groups_by_hand(folder: Path) -> None:
    """Ids in the order of numbers; a rating of 3 is a yes; item 4 has no annotator left."""
    items, votes = read(folder)
    assert list(items.names) == ["3", "20", "100"] and items.inputs["text"][1] == "text 20"
    assert list(items.annotator_names) == ["7", "8", "10"]
    assert items.split.tolist() == ["val", "test", "train"]
    assert list(items.group_names) == ["Man", "Woman"] and votes.group.tolist() == [1, 0, 0]
    triples = zip(votes.item, votes.annotator, votes.label, strict=True)
    assert [tuple(map(int, t)) for t in triples] == [(0, 1, 1), (0, 2, 0), (2, 0, 1), (2, 2, 0)]


def test_votes_on_test_items_are_held_out_and_nowhere_else(folder: Path) -> None:
    items, votes = read(folder)
    held = items.held_out
    assert set(votes.item) == {0, 2} and set(held.item) == {1}
    assert held.annotator.tolist() == [0, 1] and held.label.tolist() == [0, 1]
    assert (held.n_items, held.n_annotators) == (votes.n_items, votes.n_annotators) == (3, 3)
    assert group_counts(held, 2)[1].tolist() == [[0, 1], [1, 0]]


def test_the_attribute_moves_the_groups_and_nothing_else(folder: Path) -> None:
    expected = {
        "age": ("18-29", "60+", "50-59"),
        "education": ("College degree", "College degree", "Graduate degree"),
        "race": ("White", "White", "Asian"),
    }
    _, first = read(folder)
    for attribute, of in expected.items():
        items, votes = read(folder, attribute)
        assert tuple(items.group_names[g] for g in votes.group) == of
        assert np.array_equal(votes.item, first.item) and np.array_equal(votes.label, first.label)


def test_shuffled_rows_give_the_same_votes(folder: Path) -> None:
    before = read(folder)[1], read(folder, splits=None)[0].split
    file = folder / "offensiveness" / "raw_data.csv"
    head, *rest = file.read_text().splitlines()
    file.write_text("\n".join([head, *reversed(rest)]) + "\n")
    for name in ("item", "annotator", "label", "group"):
        assert np.array_equal(getattr(before[0], name), getattr(read(folder)[1], name))
    assert np.array_equal(before[1], read(folder, splits=None)[0].split)


def test_a_drawn_split_has_the_authors_sizes(folder: Path) -> None:
    file = folder / "offensiveness" / "raw_data.csv"
    for n, sizes in ((1500, (1050, 150, 300)), (3718, (2602, 372, 744))):
        file.write_text("\n".join(lines([(str(i), "7", "3") for i in range(n)])))
        drawn = [read(folder, splits=None, seed=s)[0].split for s in (0, 0, 1)]
        assert tuple((drawn[0] == s).sum() for s in ("train", "val", "test")) == sizes
        assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])


FAULTS = {
    "rating": ("100,10,text 100,2.0,", "100,10,text 100,9,", "line 3, column offensiveness: '9'"),
    "age": ("54-59", "55-59", "line 3, column age: '55-59'; allowed: 18-24"),
    "attribute": ("20,7,text 20,1.0,Woman", "20,7,text 20,1.0,Man", "annotator 7 has gender 'Man'"),
    "text": ("20,8,text 20", "20,8,other", "item 20 has text 'other', but 'text 20' in line 4"),
    "twice": ("20,8,text 20", "20,7,text 20", "annotator 7 rated item 20 in line 4 already"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_says_where(name: str, folder: Path) -> None:
    old, new, words = FAULTS[name]
    file = folder / "offensiveness" / "raw_data.csv"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as error:
        read(folder)
    assert any(words in fault for fault in error.value.faults), error.value.faults


def test_a_group_that_nobody_is_in_is_left_out(folder: Path) -> None:
    """Women are group 1 of the full file; without men they are all there is."""
    file = folder / "offensiveness" / "raw_data.csv"
    file.write_text("\n".join(lines([(i, "7", "3.0") for i in ("3", "20", "100")])) + "\n")
    items, votes = read(folder)
    assert items.group_names == ["Woman"] and votes.group.tolist() == [0]
    assert group_counts(items.held_out, 1).shape[1] == len(items.group_names)


def test_splits_are_a_folder_inside_path_that_is_there(folder: Path, tmp_path: Path) -> None:
    """What is outside is not in the run's identity: another split would be the same run."""
    inner = tmp_path / "inner"
    inner.mkdir()
    (folder / "offensiveness").rename(inner / "offensiveness")
    (inner / "link").symlink_to(folder / "own")
    for splits in (str(folder / "own"), "../own", "link"):
        with pytest.raises(ConfigError, match=r"allowed is a folder inside .*inner, or null"):
            read(inner, splits=splits)
    with pytest.raises(ConfigError, match=r"no folder .*nosuch; .*dataset.splits=null draws"):
        read(inner, splits="nosuch")
    (folder / "own").rename(inner / "own")
    assert read(inner, splits=str(inner / "own"))[0].split.tolist() == ["val", "test", "train"]


BROKEN = {
    "latin-1": (lambda raw: raw.replace(b"text 20", b"t\xe4xt"), "line 4: byte 1"),
    "huge field": (lambda raw: raw.replace(b"text 3", b"x" * 140_000), r"line 6: field larger"),
    "open quote": (lambda raw: raw.replace(b"text 20", b'"text', 1), "unexpected end of data"),
    "header only": (lambda raw: raw.splitlines()[0] + b"\n", "no rating by an annotator"),
    "short row": (lambda raw: raw + b"20\n", "line 13, column user_id: empty"),
    "no user": (lambda raw: raw.replace(b"20,8,", b"20,,"), "line 5, column user_id: empty"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_a_fault_and_no_traceback(name: str, folder: Path) -> None:
    broken, words = BROKEN[name]
    file = folder / "offensiveness" / "raw_data.csv"
    file.write_bytes(broken(file.read_bytes()))
    with pytest.raises(ConfigError, match=rf"raw_data.csv.*{words}"):
        read(folder)


def test_who_has_not_told_an_attribute_is_in_no_group(folder: Path) -> None:
    file = folder / "offensiveness" / "raw_data.csv"
    file.write_text(file.read_text().replace(PERSON["8"], "Man,,>65,x,College degree"))
    assert read(folder)[0].annotator_names == ["7", "10"]


def test_the_mark_that_excel_writes_is_no_part_of_the_header(folder: Path) -> None:
    file = folder / "offensiveness" / "raw_data.csv"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(read(folder)[1]) == 4


def test_missing_files_and_columns_say_what_to_put_where(folder: Path) -> None:
    with pytest.raises(ConfigError, match="Potato-Prolific-Dataset"):
        popquorn(rng=NOTHING, path=str(folder), task="politeness", attribute="age", splits=None)
    (folder / "own" / "offensiveness_test_split").write_text("instance_id\n3\n")
    with pytest.raises(ConfigError, match="item 3 is in val already"):
        read(folder)
    (folder / "own" / "offensiveness_test_split").write_text("instance_id\n")
    with pytest.raises(ConfigError, match="item 20 and 0 more are in no split"):
        read(folder)
    (folder / "own" / "offensiveness_test_split").unlink()
    with pytest.raises(ConfigError, match="offensiveness_test_split"):
        read(folder)
    file = folder / "offensiveness" / "raw_data.csv"
    file.write_text(file.read_text().replace("race", "rice", 1))
    with pytest.raises(ConfigError, match="line 1: no column race"):
        read(folder)


def test_real_file_sizes(data: Path) -> None:
    items, votes = read(data / "popquorn", "age", "nutmeg_splits")
    assert [(items.split == s).sum() for s in ("train", "val", "test")] == [1050, 150, 300]
    assert (len(votes), len(items.held_out), votes.n_annotators) == (9340, 2312, 234)
    assert len(set(votes.annotator)) == len(set(items.held_out.annotator)) == 234
    assert len(items.group_names) == 5
    assert len(read(data / "popquorn", "race", None)[0].group_names) == 3


def test_the_preparation_is_the_one_behind_a_published_number(data: Path) -> None:
    """NUTMEG's `individual` answers yes to everything for the group 60+; its F1 there is published.

    With P positive pairs of n, F1 = 2 P / (n + P). So n and P, hence the filters, the ages, the
    threshold, the split and the rule for ties (a tie is a no) are those of the authors.
    """
    items, _ = read(data / "popquorn", "age", "nutmeg_splits")
    q = shares(group_counts(items.held_out, 5))[:, items.group_names.index("60+")]
    label = q[~np.isnan(q[:, 0])].argmax(axis=1)
    with (data / "nutmeg_figure_data" / "downstream_model_comparison.csv").open() as stream:
        wanted = {
            "task": "popquorn_offensiveness",
            "method": "individual",
            "category": "60+",
        }
        (row,) = [r for r in csv.DictReader(stream) if wanted.items() <= r.items()]
    assert (len(label), label.sum()) == (241, 60)
    assert binary_f1(np.ones_like(label), label) == pytest.approx(float(row["f1"]), abs=1e-12)
