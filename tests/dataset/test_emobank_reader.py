"""EmoBank: ratings to labels by hand, folds, draws, what is wrong in a file; and the real files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annorun.dataset.emobank import emobank
from annorun.dataset.folds import in_folds
from annorun.errors import ConfigError

# valence of each rater
RATED = {
    "a": (1, 2, 2, 3, 3),  # negative, of 3 to 2
    "b": (3, 3, 3, 5, 1),
    "c": (4, 5, 3, 3, 4),
    "d": (1, 1, 5, 5, 3),  # tied
    "e": (2, 2),
    "lost": (5, 5, 5),  # without a text
}
KEYS: dict[str, Any] = {
    "perspective": "reader",
    "dimension": "V",
    "bins": [2.5, 3.5],
    "ties": "drop",
    "n_items": None,
    "balanced": False,
    "items_seed": 0,
    "folds": 2,
    "fold": 0,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    texts = "".join(f'{name},train,3.0,3.0,3.0,"Text, of {name}"\n' for name in "edcba")
    (tmp_path / "emobank.csv").write_text("id,split,V,A,D,text\n" + texts)
    rows = "".join(f"{name},{v},3,3\n" for name, own in RATED.items() for v in own)
    (tmp_path / "individual_reader_ratings.csv").write_text("id,V,A,D\n" + rows)
    return tmp_path


def read(folder: Path, seed: int = 0, **keys: Any):
    items, votes = emobank(rng=np.random.default_rng(seed), path=str(folder), **{**KEYS, **keys})
    assert votes is None
    return items


def test_the_label_is_the_class_of_most_ratings(folder: Path) -> None:
    items = read(folder)
    assert list(items.names) == ["e", "c", "b", "a"]  # in the order of the texts; d is tied
    assert items.inputs["text"][0] == "Text, of e"
    assert items.truth.tolist() == [0, 2, 1, 0]
    assert items.soft.tolist() == [[2, 0, 0], [0, 2, 3], [1, 3, 1], [3, 2, 0]]
    assert items.classes() == ["1-2", "3", "4-5"]


def test_ties_are_drawn_where_asked(folder: Path) -> None:
    drawn = {int(read(folder, ties="random", items_seed=s).truth[1]) for s in range(20)}
    assert drawn == {0, 2}


def test_a_balanced_draw_has_as_many_of_each(folder: Path) -> None:
    items = read(folder, n_items=3, balanced=True)
    assert sorted(items.truth.tolist()) == [0, 1, 2]
    assert len(read(folder, balanced=True)) == 3
    with pytest.raises(ConfigError, match="balanced, 2 items of class 1, and there are 1"):
        read(folder, n_items=5, balanced=True)
    assert len(read(folder, n_items=2)) == 2
    with pytest.raises(ConfigError, match="n_items=9: allowed is at most 4"):
        read(folder, n_items=9)


def test_each_item_is_tested_in_one_fold_and_repeats_differ() -> None:
    folds = [in_folds(23, 5, k, np.random.default_rng(3)) for k in range(5)]
    tested = np.array([fold == "test" for fold in folds])
    assert (tested.sum(axis=0) == 1).all()
    assert sorted(tested.sum(axis=1)) == [4, 4, 5, 5, 5]
    assert not np.array_equal(folds[0], in_folds(23, 5, 0, np.random.default_rng(4)))
    assert (in_folds(23, 5, None, np.random.default_rng(3)) == "train").all()
    for folds, fold, words in ((1, 0, "folds=1: allowed is 2 to 23"), (5, 5, "0 to 4")):
        with pytest.raises(ConfigError, match=words):
            in_folds(23, folds, fold, np.random.default_rng(0))


@pytest.mark.parametrize("bins", [[], [3.5, 2.5], [0.5], [2.2, 2.8]])
def test_bins_that_hold_nothing_are_refused(folder: Path, bins: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.bins"):
        read(folder, bins=bins)


def test_faults_are_named_with_their_lines_all_at_once(folder: Path) -> None:
    file = folder / "individual_reader_ratings.csv"
    file.write_text("id,V,A,D\na,6,3,3\n,3,3,3\nb,3,3,3\n")
    (folder / "emobank.csv").write_text("id,text\na,one\na,two\nb,\n")
    with pytest.raises(ConfigError) as caught:
        read(folder)
    found = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 4
    for words in ("line 2: id 'a', V '6'", "line 3: id ''", "a is there already", "text ''"):
        assert words in found


def test_missing_files_and_columns(folder: Path) -> None:
    (folder / "emobank.csv").write_text("id,words\n")
    with pytest.raises(ConfigError, match="line 1: no column text"):
        read(folder)
    with pytest.raises(ConfigError, match=r"individual_writer_ratings.csv .*JULIELab/EmoBank"):
        read(folder, perspective="writer")


def test_the_real_files(data: Path) -> None:
    folder = data / "emobank"
    items = read(folder, folds=5)
    # of 10,062 texts with ratings, 353 are tied
    assert len(items) == 9709 and len(read(folder, folds=5, ties="random")) == 10062
    assert (items.soft.sum(axis=1) >= 5).all()
    assert np.array_equal(items.soft.argmax(axis=1), items.truth)
    five = read(folder, n_items=500, balanced=True, folds=5)
    assert np.bincount(five.truth).tolist() == [167, 167, 166]
    assert (five.split == "test").sum() == 100
    other = read(folder, n_items=500, balanced=True, folds=5, fold=1)
    assert list(five.names) == list(other.names)
    assert not ((five.split == "test") & (other.split == "test")).any()
    repeat = read(folder, seed=1, n_items=500, balanced=True, folds=5)
    assert list(repeat.names) == list(five.names)
    assert not np.array_equal(repeat.split, five.split)
