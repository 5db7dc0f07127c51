"""Saliency of a network that is linear in its embeddings is what each token adds."""

import torch

from annorun.objective.saliency import gradient_times_input


def test_of_a_linear_score_it_is_each_tokens_part() -> None:
    draw = torch.Generator().manual_seed(0)
    e = torch.randn(3, 4, 5, generator=draw, requires_grad=True)
    w = torch.randn(4, 5, generator=draw)
    expected = (e * w).sum(dim=-1).abs()
    torch.testing.assert_close(gradient_times_input((e * w).sum(), [e]), expected.detach())


def test_of_several_networks_only_those_with_a_part_count() -> None:
    one = torch.tensor([[[2.0], [1.0]]], requires_grad=True)
    other = torch.tensor([[[1.0], [1.0]]], requires_grad=True)
    beside = torch.ones(1, 2, 1, requires_grad=True)
    score = (one**2).sum() + (3 * other).sum()
    found = gradient_times_input(score, [one, other, beside])
    # 2 e^2 and 3 e
    assert found.tolist() == [[8 + 3, 2 + 3]]
