"""Groups without a vote: by hand, by enumeration, and the released code's slip."""

import tracemalloc
from itertools import product

import numpy as np
import pytest

from annorun.aggregation import imputation
from annorun.aggregation.imputation import FILL, conditional, frequency, naive_bayes, none, released
from annorun.errors import ConfigError


def room(seed=0, n_items=9, n_groups=3, n_classes=4):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(n_classes, 0.5), size=(n_items, n_groups))
    voted = rng.random((n_items, n_groups)) < 0.6
    voted[0], voted[1], voted[2] = True, False, [True] + [False] * (n_groups - 1)
    return probs, voted


@pytest.fixture
def by_hand():
    """Two groups, two labels: 0 and 1 say the same on items 0 and 1; 1 is absent on 2 and 3."""
    first = [[1, 0], [0, 1], [1, 0], [1 / 2, 1 / 2]]
    second = [[1, 0], [0, 1], [1 / 2, 1 / 2], [1 / 2, 1 / 2]]
    voted = np.array([[True, True], [True, True], [True, False], [True, False]])
    return np.stack([first, second], axis=1).astype(float), voted


def test_conditional_by_hand(by_hand):
    """Both counts are the identity; 1/2 in each cell makes 3/2 and 1/2 of 2."""
    got = conditional(*by_hand)
    for one, other in ((0, 1), (1, 0)):
        np.testing.assert_allclose(got[one, other], [[3 / 4, 1 / 4], [1 / 4, 3 / 4]], atol=1e-15)


def test_a_conditional_is_of_the_row_given_the_column():
    """Item 0: T_0 = 0, T_1 = 1, three times; item 3: both 0. Columns of (0, 1): given T_1.

    Counts with 1/2: row T_0 = 0 has (3/2, 7/2), row 1 (1/2, 1/2).
    """
    probs = np.tile(np.eye(2), (4, 1, 1))
    probs[3, 1] = [1, 0]
    got = conditional(probs, np.ones((4, 2), bool))
    expected = [[3 / 4, 7 / 8], [1 / 4, 1 / 8]]
    np.testing.assert_allclose(got[0, 1], expected, atol=1e-15)
    np.testing.assert_allclose(got[1, 0], [[3 / 10, 1 / 2], [7 / 10, 1 / 2]], atol=1e-15)


def test_naive_bayes_by_hand(by_hand):
    """pi_1 is even; item 2, T_0 = 0: q is (3/4, 1/4), T_1 differs with 1/4. Item 3: nothing known.

    There T_1 is asked for its label given T_0's: 1 - (1/2 * 3/4 + 1/2 * 3/4) = 1/4 again.
    """
    filled, disagreement = naive_bayes(*by_hand)
    np.testing.assert_allclose(filled[2:, 1], [[3 / 4, 1 / 4], [1 / 2, 1 / 2]], atol=1e-15)
    np.testing.assert_array_equal(filled[:, 0], by_hand[0][:, 0])
    np.testing.assert_array_equal(filled[:2], by_hand[0][:2])
    np.testing.assert_allclose(disagreement, [0, 0, 1 / 4, 1 / 4], atol=1e-15)


def slow(probs, voted):
    """The formulas by loops: tables of counts, then each absent pair, then all label vectors."""
    n_items, n_groups, n_classes = probs.shape
    labels = range(n_classes)

    def share(other, k, y, given):
        rows = [i for i in range(n_items) if voted[i, other] and voted[i, k]]
        count = [1 / n_classes + sum(probs[i, other, t] * probs[i, k, given] for i in rows)
                 for t in labels]  # fmt: skip
        return count[y] / sum(count)

    def believe(k, said):
        own = probs[voted[:, k], k]
        p = own.mean(axis=0).copy() if len(own) else np.full(n_classes, 1 / n_classes)
        for other, q in said:
            for t in labels:
                p[t] *= sum(q[y] * share(other, k, y, t) for y in labels)
        return p / p.sum()

    filled, agreed = probs.copy(), np.zeros(n_items)
    for i in range(n_items):
        here = [k for k in range(n_groups) if voted[i, k]]
        absent = [k for k in range(n_groups) if not voted[i, k]]
        for k in absent:
            filled[i, k] = believe(k, [(other, probs[i, other]) for other in here])
        for said in product(labels, repeat=len(here)):
            sure = [(k, np.eye(n_classes)[y]) for k, y in zip(here, said, strict=True)]
            p = np.prod([probs[i, k, y] for k, y in zip(here, said, strict=True)])
            rest = np.prod([believe(k, sure) for k in absent], axis=0) * np.ones(n_classes)
            for t in labels:
                agreed[i] += p * rest[t] * all(y == t for y in said)
    return filled, 1 - agreed


@pytest.mark.parametrize("block", [1, 20, imputation.BLOCK])
@pytest.mark.parametrize(("n_groups", "n_classes"), [(1, 3), (2, 2), (2, 4), (3, 3)])
def test_naive_bayes_equals_loops(n_groups, n_classes, block, monkeypatch):
    """However many items are worked on at once."""
    monkeypatch.setattr(imputation, "BLOCK", block)
    probs, voted = room(n_groups + n_classes, 8, n_groups, n_classes)
    filled, disagreement = naive_bayes(probs, voted)
    expected, differ = slow(probs, voted)
    np.testing.assert_allclose(filled, expected, atol=1e-12)
    np.testing.assert_allclose(disagreement, differ, atol=1e-12)


def test_naive_bayes_asks_for_little_more_than_its_answer(monkeypatch):
    """A table of classes^2 an item would be many times the answer."""
    monkeypatch.setattr(imputation, "BLOCK", 2**14)
    probs, voted = room(8, 4000, 3, 40)
    tracemalloc.start()
    naive_bayes(probs, voted)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # the tables are 120^2; the rest is some blocks
    assert peak < 1.6 * probs.nbytes


def test_tables_too_large_to_hold_are_refused():
    """(101 groups x 100 classes)^2 is just above 1e8."""
    with pytest.raises(ConfigError, match=r"102010000 .*imputation=none"):
        naive_bayes(np.full((1, 101, 100), 0.01), np.ones((1, 101), bool))


def test_no_items_are_none():
    filled, disagreement = naive_bayes(np.empty((0, 2, 3)), np.empty((0, 2), bool))
    assert filled.shape == (0, 2, 3) and disagreement.shape == (0,)


def test_columns_of_a_conditional_sum_to_one_and_are_bayes_consistent():
    """Counts of (a, b) are the transpose of those of (b, a); with itself, T_a is T_a."""
    probs, voted = room(1, 40)
    got = conditional(probs, voted)
    np.testing.assert_allclose(got.sum(axis=2), 1, atol=1e-14)
    sure = np.eye(4)[np.arange(3000) % 4][:, None].repeat(2, axis=1)
    got = conditional(sure, np.ones((3000, 2), bool))
    np.testing.assert_allclose(got[0, 1], np.eye(4), atol=2e-3)


def test_two_groups_absent_hear_the_third_and_not_each_other():
    probs, voted = room(2, 30)
    filled, _ = naive_bayes(probs, voted)
    alone = np.flatnonzero(voted[:, 0] & ~voted[:, 1] & ~voted[:, 2])
    assert len(alone)
    pair, _ = naive_bayes(probs[:, :2], voted[:, :2])
    np.testing.assert_allclose(filled[alone, 1], pair[alone, 1], atol=1e-14)


def test_an_item_without_any_vote_has_each_groups_frequency():
    probs, voted = room(3)
    filled, _ = naive_bayes(probs, voted)
    own = [probs[voted[:, k], k].mean(axis=0) for k in range(3)]
    np.testing.assert_allclose(filled[1], own, atol=1e-14)
    np.testing.assert_allclose(frequency(probs, voted), own, atol=1e-14)


def test_a_group_without_any_vote_says_nothing():
    """Its conditional tables are flat: it moves no other group, and is even itself."""
    probs, voted = room(4)
    voted[:, 2] = False
    filled, _ = naive_bayes(probs, voted)
    pair, _ = naive_bayes(probs[:, :2], voted[:, :2])
    np.testing.assert_allclose(filled[:, :2], pair, atol=1e-14)
    np.testing.assert_allclose(filled[:, 2], 1 / 4, atol=1e-14)


def test_a_label_that_a_group_never_has_is_no_fault():
    probs = np.tile([1.0, 0.0], (3, 2, 1))
    voted = np.array([[True, True], [True, False], [False, False]])
    filled, disagreement = naive_bayes(probs, voted)
    np.testing.assert_array_equal(filled, probs)
    np.testing.assert_allclose(disagreement, 0, atol=1e-15)


def test_none_leaves_nan():
    probs, voted = room(5)
    kept, disagreement = none(probs, voted)
    np.testing.assert_array_equal(kept[voted], probs[voted])
    assert np.isnan(kept[~voted]).all()
    assert (np.isnan(disagreement) == ~voted.all(axis=1)).all()
    expected = 1 - (probs[0, 0] * probs[0, 1] * probs[0, 2]).sum()
    assert disagreement[0] == pytest.approx(expected, abs=1e-14)


def test_released_gives_the_first_label():
    probs, voted = room(6)
    filled, disagreement = released(probs, voted)
    np.testing.assert_array_equal(filled[voted], probs[voted])
    assert (filled[~voted] == [1, 0, 0, 0]).all()
    # item 2: group 0 alone has voted, the others have label 0
    assert disagreement[2] == pytest.approx(1 - probs[2, 0, 0], abs=1e-14)
    assert disagreement[1] == 0


@pytest.mark.parametrize("fill", FILL)
def test_nothing_is_filled_where_all_have_voted(fill):
    probs, voted = room(7)
    kept = probs.copy()
    filled, disagreement = FILL[fill](probs, np.ones_like(voted))
    np.testing.assert_array_equal(filled, probs)
    np.testing.assert_array_equal(kept, probs)
    assert ((disagreement > -1e-12) & (disagreement <= 1)).all()
