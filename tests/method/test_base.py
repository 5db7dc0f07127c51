"""What every method has of `Method`: its optimizer, its schedule, its validation, its answers."""

import math
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from annorun.dataset import module as module_of_data
from annorun.dataset.module import CrowdData
from annorun.method.base import Batch, Method, agreement, constant, cosine
from annorun.method.classifier import Classifier
from annorun.method.crowd_layer import CrowdLayer
from annorun.method.realm import Realm
from annorun.votes import Items, TaskSpec, Votes

K, M = 3, 4
SPEC = TaskSpec("features", n_classes=K, n_annotators=M, input_shape=(5,))
NETWORK = {"family": "features", "model": "tiny", "weights": None}
# nobody's default
UNUSUAL = {
    **{"lr": 0.02, "betas": [0.6, 0.7], "weight_decay": 0.3, "clip": 0.7},
    **{"schedule": "cosine", "max_steps": 8},
}


def realm(**changes: Any) -> Realm:
    return Realm(SPEC, NETWORK, UNUSUAL | changes, seed=0, expertise_lr=0.5, expertise_start=0.8)


def crowd_layer(**changes: Any) -> CrowdLayer:
    return CrowdLayer(SPEC, NETWORK, UNUSUAL | changes, seed=0, annotator_lr=0.5)


def noisy(**changes: Any) -> Classifier:
    return Classifier(SPEC, NETWORK, UNUSUAL | changes, seed=0, target="votes")


METHODS = pytest.mark.parametrize("make", [noisy, realm, crowd_layer])


def annotators(module: Method) -> list[Tensor]:
    return list((module.annotator_group() or {"params": []})["params"])


@METHODS
def test_decay_is_the_networks_alone(make: Any) -> None:
    """Without a gradient AdamW decays and does no more: by a factor 1 - rate * decay."""
    module = make()
    with torch.no_grad():
        for weight in annotators(module):
            weight += 0.5
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    chosen = module.configure_optimizers()
    chosen["optimizer"].step()
    for name, parameter in module.named_parameters():
        factor = 1 - 0.02 * 0.3 if name.startswith("net.") else 1.0
        torch.testing.assert_close(parameter.detach(), factor * before[name])


@METHODS
def test_a_step_is_adamws_with_the_configs_values(make: Any) -> None:
    """Two steps of constant gradients by hand, of the network and of the annotators' parameters."""
    module = make(weight_decay=0.0)
    adamw = module.configure_optimizers()["optimizer"]
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    for gradient in (1.0, -0.4):
        for parameter in module.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        adamw.step()
    # Kingma & Ba, Algorithm 1
    mean, square, moved = 0.0, 0.0, 0.0
    for t, gradient in enumerate((1.0, -0.4), 1):
        mean = 0.6 * mean + 0.4 * gradient
        square = 0.7 * square + 0.3 * gradient**2
        moved += (mean / (1 - 0.6**t)) / (math.sqrt(square / (1 - 0.7**t)) + 1e-8)
    for name, parameter in module.named_parameters():
        rate = 0.02 if name.startswith("net.") else 0.5
        torch.testing.assert_close(parameter.detach(), before[name] - rate * moved)


@METHODS
def test_only_the_networks_gradient_is_clipped_and_as_a_whole(make: Any) -> None:
    module = make()
    draw = torch.Generator().manual_seed(0)
    gradients = {n: torch.randn(p.shape, generator=draw) for n, p in module.named_parameters()}

    def clipped(factor: float) -> dict[str, Tensor]:
        for name, parameter in module.named_parameters():
            parameter.grad = factor * gradients[name]
        module.on_before_optimizer_step(torch.optim.SGD(module.parameters(), lr=1.0))
        return {name: p.grad for name, p in module.named_parameters()}

    norm = math.sqrt(
        sum(float(g.square().sum()) for n, g in gradients.items() if n.startswith("net."))
    )
    for factor in (1.0, 0.5 / norm):
        for name, gradient in clipped(factor).items():
            shrunk = min(1.0, 0.7 / (factor * norm)) if name.startswith("net.") else 1.0
            expected = shrunk * factor * gradients[name]
            torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)


def crowd(val_share: float = 0.0) -> CrowdData:
    """Ten items of unequal numbers of votes; the truth of some is known."""
    draw = np.random.default_rng(0)
    n = 10
    labelled = draw.random((n, M)) < 0.6
    labelled[:, 0] = True
    item, annotator = np.nonzero(labelled)
    truth = np.where(np.arange(n) % 3 == 0, -1, draw.integers(0, K, n))
    split = np.where(np.arange(n) % 5 == 4, "test", "train")
    keep = split[item] == "train"
    votes = Votes(item[keep], annotator[keep], draw.integers(0, K, int(keep.sum())), n, M, K)
    x = draw.normal(size=(n, 5)).astype(np.float32)
    return CrowdData(
        Items("features", {"x": x}, split, K, truth=truth),
        votes,
        **{"tokenizer": None, "prompt": "", "batch_size": 3, "val_share": val_share},
        **{"data_seed": 0, "seed": 0},
    )


def trainer(folder: Path, steps: int, *callbacks: L.Callback, val: bool = False) -> L.Trainer:
    return L.Trainer(
        limit_val_batches=1.0 if val else 0,
        **{"accelerator": "cpu", "max_steps": steps, "max_epochs": -1, "logger": False},
        **{"enable_checkpointing": False, "enable_progress_bar": False},
        **{"enable_model_summary": False, "default_root_dir": folder, "num_sanity_val_steps": 0},
        callbacks=list(callbacks),
    )


class Rates(L.Callback):
    """The learning rates that each step was taken with, by group."""

    def __init__(self) -> None:
        self.steps: list[list[float]] = []

    def on_before_optimizer_step(self, _: Any, __: Any, optimizer: torch.optim.Optimizer) -> None:
        self.steps.append([group["lr"] for group in optimizer.param_groups])


@METHODS
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_schedule_counts_steps_not_epochs(make: Any, schedule: str, tmp_path: Path) -> None:
    """Eight steps are nearly three epochs; both groups go down half a cosine, or not at all."""
    rates = Rates()
    module = make(schedule=schedule)
    trainer(tmp_path, 8, rates).fit(module, crowd())
    for group, start in enumerate([0.02, 0.5][: len(rates.steps[0])]):
        expected = [
            start * (0.5 * (1 + math.cos(math.pi * t / 8)) if schedule == "cosine" else 1)
            for t in range(8)
        ]
        assert [step[group] for step in rates.steps] == pytest.approx(expected)
    assert len(rates.steps[0]) == (1 if make is noisy else 2)


def test_half_a_cosine_ends_at_zero_and_stays_there() -> None:
    factor = cosine(4)
    assert [factor(t) for t in (0, 1, 2, 4, 9)] == pytest.approx([1, 0.5 + 0.5**1.5, 0.5, 0, 0])
    assert constant(3) == 1.0


def answers(*guesses: int) -> Tensor:
    """Logits whose greatest is that of each item's guess."""
    return torch.eye(K)[list(guesses)]


def votes_of(*rows: tuple[int, int]) -> dict[str, Tensor]:
    row, label = (torch.tensor(column) for column in zip(*rows, strict=True))
    return {"row": row, "label": label}


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        # class 0 is a truth like another
        ([0, 1, 0, 2], (2, 4)),
        ([0, 0, 0, 0], (3, 4)),
        # an unknown one has no part, whatever is voted
        ([0, -1, -1, 2], (1, 2)),
        ([-1, 0, -1, -1], (1, 1)),
        # none known: the votes, each against its own item's answer
        ([-1, -1, -1, -1], (3, 5)),
    ],
)
def test_agreement_is_with_the_known_truth_else_with_the_votes(
    truth: list[int], expected: tuple[int, int]
) -> None:
    """Answers 0, 0, 0, 1. Of the votes, item 0's two and item 3's are as it is answered."""
    batch = {"truth": torch.tensor(truth)} | votes_of((0, 0), (0, 0), (1, 2), (2, 1), (3, 1))
    assert agreement(answers(0, 0, 0, 1), batch) == expected


def test_validation_is_a_mean_over_votes_and_items_not_over_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three batches; what was collected once does not count the next time."""
    monkeypatch.setattr(module_of_data, "MOST_ITEMS", 3)
    module, data = noisy(), crowd(0.9)
    fitted = trainer(tmp_path, 1, val=True)
    sizes = [len(b["label"]) for b in data.val_dataloader()]
    assert len(set(sizes)) > 1
    whole = data.batch(data.val.tolist())
    known = whole["truth"] >= 0
    for _ in range(2):
        found = fitted.validate(module, data, verbose=False)[0]
        with torch.no_grad():
            logits = module.eval()(whole["inputs"])
            # the next time other weights are judged
            for parameter in module.parameters():
                parameter.mul_(-1.5)
        loss = cross_entropy(logits[whole["row"]], whole["label"])
        assert found["val/loss"] == pytest.approx(float(loss), rel=1e-5)
        right = (logits.argmax(dim=1) == whole["truth"])[known].float().mean()
        assert found["val/acc"] == pytest.approx(float(right))


@pytest.mark.parametrize("target", ["votes", "gold", "hard", "shares"])
def test_a_classifiers_loss_weighs_as_many_terms_as_it_has(target: str) -> None:
    """Means of two batches, weighed, are the mean of both together."""
    module = Classifier(SPEC, NETWORK, dict(UNUSUAL), seed=0, target=target).eval()
    data = crowd()
    data.target = torch.eye(K)[torch.arange(10) % K]
    data.truth = torch.arange(10) % K
    parts = [data.batch(list(data.train[:2])), data.batch(list(data.train[2:7]))]
    with torch.no_grad():
        losses = [float(module.loss(module(b["inputs"]), b)) for b in parts]
        whole = data.batch(list(data.train[:7]))
        expected = float(module.loss(module(whole["inputs"]), whole))
    weights = [module.weight(b) for b in parts]
    assert np.average(losses, weights=weights) == pytest.approx(expected, rel=1e-5)
    assert weights == ([len(b["label"]) for b in parts] if target == "votes" else [2, 5])


@METHODS
def test_answers_are_softmaxes_of_each_item_and_of_the_last_test_alone(
    make: Any, tmp_path: Path
) -> None:
    module, data = make(), crowd()
    fitted = trainer(tmp_path, 1)
    for _ in range(2):
        fitted.test(module, data, verbose=False)
    inputs = data.batch(data.test.tolist())["inputs"]
    with torch.no_grad():
        logits = module.eval()(inputs).double()
    expected = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    np.testing.assert_allclose(module.probabilities(), expected, atol=1e-6)
    assert torch.equal(module.each(inputs), module(inputs)[:, None])


def test_logits_are_float32_whatever_the_network_gives() -> None:
    class Coarse(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :K].bfloat16()

    module = noisy()
    module.net = Coarse()
    assert module({"x": torch.randn(2, 5)}).dtype == torch.float32


def test_the_accuracy_in_training_is_of_the_batchs_known_items(tmp_path: Path) -> None:
    class Seen(L.Callback):
        def on_train_batch_end(self, *given: Any) -> None:
            batch: Batch = given[3]
            known = batch["truth"] >= 0
            right = (module.answers(logits[-1]).argmax(dim=1) == batch["truth"])[known]
            assert float(given[0].callback_metrics["train/acc"]) == pytest.approx(
                float(right.float().mean())
            )

    module, logits = noisy(), []
    module.register_forward_hook(lambda *given: logits.append(given[2].detach()))
    trainer(tmp_path, 3, Seen()).fit(module, crowd())
    assert len(logits) == 3
