"""Paired tests: by hand, at their limits, and calibrated where nothing is to be found."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from annorun.scores.significance import (
    EXACT,
    corrected_resampled_t,
    holm,
    paired_bootstrap,
    sign_flip,
)


def test_sign_flip_by_hand() -> None:
    """Sums of +-1 +-2 +-3: of the 8, those of |sum| >= 4 are 6, 4, -4, -6 (1+3, and 1+2+3)."""
    rng = np.random.default_rng(0)
    assert sign_flip(np.array([1.0, 2.0, 3.0]), rng=rng) == 2 / 8
    assert sign_flip(np.array([-1.0, 2.0, 3.0]), rng=rng) == 4 / 8
    assert sign_flip(np.array([0.1, 0.2, -0.3]), rng=rng) == 1


def test_sign_flip_has_no_less_than_its_pairs_allow() -> None:
    rng = np.random.default_rng(0)
    assert sign_flip(np.ones(12), rng=rng) == 2 / 2**12
    assert sign_flip(np.ones(200), rng=rng) == 1 / 10_000
    assert np.isnan(sign_flip(np.empty(0), rng=rng))
    assert sign_flip(np.zeros(5), rng=rng) == 1


def test_random_signs_agree_with_all_of_them() -> None:
    rng = np.random.default_rng(1)
    difference = rng.normal(0.3, 1, EXACT)
    exact = sign_flip(difference, rng=rng)
    # a pair that does not differ changes nothing but the way it is computed
    assert sign_flip(np.append(difference, 0.0), rng=rng) == pytest.approx(exact, abs=0.02)


def test_p_is_uniform_where_nothing_differs() -> None:
    rng = np.random.default_rng(2)
    p = np.array([sign_flip(rng.normal(size=10), rng=rng) for _ in range(2000)])
    assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.015)
    assert (p <= 0.5).mean() == pytest.approx(0.5, abs=0.04)


def test_holm_by_hand() -> None:
    """Sorted .01, .02, .03, .2 times 4, 3, 2, 1: .04, .06, .06 (not below the one before), .2."""
    assert holm([0.03, 0.01, 0.2, 0.02]) == pytest.approx([0.06, 0.04, 0.2, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_corrected_resampled_t_by_hand() -> None:
    """1, 2, 3: mean 2, variance 1, t = 2 / sqrt(1/3 + 1/4) = 2.6186; of df 2, p = .1201."""
    difference = np.array([1.0, 2.0, 3.0])
    t = 2 / np.sqrt(7 / 12)
    p = 1 - t / np.sqrt(t**2 + 2)  # the t distribution of two degrees of freedom, in closed form
    assert corrected_resampled_t(difference, 0.25) == pytest.approx(p)
    assert corrected_resampled_t(-difference, 0.25) == pytest.approx(p)


def test_without_shared_items_it_is_the_t_test() -> None:
    difference = np.random.default_rng(0).normal(0.3, 1, 25)
    plain = ttest_1samp(difference, 0).pvalue
    assert corrected_resampled_t(difference, 0) == pytest.approx(plain)
    assert corrected_resampled_t(difference, 0.25) > plain


def test_corrected_resampled_t_of_constants() -> None:
    assert np.isnan(corrected_resampled_t(np.ones(1), 0.25))
    assert corrected_resampled_t(np.zeros(5), 0.25) == 1
    assert corrected_resampled_t(np.ones(5), 0.25) == 0


def test_folds_of_nothing_are_found_as_rarely_as_asked() -> None:
    """Two guessers over 5 x 5 folds of 100 items: p below .05 in about 5 %, not 30 % or more."""
    rng = np.random.default_rng(1)
    found, plain = [], []
    for _ in range(150):
        # guessers who have learned the training items' mean, of which folds share most
        y, difference = rng.normal(size=(2, 100)), []
        for _ in range(5):
            for fold in np.split(rng.permutation(100), 5):
                left = np.delete(np.arange(100), fold)
                loss = [((x[fold] - x[left].mean()) ** 2).mean() for x in y]
                difference.append(loss[0] - loss[1])
        found.append(corrected_resampled_t(np.array(difference), 0.25) < 0.05)
        plain.append(ttest_1samp(difference, 0).pvalue < 0.05)
    assert np.mean(found) < 0.1
    assert np.mean(plain) > 0.2


def test_the_bootstrap_interval_is_the_normal_one_of_many_pairs() -> None:
    """Of n differences with deviation s, mean +- 1.96 s / sqrt(n)."""
    rng = np.random.default_rng(0)
    difference = rng.normal(0.1, 1.0, size=2000)
    low, high = paired_bootstrap(difference, rng=rng)
    half = 1.96 * difference.std() / np.sqrt(2000)
    assert low == pytest.approx(difference.mean() - half, abs=0.003)
    assert high == pytest.approx(difference.mean() + half, abs=0.003)
    narrow = paired_bootstrap(difference, rng=rng, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_differences_that_are_all_one_leave_no_doubt() -> None:
    rng = np.random.default_rng(0)
    assert paired_bootstrap(np.full(5, 0.25), rng=rng) == (0.25, 0.25)
    assert np.isnan(paired_bootstrap(np.empty(0), rng=rng)).all()


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    """Of 400 draws of 40 pairs, 90 % intervals: within three deviations of a binomial, less 1 %."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        low, high = paired_bootstrap(rng.exponential(size=40) - 1, rng=rng, level=0.9)
        inside += low <= 0 <= high
    assert 0.9 - 3 * 0.015 - 0.02 < inside / 400 < 0.9 + 3 * 0.015
