"""MACE against a slow reference, stationary points, limits and symmetries."""

import doctest
import math
from functools import partial

import numpy as np
import pytest
from scipy.special import betaln, digamma, gammaln

from annorun.aggregation import mace as module
from annorun.aggregation import spam
from annorun.aggregation.mace import mace
from annorun.aggregation.restarts import iterate
from annorun.errors import ConfigError
from annorun.votes import Votes

both = pytest.mark.parametrize("inference", ["vb", "em"])


def run(votes, seed=0, **keys):
    return mace(votes, rng=np.random.default_rng(seed), **keys)


def crowd(seed=0, n_items=80, n_annotators=8, n_classes=3, share=0.5):
    """Annotators who know with .15 to .95, each with his own favourites when he does not."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(n_classes, size=n_items)
    theta = np.linspace(0.15, 0.95, n_annotators)
    xi = rng.dirichlet(np.ones(n_classes), size=n_annotators)
    item, annotator = np.nonzero(rng.random((n_items, n_annotators)) < share)
    guess = (rng.random(len(item))[:, None] > xi[annotator].cumsum(axis=1)).sum(axis=1)
    guess = np.minimum(guess, n_classes - 1)
    label = np.where(rng.random(len(item)) < theta[annotator], truth[item], guess)
    return Votes(item, annotator, label, n_items, n_annotators, n_classes), truth, theta, xi


def log_joint(votes, theta, sigma, xi):
    """Return log P(votes, T) of each item and label by a loop over the votes, even prior."""
    logs = np.full((votes.n_items, votes.n_classes), -math.log(votes.n_classes))
    for i, a, z in zip(votes.item, votes.annotator, votes.label, strict=True):
        for t in range(votes.n_classes):
            logs[i, t] += math.log(sigma[a] * xi[a, z] + theta[a] * (z == t))
    return logs


def reference(votes, start, n_iter, inference, added):
    """The paper's loop, votes one by one; nothing is shared with the code but the start."""
    alpha, beta, delta = added
    theta, sigma, xi = (np.array(table[..., 0]) for table in start)
    for _ in range(n_iter):
        logs = log_joint(votes, theta, sigma, xi)
        q = np.exp(logs - np.logaddexp.reduce(logs, axis=1)[:, None])
        knows, spams = np.zeros(len(theta)), np.zeros(len(theta))
        said = np.zeros_like(xi)
        for i, a, z in zip(votes.item, votes.annotator, votes.label, strict=True):
            r = q[i, z] * theta[a] / (theta[a] + sigma[a] * xi[a, z])
            knows[a] += r
            spams[a] += 1 - r
            said[a, z] += 1 - r
        competence = (knows + beta) / (knows + spams + alpha + beta)
        if inference == "em":
            theta, sigma = competence, 1 - competence
            xi = (said + delta) / (said + delta).sum(axis=1, keepdims=True)
        else:
            whole = digamma(knows + spams + alpha + beta)
            theta, sigma = (np.exp(digamma(c) - whole) for c in (knows + beta, spams + alpha))
            xi = np.exp(
                digamma(said + delta) - digamma(said.sum(axis=1) + xi.shape[1] * delta)[:, None]
            )
    logs = log_joint(votes, theta, sigma, xi)
    return np.exp(logs - np.logaddexp.reduce(logs, axis=1)[:, None]), competence


@both
@pytest.mark.parametrize("seed", range(2))
def test_equals_the_slow_reference(inference, seed):
    votes, *_ = crowd(seed, n_items=25)
    start = spam.start(8, 3, 0.5, np.random.default_rng(seed).spawn(1))
    added = (0.3, 0.6, 4.0) if inference == "vb" else (0.02, 0.02, 0.02)
    keys = {"alpha": 0.3, "beta": 0.6, "strategy": 4.0, "smoothing": 0.02}
    got = run(votes, seed, inference=inference, n_restarts=1, n_iter=7, **keys)
    probs, competence = reference(votes, start, 7, inference, added)
    np.testing.assert_allclose(got.probs, probs, atol=1e-10)
    np.testing.assert_allclose(got.competence, competence, atol=1e-10)


def test_smoothing_is_a_hundredth_of_a_label_if_not_given():
    votes, *_ = crowd()
    one = run(votes, inference="em", n_restarts=2)
    other = run(votes, inference="em", n_restarts=2, smoothing=0.01 / 3)
    assert one.trace == other.trace


def bound(votes, choice, strategy, prior):
    """The whole variational bound of any Beta (spam, know) and Dirichlet posteriors."""

    def logs(c):
        return np.exp(digamma(c) - digamma(c.sum(axis=1, keepdims=True)))

    sigma, theta = logs(choice).T
    evidence = np.logaddexp.reduce(log_joint(votes, theta, sigma, logs(strategy)), axis=1)
    voted = np.bincount(votes.item, minlength=votes.n_items) > 0
    value = evidence[voted].sum()
    for c, p in ((choice, np.array(prior[:2])), (strategy, np.full(votes.n_classes, prior[2]))):
        log_p = digamma(c) - digamma(c.sum(axis=1, keepdims=True))
        value -= ((c - p) * log_p).sum()
        value -= (gammaln(c.sum(axis=1)) - gammaln(c).sum(axis=1)).sum()
        value += len(c) * (gammaln(p.sum()) - gammaln(p).sum())
    return value


def test_the_end_of_vb_is_a_maximum_of_the_whole_bound():
    """The trace's last value is the bound at the posteriors; moving any of them lowers it."""
    votes, *_ = crowd(n_items=30, n_annotators=4)
    prior = (0.5, 0.7, 2.0)
    cells = spam.cells(votes.item, votes.annotator, votes.label, np.full((30, 3), 1 / 3), 4)
    _, improve = module.m_step(3, "vb", None, module.Prior(*prior))
    start = spam.start(4, 3, 0.5, [np.random.default_rng(0)])
    fit = iterate(partial(spam.e_step, cells), improve, start, 3000, None)
    known, spammed = fit.counts.known[..., 0], fit.counts.spammed[..., 0]
    choice = np.stack([spammed.sum(axis=1) + 0.5, known.sum(axis=1) + 0.7], axis=1)
    strategy = spammed + 2.0
    best = bound(votes, choice, strategy, prior)
    assert fit.trace[-1, 0] == pytest.approx(best, abs=1e-9)
    rng = np.random.default_rng(1)
    for table in (choice, strategy):
        for _ in range(6):
            moved = [c * np.exp(rng.normal(0, 0.01, c.shape)) if c is table else c
                     for c in (choice, strategy)]  # fmt: skip
            assert bound(votes, *moved, prior) < best


def test_the_end_of_em_is_a_maximum_of_the_log_posterior():
    """Beta(1 + e, 1 + e) and Dirichlet(1 + e) densities, normalised here, constant left out."""
    votes, *_ = crowd(n_items=30, n_annotators=4)
    e = 0.05
    cells = spam.cells(votes.item, votes.annotator, votes.label, np.full((30, 3), 1 / 3), 4)
    _, improve = module.m_step(3, "em", e, module.Prior(1, 1, 1))
    start = spam.start(4, 3, 0.5, [np.random.default_rng(0)])
    fit = iterate(partial(spam.e_step, cells), improve, start, 3000, None)
    theta, _, xi = (table[..., 0] for table in fit.tables)
    voted = np.bincount(votes.item, minlength=30) > 0

    def objective(theta, xi):
        logs = log_joint(votes, theta, 1 - theta, xi)[voted]
        beta = (e * (np.log(theta) + np.log1p(-theta)) - betaln(1 + e, 1 + e)).sum()
        dirichlet = e * np.log(xi).sum() + 4 * (gammaln(3 + 3 * e) - 3 * gammaln(1 + e))
        return np.logaddexp.reduce(logs, axis=1).sum() + beta + dirichlet

    best = objective(theta, xi)
    constant = 4 * (gammaln(3 + 3 * e) - 3 * gammaln(1 + e) - betaln(1 + e, 1 + e))
    assert fit.trace[-1, 0] == pytest.approx(best - constant, abs=1e-9)
    rng = np.random.default_rng(1)
    for _ in range(6):
        odds = theta / (1 - theta) * np.exp(rng.normal(0, 0.02, 4))
        assert objective(odds / (1 + odds), xi) < best
        moved = xi * np.exp(rng.normal(0, 0.02, xi.shape))
        assert objective(theta, moved / moved.sum(axis=1, keepdims=True)) < best


@both
@pytest.mark.parametrize("seed", range(10))
def test_the_objective_never_falls(inference, seed):
    n_classes, smoothing = 2 + seed % 4, 0.001 * 10 ** (seed % 3)
    votes, *_ = crowd(seed, n_classes=n_classes, n_annotators=5 + seed, share=0.2 + 0.06 * seed)
    keys = {"inference": inference, "n_restarts": 1, "n_iter": 100, "smoothing": smoothing}
    for more in ({}, {"alpha": 0.1, "beta": 3.0, "strategy": 0.3}):
        trace = np.array(run(votes, seed, **keys | more).trace)
        assert len(trace) == 100 and trace[-1] > trace[0] + 0.1
        assert np.diff(trace).min() >= -1e-12 * np.abs(trace).max()


@both
def test_what_was_planted_is_found(inference):
    """A theta from 3,000 votes has a standard error of about .01, an accuracy likewise."""
    votes, truth, theta, xi = crowd(1, 6000)
    got = run(votes, inference=inference, n_restarts=3, n_iter=200)
    np.testing.assert_allclose(got.competence, theta, atol=0.06)
    np.testing.assert_allclose(got.accuracy, theta + (1 - theta) * xi.mean(axis=1), atol=0.04)
    right = (truth[votes.item] == votes.label).astype(float)
    share = np.bincount(votes.annotator, right) / np.bincount(votes.annotator)
    np.testing.assert_allclose(got.accuracy, share, atol=0.04)
    assert (got.probs.argmax(axis=1) == truth).mean() > 0.9
    p, chosen = got.probs.max(axis=1), got.probs.argmax(axis=1) == truth
    assert p.mean() == pytest.approx(chosen.mean(), abs=0.01)


@both
def test_shuffled_rows_are_the_same_to_the_bit(inference):
    votes, *_ = crowd()
    order = np.random.default_rng(1).permutation(len(votes))
    columns = (votes.item[order], votes.annotator[order], votes.label[order])
    one = run(votes, inference=inference)
    other = run(Votes(*columns, 80, 8, 3), inference=inference)
    assert one.trace == other.trace and one.restarts == other.restarts
    for name in ("probs", "accuracy", "competence"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@both
def test_other_names_reach_the_same_best_objective(inference):
    votes, *_ = crowd(n_items=150, share=0.7)
    rng = np.random.default_rng(3)
    i, a, z = rng.permutation(150), rng.permutation(8), rng.permutation(3)
    named = Votes(i[votes.item], a[votes.annotator], z[votes.label], 150, 8, 3)
    keys = {"inference": inference, "n_iter": 600, "n_restarts": 6}
    one, other = run(votes, **keys), run(named, **keys)
    assert max(one.restarts) == one.trace[-1]
    assert other.trace[-1] == pytest.approx(one.trace[-1], abs=1e-6)
    np.testing.assert_allclose(other.probs[i][:, z], one.probs, atol=1e-5)
    np.testing.assert_allclose(other.competence[a], one.competence, atol=1e-5)


def test_restarts_differ_and_the_best_is_kept():
    votes, *_ = crowd(share=0.2)
    got = run(votes, n_iter=10)
    assert len(set(got.restarts)) == 10
    assert got.trace[-1] == max(got.restarts) and len(got.trace) == 10
    # more starts never end lower: the first are the same
    assert run(votes, n_iter=10, n_restarts=20).restarts[:10] == pytest.approx(got.restarts)
    assert not run(votes, n_iter=3, tol=1e-12).converged


def test_several_labels_an_item_and_annotator_are_refused():
    votes = Votes([0, 0], [0, 0], [0, 1], 1, 1, 2, multi_label=True)
    with pytest.raises(ConfigError, match="mace: wants one label"):
        run(votes)


def test_docstring_example():
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0


def test_converged_is_what_the_last_iteration_says() -> None:
    votes = Votes(
        np.repeat(np.arange(30), 3),
        np.tile(np.arange(3), 30),
        (np.arange(90) // 3 + (np.arange(90) % 13 == 0)) % 2,
        30,
        3,
        2,
    )
    few, many = (mace(votes, rng=np.random.default_rng(0), n_iter=n) for n in (1, 400))
    assert (few.converged, many.converged) == (False, True)
    assert not mace(votes, rng=np.random.default_rng(0), n_iter=2, tol=1e-12).converged
    assert mace(votes, rng=np.random.default_rng(0), tol=1e-3).converged
