"""Accuracy and macro-F1, by hand and against scikit-learn."""

import numpy as np
import pytest

from annorun.scores.hard import accuracy, macro_f1
from annorun.votes import hard_labels

sklearn_metrics = pytest.importorskip("sklearn.metrics")


def test_accuracy_by_hand_with_ties_and_unknown_truth():
    """Right, wrong, ties with the truth (1/2, 1/3) and without it (0), and one of unknown truth."""
    probs = np.array(
        [[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.4, 0.4, 0.2], [1 / 3] * 3, [0.4, 0.4, 0.2], [1, 0, 0]]
    )
    truth = np.array([0, 1, 1, 2, 2, -1])
    assert accuracy(probs, truth) == pytest.approx((1 + 1 / 2 + 1 / 3) / 5)


def test_a_tie_counts_what_drawing_it_gives_on_average():
    probs = np.array([[0.5, 0.5, 0.0], [0.2, 0.4, 0.4], [0.1, 0.2, 0.7]])
    truth = np.array([1, 1, 2])
    drawn = [
        (hard_labels(probs, rng=np.random.default_rng(seed)) == truth).mean()
        for seed in range(4000)
    ]
    # an item's draw has a standard deviation of 1/2: .5 * sqrt(2) / 3 for the mean of this row
    assert accuracy(probs, truth) == pytest.approx(np.mean(drawn), abs=5 * 0.24 / np.sqrt(4000))


def test_nothing_known_is_nan():
    assert np.isnan(accuracy(np.full((2, 3), 1 / 3), np.array([-1, -1])))
    assert np.isnan(macro_f1(np.array([0, 1]), np.array([-1, -1]), 3))


def test_macro_f1_by_hand():
    """Class 0: TP 2, FP 1 -> 4/5; class 1: TP 1, FN 1 -> 2/3; class 2 absent, then only predicted.

    Class 3 is absent both times.
    """
    predicted, truth = np.array([0, 0, 0, 1, 2, 0]), np.array([0, 0, 1, 1, -1, -1])
    assert macro_f1(predicted, truth, 4) == pytest.approx((4 / 5 + 2 / 3) / 2)
    truth = np.array([0, 0, 1, 1, 1, -1])
    # class 1 misses a second one: 2 * 1 / (2 * 1 + 0 + 2) = 1/2
    assert macro_f1(predicted, truth, 4) == pytest.approx((4 / 5 + 1 / 2 + 0) / 3)


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_equals_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    truth = rng.choice(6, size=40, p=[0.5, 0.2, 0.2, 0.1, 0, 0])
    predicted = np.where(rng.random(40) < 0.6, truth, rng.choice([0, 1, 4], size=40))
    expected = sklearn_metrics.f1_score(truth, predicted, average="macro", zero_division=0)
    assert macro_f1(predicted, truth, 6) == pytest.approx(expected, abs=1e-14)


def test_macro_f1_is_not_accuracy_where_classes_are_rare():
    truth = np.array([0] * 99 + [1])
    assert macro_f1(np.zeros(100, dtype=np.int64), truth, 2) == pytest.approx(99 / 199)


def test_items_of_unknown_truth_may_lie_anywhere():
    """Known are 1, 3 and 4 of six: predicted 1, 0, 2 against 1, 2, 2."""
    probs = np.array([[9, 0, 0], [1, 8, 1], [0, 9, 0], [7, 2, 1], [2, 2, 6], [0, 0, 9]]) / 10
    truth = np.array([-1, 1, -1, 2, 2, -1])
    assert accuracy(probs, truth) == pytest.approx(2 / 3)
    # class 0: only predicted; 1: right; 2: TP 1, FN 1
    assert macro_f1(probs.argmax(axis=1), truth, 3) == pytest.approx((0 + 1 + 2 / 3) / 3)
