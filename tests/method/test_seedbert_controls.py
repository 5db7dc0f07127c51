"""What SeedBERT is compared with: losses by hand, limits in which they are the plain classifier."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, softplus

from annorun import run
from annorun.dataset.module import CrowdData
from annorun.method.output_layer import head_of
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
    assert torch.equal(module.each(batch["inputs"]), module.answers(logits)[:, None])
    q = batch["shares"].double()
    told = -(q * q.log()).sum(dim=1) / np.log(3)
    error = (logits[:, 3].double().sigmoid() - told).square().mean()
    expected = cross_entropy(logits[:, :3], batch["truth"]) + 2 * error
    assert module.loss(logits, batch).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_rows_of_disagreement_hang_on_the_seed(seed: int) -> None:
    name = "label_and_disagreement.LabelAndDisagreement"
    first, other = (head_of(build(name, s, disagreement=1.0).net) for s in (seed, 2))
    with_seed = build(name, seed, disagreement=1.0)
    assert torch.equal(first.weight, head_of(with_seed.net).weight)
    assert not torch.equal(first.weight[3], other.weight[3])
    assert with_seed.weight({"item": torch.arange(2), "label": torch.arange(7)}) == 2


# of three parts, each with labels of its own; the test items are not the last
SPLIT = np.array(["train", "test", "train", "val"] * 7)[:26]
LABEL = np.select([SPLIT == "train", SPLIT == "test"], [0, 1], 2)
LABEL[:8:2] = 2


def crowd() -> CrowdData:
    """Of 13 training items 9 have label 0 and 4 label 2; the others are of other classes."""
    n = len(SPLIT)
    x = np.random.default_rng(0).normal(size=(n, 5)).astype(np.float32)
    votes = Votes(np.arange(n), np.zeros(n), np.ones(n), n, 1, 3)
    keys = {"batch_size": 4, "val_share": 0.5, "data_seed": 0, "seed": 0}
    items = Items("features", {"x": x}, SPLIT, 3, truth=np.ones(n))
    found = CrowdData(items, votes, tokenizer=None, prompt="", **keys)
    found.target = torch.eye(3)[torch.from_numpy(LABEL)]
    return found


def fit(module: Any, data: CrowdData, folder: Path, steps: int = 5) -> L.Trainer:
    trainer = L.Trainer(
        **{"accelerator": "cpu", "max_steps": steps, "max_epochs": -1, "logger": False},
        **{"enable_checkpointing": False, "enable_progress_bar": False},
        **{"enable_model_summary": False, "default_root_dir": folder, "num_sanity_val_steps": 0},
    )
    trainer.fit(module, data)
    return trainer


def test_the_class_prior_is_the_share_of_the_training_items_labels(tmp_path: Path) -> None:
    """Nine of 0, four of 2 and one of each beforehand; decay and steps move nothing."""
    module, data = build("class_prior.ClassPrior"), crowd()
    module.optimizer["weight_decay"] = 0.9
    trainer = fit(module, data, tmp_path)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    trainer.test(module, data, verbose=False)
    expected = np.tile([10 / 16, 1 / 16, 5 / 16], (len(data.test), 1))
    np.testing.assert_allclose(module.probabilities(), expected, rtol=1e-6)
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]["net.logits"]
    np.testing.assert_allclose(kept.softmax(0), expected[0], rtol=1e-6)
    batch = data.batch([0, 2])
    module.train().loss(module(batch["inputs"]), batch).backward()
    assert not module.net.logits.grad.any()


def test_a_bnns_kl_is_shared_among_the_training_items(tmp_path: Path) -> None:
    module, data = build("bnn.BNN", prior_std=1.0, rho=-3.0, samples=2), crowd()
    fit(module, data, tmp_path, steps=1)
    assert module.n_train == 13


def test_a_bnns_answers_hang_on_the_seed_and_on_how_many_draws_they_have(
    batch: dict[str, Any],
) -> None:
    """Of weights that are one network's."""

    def answers(seed: int, samples: int) -> torch.Tensor:
        module = build("bnn.BNN", seed, prior_std=1.0, rho=0.0, samples=samples)
        module.load_state_dict(first.state_dict())
        with torch.no_grad():
            return module.eval()(batch["inputs"])

    first = build("bnn.BNN", 3, prior_std=1.0, rho=0.0, samples=2)
    assert torch.equal(answers(3, 2), first.eval()(batch["inputs"]))
    for seed, samples in ((4, 2), (3, 1), (3, 5)):
        assert float((answers(seed, samples) - answers(3, 2)).abs().max()) > 0.1, (seed, samples)


def test_a_bnns_weights_in_training_have_the_posteriors_mean_and_deviation() -> None:
    """2000 draws of the outputs, bias and all, of one input."""
    layer = head_of(build("bnn.BNN", prior_std=1.0, rho=0.7, samples=1).net).train()
    x = torch.zeros(128)
    x[:2] = torch.tensor([1.5, -0.5])
    torch.manual_seed(0)
    with torch.no_grad():
        outputs = torch.stack([layer(x) for _ in range(2000)])
        mean = layer.weight[:, :2] @ x[:2] + layer.bias
    std = float(softplus(torch.tensor(0.7))) * (1.5**2 + 0.5**2 + 1) ** 0.5
    torch.testing.assert_close(outputs.mean(dim=0), mean, atol=0.2, rtol=0)
    torch.testing.assert_close(outputs.std(dim=0), torch.full((3,), std), atol=0.15, rtol=0)
