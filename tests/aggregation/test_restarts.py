"""M-steps by hand and by integration; restarts side by side are restarts alone."""

import math
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from scipy.integrate import dblquad, quad
from scipy.special import betaln, gammaln

from annorun.aggregation import spam
from annorun.aggregation.mace import mace
from annorun.aggregation.nutmeg import nutmeg
from annorun.aggregation.restarts import (
    Fit,
    Prior,
    expected_log,
    iterate,
    maximise,
    reliability,
    vary,
)
from annorun.aggregation.spam import Counts
from annorun.votes import Votes

# annotator 0: 2 known votes, 1 of spam; annotator 1 is silent
COUNTS = Counts(
    np.array([[[2.0], [0.0]], [[0.0], [0.0]]]), np.array([[[0.0], [1.0]], [[0.0], [0.0]]])
)


def test_maximise_by_hand():
    """With one more vote in each count: theta = 3/5, xi = (1, 2) / 3; the silent one is even.

    The density is 1 * (log 3/5 + log 2/5 + log 1/3 + log 2/3) + 4 log 1/2.
    """
    tables, density = maximise(COUNTS, 1.0)
    np.testing.assert_allclose(tables.know[:, 0], [3 / 5, 1 / 2], atol=1e-15)
    np.testing.assert_allclose(tables.spam[:, 0], [2 / 5, 1 / 2], atol=1e-15)
    expected = [[1 / 3, 2 / 3], [1 / 2, 1 / 2]]
    np.testing.assert_allclose(tables.strategy[..., 0], expected, atol=1e-15)
    assert density[0] == pytest.approx(math.log(3 / 5 * 2 / 5 * 1 / 3 * 2 / 3 / 16), abs=1e-14)


@pytest.mark.parametrize("smoothing", [1e-300, 1e-18])
def test_maximise_is_finite_without_a_vote_of_spam(smoothing):
    counts = Counts(np.array([[[9.0], [3.0]]]), np.zeros((1, 2, 1)))
    tables, density = maximise(counts, smoothing)
    assert tables.know[0, 0] == 1 and tables.spam[0, 0] > 0 and np.isfinite(density).all()


def test_vary_by_hand():
    """Priors alpha = 1, beta = 2, 3 each for xi: Beta(2, 4) of (spam, know), Dirichlet(3, 4).

    psi(n) = -gamma + H_{n-1}: E log spam = H_1 - H_5, E log know = H_3 - H_5, and H_2 - H_6,
    H_3 - H_6 of the labels; H_1 = 1, H_2 = 3/2, H_3 = 11/6, H_5 = 137/60, H_6 = 49/20. The silent
    one has psi(1) - psi(3) = -3/2 and psi(2) - psi(3) = -1/2.
    Divergence of Beta(2, 4) from Beta(1, 2): log B(1, 2) / B(2, 4) = log (1/2 * 20), and
    (2 - 1) (H_1 - H_5) + (4 - 2) (H_3 - H_5); of Dirichlet(3, 4) from (3, 3): log of
    6! / (2! 3!) / (5! / (2! 2!)) = 2, and H_3 - H_6.
    """
    tables, gain = vary(COUNTS, Prior(1.0, 2.0, 3.0))
    h = {1: 1, 2: 3 / 2, 3: 11 / 6, 5: 137 / 60, 6: 49 / 20}
    np.testing.assert_allclose(np.log(tables.spam[:, 0]), [h[1] - h[5], -3 / 2], atol=1e-14)
    np.testing.assert_allclose(np.log(tables.know[:, 0]), [h[3] - h[5], -1 / 2], atol=1e-14)
    got = np.log(tables.strategy[0, :, 0])
    np.testing.assert_allclose(got, [h[2] - h[6], h[3] - h[6]], atol=1e-14)
    far = math.log(10) + (h[1] - h[5]) + 2 * (h[3] - h[5])
    far += math.log(2) + h[3] - h[6]
    assert gain[0] == pytest.approx(-far, abs=1e-13)


@pytest.mark.parametrize("posterior", [(0.7, 1.3), (2.0, 3.5), (9.0, 1.1)])
@pytest.mark.parametrize("prior", [(0.5, 0.5), (2.0, 1.0)])
def test_expected_log_equals_integrals_over_a_beta(posterior, prior):
    a, b = posterior

    def log_beta(p, q, x):
        return (p - 1) * math.log(x) + (q - 1) * math.log1p(-x) - betaln(p, q)

    def mean(f):
        return sum(
            quad(lambda x: f(x) * math.exp(log_beta(a, b, x)), *ends, epsabs=1e-11, limit=200)[0]
            for ends in ((0, 0.5), (0.5, 1))
        )

    log_p, far = expected_log(np.array([[[a], [b]]]), np.array(prior)[None, :, None])
    assert log_p[0, 0, 0] == pytest.approx(mean(math.log), abs=1e-7)
    assert log_p[0, 1, 0] == pytest.approx(mean(lambda x: math.log1p(-x)), abs=1e-7)
    divergence = mean(lambda x: log_beta(a, b, x) - log_beta(*prior, x))
    assert far[0, 0] == pytest.approx(divergence, abs=1e-7)


def test_expected_log_equals_integrals_over_a_dirichlet():
    a, prior = np.array([2.0, 3.0, 4.5]), np.full(3, 1.5)

    def log_density(w, p):
        return ((w - 1) * np.log(p)).sum() + gammaln(w.sum()) - gammaln(w).sum()

    def mean(f):
        def at(y, x):
            p = np.array([x, y, 1 - x - y])
            return f(p) * math.exp(log_density(a, p)) if p.min() > 0 else 0.0

        return dblquad(at, 0, 1, 0, lambda x: 1 - x, epsabs=1e-4, epsrel=1e-4)[0]

    log_p, far = expected_log(a[None, :, None], prior[None, :, None])
    assert log_p[0, 2, 0] == pytest.approx(mean(lambda p: math.log(p[2])), abs=1e-4)
    divergence = mean(lambda p: log_density(a, p) - log_density(prior, p))
    assert far[0, 0] == pytest.approx(divergence, abs=1e-4)


def test_nothing_learned_is_no_divergence():
    posterior = np.full((2, 4, 3), 0.7)
    _, far = expected_log(posterior, np.full((1, 1, 1), 0.7))
    np.testing.assert_allclose(far, 0, atol=1e-14)


@pytest.mark.parametrize("prior", [np.full((1, 1, 1), 0.3), np.arange(1.0, 13)[None, :, None]])
def test_a_shared_prior_is_one_of_each_row_and_restart(prior):
    posterior = np.random.default_rng(0).uniform(0.1, 9, (5, 12, 3))
    whole = np.ascontiguousarray(np.broadcast_to(prior, posterior.shape))
    for shared, apart in zip(
        expected_log(posterior, prior), expected_log(posterior, whole), strict=True
    ):
        np.testing.assert_allclose(shared, apart, rtol=1e-13)


class Point(NamedTuple):
    know: np.ndarray


def halve(n_iter, tol, starts):
    """1 + x halves x in each pair of steps: the objective -x rises by x / 2."""
    fit = iterate(
        lambda t: (Point(t.know / 2), -t.know[0]),
        lambda c: (Point(c.know), np.zeros(c.know.shape[-1])),
        Point(np.array([starts])),
        n_iter,
        tol,
    )
    return fit, np.array(starts)[None] / 2.0 ** np.arange(1, n_iter + 1)[:, None]


def test_each_objective_is_that_of_its_tables():
    fit, expected = halve(4, None, [8.0, 3.0])
    np.testing.assert_array_equal(fit.trace, -expected)
    np.testing.assert_array_equal(fit.tables.know[0], expected[-1])
    # the counts are those that the tables were made of
    np.testing.assert_array_equal(fit.counts.know[0], expected[-1])
    assert not fit.converged.any()


def test_what_the_steps_hold_on_to_is_not_written_to():
    """One restart ends at once; its arrays, kept by the M-step, stay what they were."""
    held = []

    def improve(counts):
        held.append((Point(counts.know), counts.know.copy()))
        return held[-1][0], np.zeros(counts.know.shape[-1])

    def expect(tables):
        return Point(tables.know * np.where(tables.know < 4, 1.0, 0.5)), -tables.know[0]

    fit = iterate(expect, improve, Point(np.array([[1.0, 64.0]])), 9, 0.1)
    assert fit.converged.all() and fit.tables.know.tolist() == [[1.0, 2.0]]
    for given, copy in held:
        np.testing.assert_array_equal(given.know, copy)


def one_room(n_restarts, inference, keep=None, seed=0):
    """A crowd of 60 items, 7 annotators, 3 labels, in all restarts or in one of them."""
    rng = np.random.default_rng(seed)
    item, annotator = np.nonzero(rng.random((60, 7)) < 0.6)
    right = rng.random(len(item)) < np.linspace(0.2, 0.95, 7)[annotator]
    label = np.where(right, item % 3, rng.integers(3, size=len(item)))
    cells = spam.cells(item, annotator, label, np.full((60, 3), 1 / 3), 7)
    start = spam.start(7, 3, 0.5, np.random.default_rng(9).spawn(n_restarts))
    prior = Prior(0.5, 0.5, 10.0)
    improve = {"vb": partial(vary, prior=prior), "em": partial(maximise, smoothing=0.01)}
    start = start if keep is None else spam.pick(start, keep)
    return partial(spam.e_step, cells), improve[inference], start


@pytest.mark.parametrize("inference", ["vb", "em"])
@pytest.mark.parametrize("tol", [None, 1e-4])
def test_restarts_side_by_side_equal_restarts_alone(inference, tol):
    """The tolerance ends one without moving the others."""
    fit = iterate(*one_room(6, inference), 40, tol)
    lengths = np.isfinite(fit.trace).sum(axis=0)
    assert (len(set(lengths)) > 1) == (tol is not None)
    for r in range(6):
        alone = iterate(*one_room(6, inference, keep=r), 40, tol)
        np.testing.assert_allclose(alone.trace[:, 0], fit.trace[:, r], rtol=1e-12)
        assert np.isnan(fit.trace[lengths[r] :, r]).all()
        for one, both in zip(
            (*alone.tables, *alone.counts), (*fit.tables, *fit.counts), strict=True
        ):
            np.testing.assert_allclose(one[..., 0], both[..., r], rtol=1e-9, atol=1e-12)
        assert alone.converged[0] == fit.converged[r]


def test_tolerance_is_a_share_of_the_objective():
    """-x halves: the share |x/2 - x| / (x/2) = 1 never falls under .9, and is always under 1.1."""
    assert not halve(30, 0.9, [8.0, 1.0])[0].converged.any()
    fit, _ = halve(30, 1.1, [8.0, 1.0])
    assert fit.converged.all()
    assert np.isfinite(fit.trace).sum(axis=0).tolist() == [2, 2]


@pytest.mark.parametrize("inference", ["vb", "em"])
def test_a_converged_restart_ends_within_the_tolerance(inference):
    fit = iterate(*one_room(6, inference), 200, 1e-5)
    assert fit.converged.all()
    for trace in fit.trace.T:
        trace = trace[np.isfinite(trace)]
        rise = np.diff(trace) / np.abs(trace[1:])
        assert rise[-1] <= 1e-5 < rise[:-1].min()


def test_the_highest_last_objective_is_the_best():
    nan = np.nan
    trace = np.array([[-9.0, -1.0, -8.0], [-5.0, -7.0, -7.0], [-4.0, nan, nan]])
    fit = Fit(None, None, trace, np.array([False, True, True]))
    assert fit.best() == (0, (-9.0, -5.0, -4.0), (-4.0, -7.0, -7.0))


def test_reliability_by_hand():
    """theta = (2 + 2) / (3 + 3) = 2/3, xi = (3, 4) / 7; truths 1/4, 3/4:

    accuracy = 2/3 + 1/3 (1/4 * 3/7 + 3/4 * 4/7) = 2/3 + 5/28.
    """
    fit = Fit(None, COUNTS, np.zeros((1, 1)), np.array([True]))
    frequency = np.array([[1 / 4, 3 / 4]])
    competence, accuracy = reliability(fit, 0, Prior(1.0, 2.0, 3.0), frequency)
    assert competence[0] == pytest.approx(2 / 3) and accuracy[0] == pytest.approx(2 / 3 + 5 / 28)
    assert np.isnan(competence[1]) and np.isnan(accuracy[1])


class Only:
    """A generator whose one child is a given one."""

    def __init__(self, child):
        self.child = child

    def spawn(self, n):
        assert n == 1
        return [self.child]


@pytest.mark.parametrize(
    ("method", "keys"),
    [
        (mace, {"inference": "vb"}),
        (mace, {"inference": "em"}),
        (nutmeg, {"imputation": "naive_bayes"}),
        (nutmeg, {"imputation": "joint"}),
        (nutmeg, {"imputation": "released", "estep": "released"}),
    ],
)
def test_all_that_is_returned_is_of_the_best_restart(method, keys):
    """As that restart alone; after two iterations no two are alike, and the first is not best."""
    rng = np.random.default_rng(0)
    item, annotator = np.nonzero(rng.random((30, 6)) < 0.7)
    label = rng.integers(3, size=len(item))
    votes = Votes(item, annotator, label, 30, 6, 3, group=np.arange(6) % 2)
    for seed in range(20):
        got = method(votes, rng=np.random.default_rng(seed), n_restarts=4, n_iter=2, **keys)
        best = int(np.argmax(got.restarts))
        if best:
            break
    assert best > 0 and len(set(got.restarts)) == 4
    child = np.random.default_rng(seed).spawn(4)[best]
    alone = method(votes, rng=Only(child), n_restarts=1, n_iter=2, **keys)
    assert got.trace == pytest.approx(alone.trace, rel=1e-12)
    for name in ("probs", "accuracy", "competence", "group_probs", "disagreement"):
        one, other = getattr(got, name), getattr(alone, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, atol=1e-10, err_msg=name)
    # what another restart says is something else
    child = np.random.default_rng(seed).spawn(1)[0]
    first = method(votes, rng=Only(child), n_restarts=1, n_iter=2, **keys)
    assert np.abs(first.probs - got.probs).max() > 1e-4
