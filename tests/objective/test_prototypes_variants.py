"""Variational and gated EM: by hand, against the exact evidence and loops, and their limits."""

import doctest
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import digamma, gammaln
from scipy.stats import multivariate_normal

from annorun.errors import ConfigError
from annorun.objective import prototypes_gated, prototypes_variational
from annorun.objective.prototypes import Fitted, Priors, accuracy, em, log_posterior, map_objective
from annorun.objective.prototypes_gated import gated_em, gated_objective
from annorun.objective.prototypes_variational import (
    Variational,
    elbo,
    log_predictive,
    means,
    variational_em,
)

# not one of them as in the defaults: a swap of two would show
PRIORS = Priors(classes=1.5, right=1.7, wrong=0.6, precision=0.3)
S = 0.4
Given = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def drawn(t: int = 3, n: int = 10, r: int = 3, k: int = 3, m: int = 4, seed: int = 0) -> Given:
    """Embeddings, votes (a third missing), queries and the gates' log-odds."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.arange(n) % k
    centres = 2 * torch.randn(t, k, m, dtype=torch.float64, generator=generator)
    noise = torch.randn(t, n, m, dtype=torch.float64, generator=generator)
    guess = torch.randint(k, (t, n, r), generator=generator)
    hit = torch.rand(t, n, r, generator=generator) < 0.6
    votes = torch.where(hit, truth[:, None], guess)
    votes[torch.rand(t, n, r, generator=generator) < 1 / 3] = -1
    queries = centres + torch.randn(t, k, m, dtype=torch.float64, generator=generator)
    gate = 2 * torch.randn(t, n, dtype=torch.float64, generator=generator)
    return centres[:, truth] + noise, votes, queries, gate


def close(one: tuple[torch.Tensor, ...], other: tuple[torch.Tensor, ...], atol: float) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


def shares_by_loops(y: np.ndarray, k: int) -> np.ndarray:
    q = np.full((len(y), k), 1 / k)
    for i, row in enumerate(y):
        said = [label for label in row if label >= 0]
        if said:
            q[i] = [said.count(c) / len(said) for c in range(k)]
    return q


def tally_by_loops(y: np.ndarray, weight: np.ndarray, extra: float) -> np.ndarray:
    """Return c + `extra` + the votes, each weighed by `weight[n, r, k]`."""
    (n, r), k = y.shape, weight.shape[-1]
    table = np.full((r, k, k), PRIORS.wrong + extra)
    for a, c in itertools.product(range(r), range(k)):
        table[a, c, c] = PRIORS.right + extra
    for i, a, c in itertools.product(range(n), range(r), range(k)):
        if y[i, a] >= 0:
            table[a, c, y[i, a]] += weight[i, a, c]
    return table


def test_variational_by_hand():
    """u = 0 and 2, one vote each, of one annotator: 0 and 1. tau = v = 1, b = 1, c = 2 and 1.

    N_k = 1: m = (0, 2 / 2), v_k = 1 / (1 + 1) = 1/2, e = (3, 3), h_00 = 2 + 1 + 1 = 4, h_01 = 2.
    E log alpha_00 - E log alpha_10 = digamma(4) - digamma(2) = 1/2 + 1/3 = 5/6 (the sums agree).
    At u = 0: (1^2 - 0^2) / 2 + 5/6 = 4/3; at u = 2: class 1 over 0 by (2^2 - 1^2) / 2 + 5/6 = 7/3.
    A query at x: variance 1 + 1/2, so the log odds of class 1 are (x^2 - (x - 1)^2) / 3.
    """
    u, votes = torch.tensor([[[0.0], [2.0]]]).double(), torch.tensor([[[0], [1]]])
    priors = Priors(classes=1, right=2, wrong=1, precision=1)
    fitted = variational_em(u, votes, 2, steps=1, priors=priors)
    odds = fitted.responsibilities[0].log() @ torch.tensor([1.0, -1.0]).double()
    assert odds.tolist() == pytest.approx([4 / 3, -7 / 3], abs=1e-13)
    assert fitted.prototypes.flatten().tolist() == pytest.approx([0, 1], abs=1e-14)
    assert fitted.variance.flatten().tolist() == pytest.approx([0.5, 0.5])
    assert fitted.confusion.flatten().tolist() == pytest.approx([4, 2, 2, 4])
    assert accuracy(means(fitted)).item() == pytest.approx(2 / 3)
    answers = log_predictive(torch.tensor([[[2.0], [-1.0]]]).double(), fitted)[0]
    assert (answers[:, 1] - answers[:, 0]).tolist() == pytest.approx([1, -1])


@pytest.mark.parametrize("steps", [1, 3])
def test_variational_is_the_formulas_in_loops(steps: int):
    u, votes, x, _ = drawn()
    fitted = variational_em(u, votes, 3, steps=steps, priors=PRIORS, log_variance=S)
    answers = log_predictive(x, fitted, S).exp()
    var, tau, size = math.exp(S), PRIORS.precision, 4
    for t, (points, y) in enumerate(zip(u.numpy(), votes.numpy(), strict=True)):
        q = shares_by_loops(y, 3)
        for _ in range(steps):
            e = PRIORS.classes + 1 + q.sum(0)
            h = tally_by_loops(y, np.repeat(q[:, None], 3, 1), 1)
            # precision tau + N / variance; mean N ubar / variance over it
            v = 1 / (tau + q.sum(0) / var)
            mean = (q.T @ points / var) * v[:, None]
            for i, c in itertools.product(range(10), range(3)):
                log_q = digamma(e[c]) - digamma(e.sum())
                log_q -= (((points[i] - mean[c]) ** 2).sum() + size * v[c]) / (2 * var)
                for a in range(3):
                    if y[i, a] >= 0:
                        log_q += digamma(h[a, c, y[i, a]]) - digamma(h[a, c].sum())
                q[i, c] = math.exp(log_q)
            q /= q.sum(1, keepdims=True)
        for ours, theirs in zip(fitted, (q, mean, v, e, h), strict=True):
            np.testing.assert_allclose(ours[t].numpy(), theirs, rtol=0, atol=1e-10)
        for z, answer in zip(x[t].numpy(), answers[t].numpy(), strict=True):
            p = e * [
                multivariate_normal.pdf(z, mean[c], (var + v[c]) * np.eye(size)) for c in range(3)
            ]
            np.testing.assert_allclose(answer, p / p.sum(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [1, 4, 64])
def test_no_step_lowers_the_bound(size: int):
    gained = 0.0
    for seed in range(3):
        u, votes, _, _ = drawn(m=size, seed=seed)
        values = []
        for j in range(1, 9):
            fitted = variational_em(u, votes, 3, steps=j, priors=PRIORS, log_variance=S)
            values.append(elbo(u, votes, fitted, PRIORS, S))
        rise = torch.stack(values).diff(dim=0)
        assert (rise >= -1e-9 * values[0].abs()).all()
        gained += rise.sum().item()
    assert gained > 0.1


def joints(u: np.ndarray, y: np.ndarray, k: int) -> dict[tuple[int, ...], float]:
    """Return log p(u, y, t) of every t, the parameters integrated out in closed form.

    Classes and votes are Dirichlet-multinomial; the examples of a class have covariance
    e^s I + 1 1' / tau in each dimension.
    """

    def ratio(prior: np.ndarray, full: np.ndarray) -> float:
        top = gammaln(full).sum() - gammaln(full.sum())
        return float(top - gammaln(prior).sum() + gammaln(prior.sum()))

    found = {}
    for classes in itertools.product(range(k), repeat=len(u)):
        q = np.eye(k)[list(classes)]
        flat = np.full(k, PRIORS.classes + 1)
        term = ratio(flat, flat + q.sum(0))
        prior = tally_by_loops(np.full_like(y, -1), np.zeros((*y.shape, k)), 1)
        full = tally_by_loops(y, np.repeat(q[:, None], y.shape[1], 1), 1)
        for a, c in itertools.product(range(y.shape[1]), range(k)):
            term += ratio(prior[a, c], full[a, c])
        for c in range(k):
            mine = u[q[:, c] == 1]
            if len(mine):
                cov = math.exp(S) * np.eye(len(mine)) + 1 / PRIORS.precision
                term += multivariate_normal.logpdf(mine.T, cov=cov).sum()
        found[classes] = term
    return found


def test_with_one_class_the_bound_is_the_evidence():
    """Nothing is left to approximate: the posterior of mu is the exact one."""
    u, votes, _, _ = drawn(t=1, n=5)
    votes = votes.clamp_max(0)
    fitted = variational_em(u, votes, 1, steps=1, priors=PRIORS, log_variance=S)
    bound = elbo(u, votes, fitted, PRIORS, S).item()
    (exact,) = joints(u[0].numpy(), votes[0].numpy(), 1).values()
    assert bound == pytest.approx(exact, abs=1e-10)


@pytest.mark.parametrize("far", [0.0, 60.0])
def test_the_bound_is_below_the_evidence_and_exact_for_classes_that_are_sure(far: float):
    """Far apart, q is 0 or 1 for one t, and the bound is log p(u, y, t)."""
    for seed in range(3):
        u, votes, _, _ = drawn(t=1, n=4, k=2, m=2, seed=seed)
        u[0, :, 0] += far * (torch.arange(4) % 2)
        fitted = variational_em(u, votes, 2, steps=20, priors=PRIORS, log_variance=S)
        bound = elbo(u, votes, fitted, PRIORS, S).item()
        exact = joints(u[0].numpy(), votes[0].numpy(), 2)
        assert bound < np.logaddexp.reduce(list(exact.values()))
        if far:
            sure = tuple(fitted.responsibilities[0].argmax(-1).tolist())
            assert bound == pytest.approx(exact[sure], abs=1e-8)


def test_as_counts_grow_the_answers_are_those_of_em():
    """Each example n times, both methods alike: what is left falls as 1 / n.

    Every annotator votes on every example and clusters overlap: a row of alpha without votes stays
    at the prior, whose mean is not its mode.
    """
    u, votes, x, _ = drawn(n=12)
    votes, s = votes.where(votes >= 0, torch.arange(12)[:, None] % 3), 2.0
    gaps = []
    for n in (100, 1000):
        many, said = u.repeat_interleave(n, 1), votes.repeat_interleave(n, 1)
        point = em(many, said, 3, steps=3, priors=PRIORS, log_variance=s)
        fitted = variational_em(many, said, 3, steps=3, priors=PRIORS, log_variance=s)
        answers = log_predictive(x, fitted, s).exp(), log_posterior(x, point, s).exp()
        mean = means(fitted)
        pairs = [answers, *zip(mean[:2], point[:2], strict=True)]
        pairs += [(a.exp(), b.exp()) for a, b in zip(mean[2:], point[2:], strict=True)]
        gaps.append([(a - b).abs().max().item() for a, b in pairs])
    assert min(gaps[0]) > 1e-5 and max(gaps[1]) < 2e-2
    falls = [after / before for before, after in zip(*gaps, strict=True)]
    assert falls == pytest.approx([0.1] * 5, rel=0.2)


def test_with_few_examples_variational_answers_are_less_sure_than_those_of_em():
    u, votes, x, _ = drawn(n=3)
    point = em(u, votes, 3, steps=1, priors=PRIORS, log_variance=S)
    fitted = variational_em(u, votes, 3, steps=1, priors=PRIORS, log_variance=S)
    torch.testing.assert_close(fitted.prototypes, point.prototypes)
    sure = [
        p.exp().amax(-1).mean() for p in (log_predictive(x, fitted, S), log_posterior(x, point, S))
    ]
    assert sure[0] < sure[1]


def test_gated_by_hand():
    """u = 0 and 2, one vote each: 0 and 1; gates 1/2 and 1. tau = 0, c = 2 and 1, K = 2.

    Before the first step alpha = 1/2, so w = g: alpha_00 = (2 + 1/2) / (3 + 1/2) = 5/7,
    alpha_10 = 1 / (3 + 1) = 1/4, alpha_11 = 3/4.
    At u = 0: 2 + log((5/7 + 1/2) / 2 : (1/4 + 1/2) / 2) = 2 + log(17/28 : 3/8) = 2 + log(34/21);
    at u = 2 the gate is open: class 1 over 0 by 2 + log(3/4 : 2/7) = 2 + log(21/8).
    """
    u, votes = torch.tensor([[[0.0], [2.0]]]).double(), torch.tensor([[[0], [1]]])
    gate = torch.tensor([[0.0, torch.inf]]).double()
    fitted = gated_em(u, votes, 2, gate, steps=1, priors=Priors())
    rows = fitted.log_confusion[0, 0].exp().flatten().tolist()
    assert rows == pytest.approx([5 / 7, 2 / 7, 1 / 4, 3 / 4], abs=1e-14)
    odds = fitted.responsibilities[0].log() @ torch.tensor([1.0, -1.0]).double()
    assert odds.tolist() == pytest.approx([2 + math.log(34 / 21), -2 - math.log(21 / 8)], abs=1e-13)


@pytest.mark.parametrize("steps", [1, 3])
def test_gated_is_the_formulas_in_loops(steps: int):
    u, votes, _, gate = drawn()
    fitted = gated_em(u, votes, 3, gate, steps=steps, priors=PRIORS, log_variance=S)
    var = math.exp(S)
    for t, (points, y) in enumerate(zip(u.numpy(), votes.numpy(), strict=True)):
        g = 1 / (1 + np.exp(-gate[t].numpy()))
        q, w = shares_by_loops(y, 3), np.repeat(g[:, None, None], 3, 1).repeat(3, 2)
        for _ in range(steps):
            pi = (PRIORS.classes + q.sum(0)) / (3 * PRIORS.classes + 10)
            mu = q.T @ points / (PRIORS.precision * var + q.sum(0))[:, None]
            alpha = tally_by_loops(y, q[:, None] * w, 0)
            alpha /= alpha.sum(-1, keepdims=True)
            for i, c in itertools.product(range(10), range(3)):
                q[i, c] = pi[c] * math.exp(-((points[i] - mu[c]) ** 2).sum() / (2 * var))
                for a in range(3):
                    if y[i, a] >= 0:
                        mixed = g[i] * alpha[a, c, y[i, a]] + (1 - g[i]) / 3
                        q[i, c] *= mixed
                        w[i, a, c] = g[i] * alpha[a, c, y[i, a]] / mixed
            q /= q.sum(1, keepdims=True)
        expected = (q, mu, np.log(pi), np.log(alpha))
        for ours, theirs in zip(fitted, expected, strict=True):
            np.testing.assert_allclose(ours[t].numpy(), theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("log_odds", [20.0, torch.inf])
def test_an_open_gate_is_em(log_odds: float):
    u, votes, x, gate = drawn()
    wide = torch.full_like(gate, log_odds).requires_grad_()
    fitted = gated_em(u, votes, 3, wide, steps=4, priors=PRIORS, log_variance=S)
    base = em(u, votes, 3, steps=4, priors=PRIORS, log_variance=S)
    close(fitted, base, 1e-6)
    value = gated_objective(u, votes, wide, fitted, PRIORS, S)
    torch.testing.assert_close(value, map_objective(u, votes, base, PRIORS, S), rtol=0, atol=1e-6)
    loss = log_posterior(x, fitted, S)[..., 0].sum()
    assert torch.autograd.grad(loss, wide)[0].isfinite().all()


def test_a_closed_gate_leaves_votes_only_the_start():
    """Alpha stays at c / sum c, and who gave a vote, or two that cancel, is as good as nothing."""
    u, votes, _, gate = drawn()
    shut = torch.full_like(gate, -40.0)
    fitted = gated_em(u, votes, 3, shut, steps=2, priors=PRIORS, log_variance=S)
    row = torch.tensor([1.7, 0.6, 0.6]).double() / 2.9
    torch.testing.assert_close(fitted.log_confusion.exp()[..., 0, :], row.expand(3, 3, 3))
    # each vote is a guess: 1 / K, and no vote is nothing
    value = gated_objective(u, votes, shut, fitted, PRIORS, S)
    unheard = map_objective(u, torch.full_like(votes, -1), fitted, PRIORS, S)
    guesses = math.log(3) * (votes >= 0).sum((1, 2)).double()
    torch.testing.assert_close(value, unheard - guesses, rtol=0, atol=1e-10)
    # annotators whose votes change, the shares not: swap two of them
    other = gated_em(u, votes.flip(-1), 3, shut, steps=2, priors=PRIORS, log_variance=S)
    close(fitted, other, 1e-12)
    # two that always cancel have no say: an example without votes is as good
    split = votes.clone()
    split[:, 0], none = torch.tensor([0, 1, 2]), votes.clone()
    none[:, 0] = -1
    ours, theirs = (
        gated_em(u, v, 3, shut, steps=2, priors=PRIORS, log_variance=S) for v in (split, none)
    )
    close(ours, theirs, 1e-12)
    open_ones = [gated_em(u, v, 3, -shut, steps=2, priors=PRIORS) for v in (split, none)]
    assert (open_ones[0].responsibilities - open_ones[1].responsibilities).abs().max() > 1e-3


@pytest.mark.parametrize("size", [1, 4, 64])
def test_no_step_lowers_the_gated_objective(size: int):
    gained = 0.0
    for seed in range(3):
        u, votes, _, gate = drawn(m=size, seed=seed)
        values = []
        for j in range(1, 9):
            fitted = gated_em(u, votes, 3, gate, steps=j, priors=PRIORS, log_variance=S)
            values.append(gated_objective(u, votes, gate, fitted, PRIORS, S))
        rise = torch.stack(values).diff(dim=0)
        assert (rise >= -1e-9 * values[0].abs()).all()
        gained += rise.sum().item()
    assert gained > 0.1


def variational(
    u: torch.Tensor, votes: torch.Tensor, gate: torch.Tensor, k: int = 3
) -> Variational:
    return variational_em(u, votes, k, steps=3, priors=PRIORS, log_variance=S)


def gated(u: torch.Tensor, votes: torch.Tensor, gate: torch.Tensor, k: int = 3) -> Fitted:
    return gated_em(u, votes, k, gate, steps=3, priors=PRIORS, log_variance=S)


def test_the_gradient_runs_through_the_steps():
    u, votes, x, gate = drawn(t=2, n=5, m=2)
    s = torch.tensor(S, dtype=torch.float64)
    args = {"steps": 3, "priors": PRIORS}

    def variational_loss(*given: torch.Tensor) -> torch.Tensor:
        embedded, queries, scale = given
        fitted = variational_em(embedded, votes, 3, **args, log_variance=scale)
        bound = elbo(embedded, votes, fitted, PRIORS, scale).sum()
        return log_predictive(queries, fitted, scale)[..., 1].sum() + bound

    def gated_loss(*given: torch.Tensor) -> torch.Tensor:
        embedded, queries, scale, odds = given
        fitted = gated_em(embedded, votes, 3, odds, **args, log_variance=scale)
        return log_posterior(queries, fitted, scale)[..., 1].sum()

    inputs = [value.clone().requires_grad_() for value in (u, x, s, gate)]
    assert torch.autograd.gradcheck(variational_loss, inputs[:3])
    assert torch.autograd.gradcheck(gated_loss, inputs)


@pytest.mark.parametrize("fit", [variational, gated])
def test_order_and_company_change_nothing(fit):
    """Annotators and classes permuted, one without votes added, a task alone."""
    u, votes, _, gate = drawn()
    base = fit(u, votes, gate)
    moved = fit(u, votes[..., [2, 0, 1]], gate)
    close(moved[:-1], base[:-1], 1e-12)
    close(moved[-1:], (base[-1][:, [2, 0, 1]],), 1e-12)
    name = torch.tensor([1, 2, 0])
    moved = fit(u, torch.where(votes >= 0, name[votes], -1), gate)
    close((moved[-1][:, :, name][..., name],), base[-1:], 1e-12)
    close((moved.responsibilities[..., name],), base[:1], 1e-12)
    order = torch.arange(9, -1, -1)
    moved = fit(u[:, order], votes[:, order], gate[:, order])
    close((moved.responsibilities[:, order], *moved[1:]), base, 1e-12)
    more = fit(u, torch.cat([votes, torch.full_like(votes[..., :1], -1)], -1), gate)
    close((*more[:-1], more[-1][:, :3]), base, 1e-12)
    alone = fit(u[1:2], votes[1:2], gate[1:2])
    close(alone, tuple(part[1:2] for part in base), 1e-12)


@pytest.mark.parametrize("fit", [variational, gated])
def test_votes_that_all_tie_do_not_collapse_the_prototypes(fit):
    _, votes, _, gate = drawn(t=1, n=12)
    where = torch.tensor([[-4.0, 0.0], [4.0, 0.0], [0.0, 6.0]]).double()
    noise = torch.randn(12, 2, generator=torch.Generator().manual_seed(3)).double() / 4
    u = (where.repeat(4, 1) + noise)[None]
    priors = PRIORS._replace(precision=0.1)
    tied = torch.full_like(votes, -1)
    if fit is variational:
        fitted = variational_em(u, tied, 3, steps=20, priors=priors)
    else:
        fitted = gated_em(u, tied, 3, gate, steps=20, priors=priors)
    found = fitted.responsibilities[0].argmax(-1).reshape(4, 3)
    assert (found == found[0]).all() and len(set(found[0].tolist())) == 3


def test_it_is_in_float32_under_autocast():
    u, votes, x, gate = (
        value.bfloat16() if value.is_floating_point() else value for value in drawn()
    )
    expected = [fit(u.float(), votes, gate.float()) for fit in (variational, gated)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for fit, wanted in zip((variational, gated), expected, strict=True):
            close(fit(u, votes, gate), wanted, 0)
        answers = log_predictive(x, expected[0], S)
        bound = elbo(u, votes, expected[0], PRIORS, S)
        value = gated_objective(u, votes, gate, expected[1], PRIORS, S)
    torch.testing.assert_close(answers, log_predictive(x.float(), expected[0], S))
    torch.testing.assert_close(bound, elbo(u.float(), votes, expected[0], PRIORS, S))
    full = gated_objective(u.float(), votes, gate.float(), expected[1], PRIORS, S)
    torch.testing.assert_close(value, full)


def test_a_flat_prior_has_no_variational_posterior():
    u, votes, _, _ = drawn()
    with pytest.raises(ConfigError, match=r"variational_em: priors.precision=0; allowed is"):
        variational_em(u, votes, 3, steps=1, priors=Priors())


@pytest.mark.parametrize("file", [prototypes_variational, prototypes_gated])
def test_docstring_examples(file):
    result = doctest.testmod(file)
    assert result.attempted and result.failed == 0
