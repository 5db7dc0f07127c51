"""scikit-learn's handwritten digits: 1797 images of 8 x 8 pixels, 10 classes; embedded."""

import numpy as np

from annorun.dataset.images import bilinear
from annorun.errors import ConfigError
from annorun.kinds import Count, Share
from annorun.votes import Items

# pixels of an image, each way
SIDE = 8


def digits(
    *,
    rng: np.random.Generator,
    n_classes: Count = 10,
    test_share: Share = 0.3,
    size: Count = SIDE,
) -> tuple[Items, None]:
    """Read the digits, pixels scaled from 0..16 to [0, 1]; the votes are simulated.

    Args:
        rng: draws the test items, each as likely as any other (not stratified).
        n_classes: only the digits below it, 2 to 10.
        test_share: share of the items that is test.
        size: pixels each way; above 8, interpolated between the pixels' centres.

    Raises:
        ConfigError: n_classes or size is out of range.
    """
    if not 2 <= n_classes <= 10:
        raise ConfigError(f"dataset.n_classes={n_classes}: allowed is 2 to 10")
    if size < SIDE:
        raise ConfigError(f"dataset.size={size}: allowed is {SIDE}, as they are, or more")
    from sklearn.datasets import load_digits

    images, truth = load_digits(n_class=n_classes, return_X_y=True)
    n_items = len(truth)
    split = np.full(n_items, "train")
    split[rng.permutation(n_items)[: round(test_share * n_items)]] = "test"
    x = (images / 16).astype(np.float32).reshape(n_items, 1, SIDE, SIDE)
    items = Items(
        kind="image",
        inputs={"x": x if size == SIDE else bilinear(x, size)},
        split=split,
        n_classes=n_classes,
        truth=truth.astype(np.int64),
    )
    return items, None
