from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from annorun.dataset.miniimagenet import miniimagenet
from annorun.errors import ConfigError
from annorun.votes import Items

# (red, green, blue) of class k, image i: no two are equal
LISTS = {"train": ["n01", "n02", "n07"], "val": ["n04"], "test": ["n05", "n06"]}
N_IMAGES = 4


def colour(label: str, i: int) -> tuple[int, int, int]:
    return 30 * int(label[1:]), 40 * i, 255


def name(label: str, i: int) -> str:
    return f"{label}{i:05d}.jpg"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six classes of four images of one colour, in the usual layout, the lists' rows mixed."""
    (tmp_path / "images").mkdir()
    for split, labels in LISTS.items():
        rows = [(name(label, i), label) for i in range(N_IMAGES) for label in labels]
        text = "".join(f"{file},{label}\r\n" for file, label in rows)
        (tmp_path / f"{split}.csv").write_text(f"filename,label\r\n{text}", newline="")
        for label in labels:
            for i in range(N_IMAGES):
                plain = np.full((84, 84, 3), colour(label, i), dtype=np.uint8)
                # PNG, which keeps the colours exactly; readers look inside, not at the suffix
                Image.fromarray(plain).save(tmp_path / "images" / name(label, i), format="PNG")
    return tmp_path


def read(folder: Path, seed: int = 0, **changed: Any) -> Items:
    asked: dict[str, Any] = {"classes": (3, 1, 2), "per_class": 600, "size": 84}
    items, votes = miniimagenet(
        rng=np.random.default_rng(seed), path=str(folder), **asked | changed
    )
    assert votes is None and items.kind == "image"
    return items


def test_colours_and_classes_by_hand(folder: Path) -> None:
    items = read(folder)
    labels = sorted(label for part in LISTS.values() for label in part)
    assert items.class_names == labels and items.n_classes == 6 and len(items) == 24
    x = items.inputs["x"]
    assert x.shape == (24, 3, 84, 84) and x.dtype == np.float32
    assert items.truth is not None
    assert items.truth.tolist() == np.repeat(np.arange(6), N_IMAGES).tolist()
    for k, (truth, file) in enumerate(zip(items.truth, items.names or (), strict=True)):
        label, i = labels[truth], k % N_IMAGES
        assert file == name(label, i)
        expected = np.array(colour(label, i), dtype=np.float32) / 255
        np.testing.assert_array_equal(x[k], np.broadcast_to(expected[:, None, None], (3, 84, 84)))


def test_a_real_jpeg_keeps_rows_columns_and_colours_apart(folder: Path) -> None:
    """The right half is red: channel 0 there, and nothing else."""
    red = np.zeros((84, 84, 3), dtype=np.uint8)
    red[:, 48:, 0] = 255
    Image.fromarray(red).save(folder / "images" / name("n01", 0), quality=100, subsampling=0)
    x = read(folder).inputs["x"][0]
    expected = np.zeros((3, 84, 84))
    expected[0, :, 48:] = 1
    # a JPEG's colours are rounded twice
    np.testing.assert_allclose(x, expected, atol=3 / 255)


def test_other_sizes_are_averaged_and_grey_becomes_three_colours(folder: Path) -> None:
    """6 x 4 pixels, the upper half white, become 2 x 2; a grey image has the same three planes."""
    tall = np.zeros((6, 4, 3), dtype=np.uint8)
    tall[:3] = 255
    Image.fromarray(tall).save(folder / "images" / name("n01", 0), format="PNG")
    grey = np.array([[0, 51], [102, 255]], dtype=np.uint8)
    Image.fromarray(grey).save(folder / "images" / name("n01", 1), format="PNG")
    x = read(folder, size=2).inputs["x"]
    assert x.shape == (24, 3, 2, 2)
    np.testing.assert_allclose(x[0], np.broadcast_to([[1, 1], [0, 0]], (3, 2, 2)))
    np.testing.assert_allclose(x[1], np.broadcast_to([[0, 0.2], [0.4, 1]], (3, 2, 2)), rtol=1e-6)


def test_splits_are_of_classes_and_drawn(folder: Path) -> None:
    first, again, other = (read(folder, seed, size=1) for seed in (0, 0, 1))
    for items in (first, other):
        assert items.truth is not None
        found = [set(items.truth[items.split == part]) for part in ("train", "val", "test")]
        assert [len(part) for part in found] == [3, 1, 2] and len(set[int]().union(*found)) == 6
    assert (first.split == again.split).all() and (first.split != other.split).any()
    some = read(folder, classes=(2, 0, 1), size=1)
    assert some.n_classes == 3 and len(some) == 12 and set(some.split) == {"train", "test"}
    assert some.class_names and some.truth is not None
    for file, truth in zip(some.names or (), some.truth, strict=True):
        assert file.startswith(some.class_names[truth])


def test_null_keeps_the_lists_split(folder: Path) -> None:
    items = read(folder, classes=None, size=1)
    assert items.class_names and items.truth is not None
    for label, part in zip(np.array(items.class_names)[items.truth], items.split, strict=True):
        assert label in LISTS[part]
    assert len(items) == 24


def test_fewer_images_of_each_class_are_drawn(folder: Path) -> None:
    draws = [read(folder, seed, per_class=2, size=1, classes=None) for seed in (0, 0, 1)]
    for items in draws:
        assert items.truth is not None and np.bincount(items.truth).tolist() == [2] * 6
        assert len(set(items.names or ())) == 12
    assert draws[0].names == draws[1].names != draws[2].names


def test_images_in_a_folder_for_each_class(folder: Path) -> None:
    flat = read(folder)
    for file in list((folder / "images").iterdir()):
        place = folder / "images" / file.name[:3]
        place.mkdir(exist_ok=True)
        file.rename(place / file.name)
    foldered = read(folder)
    np.testing.assert_array_equal(flat.inputs["x"], foldered.inputs["x"])
    assert flat.names == foldered.names


def faults(folder: Path, **changed: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        read(folder, **changed)
    assert not any("\n" in line for line in error.value.faults)
    return error.value.faults


def test_missing_files_say_where_what_and_how(tmp_path: Path) -> None:
    (tmp_path / "val.csv").touch()
    (line,) = faults(tmp_path)
    for words in (
        f"dataset.path: in {tmp_path} ",
        "there is no train.csv, test.csv, images/; expected: train.csv, val.csv, test.csv",
        "columns filename,label",
        "meta-learning-lstm",
        "image-net.org",
        "dataset.path=FOLDER",
        "as miniimagenet/",
    ):
        assert words in line


def test_too_many_classes(folder: Path) -> None:
    (line,) = faults(folder, classes=(70, 10, 20))
    assert "dataset.classes=[70, 10, 20]: 100 classes; allowed is 6 in all" in line


def test_bad_lists_are_told_with_their_lines(folder: Path) -> None:
    (folder / "val.csv").write_text(f"file,label\n{name('n04', 0)},n04\n")
    (folder / "test.csv").write_text(f"label,filename\nn05,{name('n01', 0)}\nn05\nn05,\n")
    told = faults(folder)
    assert len(told) == 4
    assert told[0].endswith("val.csv, line 1: file, label; needed: the columns filename,label")
    assert "test.csv, line 2: n0100000.jpg is in" in told[1] and "train.csv, line 2 too" in told[1]
    assert "test.csv, line 3: 'n05'; needed: a value" in told[2] and "line 4" in told[3]
    for split in LISTS:
        (folder / f"{split}.csv").write_text("filename,label\n")
    assert "its lists name no picture" in faults(folder)[0]


def test_a_class_in_two_lists(folder: Path) -> None:
    with (folder / "val.csv").open("a") as stream:
        stream.write("new.jpg,n05\n")
    (line,) = faults(folder, classes=None)
    assert "class n05 is in test.csv and val.csv; allowed is one list" in line


def test_missing_and_broken_images(folder: Path) -> None:
    images = folder / "images"
    (images / name("n06", 3)).unlink()
    (images / name("n07", 0)).unlink()
    told = faults(folder)
    assert len(told) == 2
    assert "there is no n0600003.jpg, nor n06/n0600003.jpg; test.csv names it" in told[0]
    (images / name("n06", 3)).write_bytes(b"hello")
    whole = (images / name("n01", 0)).read_bytes()
    (images / name("n07", 0)).write_bytes(whole[: len(whole) // 2])
    told = faults(folder)
    assert len(told) == 2 and all("not a readable image" in line for line in told)
