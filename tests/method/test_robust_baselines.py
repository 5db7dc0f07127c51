"""Crowd layer, forward correction and co-teaching in training: what they learn of whom."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import save_model
from torch.nn.functional import cross_entropy

from annorun import net
from annorun.dataset.module import CrowdData
from annorun.errors import ConfigError
from annorun.method.base import Method
from annorun.method.classifier import Classifier
from annorun.method.co_teaching import CoTeaching, alike
from annorun.method.crowd_layer import CrowdLayer
from annorun.method.forward import Forward
from annorun.objective.crowd_layer import identity, implied_accuracy
from annorun.run import run
from annorun.votes import Items, TaskSpec, Votes

K, N_TRAIN, N_TEST, STEPS = 4, 300, 100, 200
SPEC = TaskSpec("features", n_classes=K, n_annotators=3, input_shape=(K,))
NETWORK = {"family": "features", "model": "tiny", "weights": None}
# one who is right, two who say the next class: the majority of all votes is wrong
RIGHT, NEXT = np.eye(K), np.roll(np.eye(K), 1, axis=1)
OUTVOTED = np.stack([0.9 * RIGHT + 0.1 * NEXT, *[0.2 * RIGHT + 0.8 * NEXT] * 2])


def optimizer(steps: int = STEPS) -> dict:
    return {
        "lr": 3e-3,
        "betas": (0.9, 0.999),
        "weight_decay": 0.1,
        "clip": 1.0,
        "schedule": "cosine",
        "max_steps": steps,
    }


def crowd(confusion: np.ndarray) -> CrowdData:
    """Well separated items; annotator m says l of truth k with probability confusion[m, k, l]."""
    rng, n = np.random.default_rng(1), N_TRAIN + N_TEST
    truth = rng.integers(0, K, n)
    x = rng.normal(size=(n, K)).astype(np.float32)
    x[np.arange(n), truth] += 6
    item = np.repeat(np.arange(N_TRAIN), 3)
    annotator = np.tile(np.arange(3), N_TRAIN)
    below = confusion[annotator, truth[item]].cumsum(axis=1)
    label = (rng.random((len(item), 1)) > below).sum(axis=1).clip(max=K - 1)
    votes = Votes(item, annotator, label, n, 3, K)
    split = np.where(np.arange(n) < N_TRAIN, "train", "test")
    data = CrowdData(
        Items("features", {"x": x}, split, K, truth=truth),
        votes,
        tokenizer=None,
        prompt="",
        batch_size=50,
        val_share=0,
        data_seed=0,
        seed=0,
    )
    data.confusion = torch.from_numpy(confusion).float()
    return data


def train(module: Method, data: CrowdData, folder: Path, steps: int = STEPS) -> float:
    """Fit, test, and return the accuracy on the test items."""
    torch.manual_seed(0)
    trainer = L.Trainer(
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
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    truth = data.truth[data.test].numpy()
    return float((module.probabilities().argmax(axis=1) == truth).mean())


def noisy() -> Classifier:
    return Classifier(SPEC, NETWORK, optimizer(), seed=0, target="votes")


def crowd_layer(rate: float | None = 0.02) -> CrowdLayer:
    return CrowdLayer(SPEC, NETWORK, optimizer(), seed=0, annotator_lr=rate)


def forward() -> Forward:
    return Forward(SPEC, NETWORK, optimizer(), seed=0)


def pair(
    target: str = "votes", forget: float = 0.2, steps: int = STEPS, seed: int = 0
) -> CoTeaching:
    return CoTeaching(
        SPEC, NETWORK, optimizer(steps), seed=seed, target=target, forget=forget, ramp=0.05
    )


def one_batch(data: CrowdData) -> dict:
    data.target = torch.eye(K)[data.truth]
    return data.batch(data.train[:20].tolist())


def test_crowd_layer_learns_who_errs_and_how_and_keeps_it_out_of_the_answer(tmp_path: Path) -> None:
    module, third = crowd_layer(), 0.5 * RIGHT + 0.5 * NEXT
    confusion = np.stack([0.95 * RIGHT + 0.05 * NEXT, 0.25 * np.ones((K, K)), third])
    data = crowd(confusion)
    assert train(module, data, tmp_path) > 0.97
    np.testing.assert_allclose(module.expertise(), [0.95, 0.25, 0.5], atol=0.12)
    assert module.expertise_scale == "accuracy"
    learned = module.matrices.detach().softmax(-1).numpy()
    assert (learned[2] * NEXT).sum(axis=1).mean() > 0.3, "whom he takes for whom"
    inputs = data.batch(data.test.tolist())["inputs"]
    module.eval()
    with torch.no_grad():
        own = module(inputs).softmax(dim=1).numpy()
    np.testing.assert_allclose(module.probabilities(), own, atol=1e-6)


def test_crowd_layers_matrices_start_at_the_identity_with_a_rate_of_their_own_and_no_decay(
    tmp_path: Path,
) -> None:
    module = crowd_layer(rate=0.07)
    assert torch.equal(module.matrices, identity(3, K))
    train(module, crowd(OUTVOTED), tmp_path, steps=1)
    network, annotators = module.configure_optimizers()["optimizer"].param_groups
    assert annotators["initial_lr"] == 0.07 and annotators["weight_decay"] == 0.0
    assert [id(p) for p in annotators["params"]] == [id(module.matrices)]
    assert network["initial_lr"] == 3e-3
    assert crowd_layer(rate=None).annotator_group()["lr"] == 3e-3, (
        "the network's, where none is given"
    )
    np.testing.assert_allclose(module.expertise(), implied_accuracy(module.matrices.detach()))


def test_forward_sees_through_a_wrong_majority_that_noisy_learns(tmp_path: Path) -> None:
    assert train(noisy(), crowd(OUTVOTED), tmp_path) < 0.2
    assert train(forward(), crowd(OUTVOTED), tmp_path) > 0.97


def test_forward_with_the_identity_is_noisy(tmp_path: Path) -> None:
    data = crowd(OUTVOTED)
    data.confusion = torch.from_numpy(np.stack([RIGHT] * 3)).float()
    first, second = forward(), noisy()
    train(first, data, tmp_path, steps=20)
    train(second, data, tmp_path, steps=20)
    for a, b in zip(first.net.parameters(), second.net.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_forward_refuses_an_aggregator_without_confusion_matrices(
    compose: Callable[..., DictConfig], tmp_path: Path
) -> None:
    words = ["dataset=digits", "method=forward", "method.aggregator=null", "trainer=smoke"]
    with pytest.raises(ConfigError, match=r"^method\.aggregator: gives no confusion .*dawid_skene"):
        run(compose(*words))
    assert not (tmp_path / "runs").exists()


def test_networks_that_nothing_parts_start_a_little_apart(tmp_path: Path) -> None:
    network = {"family": "seq2seq", "model": "tiny", "weights": None}
    spec = TaskSpec(kind="choice", n_classes=3, n_annotators=2)
    first, second = net.build(network, spec, seed=0), net.build(network, spec, seed=0)
    assert alike(first, second)
    assert not alike(first, net.build(network, spec, seed=1))
    shape = TaskSpec(kind="features", n_classes=3, n_annotators=2, input_shape=(5,))
    same = [net.build({"family": "features", "model": "tiny"}, shape, seed=0) for _ in range(2)]
    assert not alike(*same), "dropout parts them"
    save_model(first, str(tmp_path / "w.safetensors"))
    learned = network | {"weights": str(tmp_path / "w.safetensors")}
    keys = {"target": "votes", "forget": 0.2, "ramp": 0.1}
    one, other = CoTeaching(spec, learned, optimizer(), seed=0, **keys).networks()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), first.parameters(), strict=True))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        moved = (a - b).std() / a.std()
        assert 0.005 < moved < 0.02 or a.std() == 0


def test_forward_takes_the_identity_for_annotators_without_an_estimate(tmp_path: Path) -> None:
    data, module = crowd(OUTVOTED), forward()
    data.confusion[1] = torch.nan
    train(module, data, tmp_path, steps=1)
    assert torch.equal(module.confusion[1], torch.eye(K))
    assert torch.equal(module.confusion[[0, 2]], data.confusion[[0, 2]])
    assert module.expertise() is None


def test_the_first_network_starts_as_noisy_does_and_the_second_elsewhere() -> None:
    module, alone = pair(), noisy().net.state_dict()
    first, second = module.networks()
    assert all(torch.equal(alone[name], value) for name, value in first.state_dict().items())
    assert not any(torch.equal(alone[name], value) for name, value in second.state_dict().items())
    data = crowd(OUTVOTED)
    module.eval()
    with torch.no_grad():
        logits = module(one_batch(data)["inputs"])
        each = [network(**one_batch(data)["inputs"]) for network in module.networks()]
    assert torch.equal(logits, torch.stack(each, dim=1))
    torch.testing.assert_close(
        module.answers(logits), (each[0].softmax(-1) + each[1].softmax(-1)) / 2
    )


@pytest.mark.parametrize("target", ["votes", "hard", "soft"])
def test_co_teachings_terms_are_those_of_the_classifier(target: str) -> None:
    """A column of losses is what `Classifier` would take the mean of."""
    module, batch = pair(target), one_batch(crowd(OUTVOTED))
    logits = torch.randn(20, 2, K, generator=torch.Generator().manual_seed(0))
    losses = module.losses(logits, batch)
    alone = Classifier(SPEC, NETWORK, optimizer(), seed=0, target=target)
    assert losses.shape == (module.weight(batch), 2)
    for side in (0, 1):
        torch.testing.assert_close(losses[:, side].mean(), alone.loss(logits[:, side], batch))


def test_what_is_left_out_grows_with_the_trainers_steps_and_not_in_validation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """200 steps, ramp .05: 10 steps. At 4 of them 60 votes lose floor(.2 * .4 * 60) = 4."""
    module, batch = pair(), one_batch(crowd(OUTVOTED))
    logits = torch.randn(20, 2, K, generator=torch.Generator().manual_seed(0)).requires_grad_()
    losses = module.losses(logits, batch)

    def learned(step: int) -> int:
        monkeypatch.setattr(CoTeaching, "global_step", property(lambda self: step))
        monkeypatch.setattr(module, "losses", lambda *_: losses)
        (grad,) = torch.autograd.grad(module.loss(logits, batch), losses, retain_graph=True)
        counts = (grad > 0).sum(dim=0)
        assert counts[0] == counts[1]
        return int(counts[0])

    assert [learned(step) for step in (0, 4, 10, 199)] == [60, 56, 48, 48]
    module.eval()
    assert learned(199) == 60


def test_each_network_has_its_own_gradient_and_both_are_clipped(tmp_path: Path) -> None:
    module, batch = pair(), one_batch(crowd(OUTVOTED))
    module.eval()
    module.loss(module(batch["inputs"]), batch).backward()
    for network in module.networks():
        grads = [p.grad for p in network.parameters()]
        loss = cross_entropy(network(**batch["inputs"])[batch["row"]], batch["label"])
        for ours, alone in zip(
            grads, torch.autograd.grad(loss, list(network.parameters())), strict=True
        ):
            torch.testing.assert_close(ours, alone)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 10.0)
    module.on_before_optimizer_step(torch.optim.SGD(module.parameters(), lr=1.0))
    norm = torch.stack([p.grad.norm() for p in module.parameters()]).norm()
    assert norm.item() == pytest.approx(1.0, rel=1e-3)


def test_co_teaching_leaves_out_most_flipped_votes_and_is_surer_than_noisy(tmp_path: Path) -> None:
    """A quarter of the votes are flipped at random; both networks come to call those hard."""
    flipped = np.stack([0.75 * RIGHT + 0.25 * (1 - RIGHT) / 3] * 3)
    data, module = crowd(flipped), pair(forget=0.25)
    assert train(module, data, tmp_path) > 0.97
    batch = data.batch(data.train.tolist())
    wrong = batch["label"] != batch["truth"][batch["row"]]
    module.eval()
    with torch.no_grad():
        losses = module.losses(module(batch["inputs"]), batch)
        sure = module.answers(module(batch["inputs"])).max(dim=1).values.mean()
    hard = losses.argsort(dim=0)[-int(0.25 * len(losses)) :]
    for side in (0, 1):
        assert wrong[hard[:, side]].float().mean() > 0.9
    plain = noisy()
    train(plain, data, tmp_path)
    plain.eval()
    with torch.no_grad():
        unsure = plain(batch["inputs"]).softmax(dim=1).max(dim=1).values.mean()
    assert sure > 0.95 and unsure < 0.85, "noisy learns the flips' share, .75"


# (item, annotator, label): three items, four annotators, three classes
VOTES = [(0, 3, 1), (0, 1, 2), (1, 0, 0), (1, 2, 2), (1, 3, 2), (2, 2, 1), (2, 1, 0)]
SHAPE = TaskSpec("features", n_classes=3, n_annotators=4, input_shape=(5,))


def vote_batch() -> tuple[torch.Tensor, dict]:
    row, annotator, label = (torch.tensor(column) for column in zip(*VOTES, strict=True))
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    return logits, {"row": row, "annotator": annotator, "label": label, "item": torch.arange(3)}


def drawn_matrices() -> torch.Tensor:
    return torch.rand(4, 3, 3, generator=torch.Generator().manual_seed(1)).softmax(dim=-1)


def test_crowd_layer_puts_each_vote_through_its_own_annotators_matrix() -> None:
    """a = W^T p, the softmax of it, vote by vote; matrices are not symmetric."""
    module = CrowdLayer(SHAPE, NETWORK, optimizer(), seed=0, annotator_lr=None)
    matrices = 3 * drawn_matrices()
    with torch.no_grad():
        module.matrices.copy_(matrices)
    logits, batch = vote_batch()
    p = logits.softmax(dim=1)
    costs = [-(p[i] @ matrices[m]).log_softmax(dim=0)[y] for i, m, y in VOTES]
    torch.testing.assert_close(module.loss(logits, batch), torch.stack(costs).mean())
    sure = [[matrices[m, k].softmax(dim=0)[k] for k in range(3)] for m in range(4)]
    np.testing.assert_allclose(module.expertise(), np.array(sure).mean(axis=1), rtol=1e-5)


def test_forward_corrects_each_vote_by_its_own_annotators_matrix() -> None:
    """p(y | x, m) = sum_k pi_k T[m, k, y], vote by vote, of matrices that fit handed over."""
    module, matrices = Forward(SHAPE, NETWORK, optimizer(), seed=0), drawn_matrices()
    module._trainer = SimpleNamespace(datamodule=SimpleNamespace(confusion=matrices))
    module.on_fit_start()
    logits, batch = vote_batch()
    pi = logits.softmax(dim=1)
    costs = [-(pi[i] @ matrices[m])[y].log() for i, m, y in VOTES]
    torch.testing.assert_close(module.loss(logits, batch), torch.stack(costs).mean())


def test_co_teaching_answers_the_mean_of_both_and_its_second_network_hangs_on_the_seed() -> None:
    module, data = pair(), crowd(OUTVOTED)
    batch = data.batch(data.test[:9].tolist())
    module.eval()
    with torch.no_grad():
        module.test_step(batch)
        each = [network(**batch["inputs"]).softmax(dim=1) for network in module.networks()]
    np.testing.assert_allclose(module.probabilities(), (each[0] + each[1]) / 2, atol=1e-6)
    second, other = module.networks()[1], pair(seed=3).networks()[1]
    pairs = zip(second.parameters(), other.parameters(), strict=True)
    assert not any(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(("forget", "learned"), [(0.5, 30), (0.1, 54), (0.0, 60)])
def test_co_teaching_leaves_out_the_share_that_it_is_given(forget: float, learned: int) -> None:
    """Of 60 votes, at the end of the ramp."""
    module, batch = pair(forget=forget), one_batch(crowd(OUTVOTED))
    logits = torch.randn(20, 2, K, generator=torch.Generator().manual_seed(0)).requires_grad_()
    losses = module.losses(logits, batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CoTeaching, "global_step", property(lambda self: 150))
        patch.setattr(module, "losses", lambda *_: losses)
        (grad,) = torch.autograd.grad(module.loss(logits, batch), losses)
    assert (grad > 0).sum(dim=0).tolist() == [learned, learned]
