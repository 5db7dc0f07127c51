"""Omniglot (Lake et al. 2015): handwritten characters of 50 alphabets, 20 drawings of each.

The authors' background set has 964 characters, their evaluation set 659, two smaller background
sets 136 and 156. Each is read in one of three forms: the folder `images_background/` with
ALPHABET/characterNN/NNNN_DD.png, the authors' `images_background.zip` of it as it is, or
`npz/images_background.npz` with `images` bool (n_characters, n_drawings, 105, 105) and `labels`.
In all of them ink is 0 or False. Characters stand in the order of the authors' numbers NNNN.

A class is a character. Turned characters are no classes of their own, unlike in much of the
few-shot literature: meta-EM (notes 2.6) splits 964, which is the background set without turns.
`turned` makes three more classes of each training character, turned by 90, 180 and 270 degrees
(Santoro et al. 2016); test characters stay upright.
"""

import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from annorun.dataset.files import refuse
from annorun.dataset.images import area_mean, class_items, draw_classes, pixels
from annorun.errors import ConfigError
from annorun.kinds import Count, Natural
from annorun.votes import Items

# pixels of the authors' images, each way
SIDE = 105
# grey values below it are ink
GREY = 128


class Character(NamedTuple):
    """One class: its name, its drawings' names, and where they have ink, (n, 105, 105)."""

    name: str
    drawings: list[str]
    ink: NDArray[np.bool_]


def omniglot(
    *,
    rng: np.random.Generator,
    path: str,
    subset: Literal["background", "evaluation", "background_small1", "background_small2"],
    classes: tuple[Count, Natural, Count],
    size: Count,
    turned: bool = False,
) -> tuple[Items, None]:
    """Read drawings as (1, size, size), ink 1 and paper 0; the votes are simulated.

    Args:
        rng: draws which classes are train, val and test: no class is in two splits.
        path: the folder with the authors' files.
        subset: which of their sets.
        classes: numbers of train, val and test classes; what is left over is left out.
        size: pixels each way, averaged over areas, 105 at most.
        turned: see above.

    Raises:
        ConfigError: no such file, more classes than there are, or what is wrong inside the file.
    """
    if size > SIDE:
        raise ConfigError(f"dataset.size={size}: allowed is 1 to {SIDE}, the authors' images")
    place = _place(Path(path).expanduser(), f"images_{subset}")
    found = _from_arrays(place) if place.suffix == ".npz" else _from_images(place)
    drawn = draw_classes(len(found), classes, where=str(place), rng=rng)
    split = drawn[drawn != ""]
    kept = [character for character, part in zip(found, drawn, strict=True) if part]
    if turned:
        upright = [c for c, part in zip(kept, split, strict=True) if part == "train"]
        # after the others: whoever draws from the classes before draws as without
        kept += [turn(c, quarters) for quarters in (1, 2, 3) for c in upright]
        split = np.concatenate([split, np.full(3 * len(upright), "train")])
    x = np.concatenate([area_mean(c.ink.astype(np.float32), size) for c in kept])
    items = class_items(
        x[:, None],
        np.repeat(np.arange(len(kept)), [len(c.drawings) for c in kept]),
        split=split,
        class_names=[c.name for c in kept],
        names=[name for c in kept for name in c.drawings],
    )
    return items, None


def turn(character: Character, quarters: int) -> Character:
    """Return a character of its own, turned by so many times 90 degrees against the clock."""
    end = f" turned by {90 * quarters}"
    ink = np.rot90(character.ink, quarters, axes=(1, 2))
    return Character(character.name + end, [name + end for name in character.drawings], ink)


def _place(folder: Path, stem: str) -> Path:
    """Return the first of the three forms that is there, or raise ConfigError."""
    forms = (stem, f"{stem}.zip", f"npz/{stem}.npz")
    for form, there in zip(forms, (Path.is_dir, Path.is_file, Path.is_file), strict=True):
        if there(folder / form):
            return folder / form
    raise ConfigError(
        f"dataset.path: in {folder} (looked in {folder.absolute()}) there is no {stem}/, "
        f"{', '.join(forms[1:])}; expected: one of them, as in python/ of "
        f"github.com/brendenlake/omniglot; `python scripts/fetch_data.py omniglot` gets "
        f"{stem}.zip; set dataset.path=FOLDER to its folder, or ANNORUN_DATA to the folder that "
        f"holds it as omniglot/"
    )


def _from_images(place: Path) -> list[Character]:
    """Return the characters of a folder of images, or of a ZIP of it."""
    files = _packed(place) if place.suffix == ".zip" else _unpacked(place)
    faults = [] if files else [f"{place}: no ALPHABET/characterNN/NNNN_DD.png in it; needed: some"]
    members: dict[str, list[str]] = {}
    for name in sorted(files, key=lambda name: (name.rpartition("/")[2], name)):
        members.setdefault(name.rpartition("/")[0], []).append(name)
    found = []
    for character, names in members.items():
        ink = [_ink(f"{place}/{name}", files[name], faults) for name in names]
        drawings = [name.rpartition("/")[2].removesuffix(".png") for name in names]
        found.append(Character(character, drawings, np.stack(ink)))
    refuse(faults)
    return found


def _unpacked(folder: Path) -> dict[str, bytes]:
    """Return the bytes of ALPHABET/characterNN/NNNN_DD.png, by that name."""
    found = folder.glob("*/*/[!.]*.png")
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in found}


def _packed(archive: Path) -> dict[str, bytes]:
    """Return the same from a ZIP, whatever folder is around the alphabets."""
    try:
        with zipfile.ZipFile(archive) as opened:
            parts = {name: name.split("/")[-3:] for name in opened.namelist()}
            return {
                "/".join(last): opened.read(name)
                for name, last in parts.items()
                # macOS packs a hidden file beside each
                if len(last) == 3 and last[2].endswith(".png") and not last[2].startswith(".")
            }
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise ConfigError(f"{archive}: not a readable ZIP file: {error}") from None


def _ink(where: str, content: bytes, faults: list[str]) -> NDArray[np.bool_]:
    """Return (105, 105), or an empty drawing and a fault."""
    try:
        ink: NDArray[np.bool_] = pixels(BytesIO(content), "L") < GREY
    except ValueError as error:
        faults.append(f"{where}: {error}")
        return np.zeros((SIDE, SIDE), dtype=np.bool_)
    if ink.shape != (SIDE, SIDE):
        height, width = ink.shape
        faults.append(f"{where}: {width} x {height} pixels; needed: {SIDE} x {SIDE}")
        return np.zeros((SIDE, SIDE), dtype=np.bool_)
    return ink


def _from_arrays(file: Path) -> list[Character]:
    """Return the characters of an archive of arrays; it has no names: they are numbers, from 1."""
    try:
        # opened here: np.load leaves a broken file open
        with file.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                raise ValueError("a single array")
            images, labels = loaded["images"], loaded["labels"]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{file}: not an archive of NumPy with images and labels: {error}"
        ) from None
    if images.dtype != np.bool_ or images.ndim != 4 or images.shape[2:] != (SIDE, SIDE):
        raise ConfigError(
            f"{file}: images {images.dtype} of shape {images.shape}; needed: bool of shape "
            f"(n_characters, n_drawings, {SIDE}, {SIDE})"
        )
    n_characters, n_drawings = images.shape[:2]
    if labels.shape != images.shape[:2] or (labels != np.arange(n_characters)[:, None]).any():
        raise ConfigError(
            f"{file}: labels of shape {labels.shape}; needed: {images.shape[:2]}, in each row the "
            f"character's number, 0 to {n_characters - 1}"
        )
    numbers = [f"{k:04d}" for k in range(1, n_characters + 1)]
    return [
        Character(number, [f"{number}_{d:02d}" for d in range(1, n_drawings + 1)], ~drawings)
        for number, drawings in zip(numbers, images, strict=True)
    ]
