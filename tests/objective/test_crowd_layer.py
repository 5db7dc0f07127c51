"""The crowd layer's loss: by hand, against the dense form of its authors' code, and its limits."""

import doctest
import math

import pytest
import torch
from torch.nn.functional import one_hot

from annorun.objective import crowd_layer as module
from annorun.objective.crowd_layer import crowd_layer_loss, identity, implied_accuracy


def drawn(n: int = 14, n_annotators: int = 4, k: int = 3) -> tuple[torch.Tensor, ...]:
    """At most one vote of an annotator on an item: item i is row i, voted on by i % 4."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(n, k, dtype=torch.float64, generator=generator)
    label = torch.randint(k, (n,), generator=generator)
    weight = identity(n_annotators, k).double()
    weight += torch.randn(n_annotators, k, k, dtype=torch.float64, generator=generator)
    return logits, torch.arange(n) % n_annotators, label, weight


def test_by_hand():
    """p = (3/4, 1/4), W[0] = [true, observed] = ln [[16, 1], [1, 16]], vote 1.

    a = (3/4 ln 16, 1/4 ln 16) = (ln 8, ln 2), so P(1) = 2 / (8 + 2). A matrix on the wrong side,
    W = ln [[16, 16], [1, 1]], has a = (3/4 ln 16) (1, 1): P(1) = 1/2, and not 2 / 10.
    """
    probs, vote = torch.tensor([[0.75, 0.25]]).double(), (torch.tensor([0]), torch.tensor([1]))
    square = torch.tensor([[[16.0, 1.0], [1.0, 16.0]]]).double().log()
    assert crowd_layer_loss(probs, *vote, square).item() == pytest.approx(math.log(5), abs=1e-14)
    rows = torch.tensor([[[16.0, 16.0], [1.0, 1.0]]]).double().log()
    assert crowd_layer_loss(probs, *vote, rows).item() == pytest.approx(math.log(2), abs=1e-14)


def test_at_the_start_the_surest_network_gives_e_over_e_plus_k_less_one():
    for k in (2, 10):
        start = math.e / (math.e + k - 1)
        assert implied_accuracy(identity(3, k)).tolist() == pytest.approx([start] * 3)
        loss = crowd_layer_loss(
            torch.eye(k), torch.zeros(k, dtype=torch.long), torch.arange(k), identity(1, k)
        )
        assert loss.item() == pytest.approx(-math.log(start))


def test_it_is_the_dense_masked_loss_of_the_papers_code():
    """Answers of every annotator to every item, kernel[observed, true, m], -1 where no vote is.

    Their mean is over all items times annotators: ours times votes / (items x annotators).
    """
    logits, annotator, label, weight = drawn()
    kernel = weight.permute(2, 1, 0)
    answers = torch.einsum("bj,ijr->bir", logits.softmax(-1), kernel)
    said = -torch.ones(14, 3, 4, dtype=torch.float64)
    said[torch.arange(14), :, annotator] = one_hot(label, 3).double()
    cost = -(said * answers.log_softmax(1)).sum(1)
    dense = torch.where(said[:, 0] == -1, 0.0, cost).mean()
    ours = crowd_layer_loss(logits.softmax(-1), annotator, label, weight)
    torch.testing.assert_close(dense, ours * 14 / (14 * 4))


def test_the_gradients_are_those_of_the_docstring():
    logits, annotator, label, weight = drawn()
    probs = logits.softmax(-1).requires_grad_()
    weight.requires_grad_()
    loss = crowd_layer_loss(probs, annotator, label, weight)
    in_probs, in_weight = torch.autograd.grad(loss, (probs, weight))
    p, w = probs.detach(), weight.detach()
    for_probs, for_weight = torch.zeros_like(p), torch.zeros_like(w)
    for v, (m, y) in enumerate(zip(annotator, label, strict=True)):
        s = (w[m].T @ p[v]).softmax(0) - one_hot(y, 3)
        for_probs[v] = w[m] @ s / 14
        for_weight[m] += torch.outer(p[v], s) / 14
    torch.testing.assert_close(in_probs, for_probs)
    torch.testing.assert_close(in_weight, for_weight)
    assert torch.autograd.gradcheck(
        lambda z, q: crowd_layer_loss(z.softmax(-1), annotator, label, q), (logits, weight)
    )


def test_an_annotator_without_votes_has_no_gradient_and_the_order_of_annotators_is_free():
    logits, annotator, label, weight = drawn()
    few, order = annotator % 3, torch.tensor([2, 0, 3, 1])
    grads = []
    for who, values in ((few, weight), (order[few], torch.empty_like(weight))):
        if who is not few:
            values[order] = weight
        values = values.clone().requires_grad_()
        loss = crowd_layer_loss(logits.softmax(-1), who, label, values)
        grads.append(torch.autograd.grad(loss, values)[0])
    torch.testing.assert_close(grads[1][order], grads[0])
    assert (grads[0][3] == 0).all() and (grads[0][:3].abs().sum((1, 2)) > 0).all()


def test_a_sure_network_and_the_log_of_a_confusion_matrix_give_that_matrix():
    """softmax(log T[k]) = T[k], whatever is added to a row: accuracy is the mean of T[k, k]."""
    rows = [[0.7, 0.2, 0.1], [0.0625, 0.9, 0.0375], [0.3, 0.3, 0.4]]
    confusion = torch.tensor([rows], dtype=torch.float64)
    weight = confusion.log() + torch.tensor([[[5.0], [-2.0], [0.0]]]).double()
    assert implied_accuracy(weight).item() == pytest.approx((0.7 + 0.9 + 0.4) / 3, abs=1e-14)
    true, said = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
    loss = crowd_layer_loss(torch.eye(3).double()[true], torch.zeros_like(true), said, weight)
    expected = -(math.log(0.2) + math.log(0.0375) + math.log(0.3)) / 3
    assert loss.item() == pytest.approx(expected, abs=1e-14)


def test_renaming_the_networks_classes_and_the_rows_of_every_matrix_changes_nothing():
    logits, annotator, label, weight = drawn()
    order = torch.tensor([2, 0, 1])
    renamed = crowd_layer_loss(logits.softmax(-1)[:, order], annotator, label, weight[:, order])
    torch.testing.assert_close(
        renamed, crowd_layer_loss(logits.softmax(-1), annotator, label, weight)
    )


def test_docstring_example():
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0
