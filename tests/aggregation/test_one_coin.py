"""One-coin Dawid-Skene against derivations by hand, the model it is a case of, a slow reference."""

import doctest
import math

import numpy as np
import pytest

from annorun import noise
from annorun.aggregation import dawid_skene
from annorun.aggregation import one_coin as module
from annorun.aggregation.one_coin import Params, e_step, m_step, one_coin
from annorun.votes import Pool, Votes

NOBODY = np.full(200, -1)


def crowd(seed=0, n_items=200, n_classes=3):
    rng = np.random.default_rng(seed)
    truth = rng.choice(n_classes, size=n_items, p=[0.5, 0.3, 0.2])
    pool = Pool(np.array([0.3, 0.5, 0.7, 0.8, 0.95]))
    every = noise.uniform(truth=truth, pool=pool, n_classes=n_classes, rng=rng)
    keep = rng.random(len(every)) < 0.7
    columns = (every.item[keep], every.annotator[keep], every.label[keep])
    return Votes(*columns, n_items, 5, n_classes), truth, pool.expertise


@pytest.fixture
def small():
    """Three classes; annotator 0 said 1 and 2 of items 0 and 1, annotator 1 said 0 of item 0."""
    return Votes([0, 0, 1], [0, 1, 0], [1, 0, 2], 2, 2, 3)


def test_m_step_by_hand(small):
    """Annotator 0 is right with 1/4 and 1/2: (s + 3/4) / (3 s + 2); annotator 1 with 1/2."""
    probs = np.array([[1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 4, 1 / 2]])
    params = m_step(small, probs, 0.5, NOBODY[:2])
    np.testing.assert_allclose(params.accuracy, [1.25 / 3.5, 1 / 2.5], atol=1e-15)
    np.testing.assert_allclose(params.prior, [1.25 / 3.5, 1 / 3.5, 1.25 / 3.5], atol=1e-15)


def test_e_step_by_hand(small):
    """Accuracies 1/2 and 2/3, prior 1/2, 1/4, 1/4: a wrong label has 1/4 and 1/6.

    Item 0: 1/2 * 1/4 * 2/3 = 1/12, 1/4 * 1/2 * 1/6 = 1/48, 1/4 * 1/4 * 1/6 = 1/96; sum 11/96. Item
    1: 1/2 * 1/4, 1/4 * 1/4, 1/4 * 1/2; sum 5/16.
    """
    params = Params(np.array([1 / 2, 1 / 4, 1 / 4]), np.array([1 / 2, 2 / 3]))
    probs, log_likelihood = e_step(small, params, NOBODY[:2])
    expected = [[8 / 11, 2 / 11, 1 / 11], [2 / 5, 1 / 5, 2 / 5]]
    np.testing.assert_allclose(probs, expected, atol=1e-14)
    assert log_likelihood == pytest.approx(math.log(11 / 96 * 5 / 16), abs=1e-13)


def test_e_step_is_dawid_skenes_with_a_tied_matrix():
    votes, _, accuracy = crowd()
    prior = np.array([0.5, 0.3, 0.2])
    tied = (1 - accuracy)[:, None, None] / 2 * (1 - np.eye(3)) + accuracy[:, None, None] * np.eye(3)
    expected, likelihood = dawid_skene.e_step(
        dawid_skene.incidence(votes), dawid_skene.Params(prior, tied)
    )
    probs, log_likelihood = e_step(votes, Params(prior, accuracy), NOBODY)
    np.testing.assert_allclose(probs, expected, atol=1e-12)
    assert log_likelihood == pytest.approx(likelihood, rel=1e-12)


def reference(votes, n_iter, s):
    """The model as loops, in probabilities; nothing is shared with the code."""
    rows = list(
        zip(votes.item.tolist(), votes.annotator.tolist(), votes.label.tolist(), strict=True)
    )
    said = {i: [(a, z) for j, a, z in rows if j == i] for i in sorted({i for i, _, _ in rows})}
    q = {i: [sum(z == k for _, z in v) / len(v) for k in range(3)] for i, v in said.items()}
    trace = []
    for _ in range(n_iter):
        right = {a: [q[i][z] for i, b, z in rows if b == a] for a in range(5)}
        r = {a: (s + sum(w)) / (3 * s + len(w)) for a, w in right.items()}
        p = [(s + sum(q[i][k] for i in q)) / (3 * s + len(q)) for k in range(3)]
        objective = s * sum(math.log(x) for x in p)
        objective += s * sum(math.log(x) + 2 * math.log((1 - x) / 2) for x in r.values())
        for i, v in said.items():
            joint = [
                p[k] * math.prod(r[a] if z == k else (1 - r[a]) / 2 for a, z in v) for k in range(3)
            ]
            objective += math.log(sum(joint))
            q[i] = [x / sum(joint) for x in joint]
        trace.append(objective)
    return np.array([q[i] for i in q]), [r[a] for a in range(5)], trace


@pytest.mark.parametrize("smoothing", [0.01, 0.1, 1.0])
def test_equals_the_slow_reference(smoothing):
    votes, _, _ = crowd(n_items=50)
    got = one_coin(votes, max_iter=8, tol=1e-300, smoothing=smoothing)
    probs, accuracy, trace = reference(votes, 8, smoothing)
    np.testing.assert_allclose(got.probs[np.unique(votes.item)], probs, atol=1e-12)
    np.testing.assert_allclose(got.accuracy, accuracy, atol=1e-12)
    np.testing.assert_allclose(got.trace, trace, rtol=1e-12)


def test_planted_accuracies_are_found():
    """From .7 * 20,000 votes each; items are not certain, so the error is above .5 / 118 = .004."""
    votes, truth, accuracy = crowd(n_items=20_000)
    got = one_coin(votes, tol=1e-9, max_iter=500)
    np.testing.assert_allclose(got.accuracy, accuracy, atol=0.02)
    full = dawid_skene.dawid_skene(votes)
    right = (got.probs.argmax(axis=1) == truth).mean()
    assert right > (full.probs.argmax(axis=1) == truth).mean() - 0.002


def test_a_vote_touches_the_class_that_it_names_alone():
    """A thousand classes, two votes: the other 998 classes stay as probable as their prior."""
    votes = Votes([0, 0], [0, 1], [3, 7], 1, 2, 1000)
    params = Params(np.full(1000, 1e-3), np.array([0.9, 0.5]))
    probs, _ = e_step(votes, params, np.array([-1]))
    others = np.delete(probs[0], [3, 7])
    np.testing.assert_allclose(others, others[0], rtol=1e-12)
    np.testing.assert_allclose(probs[0, 3] / others[0], 0.9 / (0.1 / 999), rtol=1e-12)
    np.testing.assert_allclose(probs[0, 7] / others[0], 0.5 / (0.5 / 999), rtol=1e-12)


@pytest.mark.parametrize("smoothing", [5e-324, 1e-300, 1e-20])
def test_a_tiny_smoothing_leaves_no_nan(smoothing):
    """Annotators 0 and 1 always agree, 2 never agrees with them: accuracies 1 and 0."""
    item, annotator = np.divmod(np.arange(60), 3)
    votes = Votes(item, annotator, np.where(annotator < 2, item % 2, 1 - item % 2), 20, 3, 3)
    got = one_coin(votes, smoothing=smoothing)
    np.testing.assert_allclose(got.probs, np.eye(3)[np.arange(20) % 2], atol=1e-9)
    np.testing.assert_allclose(got.accuracy, [1, 1, 0], atol=1e-9)
    assert np.isfinite(got.trace).all() and got.converged


def test_docstring_example():
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0
