"""What every method must do, whatever its formula; a new method is a new row by its YAML alone."""

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from annorun import config, run
from annorun.dataset.module import CrowdData
from annorun.votes import Items, TaskSpec, Votes

NODES = {
    p.stem: OmegaConf.to_container(method)["module"]
    for p in sorted((config.conf_dir() / "method").glob("*.yaml"))
    # those over tasks: test_episodic_battery.py; those that write: test_capo.py
    if not (method := OmegaConf.load(p)).get("episodes") and method.accepts != ["explain"]
}
# many methods share a module with all its values: one of them stands for it
METHODS = sorted({str(node): name for name, node in NODES.items() if node}.values())
SPEC = TaskSpec(
    kind="features",
    n_classes=3,
    n_annotators=4,
    input_shape=(5,),
    n_groups=2,
    group=(0, 0, 1, 1),
)
OPTIMIZER = {
    "lr": 0.01,
    "betas": (0.9, 0.999),
    "weight_decay": 0.0,
    "clip": 1.0,
    "schedule": "constant",
    "max_steps": 300,
}
NETWORK = {"family": "features", "model": "tiny", "weights": None}


def test_battery_sees_every_method() -> None:
    assert len(METHODS) >= 6


@pytest.fixture(params=METHODS)
def node(request: pytest.FixtureRequest) -> dict:
    return dict(NODES[request.param])


def build(node: dict, seed: int = 0):
    optimizer = dict(OPTIMIZER)
    return run.build(node, spec=SPEC, network=NETWORK, optimizer=optimizer, seed=seed)


def named(node: dict, name: str) -> bool:
    return str(node["_target_"]).endswith(f".{name}")


def clean_data(n_train: int = 8, n_test: int = 4) -> CrowdData:
    """Every annotator tells the truth about well separated items."""
    rng = np.random.default_rng(0)
    n = n_train + n_test
    truth = np.arange(n) % 3
    x = rng.normal(size=(n, 5)).astype(np.float32) * 0.1
    x[np.arange(n), truth] += 3
    item = np.repeat(np.arange(n_train), 4)
    annotator = np.tile(np.arange(4), n_train)
    votes = Votes(item, annotator, truth[item], n_items=n, n_annotators=4, n_classes=3)
    split = np.where(np.arange(n) < n_train, "train", "test")
    items = Items("features", {"x": x}, split, 3, truth=truth)
    data = CrowdData(
        items, votes, tokenizer=None, prompt="", batch_size=8, val_share=0, data_seed=0, seed=0
    )
    data.target = torch.eye(3)[torch.from_numpy(truth)]
    data.group_target = torch.from_numpy(np.stack([truth, truth], axis=1))
    data.confusion = torch.eye(3).repeat(4, 1, 1)
    return data


def trainer(folder: Path, steps: int) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )


def test_probabilities_sum_to_one_whatever_the_batch_size(node: dict, tmp_path: Path) -> None:
    if named(node, "McDropout"):
        pytest.skip("dropout goes on: each batch has draws of its own")
    data, module = clean_data(), build(node)
    found = []
    for size in (1, 300):
        data.batch_size = size
        trainer(tmp_path, 1).test(module, data.test_dataloader(), verbose=False)
        batches = (
            [data.batch([int(i)]) for i in data.test]
            if size == 1
            else [data.batch(data.test.tolist())]
        )
        module.eval()
        module.predicted.clear()
        with torch.no_grad():
            for batch in batches:
                module.test_step(batch)
        found.append(module.probabilities())
    assert found[0].shape == (4, 3)
    np.testing.assert_allclose(found[0].sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_every_trainable_parameter_gets_a_finite_gradient(node: dict) -> None:
    data, module = clean_data(), build(node)
    batch = data.batch(data.train.tolist())
    module.loss(module(batch["inputs"]), batch).backward()
    gradients = {name: p.grad for name, p in module.named_parameters() if p.requires_grad}
    assert gradients
    for name, gradient in gradients.items():
        assert gradient is not None and torch.isfinite(gradient).all(), name


def test_clean_items_are_overfitted_in_train_mode(node: dict, tmp_path: Path) -> None:
    if named(node, "ClassPrior"):
        pytest.skip("learns nothing")
    data, module = clean_data(), build(node)
    modes = []

    def watch(*_: object) -> None:
        modes.append([name for name, m in module.net.named_modules() if not m.training])

    module.on_train_batch_start = watch
    trainer(tmp_path, 60).fit(module, data)
    assert modes and not any(modes), "submodules in eval mode during training"
    trainer(tmp_path, 1).test(module, data, verbose=False)
    truth = np.arange(8, 12) % 3
    assert (module.probabilities().argmax(axis=1) == truth).all()


def test_checkpoint_round_trip_with_weights_only(node: dict, tmp_path: Path) -> None:
    data, module = clean_data(), build(node)
    fitted = trainer(tmp_path, 5)
    fitted.fit(module, data)
    path = tmp_path / "model.ckpt"
    fitted.save_checkpoint(path)
    torch.load(path, weights_only=True)
    again = type(module).load_from_checkpoint(path, weights_only=True)
    for (name, a), (_, b) in zip(
        module.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name


def test_same_seed_same_weights_other_seed_others(node: dict) -> None:
    if named(node, "ClassPrior"):
        pytest.skip("has no weights to draw")
    first, same, other = (build(node, seed=s).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(first[k], same[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_gold_reaches_only_those_who_ask_for_it(node: dict, tmp_path: Path) -> None:
    """Other truths beside the same votes and labels: the same weights, to the bit."""
    weights = []
    for shift in (0, 1):
        data, module = clean_data(), build(node)
        data.truth = (data.truth + shift) % 3
        torch.manual_seed(0)
        trainer(tmp_path, 5).fit(module, data)
        weights.append(module.state_dict())
    same = all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert same == (node.get("target") != "gold")


def test_building_leaves_the_global_generator_alone(node: dict) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    build(node)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("target", ["gold", "votes", "hard", "soft"])
def test_the_classifier_learns_its_target(target: str) -> None:
    """Logits log(.5, .3, .2): cross-entropy is -log of what the target names, by hand."""
    node = {"_target_": "annorun.method.classifier.Classifier", "target": target}
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    batch = {
        "item": torch.tensor([7]),
        "truth": torch.tensor([2]),
        "target": torch.tensor([[0.0, 1.0, 0.0]] if target == "hard" else [[0.5, 0.5, 0.0]]),
        "row": torch.tensor([0, 0]),
        "annotator": torch.tensor([0, 1]),
        "label": torch.tensor([0, 1]),
    }
    expected = {
        "gold": -np.log(0.2),
        "votes": -(np.log(0.5) + np.log(0.3)) / 2,
        "hard": -np.log(0.3),
        "soft": -(np.log(0.5) + np.log(0.3)) / 2,
    }[target]
    assert build(node).loss(logits, batch).item() == pytest.approx(expected, rel=1e-5)


def test_one_item_with_all_its_votes_equals_its_votes_one_by_one(node: dict) -> None:
    """A batch of prompts with their votes gives the loss and gradients of the same triples."""
    if node.get("target") == "annotators":
        pytest.skip("a head an annotator: the paper sums over the heads, not over the votes")
    rng = np.random.default_rng(3)
    data, module = clean_data(), build(node)
    module.eval()
    grouped = data.batch([0, 1, 2])
    grouped["label"] = torch.from_numpy(rng.integers(0, 3, len(grouped["label"])))
    loss = module.loss(module(grouped["inputs"]), grouped)
    loss.backward()
    together = {n: p.grad.clone() for n, p in module.named_parameters()}
    module.zero_grad()
    losses = []
    for row, annotator, label in zip(
        grouped["row"], grouped["annotator"], grouped["label"], strict=True
    ):
        keep = {
            k: grouped[k][row : row + 1]
            for k in ("item", "truth", "shares", "target", "group_target")
        }
        inputs = {k: v[row : row + 1] for k, v in grouped["inputs"].items()}
        one = {
            **keep,
            "inputs": inputs,
            "row": torch.zeros(1, dtype=torch.long),
            "annotator": annotator[None],
            "label": label[None],
        }
        losses.append(module.loss(module(one["inputs"]), one))
    apart = torch.stack(losses).mean()
    apart.backward()
    assert torch.allclose(loss, apart, atol=1e-6)
    for name, parameter in module.named_parameters():
        assert torch.allclose(together[name], parameter.grad, atol=1e-6), name
