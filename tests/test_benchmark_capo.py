"""What CAPO's benchmark measures: the same loss and gradients, by packed responses and by pairs."""

from types import ModuleType
from typing import Any

import pytest
import torch

SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def test_loss_and_gradients_are_those_of_plain_pairs(script: ModuleType) -> None:
    """Away from the reference, where pairs weigh differently."""
    ours, plain, batch = script.both(script.Shape(llama=dict(SMALL), items=3), "cpu")
    ours.reference = ours.reference - torch.randn(len(ours.reference)) * 10
    losses = [ours.loss(batch), plain.loss(ours.reference[plain.number])]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
    for loss in losses:
        loss.backward()
    grads = [dict(m.named_parameters()) for m in (ours.net.lm, plain.lm)]
    assert grads[0].keys() == grads[1].keys()
    for name, own in grads[0].items():
        assert own.grad is not None and own.grad.abs().max() > 0
        torch.testing.assert_close(own.grad, grads[1][name].grad, rtol=1e-5, atol=1e-6)


def test_every_annotator_has_a_pair_with_every_other(script: ModuleType) -> None:
    _, plain, batch = script.both(script.Shape(llama=dict(SMALL), items=3), "cpu")
    assert len(batch["pairs"]) == 3 * 4 * 3 and len(plain.ids) == 2 * len(batch["pairs"])
    # a response is scored once a branch
    assert len(batch["number"]) == 3 * 4 * 4


def test_figures_are_ratios_and_both_ways_learn(script: ModuleType) -> None:
    shape = script.Shape(llama=dict(SMALL), items=2, pairs=1)
    rows = script.figures(shape, "cpu")
    assert [len(row) for row in rows] == [len(script.HEADER)] * 3
    for row in rows:
        ours, plain, ratio = (float(cell) for cell in row[1:4])
        assert min(ours, plain) > 0 and ratio == pytest.approx(plain / ours, rel=0.1)
    assert rows[2][3] == "2.00"
    ours, plain, batch = script.both(shape, "cpu")
    known = ours.reference[plain.number]
    for module, loss in ((ours, lambda: ours.loss(batch)), (plain, lambda: plain.loss(known))):
        call = script.step(module, loss, ours, "cpu")
        first = float(call())
        assert min(float(call()) for _ in range(10)) < first
