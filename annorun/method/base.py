"""What the methods share: a network, one optimizer, curves, and the predictions of the test items.

A method says what its loss is. Metric names are `split/name`; every metric of the test items is
computed from the whole of `predicted`, never averaged over batches.
"""

import math
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from annorun import net
from annorun.votes import Floats, Ints, TaskSpec

Batch = dict[str, Any]


class Method(L.LightningModule):
    """A network over the items, and what is known of the annotators.

    A batch holds `inputs` (what the network takes), `item` (B,), `truth` (B,) with -1 for unknown,
    `shares` (B, K) of the item's votes, or of its ratings without names,
    `target` (B, K) where an aggregator ran, `group_target` (B, n_groups) with -1 for unknown where
    it found a truth for each group, and the batch's votes as `row` (V,) into the items,
    `annotator` (V,) and `label` (V,): each item is encoded once, however many votes it has.

    Args:
        spec: sizes that only the data know; a plain dict when it comes out of a checkpoint.
        network: what `annorun.net.build` takes.
        optimizer: `lr`, `betas`, `weight_decay`, `clip`, `schedule`, `max_steps`.
        seed: of the initial weights.
        heads: how many times K logits the network gives.
    """

    expertise_scale = "mixture"
    # whether it learns through an aggregator's confusion matrices
    needs_confusion = False
    # whether it finds something on validation items
    needs_validation = False

    def __init__(
        self,
        spec: TaskSpec | dict[str, Any],
        network: dict[str, Any],
        optimizer: dict[str, Any],
        seed: int,
        heads: int = 1,
    ):
        super().__init__()
        self.spec = spec if isinstance(spec, TaskSpec) else TaskSpec(**spec)
        self.save_hyperparameters(ignore=["spec", "heads"])
        # a checkpoint is read back with weights_only: plain values
        self.hparams["spec"] = self.spec.plain()
        self.optimizer = optimizer
        self.net = net.build(network, self.spec, seed, heads)
        self.predicted: list[Tensor] = []
        self._validation: list[tuple[float, int, int, int]] = []

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the K logits of each item, float32 whatever the trainer's precision."""
        logits: Tensor = self.net(**inputs)
        return logits.float()

    def networks(self) -> list[nn.Module]:
        """Return what `annorun.net.build` made, the first of it first."""
        return [self.net]

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss of a batch, ()."""
        raise TypeError(f"{type(self).__name__} has no loss")

    def weight(self, batch: Batch) -> int:
        """Return over how many terms `loss` takes its mean."""
        return len(batch["label"])

    def answers(self, logits: Tensor) -> Tensor:
        """Return (B, K), the greatest of each row is the answer."""
        return logits

    def each(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return what each head answers, (B, n_heads, K), as logits."""
        return self.answers(self(inputs))[:, None]

    def expertise(self) -> Floats | None:
        """Return what was learned of each annotator, (n_annotators,), or None."""
        return None

    def annotator_group(self) -> dict[str, Any] | None:
        """Return the annotators' parameters and their learning rate, or None."""
        return None

    def training_step(self, batch: Batch) -> Tensor:
        """One step; the accuracy shown is against the truth where it is known, else the votes."""
        logits = self(batch["inputs"])
        loss = self.loss(logits, batch)
        right, n = agreement(self.answers(logits), batch)
        self.log("train/loss", loss.detach(), batch_size=self.weight(batch))
        if n:
            self.log("train/acc", right / n, batch_size=n)
        return loss

    def validation_step(self, batch: Batch) -> None:
        """Collect the loss and the accuracy."""
        logits = self(batch["inputs"])
        weight = self.weight(batch)
        loss = float(self.loss(logits, batch)) * weight
        self._validation.append((loss, weight, *agreement(self.answers(logits), batch)))

    def on_validation_epoch_end(self) -> None:
        """Log means over all validation items."""
        loss, weight, right, n = (sum(column) for column in zip(*self._validation, strict=True))
        self._validation.clear()
        self.log("val/loss", loss / max(weight, 1))
        if n:
            self.log("val/acc", right / n)

    def on_test_start(self) -> None:
        """Forget an earlier test."""
        self.predicted.clear()

    def test_step(self, batch: Batch) -> None:
        """Collect the probabilities, (B, K)."""
        self.predicted.append(torch.softmax(self(batch["inputs"]), dim=-1).cpu())

    def probabilities(self) -> Floats:
        """Return the probabilities of the test items, (n_test, K)."""
        return self.collected(self.spec.n_classes)

    def collected(self, *shape: int) -> Floats:
        """Return what `test_step` has collected, (n_test, *shape)."""
        if not self.predicted:
            return np.empty((0, *shape))
        return torch.cat(self.predicted).numpy().astype(np.float64)

    def decided(self) -> Ints | None:
        """Return the labels of the test items, (n_test,); None: the most probable, ties shared."""
        return None

    def numbers(self) -> dict[str, float]:
        """Return what else was found in training, by its metric's name."""
        return {}

    def others(self) -> dict[str, Floats]:
        """Return other answers to the test items, (n_test, K), by what they are called."""
        return {}

    def heads(self) -> Floats | None:
        """Return what each head answers, (n_test, n_heads, K), or None without several."""
        return None

    def group_probabilities(self) -> Floats | None:
        """Return what each group would answer, (n_test, n_groups, K), or None without groups."""
        if not self.spec.n_groups:
            return None
        return np.repeat(self.probabilities()[:, None], self.spec.n_groups, axis=1)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the network's gradient; the annotators' must not be scaled down with it."""
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.optimizer["clip"])

    def configure_optimizers(self) -> Any:
        """AdamW: the network with decay; the annotators with a rate of their own and none."""
        o = self.optimizer
        groups = [{"params": self.net.parameters(), "weight_decay": o["weight_decay"]}]
        if own := self.annotator_group():
            groups.append({**own, "weight_decay": 0.0})
        factor = cosine(o["max_steps"]) if o["schedule"] == "cosine" else constant
        adamw = torch.optim.AdamW(groups, lr=o["lr"], betas=tuple(o["betas"]), fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(adamw, factor)
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def agreement(logits: Tensor, batch: Batch) -> tuple[int, int]:
    """Return how many predictions are right and of how many: against known truth, else votes."""
    guess = logits.argmax(dim=1)
    known = batch["truth"] >= 0
    if known.any():
        return int((guess == batch["truth"])[known].sum()), int(known.sum())
    return int((guess[batch["row"]] == batch["label"]).sum()), len(batch["label"])


def cosine(max_steps: int) -> Any:
    """Return the factor 1 -> 0 over max_steps, half a cosine."""
    return lambda step: 0.5 * (1 + math.cos(math.pi * min(step / max_steps, 1.0)))


def constant(step: int) -> float:
    """Return 1."""
    return 1.0
