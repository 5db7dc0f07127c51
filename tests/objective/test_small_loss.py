"""Co-teaching's exchange: by hand, who learns from whom, and what is left out."""

import doctest
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from annorun.objective import small_loss as module
from annorun.objective.small_loss import exchanged_loss, kept


def drawn(n: int = 9) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 2, dtype=torch.float64, generator=generator)


def test_by_hand():
    """The first finds 0 and 3 easy, the second 1 and 2.

    The first learns from 1 and 2: (5 + 7) / 2; the second from 0 and 3: (9 + 8) / 2. Each learning
    from its own would give 1.5 + .5.
    """
    losses = torch.tensor([[1.0, 9.0], [5.0, 0.0], [7.0, 1.0], [2.0, 8.0]])
    assert exchanged_loss(losses, keep=2).item() == 6 + 8.5


def test_keeping_all_is_the_sum_of_both_means():
    losses = drawn()
    torch.testing.assert_close(exchanged_loss(losses, keep=9), losses.mean(0).sum())


def test_two_equal_networks_learn_from_their_own_small_losses():
    one = drawn()[:, :1]
    found = exchanged_loss(one.expand(-1, 2), keep=4)
    torch.testing.assert_close(found, 2 * one[:, 0].sort().values[:4].mean())


def test_the_gradient_reaches_what_the_peer_chose_and_nothing_else():
    losses = drawn().requires_grad_()
    (grad,) = torch.autograd.grad(exchanged_loss(losses, keep=3), losses)
    easy = losses.detach().argsort(dim=0)[:3]
    expected = torch.zeros(9, 2, dtype=torch.float64)
    expected[easy[:, 1], 0] = 1 / 3
    expected[easy[:, 0], 1] = 1 / 3
    torch.testing.assert_close(grad, expected)
    assert not torch.equal(grad[:, 0], grad[:, 1]), "the networks must differ for this to tell"


def test_swapping_the_networks_swaps_their_gradients():
    losses = drawn().requires_grad_()
    turned = losses.detach().flip(1).requires_grad_()
    values = [exchanged_loss(given, keep=4) for given in (losses, turned)]
    torch.testing.assert_close(*values)
    grads = [torch.autograd.grad(v, x)[0] for v, x in zip(values, (losses, turned), strict=True)]
    torch.testing.assert_close(grads[1], grads[0].flip(1))


def test_ties_go_to_the_terms_that_come_first():
    losses = torch.ones(40, 2, requires_grad=True)
    (grad,) = torch.autograd.grad(exchanged_loss(losses, keep=3), losses)
    assert grad.nonzero()[:, 0].unique().tolist() == [0, 1, 2]


def test_planted_flips_are_left_out():
    """Two networks that know the truth, a quarter of the labels flipped: no flip is learned."""
    generator = torch.Generator().manual_seed(1)
    truth = torch.randint(3, (40,), generator=generator)
    label = torch.where(torch.arange(40) < 10, (truth + 1) % 3, truth)
    logits = torch.randn(2, 40, 3, generator=generator)
    logits[:, torch.arange(40), truth] += 8
    logits.requires_grad_()
    losses = torch.stack([cross_entropy(z, label, reduction="none") for z in logits], dim=1)
    (grad,) = torch.autograd.grad(exchanged_loss(losses, keep=30), logits)
    assert (grad[:, :10] == 0).all()
    assert (grad[:, 10:].abs().sum(-1) > 0).all()


def test_the_share_falls_with_a_straight_line_and_then_stays():
    """tau .2, t_k 10, 50 terms: 50 - floor(t) up to t = 10, then 40."""
    found = [kept(50, t, forget=0.2, ramp_steps=10) for t in (0, 1, 4, 5, 10, 11, 500)]
    assert found == [50, 49, 46, 45, 40, 40, 40]


def test_at_least_the_papers_share_and_at_least_one_term_is_kept():
    for n in range(1, 60):
        for forget in (0.0, 0.2, 0.45, 0.999):
            found = kept(n, 100, forget, ramp_steps=10)
            assert 1 <= found <= n
            assert (1 - forget) * n - 1e-9 <= found < (1 - forget) * n + 1 + 1e-9
    assert kept(7, 1, 0.5, ramp_steps=0) == kept(7, 9, 0.5, ramp_steps=0.3) == math.ceil(3.5)
    assert kept(7, 0, 0.5, ramp_steps=0) == 7


def test_docstring_example():
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0


@pytest.mark.parametrize("keep", [1, 5])
def test_the_order_of_the_terms_is_free(keep: int):
    losses, order = drawn(), torch.randperm(9, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(exchanged_loss(losses[order], keep), exchanged_loss(losses, keep))
