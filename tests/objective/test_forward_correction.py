"""Forward correction: by hand, its limits and gradient, and Patrini's Theorem 2 in numbers."""

import doctest
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from annorun.objective import forward_correction as module
from annorun.objective.forward_correction import FLOOR, forward_loss

LN = math.log
# [annotator, true, observed]: one who errs in one direction, one who swaps the classes, a third
CROWD = torch.tensor(
    [
        [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.0, 0.5, 0.5]],
        [[0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.8, 0.1, 0.1]],
        [[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.3, 0.2, 0.5]],
    ],
    dtype=torch.float64,
)


def drawn(n: int = 12, k: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(n, k, dtype=torch.float64, generator=generator)
    return logits, torch.arange(n) % 3, torch.randint(k, (n,), generator=generator)


def test_by_hand():
    """pi = (3/4, 1/4), T = [[.9, .1], [.4, .6]].

    p(0) = .675 + .1 = .775; p(1) = .075 + .15 = .225. The transpose would give
    p(0) = .675 + .025 = .7: not a distribution over the votes.
    """
    log_probs = torch.tensor([[0.75, 0.25]] * 2, dtype=torch.float64).log()
    confusion = torch.tensor([[[0.9, 0.1], [0.4, 0.6]]], dtype=torch.float64)
    votes = torch.tensor([0, 0]), torch.tensor([0, 1])
    expected = -(LN(0.775) + LN(0.225)) / 2
    assert forward_loss(log_probs, *votes, confusion).item() == pytest.approx(expected, abs=1e-14)


def test_identity_is_cross_entropy():
    logits, annotator, label = drawn()
    logits.requires_grad_()
    same = torch.eye(3, dtype=torch.float64).repeat(3, 1, 1)
    losses = (
        forward_loss(logits.log_softmax(-1), annotator, label, same),
        cross_entropy(logits, label),
    )
    grads = [torch.autograd.grad(loss, logits)[0] for loss in losses]
    torch.testing.assert_close(*losses, rtol=1e-9, atol=0)
    torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-9)


def test_a_permutation_is_cross_entropy_on_the_label_that_is_meant():
    """Who says k + 1 for every k is as good as who says k."""
    logits, annotator, label = drawn()
    shifted = torch.eye(3, dtype=torch.float64)[[1, 2, 0]].repeat(3, 1, 1)
    found = forward_loss(logits.log_softmax(-1), annotator, (label + 1) % 3, shifted)
    assert found.item() == pytest.approx(cross_entropy(logits, label).item(), rel=1e-9)


def test_an_annotator_who_guesses_teaches_nothing():
    logits, annotator, label = drawn()
    logits.requires_grad_()
    guess = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64).expand(3, 3, 3)
    loss = forward_loss(logits.log_softmax(-1), annotator, label, guess)
    assert loss.item() == pytest.approx(-guess[0, 0].log()[label].mean().item(), abs=1e-14)
    assert torch.autograd.grad(loss, logits)[0].abs().max() < 1e-15


def test_the_gradient_is_pi_less_the_posterior_of_the_truth():
    logits, annotator, label = drawn()
    logits.requires_grad_()
    loss = forward_loss(logits.log_softmax(-1), annotator, label, CROWD)
    (grad,) = torch.autograd.grad(loss, logits)
    pi = logits.detach().softmax(-1)
    joint = torch.stack(
        [CROWD[m, :, y] * pi[v] for v, (m, y) in enumerate(zip(annotator, label, strict=True))]
    )
    torch.testing.assert_close(grad, (pi - joint / joint.sum(-1, keepdim=True)) / 12)
    assert torch.autograd.gradcheck(
        lambda z: forward_loss(z.log_softmax(-1), annotator, label, CROWD), logits
    )


def expected_loss(logits: torch.Tensor, truth: torch.Tensor, planted: torch.Tensor) -> torch.Tensor:
    """Mean over annotators of E over votes of the loss, each vote as likely as `planted` says."""
    total = torch.zeros((), dtype=torch.float64)
    for m in range(3):
        said = truth @ planted[m]
        for y in range(3):
            votes = torch.tensor([m]), torch.tensor([y])
            total = total + said[y] * forward_loss(logits[None].log_softmax(-1), *votes, CROWD) / 3
    return total


def minimiser(truth: torch.Tensor, planted: torch.Tensor) -> torch.Tensor:
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    descent = torch.optim.LBFGS(
        [logits],
        max_iter=500,
        tolerance_grad=1e-12,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def step() -> torch.Tensor:
        descent.zero_grad()
        loss = expected_loss(logits, truth, planted)
        loss.backward()
        return loss

    descent.step(step)
    return logits.detach().softmax(-1)


def test_theorem_2_the_minimiser_over_noisy_votes_is_the_clean_posterior():
    """With the true T; with T transposed in the world, it is not."""
    truth = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    torch.testing.assert_close(minimiser(truth, CROWD), truth, atol=1e-7, rtol=0)
    turned = CROWD.transpose(1, 2) / CROWD.transpose(1, 2).sum(-1, keepdim=True)
    assert (minimiser(truth, turned) - truth).abs().max() > 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_vote_that_is_ruled_out_costs_what_the_floor_says_and_has_no_nan(dtype: torch.dtype):
    logits = torch.tensor([[300.0, -300.0]], dtype=dtype, requires_grad=True)
    never = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]], dtype=dtype)
    loss = forward_loss(logits.log_softmax(-1), torch.tensor([0]), torch.tensor([1]), never)
    loss.backward()
    assert loss.item() == pytest.approx(-LN(FLOOR), rel=1e-6)
    assert logits.grad.isfinite().all()


def test_docstring_example():
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0
