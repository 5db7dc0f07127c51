"""The masked loss of several heads: by hand, by its limits, and what a missing label may not do."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from annorun.objective.multi_head import multi_head_loss, vote_labels


def drawn(seed: int = 0, n: int = 6, h: int = 4, k: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, h, k, generator=generator, dtype=torch.float64)
    return logits, torch.randint(-1, k, (n, h), generator=generator)


def test_by_hand():
    """Three items, three heads, probabilities written as logarithms.

    Head 0 has labels on items 0 and 1: -(ln .5 + ln .8) / 2; head 1 on item 2 alone: -ln .1;
    head 2 on none: nothing. A mean over all three labels would weigh head 1 by a third.
    """
    p = torch.full((3, 3, 2), 0.5, dtype=torch.float64)
    p[1, 0], p[2, 1] = torch.tensor([0.2, 0.8]), torch.tensor([0.1, 0.9])
    label = torch.tensor([[0, -1, -1], [1, -1, -1], [-1, 0, -1]])
    expected = -(math.log(0.5) + math.log(0.8)) / 2 - math.log(0.1)
    assert multi_head_loss(p.log(), label).item() == pytest.approx(expected, rel=1e-7)


def test_one_head_with_every_label_is_cross_entropy():
    logits, label = drawn(h=1)
    label = label.clamp(min=0)
    torch.testing.assert_close(
        multi_head_loss(logits, label), cross_entropy(logits[:, 0], label[:, 0])
    )


def test_it_is_the_loop_of_the_papers_code():
    logits, label = drawn(seed=1, n=9)
    label[:, 2] = -1
    total = torch.zeros((), dtype=torch.float64)
    for head in range(4):
        valid = label[:, head] != -1
        if valid.any():
            total += cross_entropy(logits[valid, head], label[valid, head])
    torch.testing.assert_close(multi_head_loss(logits, label), total)


def test_the_gradient_is_softmax_less_onehot_over_the_heads_count_and_zero_where_masked():
    logits, label = drawn(seed=2)
    logits.requires_grad_()
    multi_head_loss(logits, label).backward()
    known = label >= 0
    onehot = torch.nn.functional.one_hot(label.clamp(min=0), 3)
    expected = (logits.detach().softmax(-1) - onehot) / known.sum(0).clamp(min=1)[:, None]
    torch.testing.assert_close(logits.grad[known], expected[known])
    assert (logits.grad[~known] == 0).all() and (~known).any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_masked_entry_has_no_part_whatever_its_logits(bad):
    logits, label = drawn(seed=3)
    spoilt = torch.where((label < 0)[..., None], bad, logits).requires_grad_()
    loss = multi_head_loss(spoilt, label)
    torch.testing.assert_close(loss, multi_head_loss(logits, label))
    loss.backward()
    assert torch.isfinite(spoilt.grad).all() and (spoilt.grad[label < 0] == 0).all()


def test_order_of_items_and_of_heads_does_not_matter():
    logits, label = drawn(seed=4)
    items, heads = torch.tensor([5, 0, 3, 1, 4, 2]), torch.tensor([2, 0, 3, 1])
    mixed = multi_head_loss(logits[items][:, heads], label[items][:, heads])
    torch.testing.assert_close(mixed, multi_head_loss(logits, label))


def test_no_label_at_all_is_zero_and_can_be_differentiated():
    logits = torch.randn(2, 3, 2, requires_grad=True)
    loss = multi_head_loss(logits, torch.full((2, 3), -1))
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


def test_vote_labels_by_hand():
    row, annotator, label = (
        torch.tensor([0, 0, 2]),
        torch.tensor([1, 0, 3]),
        torch.tensor([2, 0, 1]),
    )
    table = vote_labels(row, annotator, label, (3, 4))
    assert table.tolist() == [[0, 2, -1, -1], [-1, -1, -1, -1], [-1, -1, -1, 1]]
