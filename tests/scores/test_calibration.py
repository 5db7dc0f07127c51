"""Negative log likelihood, Brier score and calibration error, by hand and by their limits."""

import math

import numpy as np
import pytest

from annorun.scores.calibration import brier, ece, nll

sklearn_metrics = pytest.importorskip("sklearn.metrics")
PROBS = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
TRUTH = np.array([1, 1, -1])


def test_nll_by_hand():
    assert nll(PROBS, TRUTH) == pytest.approx((math.log(4) - math.log(0.8)) / 2)


def test_nll_of_what_was_called_impossible_has_a_floor():
    assert nll(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(12 * math.log(10))


def test_brier_by_hand():
    """Item 0: .5^2 + .75^2 + .25^2 = .875; item 1: .1^2 + .2^2 + .1^2 = .06."""
    assert brier(PROBS, TRUTH) == pytest.approx((0.875 + 0.06) / 2)
    assert brier(np.array([[1.0, 0.0]]), np.array([1])) == 2


def test_brier_and_nll_equal_scikit_learn():
    rng = np.random.default_rng(0)
    probs, truth = rng.dirichlet(np.ones(4), size=50), rng.integers(4, size=50)
    expected = sklearn_metrics.log_loss(truth, probs, labels=range(4))
    assert nll(probs, truth) == pytest.approx(expected, rel=1e-12)
    two = rng.random(50)
    single = sklearn_metrics.brier_score_loss(truth > 1, two)  # one class counted, ours both
    pair = np.stack([1 - two, two], axis=1)
    assert brier(pair, (truth > 1).astype(np.int64)) == pytest.approx(2 * single, rel=1e-12)


def test_scores_leave_their_input_alone():
    probs = PROBS.copy()
    brier(probs, TRUTH), nll(probs, TRUTH), ece(probs, TRUTH)
    assert (probs == PROBS).all()


def test_ece_by_hand():
    """Five bins of .2, sums over the items of each, 6 items.

    Bin (.4, .6]: confidences .5, .6 (on the edge), right once: |1 - 1.1| = .1. Bin (.6, .8]: .7,
    right: .3. Bin (.8, 1]: .9, .95, 1, right twice: |2 - 2.85| = .85. Together 1.25.
    """
    confidence = np.array([0.5, 0.6, 0.7, 0.9, 0.95, 1.0])
    rest = (1 - confidence) / 2
    probs = np.stack([confidence, rest, rest], axis=1)
    truth = np.array([0, 1, 0, 0, 2, 0])
    assert ece(probs, truth, n_bins=5) == pytest.approx(1.25 / 6)
    # one bin: only the means are compared, |4/6 - 4.65/6|
    assert ece(probs, truth, n_bins=1) == pytest.approx(0.65 / 6)
    assert ece(probs, np.where(truth == 0, -1, truth), n_bins=5) == pytest.approx(1.55 / 2)


def test_ece_a_confidence_on_an_edge_is_in_the_lower_bin():
    """Two bins: .5, right, and .75, wrong, lie in different ones; in the same, |1 - 1.25| / 2."""
    probs = np.array([[0.5, 0.25, 0.25], [0.75, 0.25, 0]])
    assert ece(probs, np.array([0, 1]), n_bins=2) == pytest.approx((0.5 + 0.75) / 2)


def test_ece_default_bins_are_fifteen():
    """.61 and .66 lie in (9/15, 10/15] and cancel; of 14 or 16 bins they would lie in two."""
    confidence = np.array([0.61, 0.66])
    probs = np.stack([confidence, 1 - confidence], axis=1)
    assert ece(probs, np.array([0, 1])) == pytest.approx((1.27 - 1) / 2)
    for other in (14, 16):
        assert ece(probs, np.array([0, 1]), n_bins=other) == pytest.approx((0.39 + 0.66) / 2)


def test_calibrated_predictions_have_next_to_no_error_and_overconfident_ones_have():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(3), size=100_000)
    truth = (rng.random((100_000, 1)) > probs.cumsum(axis=1)).sum(axis=1)
    # 15 bins, each off by about .4 / sqrt(items in the bin) weighted by its share
    assert ece(probs, truth) < 0.008
    sharp = probs**3 / (probs**3).sum(axis=1, keepdims=True)
    assert ece(sharp, truth) > 0.1
    assert nll(sharp, truth) > nll(probs, truth)
    assert brier(sharp, truth) > brier(probs, truth)


def test_ece_ties_count_as_drawn():
    assert ece(np.full((8, 4), 0.25), np.arange(8) % 4) == pytest.approx(0)


@pytest.mark.parametrize("score", [nll, brier, ece])
def test_nothing_known_is_nan(score):
    assert np.isnan(score(PROBS, np.array([-1, -1, -1])))


@pytest.mark.parametrize("score", [nll, brier, ece])
def test_items_of_unknown_truth_may_lie_anywhere(score):
    probs = np.random.default_rng(1).dirichlet(np.ones(3), size=9)
    truth = np.array([-1, 0, 2, -1, -1, 1, 0, -1, 2])
    known = truth >= 0
    assert score(probs, truth) == pytest.approx(score(probs[known], truth[known]), rel=1e-12)
    # not so with the truths of other items
    assert score(probs[: known.sum()], truth[known]) != pytest.approx(score(probs, truth), rel=1e-3)
