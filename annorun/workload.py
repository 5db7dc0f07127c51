"""Who labels what, where each item has so many annotators and each annotator so much work."""

import numpy as np

from annorun.errors import ConfigError
from annorun.votes import Ints


def assign(
    n_items: int, n_annotators: int, per_item: int, most_items: int, *, rng: np.random.Generator
) -> Ints:  # (n_items, per_item)
    """Draw different annotators for each item, uniform over those with work left.

    In rounds: every open place asks for a random annotator who has work left, and gets him unless
    he is in the item already or has been asked for once too often. Where the last open places find
    nobody new, they trade with random filled ones; the released code stops with an error there.

    Raises:
        ConfigError: the annotators are too few.
    """
    if per_item > n_annotators or n_items * per_item > n_annotators * most_items:
        raise ConfigError(
            f"noise: {n_items} items with {per_item} annotators each are too much for "
            f"{n_annotators} annotators with at most {most_items} items each"
        )
    place = np.full((n_items, per_item), -1)
    left = np.full(n_annotators, most_items)
    while len(open_places := np.flatnonzero(place.ravel() < 0)):
        free = np.flatnonzero(left)
        asked = rng.permutation(open_places)
        wish = free[rng.integers(len(free), size=len(asked))]
        # the n-th who asks for an annotator gets him if he has work for n
        order = np.argsort(wish, kind="stable")
        first = np.searchsorted(wish[order], wish[order])
        rank = np.empty(len(wish), dtype=np.int64)
        rank[order] = np.arange(len(wish)) - first
        item = asked // per_item
        new = (place[item] != wish[:, None]).all(axis=1)
        # of two places of one item that ask for the same annotator, one waits
        _, one = np.unique(item * n_annotators + wish, return_index=True)
        alone = np.zeros(len(asked), dtype=np.bool_)
        alone[one] = True
        granted = new & alone & (rank < left[wish])
        place.ravel()[asked[granted]] = wish[granted]
        np.subtract.at(left, wish[granted], 1)
        if not granted.any():
            stuck = rng.integers(n_items * per_item, size=len(open_places))
            stuck = stuck[place.ravel()[stuck] >= 0]
            np.add.at(left, place.ravel()[np.unique(stuck)], 1)
            place.ravel()[stuck] = -1
    return place
