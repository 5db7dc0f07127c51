"""The planted reliability and the found one: conversions and errors by hand."""

import numpy as np
import pytest
from scipy import stats

from annorun import noise
from annorun.scores.recovery import (
    adjusted_rand,
    counterpart,
    empirical_accuracy,
    from_mixture,
    mixture_equivalent,
    recovery,
)
from annorun.votes import Pool, Votes

NAN = np.nan


def test_mixture_equivalent_by_hand():
    """K = 4: (4 * .9 - 1) / 3 = 2.6/3, (4 * .5 - 1) / 3 = 1/3, guessing and below are 0."""
    got = mixture_equivalent(np.array([1, 0.9, 0.5, 0.25, 0.1]), 4)
    assert got == pytest.approx([1, 2.6 / 3, 1 / 3, 0, 0], abs=1e-15)
    assert mixture_equivalent(np.array([0.9, NAN]), 2)[0] == pytest.approx(0.8)


def test_from_mixture_by_hand():
    assert from_mixture(np.array([1, 0.9, 0]), 4) == pytest.approx([1, 0.925, 0.25])
    assert from_mixture(np.array([0.5]), 2) == pytest.approx([0.75])


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_the_two_are_inverse(n_classes):
    rho = np.linspace(0, 1, 11)
    there_and_back = mixture_equivalent(from_mixture(rho, n_classes), n_classes)
    assert there_and_back == pytest.approx(rho, abs=1e-14)
    above_chance = np.linspace(1 / n_classes, 1, 7)
    back = from_mixture(mixture_equivalent(above_chance, n_classes), n_classes)
    assert back == pytest.approx(above_chance, abs=1e-14)


def test_agrees_with_what_the_noise_plants():
    rho = np.array([0.9, 0.5, 0.1])
    planted = noise.planted_accuracy(pool=Pool(rho), n_classes=5, semantics="mixture")
    assert from_mixture(rho, 5) == pytest.approx(planted, abs=1e-15)
    assert mixture_equivalent(planted, 5) == pytest.approx(rho, abs=1e-14)


def test_recovery_by_hand():
    """Errors .1, .4, .1.

    Deviations (-.3, 0, .3) and (-.2, -.2, .4): r = .18 / sqrt(.18 * .24) = sqrt(.75).
    Ranks (1, 2, 3) and (1.5, 1.5, 3): r = 1.5 / sqrt(2 * 1.5) = sqrt(.75).
    """
    got = recovery(np.array([0.3, 0.6, 0.9]), np.array([0.2, 0.2, 0.8]))
    assert got["annotators/mae"] == pytest.approx(0.6 / 3)
    assert got["annotators/max_error"] == pytest.approx(0.4)
    assert got["annotators/pearson"] == pytest.approx(np.sqrt(0.75))
    assert got["annotators/spearman"] == pytest.approx(np.sqrt(0.75))


@pytest.mark.parametrize("seed", range(3))
def test_correlations_equal_scipy_also_with_ties(seed):
    rng = np.random.default_rng(seed)
    planted = rng.integers(6, size=30) / 5
    estimate = (planted + rng.normal(size=30) * 0.3).round(1)
    got = recovery(estimate, planted)
    pearson, spearman = stats.pearsonr(estimate, planted), stats.spearmanr(estimate, planted)
    assert got["annotators/pearson"] == pytest.approx(pearson.statistic, abs=1e-12)
    assert got["annotators/spearman"] == pytest.approx(spearman.statistic, abs=1e-12)


def test_monotone_but_bent_is_spearman_one():
    planted = np.array([0.1, 0.5, 0.6, 0.9])
    got = recovery(planted**5, planted)
    assert got["annotators/spearman"] == pytest.approx(1)
    assert 0.5 < got["annotators/pearson"] < 0.99
    assert recovery(1 - planted, planted)["annotators/pearson"] == pytest.approx(-1)


def test_annotators_unknown_on_either_side_are_dropped():
    got = recovery(np.array([0.9, NAN, 0.1, 0.5, 0.3]), np.array([0.8, 0.5, NAN, 0.5, 0.1]))
    assert got == recovery(np.array([0.9, 0.5, 0.3]), np.array([0.8, 0.5, 0.1]))
    assert got["annotators/mae"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("estimate", "planted"),
    [
        ([0.9, 0.1], [0.8, 0.2]),
        ([0.5, 0.5, 0.5], [0.9, 0.5, 0.1]),
        ([0.9, 0.5, 0.1], [0.7, 0.7, 0.7]),
        ([0.1 + 0.2, 0.3, 0.3], [0.9, 0.5, 0.1]),
    ],
)
def test_correlations_that_say_nothing_are_left_out(estimate, planted):
    got = recovery(np.array(estimate), np.array(planted))
    assert got.keys() == {"annotators/mae", "annotators/max_error"}


def test_nobody_known_is_empty():
    assert recovery(np.array([NAN, 0.5]), np.array([0.5, NAN])) == {}


def test_empirical_accuracy_by_hand():
    """Item 2 is unknown: annotator 0 is right once of two, 1 never of one, 2 voted only there."""
    votes = Votes(
        item=np.array([0, 1, 2, 0, 2, 2]),
        annotator=np.array([0, 0, 0, 1, 1, 2]),
        label=np.array([1, 1, 0, 2, 0, 0]),
        n_items=3,
        n_annotators=4,
        n_classes=3,
    )
    got = empirical_accuracy(votes, np.array([1, 0, -1]))
    np.testing.assert_array_equal(got, [0.5, 0, NAN, NAN])


def test_adjusted_rand_by_hand() -> None:
    """Sizes 3, 3 against 2, 2, 2: contingency [[2, 1, 0], [0, 1, 2]].

    Pairs together in both: 1 + 1 = 2; in rows 3 + 3 = 6; in columns 1 + 1 + 1 = 3; of all 15.
    By chance 6 * 3 / 15 = 1.2, at most (6 + 3) / 2 = 4.5: (2 - 1.2) / (4.5 - 1.2) = 8 / 33.
    """
    found, planted = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 2, 2])
    assert adjusted_rand(found, planted) == pytest.approx(8 / 33)
    assert adjusted_rand(planted, found) == pytest.approx(8 / 33)


def test_adjusted_rand_ignores_names_and_knows_the_trivial() -> None:
    group = np.array([0, 1, 1, 2, 0])
    assert adjusted_rand(np.array([2, 0, 0, 1, 2]), group) == pytest.approx(1)
    one, alone = np.zeros(5, dtype=np.int64), np.arange(5)
    assert adjusted_rand(one, one) == adjusted_rand(alone, alone) == 1
    assert adjusted_rand(one, group) == pytest.approx(0)
    rng = np.random.default_rng(0)
    chance = [adjusted_rand(rng.integers(2, size=60), np.arange(60) % 2) for _ in range(200)]
    assert np.mean(chance) == pytest.approx(0, abs=0.01)


def test_counterpart_is_where_most_are() -> None:
    found, planted = np.array([1, 1, 0, 0, 0]), np.array([0, 0, 0, 1, 1])
    assert counterpart(found, planted).tolist() == [1, 0]
    assert counterpart(np.zeros(5, dtype=np.int64), planted).tolist() == [0, 0]
