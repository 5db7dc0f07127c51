"""Characters to learn from, digits to be tested on: another hand, another pen, other classes."""

from typing import Literal

import numpy as np

from annorun.dataset.digits import digits
from annorun.dataset.omniglot import omniglot
from annorun.kinds import Count, Natural
from annorun.votes import Items


def omniglot_to_digits(
    *,
    rng: np.random.Generator,
    path: str,
    subset: Literal["background", "evaluation", "background_small1", "background_small2"],
    classes: tuple[Count, Natural, Count],
    size: Count,
) -> tuple[Items, None]:
    """Read Omniglot, its test characters replaced by scikit-learn's digits, ink 1 in both.

    Args:
        rng: draws the train and val characters, which are those of `omniglot`.
        path: see there.
        subset: see there.
        classes: see there; as many test characters are left out.
        size: pixels each way, 8 to 105.

    Raises:
        ConfigError: see there, or a size out of range.
    """
    source, _ = omniglot(rng=rng, path=path, subset=subset, classes=classes, size=size)
    target, _ = digits(rng=rng, test_share=0.0, size=size)
    assert source.truth is not None and target.truth is not None
    kept = source.split != "test"
    # the characters are numbered without those that are left out
    own, number = np.unique(source.truth[kept], return_inverse=True)
    n_source = len(own)
    names = [source.classes()[k] for k in own]
    items = Items(
        kind="image",
        inputs={"x": np.concatenate([source.inputs["x"][kept], target.inputs["x"]])},
        split=np.concatenate([source.split[kept], np.full(len(target), "test")]),
        n_classes=n_source + target.n_classes,
        truth=np.concatenate([number, target.truth + n_source]),
        class_names=[*names, *(f"digit {k}" for k in range(target.n_classes))],
    )
    return items, None
