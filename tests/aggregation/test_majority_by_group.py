"""Majority by group against shares by hand and the plain majority."""

import doctest
import itertools

import numpy as np
import pytest

from annorun.aggregation import majority_by_group as module
from annorun.aggregation.majority import majority
from annorun.aggregation.majority_by_group import majority_by_group
from annorun.aggregation.nutmeg import one_truth
from annorun.errors import ConfigError
from annorun.votes import Votes


def crowd(seed=0, n_groups=3):
    rng = np.random.default_rng(seed)
    item, annotator = np.nonzero(rng.random((50, 9)) < 0.4)
    label = rng.integers(4, size=len(item))
    group = np.sort(rng.integers(n_groups, size=9))
    return Votes(item, annotator, label, 50, 9, 4, group=group)


def test_by_hand():
    """Annotators 0, 1, 2 are of group 0 (population 3), 3 of group 1, 4 and 5 of group 2 (2).

    Item 0: group 0 said 0 0 1, group 1 said 1, group 2 nothing: (2/3, 1/3), (0, 1), weights 3 : 1,
    so ((3 * 2/3) / 4, ..) = (1/2, 1/2); both alike: 2/3 * 0 + 1/3 * 1, so disagreement 2/3. Item 1:
    group 2 alone, 0 1. Item 2: nobody; the votes of all are 0 0 1 1 0 1: 1/2.
    """
    votes = Votes(
        [0, 0, 0, 0, 1, 1], [0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 0, 1], 3, 6, 2,
        group=np.array([0, 0, 0, 1, 2, 2]),
    )  # fmt: skip
    got = majority_by_group(votes)
    nan = [np.nan, np.nan]
    expected = [[[2 / 3, 1 / 3], [0, 1], nan], [nan, nan, [1 / 2, 1 / 2]], [nan, nan, nan]]
    np.testing.assert_allclose(got.group_probs, expected, atol=1e-15)
    np.testing.assert_allclose(got.probs, np.full((3, 2), 0.5), atol=1e-15)
    np.testing.assert_allclose(got.disagreement, [2 / 3, np.nan, np.nan], atol=1e-15)
    accuracy = [2 / 3, 2 / 3, 1 / 3, 1, 1 / 2, 1 / 2]
    np.testing.assert_allclose(got.accuracy, accuracy, atol=1e-15)


def test_each_group_has_its_own_majority():
    votes = crowd()
    got = majority_by_group(votes)
    for g in range(3):
        mine = votes.group[votes.annotator] == g
        own = Votes(votes.item[mine], votes.annotator[mine], votes.label[mine], 50, 9, 4)
        seen = np.isin(np.arange(50), own.item)
        expected = majority(own)
        np.testing.assert_allclose(got.group_probs[seen, g], expected.probs[seen], atol=1e-15)
        assert np.isnan(got.group_probs[~seen, g]).all()
        members = votes.group == g
        np.testing.assert_allclose(got.accuracy[members], expected.accuracy[members], atol=1e-15)


def test_one_group_is_the_majority_and_never_disagrees_with_itself():
    votes = crowd(n_groups=1)
    got, plain = majority_by_group(votes), majority(votes)
    np.testing.assert_allclose(got.probs, plain.probs, atol=1e-15)
    np.testing.assert_allclose(got.accuracy, plain.accuracy, atol=1e-15)
    assert np.isnan(got.disagreement).all()


def test_disagreement_is_that_of_independent_draws():
    """The probability that labels drawn for each observed group are not all one, by enumeration."""
    got = majority_by_group(crowd())
    seen = ~np.isnan(got.group_probs[..., 0])
    assert set(seen.sum(axis=1)) >= {1, 2, 3}
    for i in range(50):
        rows = got.group_probs[i, seen[i]]
        if len(rows) < 2:
            assert np.isnan(got.disagreement[i])
            continue
        draws = itertools.product(range(4), repeat=len(rows))
        apart = [d for d in draws if len(set(d)) > 1]
        expected = sum(np.prod([row[k] for row, k in zip(rows, d, strict=True)]) for d in apart)
        np.testing.assert_allclose(got.disagreement[i], expected, atol=1e-14)


def test_an_item_weighs_groups_by_their_annotators_not_by_their_votes():
    """Item 0: group 0 of nine says 0 once, group 1 of one says 1 once: .9 and .1."""
    votes = Votes(
        [0, 0, *[1] * 8], [0, 9, *range(1, 9)], [0, 1, *[0] * 8], 2, 10, 2,
        group=np.array([0] * 9 + [1]),
    )  # fmt: skip
    np.testing.assert_allclose(majority_by_group(votes).probs[0], [0.9, 0.1], atol=1e-15)


def test_an_annotator_without_a_vote_counts_for_no_group():
    """As in NUTMEG: seven silent members weigh nothing."""
    votes = Votes([0, 0], [0, 8], [0, 1], 1, 10, 2, group=np.array([0] * 8 + [1, 1]))
    np.testing.assert_allclose(majority_by_group(votes).probs, [[0.5, 0.5]], atol=1e-15)
    got = majority_by_group(voted := crowd())
    seen = np.isin(np.arange(50), voted.item)
    expected = one_truth(got.group_probs, voted)
    np.testing.assert_allclose(got.probs[seen], expected[seen], atol=1e-15)


def test_the_votes_say_how_many_groups_there_are():
    """The last group has no vote, here and where there is no vote at all."""
    group = np.array([0, 1, 2])
    for label in ([0, 1], []):
        some = range(len(label))
        got = majority_by_group(Votes([0] * len(label), some, label, 1, 3, 2, group=group))
        assert got.group_probs.shape == (1, 3, 2) and np.isnan(got.group_probs[0, 2]).all()


def test_votes_without_groups_are_refused():
    with pytest.raises(ConfigError, match="groups"):
        majority_by_group(Votes([0], [0], [0], 1, 1, 2))


def test_docstring_example():
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0
