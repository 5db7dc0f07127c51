"""Label smoothing: how much of a label all classes have, by hand."""

from typing import Any

import numpy as np
import pytest
import torch

from annorun import run
from annorun.votes import TaskSpec

K = 5
SPEC = TaskSpec(kind="features", n_classes=K, n_annotators=2, input_shape=(4,))
OPTIMIZER = {
    **{"lr": 0.01, "betas": (0.9, 0.999), "weight_decay": 0.1, "clip": 1.0},
    **{"schedule": "constant", "max_steps": 300},
}
PROBS = torch.tensor([[0.5, 0.2, 0.1, 0.1, 0.1], [0.1, 0.15, 0.25, 0.3, 0.2]])
LABEL = [0, 2]


def build(name: str, **keys: Any) -> Any:
    network = {"family": "features", "model": "tiny", "weights": None}
    node = {"_target_": f"annorun.method.{name}", **keys}
    return run.build(node, spec=SPEC, network=network, optimizer=dict(OPTIMIZER), seed=0)


def batch() -> dict[str, Any]:
    """One aggregated label an item; votes and truth say something else."""
    return {
        **{"item": torch.tensor([7, 3]), "truth": torch.tensor([4, 4])},
        **{"row": torch.tensor([0, 1, 1]), "label": torch.tensor([1, 1, 1])},
        **{"target": torch.eye(K)[LABEL], "shares": torch.eye(K)[[1, 1]]},
    }


@pytest.mark.parametrize("smoothing", [0.0, 0.25, 0.6, 1.0])
@pytest.mark.parametrize("training", [True, False])
def test_the_label_and_all_classes_alike_share_it(smoothing: float, training: bool) -> None:
    """Of five classes a smoothing of .25 gives the label .8 and each other .05."""
    module = build("label_smoothing.LabelSmoothing", smoothing=smoothing).train(training)
    cost = -np.log(PROBS.numpy())
    expected = 0.0
    for row, label in zip(cost, LABEL, strict=True):
        rest = smoothing / 5
        expected += sum(rest * row[k] for k in range(K) if k != label)
        expected += (1 - 4 * rest) * row[label]
    found = module.loss(PROBS.log(), batch())
    assert float(found) == pytest.approx(expected / 2, rel=1e-6)
    assert module.weight(batch()) == 2


def test_without_smoothing_it_is_the_classifier_and_with_it_is_not() -> None:
    plain = build("classifier.Classifier", target="hard").loss(PROBS.log(), batch())
    losses = [
        build("label_smoothing.LabelSmoothing", smoothing=s).loss(PROBS.log(), batch())
        for s in (0.0, 0.01)
    ]
    assert losses[0] == plain
    # the other classes are less probable here than the label, so they cost more
    assert losses[1] > plain


def test_the_answer_is_the_networks_own_and_is_not_smoothed() -> None:
    module = build("label_smoothing.LabelSmoothing", smoothing=0.9).eval()
    inputs = {"x": torch.randn(3, 4, generator=torch.Generator().manual_seed(0))}
    with torch.no_grad():
        module.test_step(batch() | {"inputs": inputs})
        expected = module.net(**inputs).softmax(dim=1)
    np.testing.assert_allclose(module.probabilities(), expected, atol=1e-6)


def test_its_least_loss_is_at_the_smoothed_label() -> None:
    """Gradient descent on the logits ends at .8 and .05."""
    module = build("label_smoothing.LabelSmoothing", smoothing=0.25)
    logits = torch.zeros(2, K, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.1)
    for _ in range(300):
        adam.zero_grad()
        module.loss(logits, batch()).backward()
        adam.step()
    expected = 0.05 + 0.75 * torch.eye(K)[LABEL]
    torch.testing.assert_close(logits.detach().softmax(dim=1), expected, atol=1e-3, rtol=0)
