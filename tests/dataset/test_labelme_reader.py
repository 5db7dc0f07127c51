from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from annorun.dataset.labelme import labelme
from annorun.errors import ConfigError
from annorun.votes import Items, Votes


def read(folder: Path) -> tuple[Items, Votes]:
    return labelme(rng=np.random.default_rng(0), path=str(folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three training images, two annotators, two test images, in the authors' layout."""
    np.save(tmp_path / "LabelMe_VGG_avg_train.npy", np.arange(12, dtype=np.float32).reshape(3, 4))
    np.save(tmp_path / "LabelMe_VGG_avg_test.npy", np.ones((2, 4), dtype=np.float32))
    (tmp_path / "LabelMe_Z_train.txt").write_text("7\n0\n2\n")
    (tmp_path / "LabelMe_Z_test.txt").write_text("1\n3\n")
    (tmp_path / "answers.txt").write_text("-1 7\n0 0\n5 -1\n")
    return tmp_path


def test_small_folder_by_hand(folder: Path) -> None:
    items, votes = read(folder)
    assert items.kind == "features" and items.n_classes == votes.n_classes == 8
    assert items.split.tolist() == ["train"] * 3 + ["test"] * 2
    assert items.truth is not None and items.truth.tolist() == [7, 0, 2, 1, 3]
    assert items.names == ["train-0", "train-1", "train-2", "test-0", "test-1"]
    assert items.inputs["x"].dtype == np.float32
    assert items.inputs["x"][2].tolist() == [8, 9, 10, 11]
    expected = [[-1, 7], [0, 0], [5, -1], [-1, -1], [-1, -1]]
    assert votes.dense().tolist() == expected


def test_the_real_crowd(data: Path) -> None:
    """Counts of the data's own description: 1000 + 1188 images, 59 annotators, 2547 votes."""
    items, votes = read(data / "labelme")
    assert len(items) == votes.n_items == 2188 and (items.split == "test").sum() == 1188
    assert items.inputs["x"].shape == (2188, 512)
    assert votes.n_annotators == 59 and len(votes) == 2547
    assert len(set(votes.annotator.tolist())) == 59
    assert set(votes.item.tolist()) == set(range(1000))
    assert items.truth is not None
    assert round(float((votes.label == items.truth[votes.item]).mean()), 3) == 0.740


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def save(name: str, x: object) -> Callable[[Path], object]:
    return lambda folder: np.save(folder / name, np.asarray(x))


GOLD, ANSWERS = "LabelMe_Z_train.txt", "answers.txt"
TRAIN, TEST = "LabelMe_VGG_avg_train.npy", "LabelMe_VGG_avg_test.npy"
BAD: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "short row": (write(ANSWERS, "-1 7\n0\n5 -1\n"), "answers.txt, line 2: ", "needed: 2"),
    "blank row": (
        write(ANSWERS, "-1 7\n\n5 -1\n"),
        "answers.txt, line 2: ",
        "0 columns; needed: 2",
    ),
    "class 8": (
        write(ANSWERS, "-1 7\n0 0\n5 8\n"),
        "answers.txt, line 3, column 2: '8'",
        "allowed: -1 to 7 (-1: no vote)",
    ),
    "no number": (write(ANSWERS, "-1 7\n0 0\n5 x\n"), "line 3, column 2: 'x'", "allowed: -1 to 7"),
    "a fraction": (write(GOLD, "7\n0.5\n2\n"), "LabelMe_Z_train.txt, line 2, column 1", "0 to 7"),
    "gold -1": (write(GOLD, "7\n-1\n2\n"), "LabelMe_Z_train.txt, line 2", "allowed: 0 to 7"),
    "wide gold": (write(GOLD, "7\n0 1\n2\n"), "LabelMe_Z_train.txt, line 2: 2", "needed: 1"),
    "short gold": (
        write(GOLD, "7\n0\n"),
        "LabelMe_Z_train.txt, line 2: ",
        "3 rows; one label a row",
    ),
    "empty": (write(ANSWERS, ""), "answers.txt: an empty file", "needed: one line an image"),
    "long answers": (
        write(ANSWERS, "-1 7\n" * 4),
        "answers.txt, line 4: ",
        "LabelMe_VGG_avg_train.npy has 3 rows",
    ),
    "not numpy": (write(TRAIN, "hello"), "LabelMe_VGG_avg_train.npy: ", "not an array"),
    "one axis": (
        save(TRAIN, [1.0, 2.0, 3.0]),
        "avg_train.npy: float64 of shape (3,)",
        "(n_items, d)",
    ),
    "infinite": (
        save(TRAIN, [[1.0, 2, 3, 4], [1, 2, 3, np.inf], [1, 2, 3, 4]]),
        "LabelMe_VGG_avg_train.npy, row 1, column 3",
        "inf; needed: finite numbers",
    ),
    "widths": (save(TEST, np.ones((2, 5))), "avg_test.npy: 5 features", "avg_train.npy has 4"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_content_is_one_error_with_the_place(name: str, folder: Path) -> None:
    spoil, place, allowed = BAD[name]
    spoil(folder)
    with pytest.raises(ConfigError) as error:
        read(folder)
    assert len(error.value.faults) == 1
    assert place in error.value.faults[0] and allowed in error.value.faults[0]


def test_all_faults_come_at_once(folder: Path) -> None:
    (folder / ANSWERS).write_text("-1 9\n0 0\n5\n")
    (folder / GOLD).write_text("8\n0\n2\n")
    with pytest.raises(ConfigError) as error:
        read(folder)
    assert len(error.value.faults) == 3


def test_missing_files_say_where_what_and_how(tmp_path: Path) -> None:
    np.save(tmp_path / TEST, np.ones((2, 4)))
    with pytest.raises(ConfigError) as error:
        read(tmp_path)
    (fault,) = error.value.faults
    assert str(tmp_path) in fault and "dataset.path=FOLDER" in fault and "ANNORUN_DATA" in fault
    assert f"there is no {ANSWERS}, {TRAIN}, {GOLD}, LabelMe_Z_test.txt; expected: " in fault
    assert TEST in fault.split("expected: ")[1]
