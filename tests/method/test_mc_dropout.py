"""MC dropout: how many draws an answer has, which they are, and that nothing else draws."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from annorun import net, run
from annorun.dataset import module
from annorun.dataset.module import CrowdData
from annorun.method.mc_dropout import McDropout
from annorun.votes import Items, TaskSpec, Votes

K = 3
SPEC = TaskSpec(kind="features", n_classes=K, n_annotators=1, input_shape=(5,))
OPTIMIZER = {
    **{"lr": 0.01, "betas": (0.9, 0.999), "weight_decay": 0.1, "clip": 1.0},
    **{"schedule": "constant", "max_steps": 300},
}
INPUTS = {"x": 3 * torch.randn(4, 5, generator=torch.Generator().manual_seed(1))}


def build(samples: int, seed: int = 4, name: str = "mc_dropout.McDropout") -> McDropout:
    network = {"family": "features", "model": "tiny", "weights": None}
    node: dict[str, Any] = {"_target_": f"annorun.method.{name}"}
    node |= {"samples": samples} if "mc" in name else {"target": "hard"}
    optimizer = dict(OPTIMIZER)
    own: McDropout = run.build(node, spec=SPEC, network=network, optimizer=optimizer, seed=seed)
    return own.eval()


@torch.no_grad()
def answers(own: McDropout, batches: int = 1) -> list[Tensor]:
    """What it answers to the same inputs, batch after batch."""
    for _ in range(batches):
        own.test_step({"inputs": INPUTS})
    return own.predicted


@torch.no_grad()
def draws(own: McDropout, name: str, n: int, seed: int = 4) -> Tensor:
    """So many answers under dropout, of the child `name` of a seed, (n, B, K)."""
    own.net.train()
    with net.seeded(seed, name):
        found = torch.stack([own.net(**INPUTS).softmax(dim=1) for _ in range(n)])
    own.net.eval()
    return found


@pytest.mark.parametrize("samples", [1, 2, 7])
def test_an_answer_is_the_mean_of_so_many_draws_of_their_own(samples: int) -> None:
    """Each batch has draws of its own, which hang on the seed and on how many came before."""
    own = build(samples)
    for k, found in enumerate(answers(own, 3)):
        one_by_one = draws(own, f"test_dropout/{k}", samples)
        torch.testing.assert_close(found, one_by_one.mean(dim=0))
        assert len({tuple(d[0].tolist()) for d in one_by_one}) == samples
    assert len({tuple(p[0].tolist()) for p in own.predicted}) == 3


def test_more_draws_move_less() -> None:
    """The deviation of a mean of 50 is a seventh of that of one."""

    def deviation(samples: int) -> float:
        return float(torch.stack(answers(build(samples), 40)).std(dim=0).mean())

    assert deviation(50) == pytest.approx(deviation(1) / 50**0.5, rel=0.25)


def test_many_draws_are_near_the_mean_over_dropout_and_off_the_classifier() -> None:
    own = build(400)
    (found,) = answers(own)
    expected = draws(own, "other draws", 2000, seed=3).mean(dim=0)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)
    plain = own.net(**INPUTS).softmax(dim=1)
    assert float((found - plain).detach().abs().max()) > 0.03


def test_seeds_draw_otherwise_and_one_seed_alike() -> None:
    """The weights are one network's: the draws alone differ."""
    first, same, other = build(2), build(2), build(2, seed=5)
    other.load_state_dict(first.state_dict())
    assert torch.equal(answers(first)[0], answers(same)[0])
    assert float((answers(other)[0] - first.predicted[0]).abs().max()) > 1e-3


def test_without_dropout_it_answers_as_the_classifier() -> None:
    own, bert = build(3), build(0, name="classifier.Classifier")
    own.net.layers[2].p = 0.0
    torch.testing.assert_close(answers(own)[0], answers(bert)[0])


def test_the_global_generator_and_the_modes_stay_as_they_were() -> None:
    own, before = build(2), torch.get_rng_state()
    answers(own, 2)
    assert torch.equal(before, torch.get_rng_state())
    assert not any(part.training for part in own.net.modules())


def test_attention_drops_too() -> None:
    """BERT's asks itself, not a dropout layer, whether it is in training."""
    own = build(2)

    class Asks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(x, 0.5, self.training)[:, :K]

    own.net = Asks()
    assert float((answers(own)[0] - INPUTS["x"][:, :K].softmax(dim=1)).abs().max()) > 0.05


def test_normalised_by_what_it_saw_in_training_not_by_the_batch() -> None:
    own = build(3)
    norm = nn.BatchNorm1d(5)
    with torch.no_grad():
        norm.running_mean.fill_(2.0)
        norm.running_var.fill_(9.0)
    own.net = nn.ModuleDict({"norm": norm})
    own.net.forward = lambda x: norm(x)[:, :K]
    expected = ((INPUTS["x"] - 2) / (9 + norm.eps) ** 0.5)[:, :K].softmax(dim=1)
    torch.testing.assert_close(answers(own)[0], expected)
    assert (norm.running_mean == 2).all() and (norm.running_var == 9).all()


def test_a_test_draws_what_the_test_before_it_drew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three batches of test items; what was answered before does not count as answered."""
    monkeypatch.setattr(module, "MOST_ITEMS", 3)
    n, draw = 12, np.random.default_rng(0)
    split = np.where(np.arange(n) % 3 == 0, "train", "test")
    items = Items("features", {"x": draw.normal(size=(n, 5)).astype(np.float32)}, split, K)
    votes = Votes(np.arange(n), np.zeros(n), np.arange(n) % K, n, 1, K)
    keys = {"batch_size": 2, "val_share": 0.0, "data_seed": 0, "seed": 0}
    data = CrowdData(items, votes, tokenizer=None, prompt="", **keys)
    own, found = build(2), []
    trainer = L.Trainer(
        **{"accelerator": "cpu", "logger": False, "enable_progress_bar": False},
        **{"enable_checkpointing": False, "enable_model_summary": False},
        default_root_dir=tmp_path,
    )
    for _ in range(2):
        trainer.test(own, data, verbose=False)
        found.append(own.probabilities())
    assert found[0].shape == (8, K) and len(own.predicted) == 3
    np.testing.assert_array_equal(*found)


def test_it_says_where_there_is_nothing_to_drop(capsys: pytest.CaptureFixture[str]) -> None:
    own = build(2)
    own.on_fit_start()
    assert not capsys.readouterr().err
    own.net.layers[2].p = 0.0
    own.on_fit_start()
    assert "mc_dropout: no dropout here; its answers are bert's" in capsys.readouterr().err
    own.net.layers[2].p = 0.5
    own.hparams["network"]["frozen"] = True
    own.on_fit_start()
    assert "its answers are bert's" in capsys.readouterr().err
