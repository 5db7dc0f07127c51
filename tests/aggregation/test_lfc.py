"""LFC against the paper's formulas by hand, Dawid-Skene with two classes, and its priors."""

import doctest
import math

import numpy as np
import pytest

from annorun.aggregation import lfc as module
from annorun.aggregation.dawid_skene import dawid_skene
from annorun.aggregation.lfc import Params, Priors, e_step, lfc, log_density, m_step
from annorun.errors import ConfigError
from annorun.votes import Votes

FLAT = Priors((1.0, 1.0), (1.0, 1.0), (1.0, 1.0))
NOBODY = np.full(4, -1)


def crowd(seed=0, n_items=150):
    """Sensitivities fall while specificities rise; 30 % positive; some votes are missing."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(n_items) < 0.3).astype(int)
    rates = np.array([[0.95, 0.9, 0.8, 0.7, 0.6], [0.6, 0.8, 0.7, 0.9, 0.95]])  # alpha, beta
    item, annotator = np.nonzero(rng.random((n_items, 5)) < 0.8)
    right = rng.random(len(item)) < rates[1 - truth[item], annotator]
    label = np.where(right, truth[item], 1 - truth[item])
    return Votes(item, annotator, label, n_items, 5, 2), truth, rates


@pytest.fixture
def small():
    """Items 0 .. 3 got 1, 1, 0, - of annotator 0 and 1, 0, -, 1 of annotator 1."""
    return Votes([0, 1, 2, 0, 1, 3], [0, 0, 0, 1, 1, 1], [1, 1, 0, 1, 0, 1], 4, 2, 2)


MU = np.array([1 / 2, 1 / 4, 1 / 8, 3 / 4])


def test_m_step_by_hand(small):
    """The mu of annotator 0's items are 1/2, 1/4, 1/8, of annotator 1's 1/2, 1/4, 3/4.

    Sensitivity Beta(3, 2): (2 + 3/4) / (3 + 7/8), (2 + 5/4) / (3 + 3/2). Specificity Beta(2, 1):
    (1 + 7/8) / (1 + 17/8), (1 + 3/4) / (1 + 3/2). Prevalence Beta(1, 4): (13/8) / (3 + 4).
    """
    priors = Priors((3.0, 2.0), (2.0, 1.0), (1.0, 4.0))
    params = m_step(small, np.stack([1 - MU, MU], axis=1), priors, NOBODY)
    np.testing.assert_allclose(params.sensitivity, [2.75 / 3.875, 3.25 / 4.5], atol=1e-15)
    np.testing.assert_allclose(params.specificity, [1.875 / 3.125, 1.75 / 2.5], atol=1e-15)
    np.testing.assert_allclose(params.prevalence, [1.625 / 7], atol=1e-15)


def test_e_step_by_hand(small):
    """alpha = (3/4, 2/3), beta = (4/5, 1/2), p = 1/4.

    a = 3/4 2/3, 3/4 1/3, 1/4, 2/3 = 1/2, 1/4, 1/4, 2/3; b = 1/5 1/2, 1/5 1/2, 4/5, 1/2. a p = 1/8,
    1/16, 1/16, 1/6; b (1 - p) = 3/40, 3/40, 3/5, 3/8.
    """
    params = Params(np.array([3 / 4, 2 / 3]), np.array([4 / 5, 1 / 2]), np.array([1 / 4]))
    probs, log_likelihood = e_step(small, params, NOBODY)
    positive, negative = (
        np.array([1 / 8, 1 / 16, 1 / 16, 1 / 6]),
        np.array([3 / 40, 3 / 40, 3 / 5, 3 / 8]),
    )
    np.testing.assert_allclose(probs[:, 1], positive / (positive + negative), atol=1e-14)
    assert log_likelihood == pytest.approx(math.log(np.prod(positive + negative)), abs=1e-13)


def test_log_density_by_hand():
    """Beta(3, 2) at 1/2 and 1/4: 2 log x + log(1 - x), each; a flat prior adds 0 even at 1."""
    params = Params(np.array([1 / 2, 1 / 4]), np.array([1.0, 0.0]), np.array([1.0]))
    got = log_density(params, FLAT._replace(sensitivity=(3.0, 2.0)))
    assert got == pytest.approx(math.log(1 / 8) + math.log(1 / 16 * 3 / 4), abs=1e-14)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 2.0])
def test_symmetric_priors_make_it_dawid_skene(smoothing):
    votes, _, _ = crowd()
    beta = (1 + smoothing, 1 + smoothing)
    got = lfc(votes, sensitivity=beta, specificity=beta, prevalence=beta, max_iter=30, tol=1e-300)
    expected = dawid_skene(votes, smoothing=smoothing, max_iter=30, tol=1e-300)
    np.testing.assert_allclose(got.trace, expected.trace, rtol=1e-12)
    np.testing.assert_allclose(got.probs, expected.probs, atol=1e-10)
    np.testing.assert_allclose(got.confusion, expected.confusion, atol=1e-10)
    np.testing.assert_allclose(got.accuracy, expected.accuracy, atol=1e-10)


def test_the_answer_is_a_top_of_the_log_posterior():
    """Written out with loops over the annotators; moving any rate by .002 lowers it."""
    votes, _, _ = crowd()
    priors = Priors((4.0, 2.0), (3.0, 1.5), (2.0, 5.0))
    dense = votes.dense()

    def objective(alpha, beta, p):
        yes, no = np.log(np.full(150, p)), np.log(np.full(150, 1 - p))
        for a in range(5):
            z = dense[:, a]
            yes += np.where(z == 1, np.log(alpha[a]), np.where(z == 0, np.log(1 - alpha[a]), 0))
            no += np.where(z == 0, np.log(beta[a]), np.where(z == 1, np.log(1 - beta[a]), 0))
        value = np.logaddexp(yes, no).sum() + np.log(p) + 4 * np.log(1 - p)
        value += (3 * np.log(alpha) + np.log(1 - alpha)).sum()
        return value + (2 * np.log(beta) + 0.5 * np.log(1 - beta)).sum()

    got = lfc(votes, tol=1e-14, max_iter=5000, **priors._asdict())
    alpha, beta = got.confusion[:, 1, 1], got.confusion[:, 0, 0]
    p = (got.probs[np.unique(votes.item), 1].sum() + 1) / (len(np.unique(votes.item)) + 5)
    best = objective(alpha, beta, p)
    assert best == pytest.approx(got.trace[-1], abs=1e-6)
    for a in range(5):
        for step in (-0.002, 0.002):
            moved = np.where(np.arange(5) == a, step, 0)
            assert objective(alpha + moved, beta, p) < best
            assert objective(alpha, beta + moved, p) < best


def test_planted_rates_are_found():
    """From about .3 * .8 * 20,000 positive items: a standard error of .007 at most."""
    votes, _, rates = crowd(n_items=20_000)
    got = lfc(votes, tol=1e-9, max_iter=1000)
    np.testing.assert_allclose(got.confusion[:, 1, 1], rates[0], atol=0.035)
    np.testing.assert_allclose(got.confusion[:, 0, 0], rates[1], atol=0.035)


def test_a_strong_prior_wins_over_the_votes():
    votes, _, _ = crowd()
    got = lfc(votes, sensitivity=(8e8, 2e8), specificity=(6e8, 4e8))
    np.testing.assert_allclose(got.confusion[:, 1, 1], 0.8, atol=1e-4)
    np.testing.assert_allclose(got.confusion[:, 0, 0], 0.6, atol=1e-4)


def test_more_than_two_classes_and_priors_without_a_mode_are_refused(small):
    three = Votes(small.item, small.annotator, small.label, 4, 2, 3)
    with pytest.raises(ConfigError, match="two classes, the votes have 3"):
        lfc(three)
    with pytest.raises(ConfigError, match=r"specificity=.*1 or more"):
        lfc(small, specificity=(0.5, 1.0))


def test_docstring_example():
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0
