"""No result depends on how often one validates, on earlier runs of the process, or on the cache.

Dropout and Bayesian layers draw from torch's global generators. So that every kind of training is
tested the same, each step of the optimizer scales its gradients by a draw from there.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from annorun import results
from annorun.run import run

Compose = Callable[..., DictConfig]
Weights = dict[str, Tensor]

FEW_STEPS = ("model_size=tiny", "trainer=smoke", "trainer.max_steps=6", "trainer.batch_size=4")
KINDS: dict[str, tuple[str, ...]] = {
    "classification": (
        *("method=realm", "dataset=digits", "dataset.test_share=0.9"),
        "noise=uniform",
    ),
    "episodes": (
        *("method=meta_em", "dataset=digits", "noise=confusion"),
        *("annotator_dist=expert_hammer_spammer", "method.episodes.shots=2"),
        *("method.episodes.queries=3", "method.episodes.tasks=2"),
    ),
    "preference": (
        *("method=capo", "dataset=synthetic_styles", "dataset.n_items=40"),
        *("method.module.preference_steps=4", "method.module.decodings=1"),
        "method.module.most_tokens=4",
    ),
}
# what other generators the process has used before must not matter either
OTHER_STATE = 8128


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANNORUN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Weights]]:
    """Let each step draw from the global generator; collect the weights of each training."""
    step, fit = torch.optim.AdamW.step, L.Trainer.fit
    collected: list[Weights] = []

    def scaled(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        closure = kwargs.pop("closure", None) or (args[0] if args else None)
        loss = closure() if closure else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.mul_(torch.rand(()))
        step(self)
        return loss

    def recorded(self: L.Trainer, module: L.LightningModule, *args: Any) -> None:
        fit(self, module, *args)
        collected.append({k: v.clone() for k, v in module.state_dict().items()})

    monkeypatch.setattr(torch.optim.AdamW, "step", scaled)
    monkeypatch.setattr(L.Trainer, "fit", recorded)
    yield collected


def equal(first: Weights, second: Weights) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_do_not_depend_on_the_number_of_validations(
    kind: str, compose: Compose, trained: list[Weights], tmp_path: Path
) -> None:
    stages = 2 if kind == "preference" else 1
    rows = []
    for every, folder in ((1, "a"), (4, "b")):
        # a cache of its own: the second training must take place
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ANNORUN_CACHE", str(tmp_path / folder))
            rows.append(run(compose(*KINDS[kind], *FEW_STEPS, f"trainer.val_every={every}")))
    assert len(trained) == 2 * stages
    for stage in range(stages):
        assert equal(trained[stage], trained[stages + stage])
    curves = [results.read_csv(path) for path in sorted(tmp_path.rglob("runs/**/metrics.csv"))]
    # it did validate: six times, and at steps 4 and 6
    assert sorted(len(curve) for curve in curves) == [2, 6]
    assert all("val/loss" in row for curve in curves for row in curve)
    assert rows[0]["metrics"] == rows[1]["metrics"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_ends_alike_alone_and_as_the_third_of_a_sweep(
    kind: str, compose: Compose, trained: list[Weights], tmp_path: Path
) -> None:
    overrides = (*KINDS[kind], *FEW_STEPS)
    alone = run(compose(*overrides))
    first = list(trained)
    trained.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANNORUN_CACHE", str(tmp_path / "other"))
        torch.manual_seed(OTHER_STATE)
        run(compose(*overrides, "seed=1"))
        run(compose(*overrides, "seed=2"))
        trained.clear()
        third = run(compose(*overrides, "mode=force"))
    assert len(first) == len(trained) and all(map(equal, first, trained))
    assert alone["metrics"] == third["metrics"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_leaves_the_global_generator_as_it_was(
    kind: str, compose: Compose, trained: list[Weights]
) -> None:
    torch.manual_seed(OTHER_STATE)
    before = torch.get_rng_state()
    run(compose(*KINDS[kind], *FEW_STEPS))
    assert trained and torch.equal(torch.get_rng_state(), before)


def test_the_second_stage_ends_alike_after_a_cached_and_a_fresh_first(
    compose: Compose, trained: list[Weights]
) -> None:
    overrides = (*KINDS["preference"], *FEW_STEPS)
    fresh = run(compose(*overrides))
    again = run(compose(*overrides, "mode=force"))
    # stage 1, stage 2; then stage 2 alone
    assert len(trained) == 3
    assert not equal(trained[0], trained[1]) and equal(trained[1], trained[2])
    assert fresh["metrics"] == again["metrics"] and fresh["steps"] == again["steps"]


def test_target_tasks_are_answered_alike_by_a_cached_and_a_fresh_network(
    compose: Compose, trained: list[Weights]
) -> None:
    overrides = (*KINDS["episodes"], *FEW_STEPS)
    fresh = run(compose(*overrides))
    again = run(compose(*overrides, "mode=force"))
    assert len(trained) == 1
    assert fresh["metrics"] == again["metrics"] and fresh["steps"] == again["steps"]


def test_prompting_answers_alike_whatever_the_global_generator(compose: Compose) -> None:
    overrides = (
        *("method=explain_prompt", "dataset=synthetic_styles", "dataset.n_items=40"),
        *("model_size=tiny", "trainer=smoke", "method.module.temperature=1.0"),
        *("method.module.decodings=2", "method.module.most_tokens=4", "method.module.examples=0"),
    )
    rows = []
    for state in (0, OTHER_STATE):
        torch.manual_seed(state)
        rows.append(run(compose(*overrides, "mode=force"))["metrics"])
    assert rows[0] == rows[1]
