"""GLAD against derivations by hand, a slow reference, limits and planted values."""

import doctest
import math

import numpy as np
import pytest
from scipy.special import expit, log_expit

from annorun.aggregation import glad as module
from annorun.aggregation import one_coin
from annorun.aggregation.glad import Normal, Params, climb, curvature, e_step, glad, m_step, margin
from annorun.votes import Votes

STANDARD = Normal(1.0, 1.0)


def crowd(seed=0, n_items=60, n_annotators=7, n_classes=3, share=0.7):
    """Votes drawn from the model; abilities from below 0 to 2."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(n_classes, size=n_items)
    ability = np.linspace(-0.5, 2, n_annotators)
    log_ease = rng.normal(0.5, 0.8, size=n_items)
    item, annotator = np.nonzero(rng.random((n_items, n_annotators)) < share)
    right = rng.random(len(item)) < expit(ability[annotator] * np.exp(log_ease[item]))
    other = (truth[item] + rng.integers(1, n_classes, size=len(item))) % n_classes
    label = np.where(right, truth[item], other)
    votes = Votes(item, annotator, label, n_items, n_annotators, n_classes)
    return votes, truth, ability, log_ease


def free(votes):
    return np.full(votes.n_items, -1)


def objective(votes, params, mean, variance):
    """The log posterior less its constant, in loops and probabilities."""
    total = -((params.ability - mean) ** 2).sum() - ((params.log_ease - mean) ** 2).sum()
    total /= 2 * variance
    for i in np.unique(votes.item):
        joint = list(params.prior)
        for a, z in zip(
            votes.annotator[votes.item == i], votes.label[votes.item == i], strict=True
        ):
            right = 1 / (1 + math.exp(-params.ability[a] * math.exp(params.log_ease[i])))
            for k in range(votes.n_classes):
                joint[k] *= right if z == k else (1 - right) / (votes.n_classes - 1)
        total += math.log(sum(joint))
    return total


def test_e_step_by_hand():
    """Abilities log 3 and log 2 / 2, eases 1 and 2: chances 3/4, 9/10 and sqrt(2) : 1, 2/3.

    Item 1, ease 2, three classes, labels 0 and 2 of annotators 0 and 1: 9/10 * 1/6, 1/20 * 1/6,
    1/20 * 2/3, prior 1/2, 1/4, 1/4: 72, 2, 8 of 960. Item 0, ease 1, label 1 of annotator 0: 1/8,
    3/4, 1/8: with the prior 2, 6, 1 of 32.
    """
    votes = Votes([0, 1, 1], [0, 0, 1], [1, 0, 2], 2, 2, 3)
    prior = np.array([1 / 2, 1 / 4, 1 / 4])
    ability, log_ease = np.array([math.log(3), math.log(2) / 2]), np.array([0, math.log(2)])
    params = Params(prior, ability, log_ease)
    probs, log_likelihood = e_step(votes, params, free(votes))
    np.testing.assert_allclose(
        probs, [[2 / 9, 6 / 9, 1 / 9], [72 / 82, 2 / 82, 8 / 82]], atol=1e-14
    )
    assert log_likelihood == pytest.approx(math.log(9 / 32 * 82 / 960), abs=1e-13)


def test_equal_items_make_it_one_coin():
    votes, _, ability, _ = crowd()
    prior = np.array([0.5, 0.3, 0.2])
    probs, likelihood = e_step(votes, Params(prior, ability, np.full(60, 0.4)), free(votes))
    coins = one_coin.Params(prior, expit(ability * math.exp(0.4)))
    expected, expected_likelihood = one_coin.e_step(votes, coins, free(votes))
    np.testing.assert_allclose(probs, expected, atol=1e-12)
    assert likelihood == pytest.approx(expected_likelihood, rel=1e-12)


def test_the_bound_on_the_logistic_touches_and_lies_below():
    s, t = np.linspace(-9, 9, 181), np.array([-6.0, -0.3, 0.0, 1e-12, 2.7])
    assert curvature(np.array([0.0, 1e-9])) == pytest.approx([0.25, 0.25], abs=1e-12)
    for at, w in zip(t, curvature(t), strict=True):
        constant = log_expit(-at) + at / 2 + w * at**2 / 2
        below = log_expit(-s) - (-s / 2 - w * s**2 / 2 + constant)
        assert below.min() >= -1e-12


def test_abilities_by_hand():
    """s = 0 everywhere, so w = 1/4; annotator 0 is right with 1 and 3/4 on items of ease 1 and 2.

    (1/2 * 1 + 1/4 * 2 + m / v) / (1/4 * (1 + 4) + 1 / v) with m = 1, v = 2.
    """
    votes = Votes([0, 1], [0, 0], [0, 1], 2, 1, 2)
    params = Params(np.full(2, 0.5), np.zeros(1), np.array([0, math.log(2)]))
    got = m_step(votes, np.array([[1, 0], [0.25, 0.75]]), params, Normal(1, 2), free(votes))
    np.testing.assert_allclose(got.ability, [(1 / 2 + 1 / 2 + 1 / 2) / (5 / 4 + 1 / 2)], atol=1e-14)
    np.testing.assert_allclose(got.prior, [5 / 8, 3 / 8], atol=1e-15)


def test_climb_finds_the_top_and_never_falls():
    rng = np.random.default_rng(0)
    linear, quadratic = rng.normal(0, 30, 400), rng.exponential(20, 400)
    b = rng.normal(1, 3, 400)

    def value(b):
        return linear * np.exp(b) - quadratic * np.exp(2 * b) / 2 - (b - 1) ** 2 / 2

    for _ in range(200):
        better = climb(b, linear, quadratic, STANDARD)
        assert (value(better) >= value(b) - 1e-12 * np.abs(value(b))).all()
        b = better
    assert (value(b) >= np.maximum(value(b - 1e-3), value(b + 1e-3))).all()


@pytest.mark.parametrize("seed", range(5))
def test_no_m_step_lowers_the_expected_log_posterior(seed):
    """From parameters and posteriors that have nothing to do with each other."""
    votes, _, _, _ = crowd(seed)
    rng = np.random.default_rng(seed)
    params = Params(np.full(3, 1 / 3), rng.normal(0, 3, 7), rng.normal(0, 2, 60))
    probs = rng.dirichlet(np.full(3, 0.3), size=60)
    right = probs[votes.item, votes.label]

    def expected(params):
        s = margin(votes, params)
        fit = (right * log_expit(s) + (1 - right) * log_expit(-s)).sum()
        return fit - (((params.ability - 1) ** 2).sum() + ((params.log_ease - 1) ** 2).sum()) / 2

    after = m_step(votes, probs, params, STANDARD, free(votes))
    alone = params._replace(ability=after.ability)
    assert expected(after) > expected(alone) > expected(params)


def test_the_trace_is_the_log_posterior_and_ends_at_a_top():
    votes, _, _, _ = crowd()
    known = free(votes)
    probs = np.eye(3)[votes.label[np.searchsorted(votes.item, np.arange(60))]]
    params = Params(np.full(3, 1 / 3), np.ones(7), np.ones(60))
    for _ in range(3000):
        params = m_step(votes, probs, params, STANDARD, known)
        probs, likelihood = e_step(votes, params, known)
    best = objective(votes, params, 1.0, 1.0)
    assert best == pytest.approx(likelihood + module.log_density(params, STANDARD), abs=1e-9)
    for name, places in (("ability", range(7)), ("log_ease", range(0, 60, 7))):
        for at in places:
            for step in (-0.01, 0.01):
                moved = getattr(params, name).copy()
                moved[at] += step
                assert objective(votes, params._replace(**{name: moved}), 1.0, 1.0) < best
    got = glad(votes, tol=1e-13, max_iter=5000)
    assert got.trace[-1] >= best - 1e-4


def test_a_tight_prior_fixes_the_parameters():
    """alpha = b = m: everybody is right with sigmoid(m e^m)."""
    votes, _, _, _ = crowd()
    got = glad(votes, mean=0.5, variance=1e-12)
    np.testing.assert_allclose(got.accuracy, expit(0.5 * math.exp(0.5)), atol=1e-6)


def test_planted_abilities_and_eases_are_found_and_an_adversary_is_turned():
    votes, truth, ability, log_ease = crowd(n_items=3000, n_annotators=15, share=0.9)
    got = glad(votes, tol=1e-8, max_iter=1000)
    known = glad(votes, known=truth)
    planted = expit(ability[:, None] * np.exp(log_ease)).mean(axis=1)
    np.testing.assert_allclose(got.accuracy, planted, atol=0.04)
    np.testing.assert_allclose(known.accuracy, planted, atol=0.04)
    assert got.accuracy[0] < 0.4
    right = got.probs.argmax(axis=1) == truth
    easy = log_ease > np.median(log_ease)
    assert right[easy].mean() > right[~easy].mean() + 0.02
    assert right.mean() > 0.9


def test_a_disputed_item_is_harder_than_an_agreed_one():
    """Item 0 has 5 votes against 4, items 1 to 9 have 8 against 1, the rest 9."""
    item, annotator = np.divmod(np.arange(40 * 9), 9)
    truth = np.arange(40) % 2
    wrong = (item == annotator + 1) | ((item == 0) & (annotator % 2 == 1))
    votes = Votes(item, annotator, np.where(wrong, 1 - truth[item], truth[item]), 40, 9, 2)
    params = Params(np.full(2, 0.5), np.ones(9), np.ones(40))
    probs = np.eye(2)[truth]
    for _ in range(50):
        params = m_step(votes, probs, params, STANDARD, free(votes))
    assert params.log_ease[0] < params.log_ease[1:10].max() < params.log_ease[10:].min()


@pytest.mark.parametrize("mean", [-math.inf, -1e308, -1000.0, 0.0, 50.0, 1000.0, 1e308, math.inf])
@pytest.mark.parametrize("variance", [5e-324, 1e-100, 1.0, 1e6, 1e308])
def test_extreme_keys_leave_the_posterior_finite(mean, variance):
    votes, _, _, _ = crowd()
    got = glad(votes, mean=mean, variance=variance)
    np.testing.assert_allclose(got.probs.sum(axis=1), 1, atol=1e-6)
    assert np.isfinite(got.probs).all() and np.isfinite(got.accuracy).all()
    assert np.isfinite(got.trace).all()


@pytest.mark.parametrize(("mean", "variance"), [(11.0, 1.0), (-11.0, 1.0), (1.0, 1e6)])
def test_no_iteration_lowers_the_objective_where_parameters_meet_their_limits(mean, variance):
    trace = np.array(glad(crowd()[0], mean=mean, variance=variance).trace)
    assert (np.diff(trace) > -1e-9 * np.abs(trace[1:])).all()


def test_docstring_example():
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0
