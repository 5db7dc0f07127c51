"""REALM's likelihood against exact arithmetic, its limits and gradients worked out on paper."""

import doctest
import itertools
import math

import mpmath
import numpy as np
import pytest
import torch

from annorun.objective import expertise as module
from annorun.objective.expertise import expertise_loss, log_mixture, responsibility

LN = math.log
LOGITS = [[0.0, 0, 0, 0], [3, -1, 0.5, 2], [80, -80, 0, 1], [-700, 5, 700, 0], [1e4, 0, -1e4, 7]]
OMEGAS = [-500.0, -50.0, -3.0, 0.0, 0.7, 50.0, 500.0]


def grid(dtype):
    """Every logit row with every label and every omega."""
    log_probs = torch.tensor(LOGITS, dtype=dtype).log_softmax(-1)
    rows, labels, omegas = zip(
        *itertools.product(range(len(LOGITS)), range(4), OMEGAS), strict=True
    )
    return log_probs[list(rows)], torch.tensor(labels), torch.tensor(omegas, dtype=dtype)


def exact(log_probs, label, omega):
    """log p and w of each vote; 600 digits, as 1 - rho = e^-500 next to 1 takes 217 of them."""
    rows = zip(log_probs.tolist(), label.tolist(), omega.tolist(), strict=True)
    log_p, w = [], []
    with mpmath.workdps(600):
        for log_pi, y, om in rows:
            rho = 1 / (1 + mpmath.exp(-mpmath.mpf(om)))
            pi = mpmath.exp(mpmath.mpf(log_pi[y]))
            p = rho * pi + (1 - rho) / len(log_pi)
            log_p.append(float(mpmath.log(p)))
            w.append(float(rho * pi / p))
    return np.array(log_p), np.array(w)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_equals_exact_arithmetic(dtype, rtol):
    votes = grid(dtype)
    log_p, w = exact(*votes)
    tiny = 10 * torch.finfo(dtype).tiny  # below it a float has no digits left
    assert log_mixture(*votes).dtype == dtype
    np.testing.assert_allclose(log_mixture(*votes).numpy(), log_p, rtol=rtol, atol=tiny)
    np.testing.assert_allclose(responsibility(*votes).numpy(), w, rtol=rtol, atol=tiny)
    assert expertise_loss(*votes).item() == pytest.approx(-log_p.mean(), rel=rtol)


def test_by_hand():
    """K = 2, pi = (3/4, 1/4), rho = 1/3.

    p(0) = 1/4 + 1/3 = 7/12, w = 3/7; p(1) = 1/12 + 1/3 = 5/12, w = 1/5.
    """
    log_probs = torch.tensor([[LN(0.75), LN(0.25)]] * 2, dtype=torch.float64)
    votes = log_probs, torch.tensor([0, 1]), torch.full((2,), -LN(2), dtype=torch.float64)
    assert log_mixture(*votes).tolist() == pytest.approx([LN(7 / 12), LN(5 / 12)], abs=1e-14)
    assert responsibility(*votes).tolist() == pytest.approx([3 / 7, 1 / 5], abs=1e-14)
    assert expertise_loss(*votes).item() == pytest.approx(-LN(35 / 144) / 2, abs=1e-14)


@pytest.fixture
def sample():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(12, 5, dtype=torch.float64, generator=generator)
    label = torch.randint(5, (12,), generator=generator)
    omega = 2 * torch.randn(12, dtype=torch.float64, generator=generator)
    return logits.requires_grad_(), label, omega.requires_grad_()


def test_full_expertise_is_cross_entropy(sample):
    logits, label, omega = sample
    loss = expertise_loss(logits.log_softmax(-1), label, torch.full_like(omega, 800.0))
    assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, label).item())
    (grad,) = torch.autograd.grad(loss, logits)
    (expected,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, label), logits)
    torch.testing.assert_close(grad, expected)


def test_no_expertise_is_log_k_and_teaches_nothing(sample):
    logits, label, omega = sample
    loss = expertise_loss(logits.log_softmax(-1), label, torch.full_like(omega, -800.0))
    assert loss.item() == pytest.approx(LN(5), rel=1e-14)
    (grad,) = torch.autograd.grad(loss, logits)
    assert grad.abs().max() == 0


def test_a_uniform_model_makes_expertise_irrelevant(sample):
    _, label, omega = sample
    loss = expertise_loss(torch.full((12, 5), -LN(5), dtype=torch.float64), label, omega)
    assert loss.item() == pytest.approx(LN(5), rel=1e-14)
    (grad,) = torch.autograd.grad(loss, omega)
    assert grad.abs().max() < 1e-15


def test_gradients_are_those_of_the_paper(sample):
    """dL/dz = w (pi - onehot) and dL/domega = -rho (1 - rho) (pi_y - 1/K) / p, over 12 votes."""
    logits, label, omega = sample
    loss = expertise_loss(logits.log_softmax(-1), label, omega)
    in_logits, in_omega = torch.autograd.grad(loss, (logits, omega))
    pi, rho = logits.detach().softmax(-1), omega.detach().sigmoid()
    pi_y = pi[torch.arange(12), label]
    p = rho * pi_y + (1 - rho) / 5
    w = rho * pi_y / p
    onehot = torch.nn.functional.one_hot(label, 5)
    torch.testing.assert_close(in_logits, w[:, None] * (pi - onehot) / 12)
    torch.testing.assert_close(in_omega, -rho * (1 - rho) * (pi_y - 1 / 5) / p / 12)
    found = responsibility(logits.log_softmax(-1), label, omega).detach()
    torch.testing.assert_close(found, w)
    torch.testing.assert_close(in_omega, (rho - found) / 12)


def test_gradcheck(sample):
    logits, label, omega = sample
    assert torch.autograd.gradcheck(
        lambda z, om: log_mixture(z.log_softmax(-1), label, om), (logits, omega)
    )


def test_permuting_annotators_permutes_the_gradient(sample):
    logits, label, _ = sample
    annotator, order = torch.arange(12) % 3, torch.tensor([2, 0, 1])
    omega = torch.tensor([1.0, -0.5, 3.0], dtype=torch.float64)
    moved = torch.empty(3, dtype=torch.float64)
    moved[order] = omega
    grads = []
    for values, who in ((omega, annotator), (moved, order[annotator])):
        values.requires_grad_()
        loss = expertise_loss(logits.log_softmax(-1), label, values[who])
        grads.append(torch.autograd.grad(loss, values)[0])
    torch.testing.assert_close(grads[1][order], grads[0])
    assert grads[0].unique().numel() == 3


def test_masked_classes_are_as_if_they_were_not_there(sample):
    """Votes of tasks with 3 and with 5 answers in one batch."""
    logits, label, omega = sample
    few = torch.arange(12) < 6
    label = torch.where(few, label % 3, label)
    mask = few[:, None] & (torch.arange(5) >= 3)
    masked = logits.masked_fill(mask, -torch.inf).log_softmax(-1)
    got = log_mixture(masked, label, omega)
    torch.testing.assert_close(
        got[few], log_mixture(logits[few, :3].log_softmax(-1), label[few], omega[few])
    )
    torch.testing.assert_close(
        got[~few], log_mixture(logits[~few].log_softmax(-1), label[~few], omega[~few])
    )
    grads = torch.autograd.grad(got.sum(), (logits, omega))
    assert all(grad.isfinite().all() for grad in grads)
    assert grads[0][mask].abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_gradient_is_nan_at_the_extremes(dtype):
    """Also where the label itself is impossible for the model: the vote was then a guess."""
    logits = torch.tensor([*LOGITS, [-torch.inf, 0, 1, 2]], dtype=dtype, requires_grad=True)
    for y in range(4):
        for value in OMEGAS:
            omega = torch.full((6,), value, dtype=dtype, requires_grad=True)
            votes = logits.log_softmax(-1), torch.full((6,), y), omega
            grads = torch.autograd.grad(expertise_loss(*votes), (logits, omega))
            assert all(grad.isfinite().all() for grad in grads)
            assert responsibility(*votes).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype, sample):
    logits, label, omega = sample
    log_probs, omega = logits.detach().to(dtype).log_softmax(-1), omega.detach().to(dtype)
    for function in (log_mixture, responsibility, expertise_loss):
        got = function(log_probs, label, omega)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, function(log_probs.float(), label, omega.float()))


def test_docstring_example():
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0


def test_expertise_is_known_up_to_a_common_factor() -> None:
    """pi' = a pi + (1 - a)/K with rho' = rho / a is the same distribution of votes."""
    generator = torch.Generator().manual_seed(0)
    pi = torch.rand(20, 4, dtype=torch.float64, generator=generator).softmax(-1)
    label = torch.randint(4, (20,), generator=generator)
    rho = torch.rand(20, dtype=torch.float64, generator=generator) * 0.7
    blunt = 0.8 * pi + 0.2 / 4
    same = log_mixture(blunt.log(), label, torch.logit(rho / 0.8))
    assert torch.allclose(log_mixture(pi.log(), label, torch.logit(rho)), same, atol=1e-12)


def test_systematic_errors_are_more_likely_in_the_network_than_in_the_annotator() -> None:
    """.9 right and .1 always the same error: learned, with rho = 1, against sharp with rho = .867.

    Learned: -(.9 log .9 + .1 log .1) = .325. Sharp: -(.9 log .9 + .1 log(1/30)) = .435.
    """
    label = torch.tensor([0] * 9 + [1])
    learned = torch.tensor([0.9, 0.1, 0.0, 0.0], dtype=torch.float64).log().expand(10, 4)
    sharp = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64).log().expand(10, 4)
    sure, mixed = torch.full((10,), 50.0), torch.logit(torch.full((10,), 13 / 15))
    assert expertise_loss(learned, label, sure.double()).item() == pytest.approx(0.3251, abs=1e-4)
    # no class may be masked: log K counts the classes that are finite
    kept = sharp.clamp_min(-700.0)
    assert expertise_loss(kept, label, mixed.double()).item() == pytest.approx(0.4350, abs=1e-4)
