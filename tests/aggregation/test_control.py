"""Control items: clamped labels, against closed forms, in every model that takes them."""

import numpy as np
import pytest

from annorun.aggregation import control
from annorun.aggregation.bcc import bcc
from annorun.aggregation.dawid_skene import dawid_skene
from annorun.aggregation.glad import glad
from annorun.aggregation.lfc import lfc
from annorun.aggregation.one_coin import one_coin
from annorun.errors import ConfigError
from annorun.votes import Votes

METHODS = [bcc, dawid_skene, glad, lfc, one_coin]
each = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)


def crowd(n_items=40, seed=0):
    """Two camps of two: 0 and 1 tell the truth, 2 and 3 its opposite for every third item."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(2, size=n_items)
    item, annotator = np.divmod(np.arange(4 * n_items), 4)
    wrong = (annotator >= 2) & (item % 3 == 0)
    label = np.where(wrong, 1 - truth[item], truth[item])
    return Votes(item, annotator, label, n_items, 4, 2), truth


def some(truth, items):
    known = np.full(len(truth), -1)
    known[items] = truth[items]
    return known


@each
def test_known_labels_are_kept_even_against_everybody(method):
    votes, truth = crowd()
    known = some(truth, [0, 1, 2])
    known[4] = 1 - truth[4]  # all four said the opposite
    got = method(votes, known=known)
    np.testing.assert_array_equal(got.probs[[0, 1, 2, 4]], np.eye(2)[known[[0, 1, 2, 4]]])
    assert got.probs[5, truth[5]] > 0.5


@each
def test_known_labels_tell_the_camps_apart(method):
    """Two against two: the control items say which camp is right, also about the other items."""
    votes, truth = crowd()
    disputed = np.arange(0, 40, 3)
    known = some(truth, disputed[:7])
    got = method(votes, known=known)
    assert got.accuracy[:2].min() > got.accuracy[2:].max() + 0.15
    assert (got.probs.argmax(axis=1) == truth).all()
    opposite = method(votes, known=np.where(known < 0, -1, 1 - known))
    assert opposite.accuracy[2:].min() > opposite.accuracy[:2].max() + 0.15


@each
def test_nothing_known_is_no_control_item(method):
    votes, _ = crowd()
    one, other = method(votes), method(votes, known=np.full(40, -1))
    assert one.trace == other.trace
    np.testing.assert_array_equal(one.probs, other.probs)


@each
@pytest.mark.parametrize("seed", range(3))
def test_the_objective_never_falls_with_known_labels(method, seed):
    rng = np.random.default_rng(seed)
    votes, _ = crowd(seed=seed)
    known = np.where(rng.random(40) < 0.3, rng.integers(2, size=40), -1)
    trace = np.array(method(votes, known=known, max_iter=200, tol=1e-12).trace)
    assert len(trace) > 2
    assert np.diff(trace).min() >= -1e-12 * np.abs(trace).max()


def test_all_known_is_counting():
    """Annotator 0 met class 0 twice and said 0, 1; class 1 three times and said 1, 1, 0.

    Annotator 1 met only item 0, of class 0, and said 1. With s = .1, row 0 of annotator 0 is
    (1.1, 1.1) / 2.2, row 1 is (1.1, 2.1) / 3.2; right in all: 3 of 5, so (3 + .1) / (5 + .2).
    """
    votes = Votes([0, 1, 2, 3, 4, 0], [0, 0, 0, 0, 0, 1], [0, 1, 1, 1, 0, 1], 5, 2, 2)
    known = np.array([0, 0, 1, 1, 1])
    expected = [
        [[1.1 / 2.2, 1.1 / 2.2], [1.1 / 3.2, 2.1 / 3.2]],
        [[0.1 / 1.2, 1.1 / 1.2], [1 / 2, 1 / 2]],
    ]
    for method in (dawid_skene, lfc):
        np.testing.assert_allclose(method(votes, known=known).confusion, expected, atol=1e-12)
    got = one_coin(votes, known=known)
    np.testing.assert_allclose(got.accuracy, [3.1 / 5.2, 0.1 / 1.2], atol=1e-12)
    # belief 2/3 with two classes: diagonal 2, off it 1
    got = bcc(votes, known=known, belief=2 / 3)
    np.testing.assert_allclose(got.confusion[0], [[3 / 5, 2 / 5], [2 / 6, 4 / 6]], atol=1e-12)


@each
def test_a_known_item_without_votes_counts_for_the_class_prior(method):
    votes, truth = crowd()
    more = Votes(votes.item, votes.annotator, votes.label, 241, 4, 2)
    known = np.full(241, -1)
    known[40:240] = 1
    before, after = method(more).probs[240], method(more, known=known).probs[240]
    assert before[1] < 0.7
    np.testing.assert_allclose(after[1], (truth.sum() + 200) / 240, atol=0.05)


def test_the_first_step_already_counts_the_known_labels():
    """Item 0 is known to be what nobody said: its vote shares give that class no chance."""
    votes = Votes([0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 1, 1], 2, 2, 2)
    got = dawid_skene(votes, known=np.array([1, 1]), smoothing=0.0, max_iter=1)
    np.testing.assert_array_equal(got.probs, [[0, 1], [0, 1]])
    np.testing.assert_allclose(got.confusion[:, 1], 0.5)
    # each annotator said 0 and 1 of two items of class 1, whose prior is 1
    np.testing.assert_allclose(got.trace, [4 * np.log(0.5)])


def test_clamp_keeps_one_class():
    log_joint = np.log([[0.2, 0.3], [0.4, 0.1]])
    got = control.clamp(log_joint.copy(), np.array([-1, 1]))
    np.testing.assert_array_equal(got, [log_joint[0], [-np.inf, log_joint[1, 1]]])


@each
@pytest.mark.parametrize("known", [[0, 1], [0] * 39 + [2], [-2] * 40])
def test_labels_that_cannot_be_are_refused(method, known):
    votes, _ = crowd()
    with pytest.raises(ConfigError, match=f"{method.__name__}: known: allowed is a label in 0..1"):
        method(votes, known=np.array(known))
