import sys

import numpy as np
import pytest

from annorun.dataset.digits import digits
from annorun.dataset.images import bilinear
from annorun.errors import ConfigError
from annorun.seeds import rng


def test_images_are_scaled_and_split_by_item() -> None:
    items, votes = digits(rng=rng(0, "split"))
    assert votes is None
    x = items.inputs["x"]
    assert x.shape == (1797, 1, 8, 8) and x.dtype == np.float32
    assert x.min() == 0 and x.max() == 1
    assert items.kind == "image" and items.n_classes == 10 and items.truth is not None
    assert (items.split == "test").sum() == round(0.3 * 1797)
    assert set(items.split) == {"train", "test"}


def test_pixels_stay_with_their_digit() -> None:
    """A zero has a hole and a one has not: the middle 2 x 2 pixels are darker on the mean image."""
    items, _ = digits(rng=rng(0, "split"))
    middle = items.inputs["x"][:, 0, 3:5, 3:5].mean(axis=(1, 2))
    assert middle[items.truth == 0].mean() < 0.2 < 0.6 < middle[items.truth == 1].mean()


def test_the_generator_alone_moves_the_split() -> None:
    first, again, other = (digits(rng=rng(seed, "split"))[0] for seed in (0, 0, 1))
    assert (first.split == again.split).all()
    assert (first.split != other.split).any()
    np.testing.assert_array_equal(first.inputs["x"], other.inputs["x"])


def test_fewer_classes_are_the_digits_below() -> None:
    items, _ = digits(rng=rng(0, "split"), n_classes=3)
    assert items.n_classes == 3 and set(items.truth) == {0, 1, 2}
    assert len(items.truth) == len(items.inputs["x"]) == len(items.split) == 178 + 182 + 177
    with pytest.raises(ConfigError, match="allowed is 2 to 10"):
        digits(rng=rng(0, "split"), n_classes=11)


def test_no_test_items() -> None:
    items, _ = digits(rng=rng(0, "split"), test_share=0.0)
    assert (items.split == "train").all()


def test_every_digit_file_is_read_without_torch() -> None:
    import subprocess

    code = (
        "import sys, numpy, annorun.dataset.digits as d; assert 'sklearn' not in sys.modules;"
        "d.digits(rng=numpy.random.default_rng(0)); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_larger_images_are_those_of_torch_and_the_same_digits() -> None:
    """An independent bilinear interpolation, torch's, which also has pixels' centres at halves."""
    import torch

    small, large = (digits(rng=rng(0, "split"), size=size)[0] for size in (8, 28))
    assert large.inputs["x"].shape == (1797, 1, 28, 28) and large.inputs["x"].dtype == np.float32
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(small.inputs["x"]), size=(28, 28), mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(large.inputs["x"], expected.numpy(), atol=1e-6)
    np.testing.assert_array_equal(small.truth, large.truth)
    assert (small.split == large.split).all()
    with pytest.raises(ConfigError, match=r"dataset.size=7: allowed is 8"):
        digits(rng=rng(0, "split"), size=7)


def test_eight_pixels_are_as_they_always_were() -> None:
    from sklearn.datasets import load_digits

    plain = (load_digits().images / 16).astype(np.float32)[:, None]
    for items in (digits(rng=rng(0, "split"))[0], digits(rng=rng(0, "split"), size=8)[0]):
        np.testing.assert_array_equal(items.inputs["x"], plain)


def test_interpolation_by_hand() -> None:
    """2 -> 4: centres at -1/4, 1/4, 3/4, 5/4 of a pixel; the outer two take the nearest."""
    row = np.array([[0, 8], [0, 8]], dtype=np.float32)
    np.testing.assert_array_equal(bilinear(row, 4), [[0, 2, 6, 8]] * 4)
    np.testing.assert_array_equal(bilinear(row.T, 4), np.transpose([[0, 2, 6, 8]] * 4))
