"""Bags, reductions and stability: by hand, against other operations, under the null."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from annorun.scores.attribution import (
    bag_answers,
    centroids,
    cosine,
    cross_residual,
    drawn_bags,
    item_centred,
    label_judge,
    margin,
    ridge_residual,
    split_half,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_bags_are_one_annotators_and_no_row_is_twice_in_one(rng: np.random.Generator) -> None:
    author = np.array([0, 1, 1, 0, 1])
    bags, whose = drawn_bags(author, 2, draws=20, rng=rng)
    assert bags.shape == (40, 2)
    assert (author[bags] == whose[:, None]).all()
    assert (bags[:, 0] != bags[:, 1]).all()
    assert set(whose.tolist()) == {0, 1}
    # annotator 1 has three, 0 has two: none at all, or sizes would be of different people
    assert drawn_bags(author, 3, draws=3, rng=rng)[0].shape == (0, 3)
    assert drawn_bags(author, 1, draws=3, rng=rng)[0][:, 0].tolist() == [0, 1, 2, 3, 4]


def test_a_bag_of_one_is_the_response_and_a_bag_is_their_product() -> None:
    """.6 * .4 = .4 * .6 ties, the first is taken; .4 * .9 > .6 * .1."""
    told = np.log([[0.6, 0.4], [0.4, 0.6], [0.9, 0.1]])
    assert bag_answers(told, np.array([[0], [1], [2]])).tolist() == [0, 1, 0]
    assert bag_answers(told, np.array([[1, 2]])).tolist() == [0]


def test_more_of_a_weak_signal_is_clear(rng: np.random.Generator) -> None:
    """A judge that is right in 55 % of single cases; of 9 in (binomially) 62 %, of 129 in 88 %."""
    author = np.repeat([0, 1], 1000)
    right = np.tile(np.arange(1000) < 550, 2)
    told = np.log(np.where((np.arange(2) == author[:, None]) == right[:, None], 0.55, 0.45))
    accuracy = []
    for size in (1, 9, 129):
        bags, whose = drawn_bags(author, size, draws=400, rng=rng)
        accuracy.append((bag_answers(told, bags) == whose).mean())
    np.testing.assert_allclose(accuracy, [0.55, 0.62, 0.88], atol=0.05)


def test_label_judge_by_hand() -> None:
    """With one more of each: annotator 0 (2+1, 0+1) of 4, annotator 1 (0+1, 1+1) of 3."""
    told = np.exp(label_judge(np.array([0, 0, 1]), np.array([0, 0, 1]), 2, 2))
    expected = np.array([[3 / 4, 1 / 3], [1 / 4, 2 / 3]])
    np.testing.assert_allclose(told, expected / expected.sum(axis=1, keepdims=True))


def test_centred_items_have_mean_0_and_who_responds_twice_counts_once() -> None:
    """Item 2: annotator 0 says 10 and 20, mean 15, annotator 1 says 45: the mean is 30."""
    x = np.array([[1.0], [3.0], [10.0], [20.0], [45.0], [8.0]])
    item, author = np.array([7, 7, 2, 2, 2, 5]), np.array([0, 1, 0, 0, 1, 0])
    np.testing.assert_allclose(item_centred(x, item, author)[:, 0], [-1, 1, -20, -10, 15, 0])


def test_a_regression_is_not_judged_by_what_it_has_seen(rng: np.random.Generator) -> None:
    """40 numbers of 50 inputs that say nothing: in sample little is left, out of fold all is."""
    item = np.repeat(np.arange(60), 3)
    given, x = rng.normal(size=(60, 40))[item], rng.normal(size=(180, 4))
    fit = item < 50
    in_sample = ridge_residual(x, given, fit, 1e-3)
    residual, left = cross_residual(x, given, item, fit)
    assert (in_sample[fit] ** 2).sum() < 0.85 * (x[fit] ** 2).sum()
    assert 0.95 < left < 1.15
    ratio = (residual[~fit] ** 2).sum() / (x[~fit] ** 2).sum()
    assert 0.85 < ratio < 1.2
    told = given @ rng.normal(size=(40, 4)) + 0.1 * x
    assert cross_residual(told, given, item, fit)[1] < 0.15


def test_ridge_is_sklearns_and_an_input_that_says_all_leaves_nothing(
    rng: np.random.Generator,
) -> None:
    given, noise = rng.normal(size=(40, 3)), rng.normal(size=(40, 5))
    x = given @ rng.normal(size=(3, 5)) + 2 + 0.1 * noise
    fit = np.arange(40) < 30
    own = Ridge(alpha=0.7).fit(given[fit], x[fit])
    np.testing.assert_allclose(ridge_residual(x, given, fit, 0.7), x - own.predict(given))
    exact = ridge_residual(given @ np.ones((3, 2)) + 5, given, fit, 1e-12)
    np.testing.assert_allclose(exact, 0, atol=1e-9)


def test_centroids_cosines_and_margins_by_hand() -> None:
    x = np.array([[1.0, 0], [3, 0], [0, 2]])
    means = centroids(x, np.array([0, 0, 1]), 3)
    np.testing.assert_allclose(means[:2], [[2, 0], [0, 2]])
    assert np.isnan(means[2]).all()
    alike = cosine(np.array([[3.0, 4.0], [0.0, 0.0]]), means[:2])
    np.testing.assert_allclose(alike, [[0.6, 0.8], [0, 0]])
    np.testing.assert_allclose(margin(alike, np.array([0, 1])), [-0.2, 0])


def test_annotators_of_a_manner_are_stable_and_chance_is_not(rng: np.random.Generator) -> None:
    """Over 40 data sets without a manner, p is below .1 about four times."""
    item, author = np.repeat(np.arange(30), 3), np.tile(np.arange(3), 30)
    draws = {"n_annotators": 3, "draws": 99, "rng": rng}
    manner = np.eye(3)[author] + rng.normal(size=(90, 3))
    stable, p = split_half(manner, author, item, **draws)
    assert stable > 0.5 and p == pytest.approx(0.01)
    none = [split_half(rng.normal(size=(90, 3)), author, item, **draws)[1] for _ in range(40)]
    assert 0 < np.mean(np.array(none) <= 0.1) < 0.3
    assert 0.3 < np.mean(none) < 0.7


def test_stability_is_no_more_than_who_answers_which_items(rng: np.random.Generator) -> None:
    """Each item is one annotator's: nothing can be exchanged, and p is 1."""
    item = np.arange(40)
    x = np.eye(2)[item % 2]
    assert split_half(x, item % 2, item, n_annotators=2, draws=19, rng=rng) == (1.0, 1.0)
