"""Weights of heads: by hand, at their limits, and as the greatest posterior there is."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax

from annorun.aggregation.head_weights import head_weights


def test_by_hand() -> None:
    """Head 0 alone thought both labels possible: (1 + 2) / 4; one label between two equal heads."""
    assert head_weights(np.array([[1.0, 0.0], [1.0, 0.0]])) == pytest.approx([0.75, 0.25])
    assert head_weights(np.array([[0.3, 0.3]])) == pytest.approx([0.5, 0.5])


def test_limits() -> None:
    assert head_weights(np.empty((0, 4))).tolist() == [0.25] * 4
    assert head_weights(np.zeros((3, 2))).tolist() == [0.5, 0.5]
    sure = np.tile([0.9, 0.1, 0.1], (5000, 1))
    sure[:500] = [0.1, 0.9, 0.1]
    weights = head_weights(sure)
    assert weights.sum() == pytest.approx(1)
    # of w_0 .9 + (1 - w_0) .1 over nine tenths of the labels: w_0 = 1, less the prior's 2
    assert weights[0] > 0.99 and weights[1] == pytest.approx(weights[2], abs=0.02)


def test_it_is_the_greatest_posterior() -> None:
    said = np.random.default_rng(0).dirichlet(np.ones(4), size=12)

    def cost(free: np.ndarray) -> float:
        w = softmax(free)
        return -np.log(said @ w).sum() - np.log(w).sum()

    best = softmax(minimize(cost, np.zeros(4)).x)
    np.testing.assert_allclose(head_weights(said), best, atol=1e-5)


def test_permuted_heads_and_labels() -> None:
    rng = np.random.default_rng(1)
    said = rng.random((7, 3))
    heads = [2, 0, 1]
    np.testing.assert_allclose(head_weights(said[::-1][:, heads]), head_weights(said)[heads])
