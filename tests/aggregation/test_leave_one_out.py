"""Leave-one-out agreement (`aggregation/agreement.py`): by hand, in loops, limits, symmetries."""

import doctest

import numpy as np
import pytest

from annorun import noise
from annorun.aggregation import agreement as module
from annorun.aggregation.agreement import agreement
from annorun.aggregation.majority import majority
from annorun.votes import Pool, Votes


def crowd(n_items=200, accuracy=(0.9, 0.7, 0.5, 0.8), share=0.6, n_classes=3):
    rng = np.random.default_rng(0)
    truth = rng.integers(n_classes, size=n_items)
    pool = Pool(np.array(accuracy))
    full = noise.uniform(truth=truth, pool=pool, n_classes=n_classes, rng=rng)
    keep = rng.random(len(full)) < share
    columns = (full.item[keep], full.annotator[keep], full.label[keep])
    return Votes(*columns, n_items, len(accuracy), n_classes)


def test_by_hand():
    """Item 0: 1 1 0 2 of four; item 1: annotators 0 and 1 differ; item 2: annotator 3 alone.

    Annotator 0: (1/3 + 0) / 2, likewise 1; 2 and 3: 0 of 3 others; 4 has voted alone, 5 not at all.
    """
    votes = Votes([0, 0, 0, 0, 1, 1, 2], [0, 1, 2, 3, 0, 1, 4], [1, 1, 0, 2, 0, 1, 1], 3, 6, 3)
    got = agreement(votes)
    np.testing.assert_allclose(got.accuracy, [1 / 6, 1 / 6, 0, 0, np.nan, np.nan])
    assert (got.probs == majority(votes).probs).all()
    assert got.converged and got.confusion is None


def test_equals_loops_over_pairs_of_votes():
    votes = crowd()
    dense = votes.dense()
    for a in range(4):
        shares = [
            np.mean([dense[i, a] == dense[i, b] for b in range(4) if b != a and dense[i, b] >= 0])
            for i in range(200)
            if dense[i, a] >= 0 and (np.delete(dense[i], a) >= 0).any()
        ]
        assert agreement(votes).accuracy[a] == pytest.approx(np.mean(shares), abs=1e-12)


def test_expected_agreement_of_independent_annotators():
    """Two of accuracies a, b, uniform errors over K: a b + (1 - a)(1 - b) / (K - 1) (se < .003)."""
    got = agreement(crowd(n_items=40_000, accuracy=(0.9, 0.7), share=1)).accuracy
    np.testing.assert_allclose(got, 0.63 + 0.03 / 2, atol=0.01)


def test_ones_own_vote_does_not_count():
    """One who always differs from two who agree has 0, and majority's own share of 1/3."""
    item, annotator = np.divmod(np.arange(30), 3)
    votes = Votes(item, annotator, (annotator == 2).astype(int), 10, 3, 2)
    np.testing.assert_allclose(agreement(votes).accuracy, [0.5, 0.5, 0])
    assert majority(votes).accuracy[2] == pytest.approx(1 / 3)


def test_symmetries():
    votes = crowd()
    base = agreement(votes).accuracy
    mix = np.random.default_rng(1).permutation(len(votes))
    shuffled = Votes(votes.item[mix], votes.annotator[mix], votes.label[mix], 200, 4, 3)
    assert (agreement(shuffled).accuracy == base).all()
    order, name = np.array([2, 0, 3, 1]), np.array([1, 2, 0])
    moved = Votes(votes.item, order[votes.annotator], name[votes.label], 200, 4, 3)
    np.testing.assert_allclose(agreement(moved).accuracy[order], base, atol=1e-12)


def test_nothing_voted():
    got = agreement(Votes([], [], [], 2, 3, 4))
    assert got.probs == pytest.approx(np.full((2, 4), 0.25)) and np.isnan(got.accuracy).all()


def test_several_labels_by_hand():
    """Item 0: {0, 1}, {0}, {0, 1, 2}; item 1: annotator 0 alone.

    0 and 1 differ in label 1, 0 and 2 in label 2, 1 and 2 in both: of three labels 2/3, 2/3, 1/3.
    """
    triplets = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 2, 0), (0, 2, 1), (0, 2, 2), (1, 0, 2)]
    votes = Votes(*np.array(triplets).T, 2, 4, 3, multi_label=True)
    found = agreement(votes)
    np.testing.assert_allclose(found.accuracy, [2 / 3, 1 / 2, 1 / 2, np.nan])
    assert (found.probs == majority(votes).probs).all()


def test_one_label_each_as_several_labels():
    """Of two annotators: equal labels agree in all 3, other labels in 1 of 3."""
    one = crowd(accuracy=(0.9, 0.6), share=1)
    several = Votes(one.item, one.annotator, one.label, 200, 2, 3, multi_label=True)
    single = agreement(one).accuracy
    np.testing.assert_allclose(agreement(several).accuracy, single + (1 - single) / 3)


def test_docstring_example():
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0
