"""What SeedBERT is compared with: losses by hand, limits in which they are the plain classifier."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, softplus

from annorun import run
from annorun.dataset.module import CrowdData
from annorun.method.output_layer import head_of
from annorun.method.temperature import temperature
from annorun.objective.bayes_linear import gaussian_kl
from annorun.votes import Items, TaskSpec, Votes

SPEC = TaskSpec(kind="features", n_classes=3, n_annotators=1, input_shape=(5,))
OPTIMIZER = {
    "lr": 0.01,
    "betas": (0.9, 0.999),
    "weight_decay": 0.0,
    "clip": 1.0,
    "schedule": "constant",
    "max_steps": 300,
}


def build(name: str, seed: int = 0, **keys: Any):
    network = {"family": "features", "model": "tiny", "weights": None}
    node = {"_target_": f"annorun.method.{name}", **keys}
    return run.build(node, spec=SPEC, network=network, optimizer=dict(OPTIMIZER), seed=seed)


@pytest.fixture
def batch() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "inputs": {"x": torch.from_numpy(rng.normal(size=(6, 5)).astype(np.float32))},
        "item": torch.arange(6),
        "truth": torch.tensor([0, 1, 2, 0, 1, 2]),
        "target": torch.eye(3)[[0, 1, 2, 0, 1, 2]],
        "shares": torch.from_numpy(rng.dirichlet(np.ones(3), 6).astype(np.float32)),
    }


def bert():
    return build("classifier.Classifier", target="hard").eval()


def test_label_distributions_of_one_label_are_cross_entropy(batch: dict[str, Any]) -> None:
    ldl = build("classifier.Classifier", target="shares").eval()
    logits = ldl(batch["inputs"])
    batch["shares"] = batch["target"]
    assert ldl.loss(logits, batch) == bert().loss(logits, batch)


def test_label_distributions_are_kl_but_for_what_no_answer_can_save(batch: dict[str, Any]) -> None:
    ldl = build("classifier.Classifier", target="shares").eval()
    logits, d = ldl(batch["inputs"]), batch["shares"]
    kl = (d * (d.log() - logits.log_softmax(dim=1))).sum(dim=1).mean()
    entropy = -(d * d.log()).sum(dim=1).mean()
    torch.testing.assert_close(ldl.loss(logits, batch), kl + entropy)


def test_a_bnn_that_is_sure_of_its_weights_is_the_classifier(batch: dict[str, Any]) -> None:
    sure = build("bnn.BNN", prior_std=1.0, rho=-40.0, samples=3)
    expected = bert()(batch["inputs"]).log_softmax(dim=1)
    torch.testing.assert_close(sure.eval()(batch["inputs"]), expected)


def test_a_bnns_answer_is_the_mean_over_its_posterior(batch: dict[str, Any]) -> None:
    """Against so many draws of other noise."""
    module = build("bnn.BNN", prior_std=1.0, rho=0.0, samples=4000).eval()
    found = module(batch["inputs"]).exp()
    torch.testing.assert_close(found.sum(dim=1), torch.ones(6))
    head = head_of(module.net)
    with torch.no_grad():
        hidden = module.net.layers[:3](batch["inputs"]["x"])
        std = softplus(torch.zeros(()))
        draw = torch.Generator().manual_seed(99)
        weight = head.weight + std * torch.randn(4000, 3, 128, generator=draw)
        bias = head.bias + std * torch.randn(4000, 3, generator=draw)
        logits = torch.einsum("nd,skd->snk", hidden, weight) + bias[:, None]
        expected = logits.softmax(dim=-1).mean(dim=0)
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0)


def test_a_bnns_loss_by_hand(batch: dict[str, Any]) -> None:
    module = build("bnn.BNN", prior_std=0.5, rho=-2.0, samples=3)
    module.n_train = 50
    logits = torch.randn(6, 3)
    head = head_of(module.net)
    mean = torch.cat([head.weight.flatten(), head.bias])
    kl = gaussian_kl(mean, softplus(torch.full_like(mean, -2.0)), 0.5)
    expected = cross_entropy(logits, batch["truth"]) + kl / 50
    torch.testing.assert_close(module.loss(logits, batch), expected)


def test_a_bnn_draws_anew_in_training_and_not_after(batch: dict[str, Any]) -> None:
    module = build("bnn.BNN", prior_std=1.0, rho=0.0, samples=3)
    dropout = module.net.layers[2]
    dropout.p = 0.0
    assert not torch.equal(module(batch["inputs"]), module(batch["inputs"]))
    module.eval()
    assert torch.equal(module(batch["inputs"]), module(batch["inputs"]))


def test_label_and_disagreement_by_hand(batch: dict[str, Any]) -> None:
    name = "label_and_disagreement.LabelAndDisagreement"
    module = build(name, disagreement=2.0).eval()
    logits = module(batch["inputs"])
    assert logits.shape == (6, 4)
    # the label's outputs are those of the plain classifier
    torch.testing.assert_close(module.answers(logits), bert()(batch["inputs"]))
    q = batch["shares"].double()
    told = -(q * q.log()).sum(dim=1) / np.log(3)
    error = (logits[:, 3].double().sigmoid() - told).square().mean()
    expected = cross_entropy(logits[:, :3], batch["truth"]) + 2 * error
    assert module.loss(logits, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_label_smoothing_by_hand(batch: dict[str, Any]) -> None:
    """Of smoothing 3/10: 8/10 for the label, 1/10 for each of the two others."""
    module = build("label_smoothing.LabelSmoothing", smoothing=0.3)
    logits = torch.randn(6, 3)
    expected = -((0.7 * batch["target"] + 0.1) * logits.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(module.loss(logits, batch), expected)


def test_mc_dropout_goes_on_dropping(batch: dict[str, Any]) -> None:
    """Many answers: near the mean over dropout, off the classifier's; dropout 0: equal to it."""
    module = build("mc_dropout.McDropout", samples=400).eval()
    with torch.no_grad():
        module.test_step(batch)
        plain = bert()(batch["inputs"]).softmax(dim=1)
        assert not any(m.training for m in module.net.modules())
        torch.manual_seed(3)
        module.net.train()
        expected = torch.stack([module(batch["inputs"]).softmax(dim=1) for _ in range(2000)])
        module.net.eval()
    torch.testing.assert_close(module.predicted[0], expected.mean(dim=0), atol=0.01, rtol=0)
    assert not torch.allclose(module.predicted[0], plain, atol=1e-4)
    module.net.layers[2].p = 0.0
    module.predicted.clear()
    with torch.no_grad():
        module.test_step(batch)
    torch.testing.assert_close(module.predicted[0], plain)


def test_mc_dropout_drops_attention_too(batch: dict[str, Any]) -> None:
    """BERT's attention asks itself, not a dropout layer, whether it is in training."""
    module = build("mc_dropout.McDropout", samples=2).eval()

    class Asks(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.dropout(x, 0.5, self.training)[:, :3]

    module.net = Asks()
    with torch.no_grad():
        module.test_step(batch)
    assert not torch.allclose(module.predicted[0], batch["inputs"]["x"][:, :3].softmax(dim=1))


def test_mc_dropout_says_where_there_is_nothing_to_drop(capsys: pytest.CaptureFixture[str]) -> None:
    module = build("mc_dropout.McDropout", samples=2)
    module.on_fit_start()
    assert not capsys.readouterr().err
    module.net.layers[2].p = 0.0
    module.on_fit_start()
    assert "its answers are bert's" in capsys.readouterr().err


def test_mc_dropout_leaves_the_global_generator_alone(batch: dict[str, Any]) -> None:
    module = build("mc_dropout.McDropout", samples=2).eval()
    before = torch.get_rng_state()
    with torch.no_grad():
        module.test_step(batch)
    assert torch.equal(before, torch.get_rng_state())


def test_the_temperature_that_was_planted_is_found() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.eye(3)[[rng.choice(3, p=row) for row in p]]
    assert temperature(3 * logits, labels) == pytest.approx(3, rel=0.05)
    assert temperature(logits / 2, labels) == pytest.approx(0.5, rel=0.05)


def crowd(labels: list[int], val_share: float) -> CrowdData:
    n, rng = len(labels), np.random.default_rng(0)
    truth = np.array(labels)
    x = rng.normal(size=(n, 5)).astype(np.float32)
    items = Items("features", {"x": x}, np.full(n, "train"), 3, truth=truth)
    votes = Votes(np.arange(n), np.zeros(n), truth, n, 1, 3)
    found = CrowdData(
        items,
        votes,
        tokenizer=None,
        prompt="",
        batch_size=4,
        val_share=val_share,
        data_seed=0,
        seed=0,
    )
    found.target = torch.eye(3)[torch.from_numpy(truth)]
    return found


def test_temperature_changes_no_label_and_is_found_on_validation_items(
    batch: dict[str, Any],
) -> None:
    module = build("temperature.Temperature").eval()
    data = crowd([0, 1, 2] * 20, 0.5)
    strategy = SimpleNamespace(batch_to_device=lambda b, _: b)
    module._trainer = SimpleNamespace(datamodule=data, strategy=strategy)
    with torch.no_grad():
        module.on_test_start()
        own = data.batch(data.val.tolist())
        logits = module(own["inputs"]).double().numpy()
        expected = temperature(logits, own["target"].double().numpy())
        assert module.numbers() == {"train/temperature": pytest.approx(expected, rel=1e-3)}
        assert expected != pytest.approx(1, abs=0.1)
        module.test_step(batch)
        plain = bert()(batch["inputs"])
    torch.testing.assert_close(module.predicted[0], (plain / expected).softmax(dim=1))
    assert torch.equal(module.predicted[0].argmax(dim=1), plain.argmax(dim=1))


def test_the_class_prior_is_the_share_of_the_labels(batch: dict[str, Any]) -> None:
    """Labels 0, 0, 0, 1 and one of each beforehand: 4/7, 2/7, 1/7; training moves nothing."""
    module = build("class_prior.ClassPrior")
    module._trainer = SimpleNamespace(datamodule=crowd([0, 0, 0, 1], 0))
    module.on_fit_start()
    expected = torch.tensor([4 / 7, 2 / 7, 1 / 7]).expand(6, 3)
    torch.testing.assert_close(module(batch["inputs"]).softmax(dim=1), expected)
    module.loss(module(batch["inputs"]), batch).backward()
    assert not module.net.logits.grad.any()
