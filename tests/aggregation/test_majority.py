"""Vote shares, worked out by hand."""

import doctest

import numpy as np
import pytest

from annorun.aggregation import majority as module
from annorun.aggregation.majority import majority
from annorun.votes import Votes


def make(triplets, n_items, n_annotators, n_classes):
    item, annotator, label = np.array(triplets, dtype=np.int64).reshape(-1, 3).T
    return Votes(item, annotator, label, n_items, n_annotators, n_classes)


def test_shares_prior_and_accuracy_by_hand():
    """Four items, item 3 without votes; annotator 3 has none.

    Item 0: labels 1 1 0 -> (1/3, 2/3, 0). Item 1: 2 -> (0, 0, 1). Item 2: 1 2 -> (0, 1/2, 1/2). All
    votes: 0 once, 1 three times, 2 twice -> (1/6, 1/2, 1/3). Annotator 0 said 1, 2, 1: (2/3 + 1 +
    1/2) / 3 = 13/18; annotator 1 said 1, 2: (2/3 + 1/2) / 2 = 7/12; annotator 2 said 0: 1/3.
    """
    votes = make([(0, 0, 1), (0, 1, 1), (0, 2, 0), (1, 0, 2), (2, 0, 1), (2, 1, 2)], 4, 4, 3)
    posterior = majority(votes)
    expected = [[1 / 3, 2 / 3, 0], [0, 0, 1], [0, 1 / 2, 1 / 2], [1 / 6, 1 / 2, 1 / 3]]
    np.testing.assert_allclose(posterior.probs, expected, atol=1e-15)
    np.testing.assert_allclose(posterior.accuracy, [13 / 18, 7 / 12, 1 / 3, np.nan], atol=1e-15)
    assert posterior.trace == () and posterior.converged and posterior.confusion is None


def test_nothing_voted_is_uniform():
    posterior = majority(make([], 2, 1, 4))
    assert (posterior.probs == 0.25).all()
    assert np.isnan(posterior.accuracy).all()


def test_docstring_example():
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0


def test_two_votes_that_differ_are_a_tie():
    assert majority(make([(0, 0, 0), (0, 1, 2)], 1, 2, 3)).probs[0].tolist() == [0.5, 0, 0.5]


def test_an_annotator_alone_agrees_with_itself():
    votes = make([(i, 0, i % 3) for i in range(9)], 9, 1, 3)
    assert majority(votes).accuracy[0] == pytest.approx(1)
