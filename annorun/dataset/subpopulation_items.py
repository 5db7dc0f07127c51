"""Generated items on which subpopulations differ; no inputs, the votes are simulated.

The generator of NUTMEG's synthetic experiments (J. Ivey, S. Gauch, D. Jurgens, EMNLP 2025; its
code's synthetic_data_generator.py): an item is divisive with probability `divisiveness`, and then
each group has a label of its own, drawn without replacement where there are labels enough, else
with; every other item has one label for all, uniform.
"""

import numpy as np

from annorun.errors import ConfigError
from annorun.kinds import Count, Probability
from annorun.votes import Items


def subpopulation_items(
    *,
    rng: np.random.Generator,
    n_items: Count = 500,
    n_classes: Count = 2,
    n_groups: Count = 2,
    divisiveness: Probability = 0.2,
) -> tuple[Items, None]:
    """Return items with one truth a group, (n_items, n_groups); all are train.

    Args:
        rng: draws the truths.
        n_items: number of items.
        n_classes: L labels, 2 or more.
        n_groups: K groups.
        divisiveness: share of the items, expected, whose groups have labels of their own; with more
            groups than labels these can still be alike.

    Raises:
        ConfigError: there is only one class.
    """
    if n_classes < 2:
        raise ConfigError(f"dataset.n_classes={n_classes}: allowed is 2 or more")
    if n_groups <= n_classes:
        own = rng.permuted(np.tile(np.arange(n_classes), (n_items, 1)), axis=1)[:, :n_groups]
    else:
        own = rng.integers(n_classes, size=(n_items, n_groups))
    one = np.repeat(rng.integers(n_classes, size=(n_items, 1)), n_groups, axis=1)
    divisive = rng.random((n_items, 1)) < divisiveness
    items = Items(
        kind="votes",
        inputs={},
        split=np.full(n_items, "train"),
        n_classes=n_classes,
        truth=np.where(divisive, own, one),
    )
    return items, None
