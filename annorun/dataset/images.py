"""What readers of images share: files decoded, sizes changed, classes drawn into splits."""

from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from annorun.errors import ConfigError
from annorun.votes import Ints, Items

SPLITS = ("train", "val", "test")
# of Items: one name a class or item, "" for a class that is left out
Names = NDArray[np.str_]
Pixels = NDArray[np.uint8]
Images = NDArray[np.float32]


def pixels(file: Path | BytesIO, mode: Literal["L", "RGB"]) -> Pixels:
    """Return (height, width) grey values or (height, width, 3) colours of a PNG or JPEG, 0 to 255.

    Raises:
        ValueError: it is not readable as an image.
    """
    from PIL import Image

    try:
        with Image.open(file) as image:
            return np.asarray(image.convert(mode))
    # Pillow tells of broken files in many ways, SyntaxError and struct.error among them
    except Exception as error:
        raise ValueError(f"not a readable image: {' '.join(str(error).split())}") from None


def area_mean(
    x: Images,  # (..., height, width)
    size: int,
) -> Images:
    """Average over the area that each new pixel covers, (..., size, size).

    A pixel on the border of two counts in both by its share. Images of 0 and 1 come out exact to
    float32's last bit: the sums are whole numbers.
    """
    height, width = x.shape[-2:]
    total: Images = np.matmul(np.matmul(_overlap(height, size), x), _overlap(width, size).T)
    return total / np.float32(height * width)


def _overlap(old: int, new: int) -> Images:
    """Return (new, old): how much of each old pixel a new one covers, in 1/new of a pixel."""
    i, j = np.arange(new)[:, None], np.arange(old)
    shared = np.minimum((i + 1) * old, (j + 1) * new) - np.maximum(i * old, j * new)
    return shared.clip(0).astype(np.float32)


def bilinear(
    x: Images,  # (..., height, width)
    size: int,
) -> Images:
    """Interpolate between the centres of the pixels, (..., size, size); for enlarging."""
    height, width = x.shape[-2:]
    larger: Images = np.matmul(np.matmul(_between(height, size), x), _between(width, size).T)
    return larger


def _between(old: int, new: int) -> Images:
    """Return (new, old) weights of the two nearest pixels; beyond the outer centres, of one."""
    place = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
    return (1 - np.abs(place[:, None] - np.arange(old))).clip(0).astype(np.float32)


def draw_classes(
    n_found: int, classes: tuple[int, int, int], *, where: str, rng: np.random.Generator
) -> Names:
    """Draw which classes are train, val and test, (n_found,); "" for those left over.

    Raises:
        ConfigError: more are asked for than were found.
    """
    asked = sum(classes)
    if asked > n_found:
        raise ConfigError(
            f"dataset.classes={list(classes)}: {asked} classes; allowed is {n_found} in all, "
            f"those of {where}"
        )
    split = np.full(n_found, "", dtype="<U5")
    split[rng.permutation(n_found)[:asked]] = np.repeat(SPLITS, classes)
    return split


def class_items(
    x: Images,  # (n_items, channels, height, width)
    truth: Ints,  # (n_items,) 0 to n_classes - 1
    *,
    split: Names,  # (n_classes,)
    class_names: list[str],
    names: list[str],
) -> Items:
    """Return items of kind `image`, whose split is that of their class."""
    return Items(
        kind="image",
        inputs={"x": x},
        split=split[truth],
        n_classes=len(split),
        truth=truth,
        names=names,
        class_names=class_names,
    )
