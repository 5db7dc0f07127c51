"""MACE at the edges: little or much of votes, faint priors, control items, class priors."""

import math

import numpy as np
import pytest

from annorun.aggregation.mace import mace, truth_prior
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


@both
def test_unused_annotators_items_and_labels(inference):
    votes, *_ = crowd()
    more = Votes(votes.item, votes.annotator, votes.label, 83, 10, 4)
    got = run(more, inference=inference, n_iter=100)
    np.testing.assert_allclose(got.probs[80:], 0.25, atol=1e-12)
    assert np.isnan(got.competence[8:]).all() and np.isnan(got.accuracy[8:]).all()
    voted = np.unique(votes.item)
    # its x is 0, the least that can be
    np.testing.assert_array_equal(got.probs[:, 3], got.probs.min(axis=1))
    one = run(votes, inference=inference, n_iter=100)
    assert (got.probs[voted].argmax(axis=1) == one.probs[voted].argmax(axis=1)).mean() > 0.9


@both
def test_no_votes_at_all(inference):
    got = run(Votes([], [], [], 2, 3, 4), inference=inference, class_prior=[1.0, 1, 1, 3])
    np.testing.assert_allclose(got.probs, np.tile([1 / 6, 1 / 6, 1 / 6, 1 / 2], (2, 1)))
    assert np.isnan(got.accuracy).all() and np.isfinite(got.trace).all()


@both
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (6, 1)])
@pytest.mark.parametrize("n_classes", [1, 3])
def test_one_item_annotator_or_label(inference, shape, n_classes):
    item, annotator = (index.ravel() for index in np.indices(shape))
    votes = Votes(item, annotator, np.zeros_like(item), *shape, n_classes)
    got = run(votes, inference=inference)
    assert (got.probs.argmax(axis=1) == 0).all() and np.isfinite(got.trace).all()
    assert ((got.accuracy > 1 / n_classes - 1e-9) & (got.accuracy <= 1)).all()


def test_thousands_of_votes_on_an_item_stay_finite():
    rng = np.random.default_rng(0)
    item = np.repeat([2, 5], 3000)
    label = (rng.random(6000) < 0.7).astype(int) ^ (item == 5)
    votes = Votes(item, np.tile(np.arange(3000), 2), label, 8, 3000, 2)
    for known in (None, np.where(np.arange(8) == 2, 0, -1)):
        got = run(votes, n_restarts=2, n_iter=20, known=known)
        assert np.isfinite(got.trace).all()
        answer = [[0, 1] if known is None else [1, 0], [1, 0]]
        np.testing.assert_allclose(got.probs[[2, 5]], answer, atol=1e-12)


@pytest.mark.parametrize("keys", [{"alpha": 1e-4}, {"strategy": 1e-5}, {"beta": 1e-5}])
def test_faint_priors_stay_finite(keys):
    got = run(crowd(n_classes=4, share=0.8)[0], **keys)
    assert np.isfinite(got.trace).all() and np.isfinite(got.probs).all()


@both
def test_control_items_are_clamped_and_tell_the_camps_apart(inference):
    """Two against two on every third item: the control items say who is right elsewhere."""
    truth = np.random.default_rng(0).integers(2, size=60)
    item, annotator = np.divmod(np.arange(240), 4)
    lie = (annotator >= 2) & (item % 3 == 0)
    votes = Votes(item, annotator, np.where(lie, 1 - truth[item], truth[item]), 60, 4, 2)
    known = np.where((np.arange(60) % 3 == 0) & (np.arange(60) < 30), truth, -1)
    for told in (known, np.where(known < 0, -1, 1 - known)):
        got = run(votes, inference=inference, known=told)
        np.testing.assert_allclose(got.probs[known >= 0], np.eye(2)[told[known >= 0]], atol=1e-12)
        trusted, other = got.competence[:2], got.competence[2:]
        if told is not known:
            trusted, other = other, trusted
        assert trusted.min() > other.max() + 0.2
    got = run(votes, inference=inference, known=known)
    assert (got.probs.argmax(axis=1) == truth).all()


def test_the_class_prior_decides_where_votes_do_not():
    """Two alike annotators against each other: the ratio of the weights is what is left."""
    item, annotator = np.array([0, 0, 1]), np.array([0, 1, 0])
    votes = Votes(item, annotator, [0, 1, 0], 3, 2, 2)
    got = run(votes, n_restarts=1, class_prior=[1.0, 1e9])
    assert got.probs[0, 1] > 0.99 and got.probs[2, 1] == pytest.approx(1, abs=1e-8)
    even, scaled = run(votes), run(votes, class_prior=[7.0, 7.0])
    np.testing.assert_allclose(scaled.probs, even.probs, atol=1e-12)


def test_the_prior_of_the_truth():
    got = truth_prior(3, 2, [1.0, 3.0], np.array([-1, 0, 1]))
    np.testing.assert_array_equal(got, [[0.25, 0.75], [1, 0], [0, 1]])
    for weights in ([1.0], [1.0, 0.0], [1.0, -1.0], [1.0, math.inf], [1.0, math.nan]):
        with pytest.raises(ConfigError, match=r"class_prior: .*; allowed is one finite weight"):
            truth_prior(3, 2, weights, None)
    for known in ([0, 1], [0, 1, 2], [-2, 0, 0], [[0, 1, 1]]):
        with pytest.raises(ConfigError, match=r"known: allowed is a label in 0..1 for each of the"):
            truth_prior(3, 2, None, np.array(known))
