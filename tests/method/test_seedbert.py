"""SeedBERT: members as they would be alone, what moves them apart, how they vote; its heads.csv."""

import copy
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

from annorun import head_results, net, run
from annorun.aggregation.head_weights import head_weights
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
    "weight_decay": 0.1,
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


def answered(answer: str) -> tuple[Any, np.ndarray]:
    """Three members that have answered nine items, and their probabilities."""
    module = ensemble(answer=answer)
    heads = np.random.default_rng(0).dirichlet(np.ones(3), (9, 3))
    module.predicted = [torch.from_numpy(heads[:4]), torch.from_numpy(heads[4:])]
    return module, heads


@pytest.mark.parametrize("answer", ["vote", "mean_prob"])
def test_each_item_is_answered_as_the_config_says_and_the_other_way_beside_it(answer: str) -> None:
    """Shares of the members' votes or means of their probabilities, item by item."""
    module, heads = answered(answer)
    ways = {"mean_prob": heads.mean(axis=1), "vote": np.eye(3)[heads.argmax(axis=2)].mean(axis=1)}
    np.testing.assert_allclose(module.probabilities(), ways[answer])
    (other,) = {"vote", "mean_prob"} - {answer}
    assert list(module.others()) == [other]
    np.testing.assert_allclose(module.others()[other], ways[other])
    best = [np.lexsort((heads[i].mean(axis=0), ways[answer][i]))[-1] for i in range(9)]
    assert module.decided().tolist() == best
    assert best != heads.mean(axis=1).argmax(axis=1).tolist() or answer == "mean_prob"
    logits = torch.from_numpy(heads).log()
    assert module.answers(logits).argmax(dim=1).tolist() == best


def test_another_seed_has_other_heads_and_other_draws(tmp_path: Path) -> None:
    modules = []
    for seed in (0, 1):
        node = {"_target_": SEEDBERT, **KEYS, "bootstrap": True}
        module = run.build(node, spec=SPEC, network=dict(NETWORK), optimizer=dict(LOUD), seed=seed)
        modules.append((copy.deepcopy(module), fit(module, tmp_path, steps=1)))
    (first, learned), (other, moved) = modules
    for a, b in zip(first.networks(), other.networks(), strict=True):
        assert not torch.equal(head_of(a).weight, head_of(b).weight)
    assert not torch.equal(learned.times, moved.times)
    starts = [head_of(member).weight for member in first.networks()]
    assert not torch.equal(starts[0], starts[1]) and not torch.equal(starts[1], starts[2])


def test_a_bootstraps_draws_are_by_item_and_in_training_alone(tmp_path: Path) -> None:
    """A batch of items from all over; validation is over every item once."""
    module = fit(ensemble(bootstrap=True), tmp_path, steps=1)
    item = torch.tensor([37, 4, 21, 8])
    target = torch.eye(3)[[0, 2, 1, 0]]
    logits = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0))
    cost = -(target[:, None] * logits.log_softmax(dim=-1)).sum(dim=-1)  # (4, 3)
    batch = {"item": item, "target": target}
    times = module.times[:, item].T
    assert len(set(times.flatten().tolist())) > 1
    weighted = (cost * times).sum() / 4
    torch.testing.assert_close(module.train().loss(logits, batch), weighted)
    torch.testing.assert_close(module.eval().loss(logits, batch), cost.sum() / 4)


@pytest.mark.parametrize("kind", ["own", "frozen"])
def test_each_member_is_clipped_by_itself(kind: str) -> None:
    """Gradients of 1, 2 and 3 times one tensor: each ends at the norm .3, none below another's."""
    network = {**ENCODER, "frozen": kind == "frozen"}
    module = ensemble(TEXT, network)
    draw = torch.Generator().manual_seed(0)
    if kind == "own":
        for s, member in enumerate(module.networks(), 1):
            draw.manual_seed(0)
            for p in member.parameters():
                p.grad = s * torch.randn(p.shape, generator=draw)
        norms = [
            torch.stack([p.grad.norm() for p in m.parameters()]).norm() for m in module.networks()
        ]
        module.on_before_optimizer_step(torch.optim.SGD(module.parameters(), lr=1.0))
        found = [
            torch.stack([p.grad.norm() for p in m.parameters()]).norm() for m in module.networks()
        ]
    else:
        head = head_of(module.net)
        for p in head.parameters():
            one = torch.randn((3, *p.shape[1:]), generator=draw)
            p.grad = torch.cat([s * one for s in (1, 2, 3)])

        def by_head() -> list[torch.Tensor]:
            grads = [p.grad.view(3, -1) for p in head.parameters()]
            return list(torch.cat(grads, dim=1).norm(dim=1))

        norms = by_head()
        module.on_before_optimizer_step(torch.optim.SGD(module.parameters(), lr=1.0))
        found = by_head()
    assert float(norms[2]) == pytest.approx(3 * float(norms[0]), rel=1e-4)
    assert [float(n) for n in found] == pytest.approx([0.3] * 3, rel=1e-3)


def test_people_are_scored_on_the_tested_items_of_their_own_votes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test items stand between others; of two annotators one has seven votes, one has five."""
    draw = np.random.default_rng(0)
    test = np.array([2, 5, 6, 9, 13, 14, 17])
    pairs = [(i, 0) for i in test] + [(i, 1) for i in test[:5]] + [(i, 3) for i in test[:6]]
    item, annotator = np.array(pairs).T
    held = Votes(item, annotator, draw.integers(0, 3, len(item)), 20, 4, 3)
    split = np.where(np.isin(np.arange(20), test), "test", "train")
    names = ["ann", "bob", "cy", "dee"]
    items = Items("votes", {}, split, 3, held_out=held, annotator_names=names)
    heads = draw.dirichlet(np.ones(3), (7, 2))
    place = {int(i): k for k, i in enumerate(test)}
    whole = np.zeros((20, 2, 3))
    whole[test] = heads
    known_annotators, handed = head_results.known_annotators, []

    def watch(*given: Any) -> dict[str, float]:
        handed.append(given)
        return known_annotators(*given)

    monkeypatch.setattr(head_results, "known_annotators", watch)
    found = head_results.write(tmp_path, items, test, heads, np.random.default_rng(1))
    ((table, votes, _),) = handed
    assert np.array_equal(table, whole) and votes is held
    lines = [r.split(",") for r in (tmp_path / "heads.csv").read_text().splitlines()[1:]]
    # nobody has heard of cy
    assert [r[1] for r in lines if r[0] == "annotator"] == ["ann", "bob", "dee"]
    for name, m in (("ann", 0), ("bob", 1), ("dee", 3)):
        (line,) = [r for r in lines if r[1] == name]
        mine = held.label[held.annotator == m]
        expected = np.bincount(mine, minlength=3) / len(mine)
        assert [float(cell) for cell in line[2:]] == pytest.approx(expected)
    for h in range(2):
        (line,) = [r for r in lines if r[:2] == ["head", str(h)]]
        expected = np.bincount(heads[:, h].argmax(axis=1), minlength=3) / 7
        assert [float(cell) for cell in line[2:]] == pytest.approx(expected)
    # two votes of ann and one of dee are judged, whichever they are: three, bob's are none
    for seed in range(3):
        metrics = head_results.known_annotators(whole, held, np.random.default_rng(seed))
        again, known, unknown = np.random.default_rng(seed), [], []
        for m in (0, 3):
            own = again.permutation(np.flatnonzero(held.annotator == m))
            at = np.array([heads[place[int(held.item[v])], :, held.label[v]] for v in own])
            weights = head_weights(at[:5])
            known += [-np.log(row @ weights) for row in at[5:]]
            unknown += [-np.log(row.mean()) for row in at[5:]]
        assert len(known) == 3
        assert metrics["annotators/known_nll"] == pytest.approx(np.mean(known))
        assert metrics["annotators/unknown_nll"] == pytest.approx(np.mean(unknown))
    assert found["annotators/bias"] != found["heads/bias"]
