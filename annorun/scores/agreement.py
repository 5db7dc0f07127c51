r"""How much the annotators agree with each other, beyond chance. No truth is asked for.

n_ik of the n_i votes of item i are for class k; only items with n_i >= 2 have a part.

alpha (K. Krippendorff: Computing Krippendorff's alpha-reliability, 2011, section C): coincidences
    o_ck = sum_i n_ic (n_ik - [c = k]) / (n_i - 1), n_c = sum_k o_ck, n = sum_c n_c, and with the
    squared difference delta_ck of two classes (nominal: [c != k])
        alpha = 1 - (n - 1) sum_ck o_ck delta_ck / sum_ck n_c n_k delta_ck.
Fleiss' kappa (J. L. Fleiss: Measuring nominal scale agreement among many raters. Psychological
    Bulletin 76(5), 1971, 378-382): (P - E) / (1 - E), P the mean over items of
    P_i = sum_k n_ik (n_ik - 1) / (n_i (n_i - 1)), E = sum_k p_k^2, p_k the mean over items of
    n_ik / n_i.
Cohen's kappa (J. Cohen: A coefficient of agreement for nominal scales. Educational and
    Psychological Measurement 20(1), 1960, 37-46): of two annotators on the items that both voted
    on, (P - E) / (1 - E), P the share of equal votes, E = sum_k r_k c_k of their class shares.

All are 1 for full agreement and 0 in expectation for votes by chance; NaN where nobody shares an
item, or where all say one thing (E = 1), so that chance agrees as well. The 95 % interval is the
percentile bootstrap over items, 1000 draws; NaN for fewer than two items.

Deviations from the papers:
    1. Fleiss has the same n_i everywhere; there this is his kappa. Elsewhere each item counts once,
       in P and in p_k, while alpha weighs it by its votes.
    2. Above 10,000 items the bootstrap draws from 10,000 random groups of items: as wide an
       interval but for about 1 %, and a cost that does not grow.
    3. The mean of Cohen's kappa is over pairs with 10 shared items or more, each weighted by their
       number; Light's (1971) is of all pairs alike. A kappa of few items is too low, of one item 0
       or none: with 10,000 synthetic votes, one shared item a pair, all pairs together give .14
       where alpha and the mean of a million votes are .24.
    4. The interval of that mean is the bootstrap of its linear part, theta + sum_i w_i u_i with u_i
       the influence of item i: resampling each pair's table would cost 1000 times the counting.

Example:
    >>> import numpy as np
    >>> counts = np.array([[3.0, 0.0], [0.0, 3.0], [2.0, 1.0], [0.0, 0.0]])
    >>> round(krippendorff_alpha(counts, rng=np.random.default_rng(0)).value, 4)
    0.6
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from annorun.votes import Bools, Floats, Ints, Votes

DRAWS = 1000
GROUPS = 10_000
# cells of groups drawn at once: 16 MB
CHUNK = 2_000_000
MIN_SHARED = 10
# pairs of votes times classes: about 1 GB
MOST_PAIRS = 30_000_000


class Agreement(NamedTuple):
    """A coefficient and its 95 % interval; NaN where undefined."""

    value: float
    low: float
    high: float


UNDEFINED = Agreement(np.nan, np.nan, np.nan)


def krippendorff_alpha(
    counts: Floats,  # (n_items, n_classes)
    *,
    rng: np.random.Generator,
    distance: Floats | None = None,  # (n_classes, n_classes)
) -> Agreement:
    """Return Krippendorff's alpha.

    Args:
        counts: votes of each item for each class.
        rng: draws the bootstrap.
        distance: the squared difference of two classes, (v_c - v_k)^2 for an interval scale; None:
            nominal, all classes differ alike.
    """
    counts = counts[counts.sum(axis=1) >= 2]
    n_votes = counts.sum(axis=1)
    differ = 1 - np.eye(counts.shape[1]) if distance is None else distance
    apart = np.einsum("ik,ik->i", counts @ differ, counts) / (n_votes - 1)

    def value(total: Floats) -> Floats:  # (..., 1 + n_classes) -> (...)
        observed, n_k = total[..., 0], total[..., 1:]
        expected = np.einsum("...k,...k->...", n_k @ differ, n_k)
        return 1 - _ratio((n_k.sum(axis=-1) - 1) * observed, expected)

    return _bootstrap(np.column_stack([apart, counts]), value, rng)


def fleiss_kappa(
    counts: Floats,  # (n_items, n_classes)
    *,
    rng: np.random.Generator,
) -> Agreement:
    """Return Fleiss' kappa, each item of two votes or more counting once."""
    counts = counts[counts.sum(axis=1) >= 2]
    n_votes = counts.sum(axis=1)
    equal = (counts * (counts - 1)).sum(axis=1) / (n_votes * (n_votes - 1))

    def value(total: Floats) -> Floats:  # (..., 2 + n_classes) -> (...)
        shares = total[..., 1:] / total[..., :1]
        chance = (shares[..., 1:] ** 2).sum(axis=-1)
        return _ratio(shares[..., 0] - chance, 1 - chance)

    ones = np.ones(len(counts))
    return _bootstrap(np.column_stack([ones, equal, counts / n_votes[:, None]]), value, rng)


def cohen_kappa(votes: Votes, one: int, other: int, *, rng: np.random.Generator) -> Agreement:
    """Return Cohen's kappa of two annotators, on the items that both voted on."""
    said = [votes.annotator == annotator for annotator in (one, other)]
    _, a, b = np.intersect1d(*(votes.item[mask] for mask in said), return_indices=True)
    cell = votes.label[said[0]][a] * votes.n_classes + votes.label[said[1]][b]
    table = np.bincount(cell, minlength=votes.n_classes**2)

    def value(tables: Ints) -> Floats:  # (..., n_classes^2) -> (...)
        square = tables.reshape(*tables.shape[:-1], votes.n_classes, votes.n_classes)
        n = square.sum(axis=(-1, -2))
        chance = (square.sum(axis=-1) * square.sum(axis=-2)).sum(axis=-1)
        return _ratio(n * np.trace(square, axis1=-2, axis2=-1) - chance, n**2 - chance)

    # items of one cell are alike: the bootstrap of the items is a multinomial of the cells
    draws = rng.multinomial(len(cell), table / max(len(cell), 1), size=DRAWS) if len(cell) else None
    return UNDEFINED if draws is None else _interval(float(value(table)), value(draws), len(cell))


def mean_cohen_kappa(votes: Votes, *, rng: np.random.Generator) -> Agreement:
    """Return the mean of Cohen's kappa over pairs of annotators, weighted by their shared items.

    Pairs with fewer than 10 shared items, or without a kappa, have no part. Undefined, too, beyond
    3e7 pairs of votes times classes.
    """
    n_votes = np.bincount(votes.item, minlength=votes.n_items)
    if (n_votes * (n_votes - 1) // 2).sum() * votes.n_classes > MOST_PAIRS:
        return UNDEFINED
    item, pair, a, b = _pairs(votes)
    n = np.bincount(pair).astype(np.float64)
    agreed = np.bincount(pair, weights=a == b)
    rows, columns = (
        np.bincount(pair * votes.n_classes + z, minlength=len(n) * votes.n_classes)
        .reshape(-1, votes.n_classes)
        .astype(np.float64)
        for z in (a, b)
    )
    chance = (rows * columns).sum(axis=1)
    room = np.where(n >= MIN_SHARED, n**2 - chance, 0)
    kappa = _ratio(n * agreed - chance, room)
    total = n[room > 0].sum()
    if not total:
        return UNDEFINED
    mean = float(np.nansum(n * kappa) / total)
    # a vote pair of weight w adds w to n, w [a = b] to agreed and, through both margins, to chance
    d_chance = columns[pair, a] + rows[pair, b]
    p_n, p_kappa = n[pair], kappa[pair]
    slope = agreed[pair] + p_n * (a == b) - 2 * p_n * p_kappa - d_chance * (1 - p_kappa)
    share = np.nan_to_num((p_kappa + p_n * _ratio(slope, room[pair]) - mean) / total)
    items, place = np.unique(item, return_inverse=True)
    influence = np.bincount(place, weights=share, minlength=len(items)).astype(np.float64)
    found = _bootstrap(influence[:, None], lambda t: np.clip(mean + t[..., 0], -1, 1), rng)
    return found._replace(value=mean)


def begins(votes: Votes) -> Bools:
    """Return where the votes of another annotator or on another item begin, (n_votes,)."""
    new = np.ones(len(votes), dtype=bool)
    # votes are sorted by item and annotator: a pair is new where either changes
    new[1:] = (np.diff(votes.item) != 0) | (np.diff(votes.annotator) != 0)
    return new


def by_label(votes: Votes) -> list[Votes]:
    """Return, for each label, a vote of 0 or 1 of whoever gave an item any label.

    Who gave an item no label has no vote on it: several labels an item (`multi_label`) hold none.
    """
    new = begins(votes)
    said = np.zeros((int(new.sum()), votes.n_classes), dtype=np.int64)
    said[np.cumsum(new) - 1, votes.label] = 1
    item, annotator = votes.item[new], votes.annotator[new]
    sizes = (votes.n_items, votes.n_annotators, 2)
    return [Votes(item, annotator, column, *sizes) for column in said.T]


def multi_select_kappa(votes: Votes, *, rng: np.random.Generator) -> tuple[Agreement, Floats]:
    """Return the mean over labels of `mean_cohen_kappa`, and that of each label, (n_classes,).

    Labels without a kappa (given by all, by nobody) have no part. The interval's ends are the means
    of the labels' ends: no narrower than that of the mean.
    """
    each = [mean_cohen_kappa(own, rng=rng) for own in by_label(votes)]
    known = np.array([a for a in each if not np.isnan(a.value)])
    mean = Agreement(*known.mean(axis=0).tolist()) if len(known) else UNDEFINED
    return mean, np.array([a.value for a in each])


def _pairs(votes: Votes) -> tuple[Ints, Ints, Ints, Ints]:
    """Return item, number of the pair of annotators and both labels of any two votes on an item."""
    first = np.arange(len(votes))
    left, right = [first[:0]], [first[:0]]
    # votes are sorted by item: those `step` apart on one item, for each step that there is
    for step in range(1, len(votes)):
        first = first[first + step < len(votes)]
        first = first[votes.item[first] == votes.item[first + step]]
        if not len(first):
            break
        left.append(first)
        right.append(first + step)
    i, j = np.concatenate(left), np.concatenate(right)
    code = votes.annotator[i] * votes.n_annotators + votes.annotator[j]
    return votes.item[i], np.unique(code, return_inverse=True)[1], votes.label[i], votes.label[j]


def _bootstrap(
    parts: Floats,  # (n_items, n_parts)
    value: Callable[[Floats], Floats],
    rng: np.random.Generator,
) -> Agreement:
    """Return `value` of the sum of the items' parts, and its interval over resampled items."""
    n_items = len(parts)
    if not n_items:
        return UNDEFINED
    if n_items > GROUPS:
        group = rng.permutation(n_items) % GROUPS
        summed = [np.bincount(group, weights=part, minlength=GROUPS) for part in parts.T]
        parts = np.column_stack(summed)
    size = len(parts)
    drawn = []
    per = max(CHUNK // size, 1)
    for start in range(0, DRAWS, per):
        n_draws = min(per, DRAWS - start)
        picked = rng.integers(size, size=(n_draws, size)) + size * np.arange(n_draws)[:, None]
        times = np.bincount(picked.ravel(), minlength=n_draws * size).reshape(n_draws, size)
        drawn.append(value(times.astype(np.float64) @ parts))
    return _interval(float(value(parts.sum(axis=0))), np.concatenate(drawn), n_items)


def _interval(value: float, drawn: Floats, n_items: int) -> Agreement:
    drawn = drawn[~np.isnan(drawn)]
    if n_items < 2 or np.isnan(value) or not len(drawn):
        return UNDEFINED._replace(value=value)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Agreement(value, float(low), float(high))


def _ratio(over: Floats, under: Floats) -> Floats:
    """Return the quotient, NaN where the divisor is 0 but for rounding."""
    over, under = np.asarray(over, dtype=np.float64), np.asarray(under, dtype=np.float64)
    result = np.full(over.shape, np.nan)
    np.divide(over, under, out=result, where=under > 1e-12)
    return result
