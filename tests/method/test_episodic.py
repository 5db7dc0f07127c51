"""What methods over tasks share: the optimizer's steps, validation metrics, and the embedding."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from annorun import fitting
from annorun.curves import Curves
from annorun.method.episodic import Answers, Episodic, Tasks, embedded, log_likelihood
from annorun.votes import TaskSpec

SPEC = TaskSpec("features", 3, 0, (2,))
# each value is none that torch or another method has by itself
OPTIMIZER = {
    "lr": 0.05,
    "betas": [0.6, 0.8],
    "weight_decay": 0.3,
    "clip": 0.2,
    "schedule": "cosine",
    "max_steps": 7,
}


class Linear(Episodic):
    """Queries are answered by one linear layer; the support is not looked at."""

    def __init__(self, **optimizer: Any):
        super().__init__(SPEC, {}, {**OPTIMIZER, **optimizer}, 0)
        self.layer = nn.Linear(2, 3)
        draw = torch.Generator().manual_seed(0)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=draw)

    def answer(self, tasks: Tasks) -> Answers:
        """See `Episodic`."""
        return Answers(self.layer(tasks.query).log_softmax(-1))


def tasks(n_tasks: int, n_queries: int, seed: int, scale: float = 1.0) -> Tasks:
    draw = torch.Generator().manual_seed(seed)
    query = scale * torch.randn(n_tasks, n_queries, 2, generator=draw)
    truth = torch.randint(3, (n_tasks, n_queries), generator=draw)
    votes = torch.zeros(n_tasks, 4, 2, dtype=torch.int64)
    return Tasks(torch.zeros(n_tasks, 4, 2), votes, query, truth, torch.zeros(n_tasks))


# of unlike size: their gradients' norms are on both sides of the clip
BATCHES = [tasks(2, 5, seed, scale) for seed, scale in enumerate((1.0, 0.1, 10.0, 3.0, 0.3))]


def by_hand(batches: list[Tasks], o: dict[str, Any]) -> list[Tensor]:
    """Return the weights after AdamW, each formula as in Loshchilov and Hutter, float64."""
    weights = [p.detach().double() for p in Linear().parameters()]
    first, second = ([torch.zeros_like(w) for w in weights] for _ in range(2))
    b1, b2 = o["betas"]
    for t, batch in enumerate(batches):
        leaves = [w.clone().requires_grad_() for w in weights]
        log_probs = (batch.query.double() @ leaves[0].T + leaves[1]).log_softmax(-1)
        total = -log_probs.gather(-1, batch.query_truth[..., None]).sum()
        slopes = torch.autograd.grad(total / batch.query_truth.numel(), leaves)
        norm = math.sqrt(sum(float(g.square().sum()) for g in slopes))
        cosine = 0.5 * (1 + math.cos(math.pi * t / o["max_steps"]))
        lr = o["lr"] * (cosine if o["schedule"] == "cosine" else 1.0)
        for k, g in enumerate(slopes):
            g = g * min(1.0, o["clip"] / norm)
            first[k] = b1 * first[k] + (1 - b1) * g
            second[k] = b2 * second[k] + (1 - b2) * g**2
            corrected = second[k] / (1 - b2 ** (t + 1))
            step = first[k] / (1 - b1 ** (t + 1)) / (corrected.sqrt() + 1e-8)
            weights[k] = weights[k] - lr * (o["weight_decay"] * weights[k] + step)
    return weights


@pytest.mark.parametrize(
    "changed",
    [{}, {"schedule": "constant"}, {"clip": 1e-3}, {"weight_decay": 0.0}, {"betas": [0.0, 0.9]}],
    ids=str,
)
def test_training_takes_adamw_s_steps_with_the_schedule_of_each_step(
    changed: dict[str, Any], tmp_path: Path
) -> None:
    """One epoch without end, as in meta-training: a schedule of epochs would stand still."""
    module, steps = Linear(**changed), len(BATCHES)
    node = {"accelerator": "cpu", "precision": "32-true", "max_steps": steps, "val_every": steps}
    curves = Curves(steps, steps, has_val=False)
    c = {"trainer": node, "logger": {"kind": "none"}}
    with fitting.quiet():
        trainer = fitting.trainer(c, tmp_path, curves, None)
        loader: Any = DataLoader(BATCHES * 3, batch_size=None)  # type: ignore[arg-type]
        trainer.fit(module, loader, loader)
    for found, wanted in zip(
        module.parameters(), by_hand(BATCHES, {**OPTIMIZER, **changed}), strict=True
    ):
        torch.testing.assert_close(found.detach().double(), wanted, atol=1e-5, rtol=1e-5)


def test_the_loss_is_the_mean_over_all_queries_and_is_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, batch = Linear(), tasks(2, 5, 9)
    logged: dict[str, Tensor] = {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: value}))
    loss = module.training_step(batch)
    log_probs = module.answer(batch).log_probs
    picked = [
        log_probs[t, q, k] for t in range(2) for q, k in enumerate(batch.query_truth[t].tolist())
    ]
    torch.testing.assert_close(loss, -torch.stack(picked).mean())
    assert loss.requires_grad
    torch.testing.assert_close(logged["train/loss"], loss.detach())
    torch.testing.assert_close(log_likelihood(log_probs, batch.query_truth), -loss)


def test_validation_means_are_over_all_queries_of_this_validation_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Batches of unequal size: 4 queries and 3 x 2; by hand from the answers that are planted."""
    module = Linear()
    logged: dict[str, float] = {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: float(value)}))
    # p of each class of each query; the truth is 0 everywhere
    first = torch.tensor([[[0.5, 0.3, 0.2], [0.4, 0.5, 0.1], [0.9, 0.05, 0.05], [0.2, 0.2, 0.6]]])
    second = torch.tensor([[[0.4, 0.35, 0.25]] * 2, [[0.1, 0.8, 0.1]] * 2, [[0.7, 0.2, 0.1]] * 2])
    for epoch, parts in enumerate(([first, second], [second])):
        for part in parts:
            # what it would answer of target tasks is another thing
            monkeypatch.setattr(module, "practise", lambda _, p=part: p.log())
            module.validation_step(
                tasks(*part.shape[:2], seed=0)._replace(
                    query_truth=torch.zeros(part.shape[:2], dtype=torch.int64)
                )
            )
        module.on_validation_epoch_end()
        probs = torch.cat([part.reshape(-1, 3) for part in parts])
        # .4 is the most probable of three, though below a half
        assert logged["val/acc"] == pytest.approx([6 / 10, 4 / 6][epoch])
        assert logged["val/loss"] == pytest.approx(float(-probs[:, 0].log().mean()))


def test_support_and_queries_of_a_task_are_normalised_together_and_told_apart() -> None:
    net = nn.BatchNorm1d(2)
    draw = torch.Generator().manual_seed(0)
    batch = tasks(3, 5, 0)._replace(support=torch.randn(3, 4, 2, generator=draw))
    support, query = embedded(net, batch)
    assert support.shape == (3, 4, 2) and query.shape == (3, 5, 2)
    for t in range(3):
        both = torch.cat([batch.support[t], batch.query[t]])
        wanted = (both - both.mean(0)) / (both.var(0, correction=0) + net.eps).sqrt()
        torch.testing.assert_close(support[t], wanted[:4], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(query[t], wanted[4:], atol=1e-5, rtol=1e-5)


def test_a_learner_is_the_node_without_what_only_answers() -> None:
    class Choosy(Linear):
        ONLY_ANSWERS = ("budget",)

    node = {"_target_": "x", "steps": 3, "budget": 2}
    assert Choosy.learner(node) == {"_target_": "x", "steps": 3}
    assert Linear.learner(node) == node
