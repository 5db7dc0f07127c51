"""Characters to learn from, digits to be tested on."""

from pathlib import Path

import numpy as np
import pytest

from annorun.dataset.digits import digits
from annorun.dataset.omniglot import omniglot
from annorun.dataset.omniglot_to_digits import omniglot_to_digits
from annorun.errors import ConfigError
from annorun.seeds import rng


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return 12 characters of 4 drawings each, as arrays."""
    draw = np.random.default_rng(0)
    (tmp_path / "npz").mkdir()
    np.savez(
        tmp_path / "npz" / "images_background.npz",
        images=draw.random((12, 4, 105, 105)) < 0.9,
        labels=np.repeat(np.arange(12), 4).reshape(12, 4),
    )
    return tmp_path


def test_the_source_is_omniglots_and_the_target_all_digits(folder: Path) -> None:
    how = {"path": str(folder), "subset": "background", "classes": (6, 3, 3), "size": 28}
    both, _ = omniglot_to_digits(rng=rng(0, "dataset"), **how)  # type: ignore[arg-type]
    source, _ = omniglot(rng=rng(0, "dataset"), **how)  # type: ignore[arg-type]
    target, _ = digits(rng=rng(1, "any"), test_share=0.0, size=28)
    assert both.truth is not None and source.truth is not None and target.truth is not None
    for part, n_classes in (("train", 6), ("val", 3)):
        own, theirs = both.split == part, source.split == part
        np.testing.assert_array_equal(both.inputs["x"][own], source.inputs["x"][theirs])
        names = [both.classes()[k] for k in both.truth[own]]
        assert names == [source.classes()[k] for k in source.truth[theirs]]
        assert len(set(names)) == n_classes
    test = both.split == "test"
    np.testing.assert_array_equal(both.inputs["x"][test], target.inputs["x"])
    np.testing.assert_array_equal(both.truth[test], 9 + target.truth)
    assert both.n_classes == 19
    assert both.classes()[9:] == [f"digit {k}" for k in range(10)]
    assert not set(both.truth[test]) & set(both.truth[~test])


def test_digits_cannot_be_made_smaller(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.size=7: allowed is 8"):
        omniglot_to_digits(
            rng=rng(0, "dataset"),
            path=str(folder),
            subset="background",
            classes=(6, 3, 3),
            size=7,
        )
