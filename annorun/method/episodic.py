"""What the methods share that meet many small tasks: how they are trained, what they answer.

Kumagai et al., arXiv 2506.10259, Algorithm 1: the loss of a task is that of its clean queries,
after the method has adapted to its support. A method says how it adapts.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor

from annorun.method.base import constant, cosine
from annorun.votes import TaskSpec


class Tasks(NamedTuple):
    """A batch of T tasks with N support examples, Q queries and R annotators.

    Attributes:
        support: (T, N, ...) inputs.
        votes: (T, N, R), -1 where there is none.
        query: (T, Q, ...) inputs.
        query_truth: (T, Q); of target tasks -1.
        seed: (T,) of whatever is drawn while adapting.
    """

    support: Tensor
    votes: Tensor
    query: Tensor
    query_truth: Tensor
    seed: Tensor


@dataclass(frozen=True, eq=False)
class Answers:
    """What a method says of a batch of tasks.

    Attributes:
        log_probs: (T, Q, K) of the queries.
        labels: (T, N, K) what it believes of the support, or None.
        accuracy: (T, R) how often it believes an annotator right, or None.
        votes: (T, N, R) those that it asked for, or None: all.
    """

    log_probs: Tensor
    labels: Tensor | None = None
    accuracy: Tensor | None = None
    votes: Tensor | None = None


class Episodic(L.LightningModule):
    """A method over tasks of `spec.n_classes` classes each.

    Args:
        spec: sizes; `n_classes` is K, the classes of a task; a plain dict out of a checkpoint.
        network: what `annorun.net.embedding` takes.
        optimizer: `lr`, `betas`, `weight_decay`, `clip`, `schedule`, `max_steps`.
        seed: of the initial weights, and of whatever is drawn while adapting.
    """

    # arguments that change how it answers, and nothing that it learns from training tasks
    ONLY_ANSWERS: tuple[str, ...] = ()

    def __init__(
        self,
        spec: TaskSpec | dict[str, Any],
        network: dict[str, Any],
        optimizer: dict[str, Any],
        seed: int,
    ):
        super().__init__()
        self.spec = spec if isinstance(spec, TaskSpec) else TaskSpec(**spec)
        self.save_hyperparameters(ignore=["spec"])
        # a checkpoint is read back with weights_only: plain values
        self.hparams["spec"] = self.spec.plain()
        self.optimizer, self.seed = optimizer, seed
        self._validation: list[tuple[Tensor, Tensor]] = []

    @classmethod
    def learner(cls, node: dict[str, Any]) -> dict[str, Any] | None:
        """Return the part of a method's node that its training depends on, None without training.

        Two methods of one learner share the trained network.
        """
        return {k: v for k, v in node.items() if k not in cls.ONLY_ANSWERS}

    def loss(self, tasks: Tasks) -> Tensor:
        """Return the loss of training tasks, (): of their queries, unless a method says other."""
        return -log_likelihood(self.practise(tasks), tasks.query_truth)

    def practise(self, tasks: Tasks) -> Tensor:
        """Return log probabilities of the queries of training and validation tasks, (T, Q, K)."""
        return self.answer(tasks).log_probs

    def answer(self, tasks: Tasks) -> Answers:
        """Adapt to each target task's support, and answer its queries."""
        raise TypeError(f"{type(self).__name__} has no answer")

    def places(self, tasks: Tasks) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return where support, queries and prototypes of the first task lie, or None.

        (N, M), (Q, M) and (K, M), for a picture.
        """
        return None

    def training_step(self, tasks: Tasks) -> Tensor:
        """One step over a batch of tasks."""
        loss = self.loss(tasks)
        self.log("train/loss", loss.detach(), batch_size=len(tasks.votes))
        return loss

    def validation_step(self, tasks: Tasks) -> None:
        """Collect accuracy and loss of the queries."""
        log_probs = self.practise(tasks).detach()
        right = (log_probs.argmax(dim=-1) == tasks.query_truth).float()
        loss = -log_probs.gather(-1, tasks.query_truth[..., None])
        self._validation.append((right.flatten(), loss.flatten()))

    def on_validation_epoch_end(self) -> None:
        """Log means over all validation queries."""
        right, loss = (torch.cat(column) for column in zip(*self._validation, strict=True))
        self._validation.clear()
        self.log("val/acc", right.mean())
        self.log("val/loss", loss.mean())

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient."""
        torch.nn.utils.clip_grad_norm_(self.parameters(), self.optimizer["clip"])

    def configure_optimizers(self) -> Any:
        """AdamW over everything."""
        o = self.optimizer
        adamw = torch.optim.AdamW(
            self.parameters(),
            lr=o["lr"],
            betas=tuple(o["betas"]),
            weight_decay=o["weight_decay"],
            fused=True,
        )
        factor = cosine(o["max_steps"]) if o["schedule"] == "cosine" else constant
        schedule = torch.optim.lr_scheduler.LambdaLR(adamw, factor)
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def embedded(net: Any, tasks: Tasks) -> tuple[Tensor, Tensor]:
    """Return what a network makes of support (T, N, M) and queries (T, Q, M).

    One task after another, support and queries in one pass: normalisation over a batch is over one
    task's examples however many tasks a step has, and its activations stay in a CPU's cache.
    """
    both = torch.cat([tasks.support, tasks.query], dim=1)
    out = torch.stack([net(task).float() for task in both])
    n_support = tasks.support.shape[1]
    return out[:, :n_support], out[:, n_support:]


def log_likelihood(
    log_probs: Tensor,  # (T, Q, K)
    truth: Tensor,  # (T, Q)
) -> Tensor:  # ()
    """Return the mean log probability of the truth."""
    return log_probs.gather(-1, truth[..., None]).mean()
