import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from annorun.dataset.images import area_mean
from annorun.dataset.omniglot import omniglot
from annorun.errors import ConfigError
from annorun.votes import Items

Ink = NDArray[np.bool_]


def read(folder: Path, seed: int = 0, **changed: Any) -> Items:
    asked: dict[str, Any] = {"subset": "background", "classes": (20, 5, 5), "size": 28}
    items, votes = omniglot(rng=np.random.default_rng(seed), path=str(folder), **asked | changed)
    assert votes is None and items.kind == "image"
    return items


def drawings(n_characters: int = 30) -> Ink:
    """Return ink in strokes: (n_characters, 20, 105, 105), no two drawings the same."""
    draw = np.random.default_rng(5)
    ink = np.zeros((n_characters, 20, 105, 105), dtype=np.bool_)
    for one in ink.reshape(-1, 105, 105):
        for row, column in draw.integers(0, 90, (3, 2)):
            one[row : row + 3, column : column + 15] = True
    return ink


def save_arrays(folder: Path, ink: Ink, **changed: Any) -> Path:
    (folder / "npz").mkdir(exist_ok=True)
    file = folder / "npz" / "images_background.npz"
    labels = np.repeat(np.arange(len(ink))[:, None], ink.shape[1], axis=1)
    np.savez_compressed(file, **({"images": ~ink, "labels": labels} | changed))
    return file


def save_images(folder: Path, ink: Ink, alphabets: str = "ZA") -> Path:
    """Write the authors' layout; their numbers go on through alphabets in no order of names."""
    top = folder / "images_background"
    half = -(-len(ink) // 2)
    for number, character in enumerate(ink):
        place = top / alphabets[number // half] / f"character{number % half + 1:02d}"
        place.mkdir(parents=True)
        for k, one in enumerate(character):
            # True is white: a 1-bit image, as theirs
            Image.fromarray(~one).save(place / f"{number + 1:04d}_{k + 1:02d}.png")
    return top


def pack(folder: Path, top: Path) -> Path:
    archive = folder / "images_background.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(top.rglob("*.png"), reverse=True):
            packed.write(file, f"images_background/{file.relative_to(top).as_posix()}")
        packed.writestr("__MACOSX/images_background/A/character01/._0016_01.png", b"\0")
    return archive


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_arrays(tmp_path, drawings())
    return tmp_path


def test_area_mean_by_hand() -> None:
    """3 -> 2: a new pixel covers one and a half, so the middle one counts in both by a half.

    Row [a, b, c] -> [(a + b/2) / 1.5, (b/2 + c) / 1.5] = [(2a + b) / 3, (b + 2c) / 3], and the
    same downwards: of [[9, 0, 0], [0, 0, 0], [0, 0, 18]] rows give [[6, 0], [0, 0], [0, 12]].
    """
    x = np.array([[9, 0, 0], [0, 0, 0], [0, 0, 18]], dtype=np.float32)
    np.testing.assert_allclose(area_mean(x, 2), [[4, 0], [0, 8]], rtol=1e-6)
    x = np.array([[0, 3, 0], [0, 3, 0], [0, 3, 0]], dtype=np.float32)
    np.testing.assert_allclose(area_mean(x, 2), [[1, 1], [1, 1]], rtol=1e-6)


def test_area_mean_is_the_mean_of_what_is_repeated() -> None:
    """Each pixel 4 x 4 times, then blocks of 15 x 15: 105 * 4 = 28 * 15."""
    ink = drawings(1)[0].astype(np.float32)
    blocks = ink.repeat(4, axis=1).repeat(4, axis=2).reshape(20, 28, 15, 28, 15)
    expected = blocks.mean(axis=(2, 4), dtype=np.float64).astype(np.float32)
    np.testing.assert_array_equal(area_mean(ink, 28), expected)
    # oblong images, and no change of size
    tall = np.arange(24, dtype=np.float32).reshape(2, 6, 2)
    expected = tall.reshape(2, 2, 3, 2).mean(axis=2)
    np.testing.assert_allclose(area_mean(tall, 2), expected, rtol=1e-6)
    np.testing.assert_array_equal(area_mean(ink, 105), ink)


def test_ink_is_one_and_stays_in_its_place(tmp_path: Path) -> None:
    """The upper left 15 x 30 pixels are 4 x 8 new ones: 15 / 3.75 and 30 / 3.75."""
    ink = np.zeros((3, 20, 105, 105), dtype=np.bool_)
    ink[:, :, :15, :30] = True
    save_arrays(tmp_path, ink)
    items = read(tmp_path, classes=(1, 1, 1))
    expected = np.zeros((28, 28))
    expected[:4, :8] = 1
    x = items.inputs["x"]
    assert x.shape == (60, 1, 28, 28) and x.dtype == np.float32
    np.testing.assert_array_equal(x, np.broadcast_to(expected, x.shape))
    assert read(tmp_path, classes=(1, 1, 1), size=7).inputs["x"].shape == (60, 1, 7, 7)


def test_no_class_is_in_two_splits(folder: Path) -> None:
    items = read(folder)
    assert items.truth is not None and items.n_classes == 30 and len(items) == 600
    assert np.bincount(items.truth).tolist() == [20] * 30
    found = {part: set(items.truth[items.split == part]) for part in ("train", "val", "test")}
    assert [len(part) for part in found.values()] == [20, 5, 5]
    assert len(set[int]().union(*found.values())) == 30


def test_the_generator_alone_draws_the_classes(folder: Path) -> None:
    first, again, other = (read(folder, seed) for seed in (0, 0, 1))
    assert (first.split == again.split).all() and (first.split != other.split).any()
    np.testing.assert_array_equal(first.inputs["x"], other.inputs["x"])
    # every class is now and then a test class
    often = np.zeros(30)
    for seed in range(40):
        items = read(folder, seed, size=1)
        often += items.split[::20] == "test"
    # of 40 draws 6.7 on average, with a deviation of 2.4
    assert often.sum() == 200 and 0 < often.min() and often.max() < 17


def test_what_is_left_over_is_left_out(folder: Path) -> None:
    every, some = read(folder), read(folder, classes=(6, 0, 2))
    assert some.truth is not None and some.n_classes == 8 and len(some) == 160
    assert some.truth.tolist() == np.repeat(np.arange(8), 20).tolist()
    assert set(some.split) == {"train", "test"}
    x = dict(zip(every.names or (), every.inputs["x"], strict=True))
    for name, one in zip(some.names or (), some.inputs["x"], strict=True):
        np.testing.assert_array_equal(one, x[name])
    assert [name.split("_")[0] for name in (some.names or ())[::20]] == some.class_names


def test_all_forms_of_the_same_drawings_are_equal(tmp_path: Path) -> None:
    """Arrays, a folder and a ZIP; the folder comes first where there are several."""
    ink = drawings(6)
    places = [tmp_path / form for form in ("arrays", "folder", "zip")]
    for place in places:
        place.mkdir()
    save_arrays(places[0], ink)
    top = save_images(places[1], ink)
    pack(places[2], top)
    arrays, folder, archive = (read(place, classes=(2, 2, 2)) for place in places)
    for items in (folder, archive):
        np.testing.assert_array_equal(items.inputs["x"], arrays.inputs["x"])
        np.testing.assert_array_equal(items.truth, arrays.truth)
        assert (items.split == arrays.split).all() and items.names == arrays.names
        assert items.class_names == [f"{a}/character{k:02d}" for a in "ZA" for k in (1, 2, 3)]
    assert arrays.class_names == ["0001", "0002", "0003", "0004", "0005", "0006"]
    save_arrays(places[1], ~ink)
    both = read(places[1], classes=(2, 2, 2))
    np.testing.assert_array_equal(both.inputs["x"], arrays.inputs["x"])


def fault(folder: Path, **changed: Any) -> str:
    with pytest.raises(ConfigError) as error:
        read(folder, **changed)
    (line,) = error.value.faults
    assert "\n" not in line
    return line


def test_too_many_classes_and_pixels(folder: Path) -> None:
    line = fault(folder, classes=(20, 5, 6))
    assert line.startswith("dataset.classes=[20, 5, 6]: 31 classes; allowed is 30 in all")
    assert "images_background.npz" in line
    assert "dataset.size=106: allowed is 1 to 105" in fault(folder, size=106)


def test_missing_files_say_where_what_and_how(folder: Path) -> None:
    line = fault(folder, subset="evaluation")
    for words in (
        f"dataset.path: in {folder} ",
        "no images_evaluation/, images_evaluation.zip, npz/images_evaluation.npz; expected: ",
        "github.com/brendenlake/omniglot",
        "`python scripts/fetch_data.py omniglot` gets images_evaluation.zip",
        "dataset.path=FOLDER",
        "ANNORUN_DATA",
    ):
        assert words in line


def test_broken_arrays(folder: Path) -> None:
    file, ink = folder / "npz" / "images_background.npz", drawings(2)
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:2], b"", b"hello"):
        file.write_bytes(content)
        assert f"{file}: not an archive of NumPy with images and labels" in fault(folder)
    # one byte in the middle of the compressed images
    half = len(whole) // 2
    file.write_bytes(whole[:half] + bytes([whole[half] ^ 255]) + whole[half + 1 :])
    assert "not an archive of NumPy" in fault(folder)
    with file.open("wb") as stream:
        np.save(stream, ~ink)
    assert "a single array" in fault(folder)
    np.savez(file, images=~ink)
    assert "labels" in fault(folder)
    save_arrays(folder, ink, images=ink.astype(np.uint8))
    assert "images uint8 of shape (2, 20, 105, 105); needed: bool" in fault(folder)
    save_arrays(folder, ink[..., :28])
    assert "(2, 20, 105, 28); needed: bool of shape (n_characters, n_d" in fault(folder)
    save_arrays(folder, ink, labels=np.zeros((2, 20), dtype=np.int64))
    assert "needed: (2, 20), in each row the character's number, 0 to 1" in fault(folder)
    save_arrays(folder, ink, labels=np.zeros(40, dtype=np.int64))
    assert "labels of shape (40,); needed: (2, 20)" in fault(folder)


def test_broken_images(tmp_path: Path) -> None:
    top = save_images(tmp_path, drawings(2)[:, :2])
    files = sorted(top.rglob("*.png"))
    content = files[0].read_bytes()
    for broken in (b"hello", b"", content[:40], content[: len(content) // 2]):
        files[0].write_bytes(broken)
        assert f"{files[0]}: not a readable image" in fault(tmp_path, classes=(1, 0, 1))
    Image.fromarray(np.ones((28, 29), dtype=np.bool_)).save(files[1])
    with pytest.raises(ConfigError) as error:
        read(tmp_path, classes=(1, 0, 1))
    assert len(error.value.faults) == 2
    assert f"{files[1]}: 29 x 28 pixels; needed: 105 x 105" in error.value.faults
    archive = pack(tmp_path, top)
    for file in files:
        file.unlink()
    assert f"{top}: no ALPHABET/characterNN/NNNN_DD.png in it" in fault(tmp_path)
    top.rename(tmp_path / "elsewhere")
    archive.write_bytes(archive.read_bytes()[:-30])
    assert f"{archive}: not a readable ZIP file" in fault(tmp_path)


def test_the_real_background_set(data: Path) -> None:
    """964 characters, 20 drawings each (Lake et al. 2015), split as in meta-EM's reviews."""
    items = read(data / "omniglot", classes=(764, 100, 100))
    assert items.truth is not None and items.n_classes == 964
    assert np.bincount(items.truth).tolist() == [20] * 964
    x = items.inputs["x"]
    assert x.shape == (19280, 1, 28, 28) and x.min() == 0 and x.max() == 1
    # thin strokes on paper, 7.8 % of it
    assert 0.07 < x.mean() < 0.09
    splits = {part: items.truth[items.split == part] for part in ("train", "val", "test")}
    assert [len(set(part)) for part in splits.values()] == [764, 100, 100]


def test_the_authors_images_are_those_of_the_arrays(data: Path) -> None:
    """Every drawing of the authors' ZIP has its number in the arrays, and the same pixels."""
    folder = data / "omniglot"
    if not (folder / "images_background_small1.zip").is_file():
        pytest.skip("no images_background_small1.zip")
    small = read(folder, subset="background_small1", classes=(80, 28, 28))
    every = read(folder, classes=(764, 100, 100))
    place = {name: k for k, name in enumerate(every.names or ())}
    assert len(small) == 2720 and small.class_names and small.class_names[0].endswith("character01")
    matched = every.inputs["x"][[place[name] for name in small.names or ()]]
    np.testing.assert_array_equal(small.inputs["x"], matched)
    alphabets = {name.split("/")[0] for name in small.class_names}
    assert alphabets == {"Balinese", "Early_Aramaic", "Greek", "Korean", "Latin"}


def test_turned_characters_are_classes_of_their_own_in_training_alone(folder: Path) -> None:
    upright, turned = read(folder), read(folder, turned=True)
    n = len(upright)
    assert turned.n_classes == 30 + 3 * 20 and len(turned) == n + 3 * 20 * 20
    # upright drawings are the same, in the same places
    assert np.array_equal(turned.inputs["x"][:n], upright.inputs["x"])
    assert np.array_equal(turned.truth[:n], upright.truth)
    assert np.array_equal(turned.split[:n], upright.split)
    assert (turned.split[n:] == "train").all()
    train = upright.inputs["x"][upright.split == "train"]
    for quarters in (1, 2, 3):
        own = slice(n + (quarters - 1) * len(train), n + quarters * len(train))
        expected = np.rot90(train, quarters, axes=(2, 3))
        np.testing.assert_allclose(turned.inputs["x"][own], expected, atol=1e-6)
        assert len(np.unique(turned.truth[own])) == 20
    assert len(set(turned.names)) == len(turned.names)
    assert len(set(turned.class_names)) == turned.n_classes
