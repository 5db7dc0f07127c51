"""The text crowd: by hand, on the real files, bad files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from annorun.dataset.sentiment_polarity import sentiment_polarity
from annorun.errors import ConfigError
from annorun.votes import Items, Votes


def read(folder: Path) -> tuple[Items, Votes]:
    return sentiment_polarity(rng=np.random.default_rng(0), path=str(folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three training sentences, two annotators, two test sentences, in the authors' layout."""
    (tmp_path / "Sentiment_text_train.txt").write_text(
        "good . \na \x85 film\nbad", encoding="utf-8"
    )
    (tmp_path / "Sentiment_text_test.txt").write_text("avid\nflat\n")
    (tmp_path / "Sentiment_Z_train.txt").write_text("1\n1\n0\n")
    (tmp_path / "Sentiment_Z_test.txt").write_text("1\n0\n")
    (tmp_path / "answers.txt").write_text("-1 1\n0 0\n0 -1\n")
    return tmp_path


def test_small_folder_by_hand(folder: Path) -> None:
    """U+0085, which Python takes for a line end, is inside a sentence; blanks around one go."""
    items, votes = read(folder)
    assert items.kind == "text" and items.n_classes == votes.n_classes == 2
    assert items.inputs["text"] == ["good .", "a \x85 film", "bad", "avid", "flat"]
    assert items.split.tolist() == ["train"] * 3 + ["test"] * 2
    assert items.truth is not None and items.truth.tolist() == [1, 1, 0, 1, 0]
    assert items.names == ["train-0", "train-1", "train-2", "test-0", "test-1"]
    assert items.classes() == ["negative", "positive"]
    assert votes.dense().tolist() == [[-1, 1], [0, 0], [0, -1], [-1, -1], [-1, -1]]


def test_the_real_crowd(data: Path) -> None:
    """4999 + 3999 sentences, 203 annotators, 27,746 votes, 78.9 % of them right; 1 is praise."""
    if not (data / "sentiment_polarity").is_dir():
        pytest.skip("no sentiment_polarity there")
    items, votes = read(data / "sentiment_polarity")
    assert len(items) == votes.n_items == 4999 + 3999 and (items.split == "test").sum() == 3999
    assert votes.n_annotators == 203 and len(votes) == 27746
    assert len(set(votes.annotator.tolist())) == 203
    assert set(votes.item.tolist()) == set(range(4999))
    truth = items.truth
    assert truth is not None and set(truth.tolist()) == {0, 1}
    assert round(float((votes.label == truth[votes.item]).mean()), 3) == 0.789
    for word, name in (("dull", "negative"), ("moving", "positive")):
        has = [i for i, text in enumerate(items.inputs["text"]) if word in text.split()]
        share = np.mean([items.classes()[truth[i]] == name for i in has])
        assert len(has) > 20 and share > 0.75, (word, len(has), share)


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


TEXT, GOLD, ANSWERS = "Sentiment_text_train.txt", "Sentiment_Z_train.txt", "answers.txt"
BAD: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "short row": (write(ANSWERS, "-1 1\n0\n0 -1\n"), "answers.txt, line 2: 1", "needed: 2"),
    "blank row": (write(ANSWERS, "-1 1\n\n0 -1\n"), "answers.txt, line 2: 0", "needed: 2"),
    "class 2": (write(ANSWERS, "-1 1\n0 2\n0 1\n"), "line 2, column 2: '2'", "-1, 0, 1 (-1: no"),
    "gold -1": (write(GOLD, "1\n-1\n0\n"), "Z_train.txt, line 2, column 1: '-1'", "allowed: 0, 1"),
    "wide gold": (write(GOLD, "1\n0 1\n0\n"), "Z_train.txt, line 2: 2 columns", "needed: 1"),
    "short gold": (
        write(GOLD, "1\n0\n"),
        "Z_train.txt, line 2: ",
        "Sentiment_text_train.txt has 3",
    ),
    "long answers": (write(ANSWERS, "1 1\n" * 4), "answers.txt, line 4: ", "train.txt has 3"),
    "few answers": (write(ANSWERS, "1 1\n" * 2), "answers.txt, line 2: ", "train.txt has 3"),
    "empty": (write(ANSWERS, ""), "answers.txt: an empty file", "needed: one line an item"),
    "blank text": (write(TEXT, "a\n \nb\n"), "text_train.txt, line 2: ' '", "needed is a text"),
    "Latin-1": (
        lambda folder: (folder / TEXT).write_bytes(b"a\n\xe9\nb\n"),
        "text_train.txt, line 2: byte 2",
        "UTF-8",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_content_is_one_error_with_the_place(name: str, folder: Path) -> None:
    spoil, place, allowed = BAD[name]
    spoil(folder)
    with pytest.raises(ConfigError) as error:
        read(folder)
    assert len(error.value.faults) == 1
    assert place in error.value.faults[0] and allowed in error.value.faults[0]


def test_all_faults_come_at_once_and_twenty_are_shown(folder: Path) -> None:
    (folder / ANSWERS).write_text("7 7\n" * 11)
    (folder / GOLD).write_text("8\n0\n0\n")
    with pytest.raises(ConfigError) as error:
        read(folder)
    assert len(error.value.faults) == 21 and error.value.faults[-1] == "and 3 more"
    assert GOLD in error.value.faults[0]


def test_missing_files_say_where_what_and_how(folder: Path) -> None:
    (folder / ANSWERS).unlink()
    (folder / TEXT).unlink()
    with pytest.raises(ConfigError) as error:
        read(folder)
    (fault,) = error.value.faults
    assert str(folder) in fault and "dataset.path=FOLDER" in fault and "ANNORUN_DATA" in fault
    assert f"there is no {ANSWERS}, {TEXT}; expected: " in fault
