"""REALM in training: what it learns of annotators does not hang on their order or their number."""

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch

from annorun.dataset.module import CrowdData
from annorun.method.realm import LIMIT, Realm
from annorun.noise import uniform
from annorun.votes import Items, Pool, TaskSpec, Votes

RHO = np.array([0.95, 0.25, 0.6])


def crowd(order: list[int]) -> CrowdData:
    """600 separable items of 4 classes; annotator `order[m]` of the pool votes as number m."""
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, 600)
    x = rng.normal(size=(600, 4)).astype(np.float32)
    x[np.arange(600), truth] += 6
    drawn = uniform(truth=truth, pool=Pool(RHO), n_classes=4, rng=np.random.default_rng(2))
    place = np.argsort(order)
    votes = Votes(drawn.item, place[drawn.annotator], drawn.label, 600, 3, 4)
    items = Items("features", {"x": x}, np.full(600, "train"), 4, truth=truth)
    return CrowdData(
        items, votes, tokenizer=None, prompt="", batch_size=50, val_share=0, data_seed=0, seed=0
    )


def train(data: CrowdData, folder: Path, start: float = 0.5, steps: int = 300) -> Realm:
    module = Realm(
        TaskSpec("features", n_classes=4, n_annotators=3, input_shape=(4,)),
        {"family": "features", "model": "tiny", "weights": None},
        {
            "lr": 3e-3,
            "betas": (0.9, 0.999),
            "weight_decay": 0.1,
            "clip": 1.0,
            "schedule": "cosine",
            "max_steps": steps,
        },
        seed=0,
        expertise_lr=0.05,
        expertise_start=start,
    )
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
    return module


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    return train(crowd([0, 1, 2]), tmp_path_factory.mktemp("realm")).expertise()


def test_expertise_is_the_mixture_equivalent(learned: np.ndarray) -> None:
    np.testing.assert_allclose(learned, (4 * RHO - 1) / 3, atol=0.06)


def test_permuting_annotators_permutes_expertise(learned: np.ndarray, tmp_path: Path) -> None:
    other = train(crowd([2, 0, 1]), tmp_path).expertise()
    np.testing.assert_allclose(other, learned[[2, 0, 1]], atol=1e-3)


def test_omega_stays_where_its_gradient_lives(tmp_path: Path) -> None:
    module = train(crowd([0, 1, 2]), tmp_path, start=1.0, steps=3)
    assert module.omega[1] < LIMIT, "a start at 1 must be able to come down"
    with torch.no_grad():
        module.omega.copy_(torch.tensor([9.0, -9.0, 1.0]))
    module.on_train_batch_end(None, None, 0)
    assert module.omega.tolist() == [LIMIT, -LIMIT, 1.0]


def test_omega_has_its_own_rate_and_no_decay(tmp_path: Path) -> None:
    module = train(crowd([0, 1, 2]), tmp_path, steps=1)
    chosen = module.configure_optimizers()
    network, annotators = chosen["optimizer"].param_groups
    assert annotators["initial_lr"] == 0.05 and annotators["weight_decay"] == 0.0
    assert [id(p) for p in annotators["params"]] == [id(module.omega)]
    assert network["initial_lr"] == 3e-3 and network["weight_decay"] == 0.1
    for factor in chosen["lr_scheduler"]["scheduler"].lr_lambdas:
        assert factor(0) == 1 and factor(1) == pytest.approx(0)


def untrained(start: float, n_annotators: int = 5) -> Realm:
    return Realm(
        TaskSpec("features", n_classes=4, n_annotators=n_annotators, input_shape=(4,)),
        {"family": "features", "model": "tiny", "weights": None},
        {
            **{"lr": 3e-3, "betas": (0.9, 0.999), "weight_decay": 0.1, "clip": 1.0},
            **{"schedule": "cosine", "max_steps": 8},
        },
        seed=0,
        expertise_lr=0.05,
        expertise_start=start,
    )


@pytest.mark.parametrize("start", [0.2, 0.5, 0.83])
def test_everybody_starts_at_the_configs_expertise(start: float) -> None:
    np.testing.assert_allclose(untrained(start).expertise(), np.full(5, start), rtol=1e-6)


def test_a_vote_is_weighed_by_its_own_annotator() -> None:
    """Three items, five annotators, four classes: Eq. 1 vote by vote."""
    module = untrained(0.5)
    rho = torch.tensor([0.9, 0.2, 0.6, 0.4, 0.75])
    with torch.no_grad():
        module.omega.copy_(rho.logit())
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    votes = [(0, 3, 1), (0, 4, 2), (1, 0, 0), (1, 1, 3), (1, 2, 3), (2, 4, 1)]
    row, annotator, label = (torch.tensor(column) for column in zip(*votes, strict=True))
    pi = logits.softmax(dim=1)
    expected = [-(rho[m] * pi[i, y] + (1 - rho[m]) / 4).log() for i, m, y in votes]
    batch = {"item": torch.arange(3), "row": row, "annotator": annotator, "label": label}
    torch.testing.assert_close(module.loss(logits, batch), torch.stack(expected).mean())
    assert module.weight(batch) == 6


def test_clipping_the_network_leaves_omega_alone() -> None:
    module = Realm(
        TaskSpec("features", n_classes=4, n_annotators=3, input_shape=(4,)),
        {"family": "features", "model": "tiny", "weights": None},
        {
            "lr": 1e-3,
            "betas": (0.9, 0.999),
            "weight_decay": 0.1,
            "clip": 0.5,
            "schedule": "cosine",
            "max_steps": 1,
        },
        seed=0,
        expertise_lr=0.05,
        expertise_start=0.5,
    )
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 10.0)
    module.on_before_optimizer_step(torch.optim.SGD(module.parameters(), lr=1.0))
    norm = torch.stack([p.grad.norm() for p in module.net.parameters()]).norm()
    assert norm.item() == pytest.approx(0.5, rel=1e-3)
    assert (module.omega.grad == 10).all()
