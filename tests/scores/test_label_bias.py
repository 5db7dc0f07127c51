"""Marginals and their spread by hand; chance is found as chance, and a lean as a lean."""

import numpy as np
import pytest

from annorun.scores.label_bias import label_bias
from annorun.votes import Votes


def dense(labels: np.ndarray, n_classes: int) -> Votes:
    """Return the votes of a table (n_items, n_annotators), -1 for none."""
    item, annotator = np.nonzero(labels >= 0)
    return Votes(item, annotator, labels[item, annotator], *labels.shape, n_classes)


def test_by_hand() -> None:
    """Marginals (1, 0) and (1/2, 1/2), mean (3/4, 1/4).

    JSD of (1, 0) to the mean, m = (7/8, 1/8): (ln 8/7 + 3/4 ln 6/7 + 1/4 ln 2) / 2; of the other,
    m = (5/8, 3/8): (1/2 ln 4/5 + 1/2 ln 4/3 + 3/4 ln 6/5 + 1/4 ln 2/3) / 2.
    """
    votes = dense(np.array([[0, 0], [0, 1], [0, -1]]), 2)
    found = label_bias(votes, rng=np.random.default_rng(0))
    assert found.marginals.tolist() == [[1, 0], [0.5, 0.5]]
    ln = np.log
    first = (ln(8 / 7) + 0.75 * ln(6 / 7) + 0.25 * ln(2)) / 2
    second = (0.5 * ln(4 / 5) + 0.5 * ln(4 / 3) + 0.75 * ln(6 / 5) + 0.25 * ln(2 / 3)) / 2
    assert found.bias == pytest.approx((first + second) / 2)


def test_voters_alike_are_found_by_chance_alone() -> None:
    p = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        # items differ in what most say, voters do not
        likely = rng.dirichlet(np.ones(3) / 2, 60)
        labels = np.array([rng.choice(3, 5, p=row) for row in likely])
        p.append(label_bias(dense(labels, 3), rng=rng).p)
    assert 0.25 < np.mean(p) < 0.75
    assert np.mean(np.array(p) < 0.1) < 0.35


def test_a_voter_who_leans_is_found() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, size=(60, 4))
    labels[:45, 0] = 2
    found = label_bias(dense(labels, 3), rng=rng)
    assert found.p == pytest.approx(1 / 1000)


def test_equal_voters_and_single_ones() -> None:
    same = np.repeat(np.array([[0], [1], [1]]), 3, axis=1)
    found = label_bias(dense(same, 2), rng=np.random.default_rng(0))
    assert found.bias == pytest.approx(0, abs=1e-12) and found.p == 1
    alone = label_bias(dense(same[:, :1], 2), rng=np.random.default_rng(0))
    assert alone.bias == pytest.approx(0, abs=1e-12) and alone.p == 1
    nobody = label_bias(dense(-np.ones((2, 2)), 2), rng=np.random.default_rng(0))
    assert np.isnan(nobody.bias) and np.isnan(nobody.p)
