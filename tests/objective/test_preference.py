"""Preference losses by hand, in their limits, and against other operations."""

import math

import pytest
import torch
from torch import Tensor

from annorun.objective.preference import dpo, ipo, listwise, response_scores, simpo

ONE, TWO = torch.tensor([0]), torch.tensor([1])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw, dtype=torch.float64)


def test_scores_by_hand() -> None:
    """Two words of equal logits: each token is worth -log 2; a response without tokens, nothing."""
    total, length = response_scores(
        torch.zeros(3, 2), torch.tensor([1, 0, 1]), torch.tensor([0, 2, 0]), 3
    )
    assert total.tolist() == pytest.approx([-2 * math.log(2), 0, -math.log(2)])
    assert length.tolist() == [2, 0, 1]


def test_scores_are_those_of_the_softmax_in_float() -> None:
    logits, token = drawn(6, 5), torch.randint(5, (6,), generator=torch.Generator())
    response = torch.tensor([1, 0, 1, 1, 0, 2])
    total, _ = response_scores(logits, token, response, 3)
    each = torch.log_softmax(logits, dim=-1)[torch.arange(6), token]
    torch.testing.assert_close(total, torch.stack([each[response == r].sum() for r in range(3)]))
    half, _ = response_scores(logits.half(), token, response, 3)
    assert half.dtype == torch.float32


def test_dpo_by_hand() -> None:
    """beta h = .5 * (1 - (-1)) = 1: -log sigmoid(1) = log(1 + 1/e)."""
    ratio = torch.tensor([1.0, -1.0], dtype=torch.float64)
    expected = math.log(1 + math.exp(-1))
    assert dpo(ratio, ONE, TWO, beta=0.5).item() == pytest.approx(expected, rel=1e-12)
    smooth = dpo(ratio, ONE, TWO, beta=0.5, smoothing=0.2).item()
    assert smooth == pytest.approx(0.8 * expected + 0.2 * (expected + 1), rel=1e-12)


def test_at_the_reference_dpo_is_log_2_exactly() -> None:
    found = dpo(torch.zeros(4), torch.tensor([0, 1]), torch.tensor([2, 3]), beta=0.1)
    assert torch.equal(found, torch.full((2,), math.log(2)))


def test_swapping_negates_the_logit() -> None:
    """-log sigmoid(h) + log sigmoid(-h) = -h; IPO's two differ by -2 h / beta."""
    ratio = drawn(2)
    h = ratio[0] - ratio[1]
    there, back = dpo(ratio, ONE, TWO, beta=0.7), dpo(ratio, TWO, ONE, beta=0.7)
    torch.testing.assert_close(there - back, -0.7 * h[None])
    difference = ipo(ratio, ONE, TWO, beta=0.7) - ipo(ratio, TWO, ONE, beta=0.7)
    torch.testing.assert_close(difference, -2 * h[None] / 0.7)


def test_without_an_annotator_both_directions_cancel() -> None:
    """Model and reference that see no annotator: one gradient takes back what the other gives."""
    ratio = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    both = torch.tensor([0, 1]), torch.tensor([1, 0])
    for loss in (dpo(ratio, *both, beta=0.3), ipo(ratio, *both, beta=0.3)):
        (gradient,) = torch.autograd.grad(loss.sum(), ratio)
        torch.testing.assert_close(gradient, torch.zeros_like(ratio))


def test_beta_to_0() -> None:
    """DPO tends to log 2 with the gradient -beta / 2 on h: only a direction is left."""
    ratio, beta = drawn(2).requires_grad_(), 1e-6
    loss = dpo(ratio, ONE, TWO, beta=beta).sum()
    (gradient,) = torch.autograd.grad(loss, ratio)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-5)
    torch.testing.assert_close(
        gradient / beta, torch.tensor([-0.5, 0.5]).double(), atol=1e-5, rtol=0
    )


def test_ipo_is_least_at_its_horizon_and_dpo_never_ends() -> None:
    """1 / (2 beta) = 2.5: IPO's gradient is 0 there, DPO still pushes."""
    ratio = torch.tensor([2.5, 0.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(ipo(ratio, ONE, TWO, beta=0.2).sum(), ratio)
    torch.testing.assert_close(gradient, torch.zeros(2).double())
    (gradient,) = torch.autograd.grad(dpo(ratio, ONE, TWO, beta=0.2).sum(), ratio)
    assert gradient[0] < 0


def test_simpo_by_hand() -> None:
    """2 * (-1 - (-1.5)) - .5 = .5: log(1 + exp(-.5))."""
    score = torch.tensor([-1.0, -1.5], dtype=torch.float64)
    found = simpo(score, ONE, TWO, beta=2.0, margin=0.5).item()
    assert found == pytest.approx(math.log(1 + math.exp(-0.5)), rel=1e-12)


def test_listwise_by_hand_and_with_one_rival_it_is_dpo() -> None:
    """Four equal responses: log 4. Groups do not see each other."""
    group = torch.tensor([0, 0, 0, 0, 1, 1])
    chosen = torch.tensor([True, False, False, False, False, True])
    ratio = torch.tensor([0.3, 0.3, 0.3, 0.3, -1.0, 2.0], dtype=torch.float64)
    found = listwise(ratio, group, chosen, beta=0.5)
    expected = dpo(ratio, torch.tensor([5]), torch.tensor([4]), beta=0.5)
    torch.testing.assert_close(found, torch.tensor([math.log(4), expected.item()]).double())


def test_two_chosen_of_a_group_do_not_compete() -> None:
    """An annotator with two labels: each against the others' one response."""
    ratio, group = drawn(3), torch.zeros(3, dtype=torch.int64)
    found = listwise(ratio, group, torch.tensor([True, True, False]), beta=1.0)
    alone = [dpo(ratio, torch.tensor([k]), torch.tensor([2]), beta=1.0)[0] for k in (0, 1)]
    torch.testing.assert_close(found, torch.stack(alone))


def test_a_chosen_response_without_rivals_costs_nothing() -> None:
    found = listwise(drawn(1), torch.tensor([0]), torch.tensor([True]), beta=1.0)
    assert found.item() == 0


def test_gradients() -> None:
    ratio = drawn(5).requires_grad_()
    pairs = torch.tensor([0, 0, 3]), torch.tensor([1, 2, 4])
    group, chosen = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([True, False, False, True, False])
    for loss in (
        lambda r: dpo(r, *pairs, beta=0.4, smoothing=0.1),
        lambda r: ipo(r, *pairs, beta=0.4),
        lambda r: simpo(r, *pairs, beta=2.0, margin=0.5),
        lambda r: listwise(r, group, chosen, beta=0.4),
    ):
        assert torch.autograd.gradcheck(loss, ratio)
    logits, token = drawn(4, 3).requires_grad_(), torch.tensor([0, 1, 2, 0])
    response = torch.tensor([0, 1, 0, 1])
    assert torch.autograd.gradcheck(lambda z: response_scores(z, token, response, 2)[0], logits)
