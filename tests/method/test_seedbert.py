"""SeedBERT: members as they would be alone, what moves them apart, how they vote; its heads.csv."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

from annorun import head_results, net, run
from annorun.dataset.module import CrowdData
from annorun.method.output_layer import head_of
from annorun.method.seedbert import distribution
from annorun.scores.soft import shares
from annorun.votes import Items, TaskSpec, Votes

SEEDBERT = "annorun.method.seedbert.SeedBert"
KEYS = {"members": 3, "encoder": "own", "bootstrap": False, "answer": "vote"}
TEXT = TaskSpec(kind="text", n_classes=3, n_annotators=1)
ENCODER = {
    "family": "encoder",
    "model": "tiny",
    "weights": None,
    "lora": 0,
    "checkpointing": False,
    "pooling": "mean",
    "frozen": False,
}
SPEC = TaskSpec(kind="features", n_classes=3, n_annotators=1, input_shape=(5,))
NETWORK = {"family": "features", "model": "tiny", "weights": None}
# large steps: gradients are clipped in some of them
LOUD = {
    "lr": 0.05,
    "betas": (0.9, 0.999),
    "weight_decay": 0.0,
    "clip": 0.3,
    "schedule": "constant",
    "max_steps": 300,
}


def ensemble(spec: TaskSpec = SPEC, network: dict[str, Any] = NETWORK, **keys: Any):
    node = {"_target_": SEEDBERT, **KEYS, **keys}
    return run.build(node, spec=spec, network=dict(network), optimizer=dict(LOUD), seed=0)


def alone(spec: TaskSpec = SPEC, network: dict[str, Any] = NETWORK):
    node = {"_target_": "annorun.method.classifier.Classifier", "target": "hard"}
    return run.build(node, spec=spec, network=dict(network), optimizer=dict(LOUD), seed=0)


def features(n: int = 60, n_classes: int = 3) -> CrowdData:
    """Items whose classes overlap, so that answers are not sure."""
    rng = np.random.default_rng(0)
    truth = np.arange(n) % n_classes
    x = rng.normal(size=(n, 5)).astype(np.float32)
    x[np.arange(n), truth] += 1
    return data(Items("features", {"x": x}, split(n), n_classes, truth=truth))


def texts() -> CrowdData:
    words = ["good", "bad", "so so"]
    truth = np.arange(12) % 3
    said = [f"{words[k]} {i}" for i, k in enumerate(truth)]
    return data(Items("text", {"text": said}, split(12), 3, truth=truth), net.tokenizer("tiny"))


def split(n: int) -> np.ndarray:
    return np.where(np.arange(n) < 2 * n // 3, "train", "test")


def data(items: Items, tokenizer: Any = None) -> CrowdData:
    n = len(items)
    votes = Votes(np.arange(n), np.zeros(n), items.truth, n, 1, items.n_classes)
    found = CrowdData(
        items, votes, tokenizer=tokenizer, prompt="", batch_size=4, val_share=0, data_seed=0, seed=0
    )
    found.target = torch.eye(items.n_classes)[torch.from_numpy(items.truth)]
    return found


def fit(module: Any, folder: Path, kind: str = "features", steps: int = 12):
    """Train under one stream of dropout, then answer the test items."""
    torch.manual_seed(7)
    own = features() if kind == "features" else texts()
    fitted = L.Trainer(
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
    fitted.fit(module, own)
    fitted.test(module, own, verbose=False)
    return module


def same(one: Any, other: Any) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("kind", ["features", "text", "frozen"])
def test_one_member_is_bert_to_the_bit(kind: str, tmp_path: Path) -> None:
    spec, network = (SPEC, NETWORK) if kind == "features" else (TEXT, ENCODER)
    network = {**network, "frozen": kind == "frozen"}
    one = fit(ensemble(spec, network, members=1), tmp_path, kind)
    bert = fit(alone(spec, network), tmp_path, kind)
    assert same(one.networks()[0], bert.net)
    assert np.array_equal(one.heads()[:, 0], bert.probabilities())


def test_each_member_learns_as_it_would_alone(tmp_path: Path) -> None:
    """The last of three members, its head in a network by itself: equal to the bit."""
    together, single = ensemble(), alone()
    start = head_of(together.networks()[2]).state_dict()
    head_of(single.net).load_state_dict(start)
    fit(together, tmp_path)
    fit(single, tmp_path)
    assert same(together.networks()[2], single.net)
    assert np.array_equal(together.heads()[:, 2], single.probabilities())


def test_each_head_of_a_frozen_encoder_learns_as_it_would_alone(tmp_path: Path) -> None:
    frozen = {**ENCODER, "frozen": True}
    together, single = ensemble(TEXT, frozen), alone(TEXT, frozen)
    head = head_of(together.net)
    own = head_of(single.net)
    with torch.no_grad():
        own.weight.copy_(head.weight[6:])
        own.bias.copy_(head.bias[6:])
    fit(together, tmp_path, "text")
    fit(single, tmp_path, "text")
    torch.testing.assert_close(head.weight[6:], own.weight, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(together.heads()[:, 2], single.probabilities(), atol=1e-6)


def test_nothing_but_the_head_moves_members_apart(tmp_path: Path) -> None:
    """Dropout of a half: equal heads stay equal all the same, to the bit."""
    module = ensemble()
    bodies = [dict(m.named_parameters()) for m in module.networks()]
    heads = {f"layers.3.{part}" for part in ("weight", "bias")}
    for name, weight in bodies[0].items():
        equal = [torch.equal(weight, body[name]) for body in bodies[1:]]
        assert equal == [name not in heads] * 2
    head_of(module.networks()[1]).load_state_dict(head_of(module.networks()[0]).state_dict())
    fit(module, tmp_path)
    first, twin, other = module.networks()
    assert same(first, twin) and not same(first, other)
    assert not np.array_equal(module.heads()[:, 0], module.heads()[:, 2])


def test_heads_hang_on_their_child_of_the_seed_not_on_how_many_there_are() -> None:
    three, five = ensemble(members=3), ensemble(members=5)
    for s in range(3):
        assert same(three.networks()[s], five.networks()[s])


def test_a_shared_encoder_has_so_many_heads(tmp_path: Path) -> None:
    module = ensemble(encoder="shared")
    assert len(module.networks()) == 1 and head_of(module.net).out_features == 9
    own = ensemble()
    for s in range(3):
        expected, rows = head_of(own.networks()[s]), slice(3 * s, 3 * s + 3)
        assert torch.equal(head_of(module.net).weight[rows], expected.weight)
        assert torch.equal(head_of(module.net).bias[rows], expected.bias)
    assert fit(module, tmp_path).probabilities().shape == (20, 3)


def test_bootstrap_draws_items_with_replacement(tmp_path: Path) -> None:
    """Each member draws n in all; its loss is the mean over its draws, by hand."""
    module = ensemble(bootstrap=True)
    own = features()
    fit(module, tmp_path, steps=1)
    times = module.times
    assert times.sum(dim=1).tolist() == [40, 40, 40]
    assert not times[:, own.test].any() and times.max() > 1
    assert not torch.equal(times[0], times[1])
    batch = own.batch(own.train.tolist())
    module.train()
    logits = torch.randn(40, 3, 3)
    log_p = logits.log_softmax(dim=-1)[torch.arange(40), :, batch["truth"]]  # (40, 3)
    expected = -sum((log_p[:, s] * times[s, own.train]).sum() / 40 for s in range(3))
    assert module.loss(logits, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_votes_by_hand() -> None:
    """Votes 0, 0, 1: shares 2/3, 1/3; means of .55, .2 and .45, .7 and .0, .1."""
    probs = torch.tensor([[[0.6, 0.4, 0.0], [0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]])
    torch.testing.assert_close(distribution(probs, "vote"), torch.tensor([[2 / 3, 1 / 3, 0.0]]))
    mean = distribution(torch.tensor([[[0.55, 0.45, 0.0], [0.2, 0.7, 0.1]]]), "mean_prob")
    torch.testing.assert_close(mean, torch.tensor([[0.375, 0.575, 0.05]]))


def test_ties_go_to_the_highest_mean_probability() -> None:
    """Votes 0, 1 of two: 1, the surer. Votes 0, 0, 1, 1, 2: means .40 and .41. The shares stay."""
    module = ensemble()
    tied = [[0.55, 0.45, 0.0], [0.2, 0.7, 0.1]]
    five = [*[[0.5, 0.4, 0.1]] * 2, *[[0.4, 0.5, 0.1]] * 2, [0.2, 0.25, 0.55]]
    for heads, votes in ((tied, [0.5, 0.5, 0.0]), (five, [0.4, 0.4, 0.2])):
        module.predicted = [torch.tensor([heads])]
        assert module.probabilities()[0] == pytest.approx(votes, abs=1e-12)
        assert module.decided().tolist() == [1]
        logits = torch.tensor([heads]).log()
        assert module.answers(logits).argmax(dim=1).item() == 1


def test_what_is_written_of_the_heads(tmp_path: Path) -> None:
    """Head 0 says what annotator 0 says, head 1 what 1 says: a few labels tell who is like whom."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, size=(40, 2))
    item, annotator = (place.ravel() for place in np.indices(labels.shape))
    held = Votes(item, annotator, labels.ravel(), 40, 2, 2)
    items = Items("votes", {}, np.full(40, "test"), 2, held_out=held, class_names=["no", "yes"])
    heads = 0.8 * np.eye(2)[labels] + 0.1
    found = head_results.write(tmp_path, items, np.arange(40), heads, rng)
    lines = (tmp_path / "heads.csv").read_text().splitlines()
    assert lines[0] == "kind,name,no,yes"
    for r in range(2):
        expected = np.bincount(labels[:, r], minlength=2) / 40
        for kind, line in (("head", lines[1 + r]), ("annotator", lines[3 + r])):
            cells = line.split(",")
            assert cells[:2] == [kind, str(r)]
            assert [float(c) for c in cells[2:]] == pytest.approx(expected)
    assert found["heads/bias"] == found["annotators/bias"]
    assert found["annotators/known_nll"] < found["annotators/unknown_nll"] - 0.1


def test_nobody_is_known_where_nobody_has_votes_enough() -> None:
    votes = Votes(np.arange(5), np.zeros(5), np.zeros(5), 5, 1, 2)
    heads = shares(np.ones((5, 3, 2)))
    assert head_results.known_annotators(heads, votes, np.random.default_rng(0)) == {}
