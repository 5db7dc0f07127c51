"""BCC against derivations by hand, exact evidence by enumeration, and Dawid-Skene."""

import doctest
import itertools
import math

import numpy as np
import pytest

from annorun.aggregation import bcc as module
from annorun.aggregation.bcc import Params, bcc, divergence, e_step, expected_log, m_step, priors
from annorun.aggregation.dawid_skene import dawid_skene, incidence
from annorun.errors import ConfigError
from annorun.votes import Votes

PRIOR = np.array([0.5, 0.3, 0.2])
SKEWED = np.array([[0.7, 0.25, 0.05], [0.1, 0.6, 0.3], [0.35, 0.05, 0.6]])  # [true, observed]


def crowd(seed=0, n_items=200, n_annotators=6, share=0.7):
    """Annotators with skewed, different confusions; some votes are missing."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, size=n_items, p=PRIOR)
    mix = np.linspace(0.2, 1, n_annotators)[:, None, None]
    confusion = mix * SKEWED + (1 - mix) * np.eye(3)
    item, annotator = np.nonzero(rng.random((n_items, n_annotators)) < share)
    draw = rng.random(len(item))[:, None]
    label = (draw > confusion[annotator, truth[item]].cumsum(axis=1)).sum(axis=1)
    return Votes(item, annotator, label, n_items, n_annotators, 3), truth, confusion


@pytest.fixture
def small():
    """Four items, two annotators, two classes; annotator 1 has not labelled item 2."""
    return Votes([0, 0, 1, 1, 2, 3, 3], [0, 1, 0, 1, 0, 0, 1], [0, 1, 1, 1, 0, 0, 0], 4, 2, 2)


def log_dirichlet_multinomial(counts, prior):
    """Return the log probability of one sequence with these counts, the share integrated out."""
    value = math.lgamma(sum(prior)) - math.lgamma(sum(prior) + sum(counts))
    return value + sum(
        math.lgamma(c + a) - math.lgamma(a) for c, a in zip(counts, prior, strict=True)
    )


def log_joint(votes, truth, diagonal):
    """Return the exact log probability of the votes and a truth, all parameters integrated out."""
    value = log_dirichlet_multinomial([truth.count(0), truth.count(1)], [1, 1])
    for a in range(votes.n_annotators):
        for k in (0, 1):
            counts = [0, 0]
            for i, b, z in zip(votes.item, votes.annotator, votes.label, strict=True):
                if b == a and truth[i] == k:
                    counts[z] += 1
            prior = [diagonal if z == k else 1.0 for z in (0, 1)]
            value += log_dirichlet_multinomial(counts, prior)
    return value


def test_expected_log_and_divergence_by_hand():
    """digamma(5) - digamma(2) = 1/2 + 1/3 + 1/4.

    Dirichlet(2, 1) has the density 2 x over the uniform Dirichlet(1, 1), so the divergence is
    log 2 + E log x = log 2 + digamma(2) - digamma(3) = log 2 - 1/2.
    """
    np.testing.assert_allclose(expected_log(np.array([2.0, 3.0]))[0], -13 / 12, atol=1e-14)
    both = divergence(np.array([[2.0, 1.0], [1.0, 2.0]]), np.ones(2))
    assert both == pytest.approx(2 * (math.log(2) - 1 / 2), abs=1e-14)
    assert divergence(np.array([[3.0, 0.5]]), np.array([3.0, 0.5])) == pytest.approx(0, abs=1e-14)


def test_the_prior_leans_to_the_diagonal():
    """Four classes and belief .7: .7 / .3 * 3 = 7 on the diagonal, and 7 / (7 + 3) = .7."""
    prior = priors(4, 0.7)
    np.testing.assert_allclose(prior.confusion, np.ones((4, 4)) + 6 * np.eye(4), atol=1e-14)
    np.testing.assert_array_equal(prior.prior, np.ones(4))


def test_steps_by_hand():
    """One item, one annotator, label 0, q = (3/4, 1/4), uniform priors.

    h[0] = (1 + 3/4, 1), h[1] = (1 + 1/4, 1): q is then proportional to exp(digamma(1.75) -
    digamma(2.75)) exp(digamma(1.75) - digamma(3)) for class 0, 1.25 in place of 1.75 for class 1;
    digamma(x + 1) = digamma(x) + 1/x.
    """
    votes = Votes([0], [0], [0], 1, 1, 2)
    said, prior = incidence(votes), Params(np.ones(2), np.ones((2, 2)))
    params = m_step(said, np.array([[0.75, 0.25]]), prior, np.ones(1))
    np.testing.assert_allclose(params.confusion, [[[1.75, 1], [1.25, 1]]], atol=1e-15)
    np.testing.assert_allclose(params.prior, [1.75, 1.25], atol=1e-15)
    probs, _ = e_step(said, params, np.array([-1]), np.ones(1))
    # digamma(1.75) = 0.24747245355, digamma(1.25) = -0.22745353338
    odds = math.exp(-1 / 1.75 + 1 / 1.25 + 0.24747245355 + 0.22745353338)
    assert probs[0, 0] / probs[0, 1] == pytest.approx(odds, rel=1e-9)


def test_with_every_truth_known_the_bound_is_the_evidence(small):
    """Nothing is approximated then: Dirichlet posteriors are exact."""
    for truth in ([0, 1, 0, 1], [1, 1, 1, 1], [1, 0, 0, 0]):
        got = bcc(small, belief=0.75, known=np.array(truth))
        assert got.trace[-1] == pytest.approx(log_joint(small, truth, 3.0), abs=1e-12)


@pytest.mark.parametrize("belief", [0.5, 0.7, 0.95])
def test_the_bound_lies_below_the_evidence(small, belief):
    """All 16 truths; the gap is what the factorised posterior misses: 1.3 nats at worst."""
    diagonal = belief / (1 - belief)
    exact = np.logaddexp.reduce(
        [log_joint(small, list(truth), diagonal) for truth in itertools.product((0, 1), repeat=4)]
    )
    bound = bcc(small, belief=belief, tol=1e-12, max_iter=1000).trace[-1]
    assert exact - 1.4 < bound < exact


def test_no_other_posterior_of_an_item_has_a_higher_bound(small):
    """The bound written out, entropy and all, as a function of q; its gradient is 0 at the end."""
    prior, said = priors(2, 0.7), incidence(small)

    def bound(q):
        params = m_step(said, q, prior, np.ones(4))
        weight = expected_log(params.confusion)
        value = (q @ expected_log(params.prior)).sum() - (q * np.log(q)).sum()
        for i, a, z in zip(small.item, small.annotator, small.label, strict=True):
            value += q[i] @ weight[a, :, z]
        value -= divergence(params.prior, prior.prior)
        return value - divergence(params.confusion, prior.confusion)

    got = bcc(small, tol=1e-300, max_iter=2000)
    assert bound(got.probs) == pytest.approx(got.trace[-1], abs=1e-10)
    for i in range(4):
        for step in (-0.01, 0.01):
            moved = got.probs.copy()
            moved[i] += [step, -step]
            if moved.min() > 0:
                assert bound(moved) < got.trace[-1]


def test_many_votes_make_it_dawid_skene_and_find_the_planted_confusion():
    votes, truth, confusion = crowd(n_items=20_000, share=0.9)
    got, point = bcc(votes, tol=1e-8, max_iter=500), dawid_skene(votes, tol=1e-8, max_iter=500)
    assert np.abs(got.probs - point.probs).mean() < 0.003
    assert np.abs(got.confusion - confusion).max() < 0.04
    np.testing.assert_allclose(got.accuracy, np.einsum("k,akk->a", PRIOR, confusion), atol=0.02)
    assert (got.probs.argmax(axis=1) == truth).mean() > 0.9


def test_few_votes_an_annotator_are_less_sure_than_dawid_skene():
    """A hundred annotators of about four votes each, 85 % right: point estimates trust too much."""
    rng = np.random.default_rng(0)
    truth = rng.integers(2, size=100)
    item = np.repeat(np.arange(100), 4)
    annotator = (item * 7 + np.tile([0, 13, 37, 71], 100)) % 100
    label = np.where(rng.random(400) < 0.85, truth[item], 1 - truth[item])
    votes = Votes(item, annotator, label, 100, 100, 2)

    def nll(posterior):
        return -np.log(np.maximum(posterior.probs[np.arange(100), truth], 1e-12)).mean()

    assert nll(bcc(votes)) < nll(dawid_skene(votes)) - 0.1


@pytest.mark.parametrize("belief", [0.0, 1.0])
def test_a_belief_without_doubt_is_refused(small, belief):
    with pytest.raises(ConfigError, match="belief"):
        bcc(small, belief=belief)


def test_matrices_too_large_to_hold_are_refused():
    with pytest.raises(ConfigError, match=r"bcc: .* 1000000000 numbers"):
        bcc(Votes([0], [0], [0], 1, 100_000, 100))


def test_docstring_example():
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0
