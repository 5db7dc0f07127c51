"""Multi-task: one encoder and one head a column of labels (Ivey et al. 2025, section 6).

The columns are what `target` names: `groups`, the labels that an aggregator found for each
subpopulation (NUTMEG, majority by group); `hard`, its one label (MACE, majority); `annotators`, the
votes themselves (`individual`; Davani et al. 2022). The loss is `annorun.objective.multi_head`.

What a group would answer is its own head; the one head; or the mean of its annotators' heads. What
all would answer is the mean over the annotators with votes, each answering as the group does.

Deviations from the paper and its code (models/multi_task.py, results/evaluate_downstream_models):

1. Labels of training and validation items are found in one aggregation, not one for each: there is
   more to learn the annotators from, and test votes have no part in either.
2. Their `individual` is judged with predictions and items in different orders (one sorted by item,
   one not), and over the annotators who are first on some test item; here over the annotators of
   the group who have a vote in training, item by item.
3. Ten Optuna trials of learning rate and epochs are the sweep's business, not this file's; the
   weights of the lowest validation loss are `trainer.choose_on=votes`.
"""

from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from annorun.errors import ConfigError
from annorun.method.base import Batch, Method
from annorun.objective.multi_head import multi_head_loss, vote_labels
from annorun.scores.soft import group_means
from annorun.votes import Floats, TaskSpec


class MultiTask(Method):
    """One head of K logits for each group, for all, or for each annotator.

    Args:
        spec, network, optimizer, seed: see `Method`.
        target: what is learned, and so how many heads there are.

    Raises:
        ConfigError: a head for each group is asked for, and the annotators have no groups.
    """

    seen: Tensor
    size: Tensor

    def __init__(
        self,
        spec: TaskSpec | dict[str, Any],
        network: dict[str, Any],
        optimizer: dict[str, Any],
        seed: int,
        target: Literal["groups", "hard", "annotators"],
    ):
        known = spec if isinstance(spec, TaskSpec) else TaskSpec(**spec)
        heads = {"groups": known.n_groups, "hard": 1, "annotators": known.n_annotators}[target]
        if not heads:
            raise ConfigError(
                "method.module.target=groups: the annotators have no groups; allowed is annotators"
            )
        super().__init__(spec, network, optimizer, seed, heads=heads)
        self.target = target
        # how many annotators speak through each head
        self.register_buffer("size", torch.ones(heads))
        self.register_buffer("seen", torch.zeros(heads, dtype=torch.bool))

    def on_fit_start(self) -> None:
        """Count the annotators of each group who have votes: they alone have made its labels."""
        if self.target == "groups":
            voted = np.unique(cast(Any, self.trainer).datamodule.votes.annotator)
            members = np.bincount(np.array(self.spec.group)[voted], minlength=len(self.size))
            self.size.copy_(torch.from_numpy(members))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the logits, (B, H, K)."""
        logits = super().forward(inputs)
        return logits.view(len(logits), len(self.seen), self.spec.n_classes)

    def labels(self, batch: Batch) -> Tensor:
        """Return the columns, (B, H), -1 where a label is missing."""
        if self.target == "hard":
            return batch["target"].argmax(dim=1, keepdim=True)  # type: ignore[no-any-return]
        if self.target == "groups":
            return batch["group_target"]  # type: ignore[no-any-return]
        shape = (len(batch["item"]), self.spec.n_annotators)
        return vote_labels(batch["row"], batch["annotator"], batch["label"], shape)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the sum over the heads of their mean cross-entropy."""
        return multi_head_loss(logits, self.labels(batch))

    def weight(self, batch: Batch) -> int:
        """Return the number of items."""
        return len(batch["item"])

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Remember which heads have learned something: the others answer by chance."""
        self.seen |= (self.labels(batch) >= 0).any(dim=0)

    def share(self) -> Tensor:
        """Return each head's share in what all would answer, (H,)."""
        size = self.size * self.seen if self.seen.any() else self.size
        return size / size.sum()

    def answers(self, logits: Tensor) -> Tensor:
        """Return what all would answer, (B, K)."""
        return torch.einsum("bhk,h->bk", logits.softmax(dim=-1), self.share())

    def each(self, inputs: dict[str, Tensor]) -> Tensor:
        """See `Method`."""
        logits: Tensor = self(inputs)
        return logits

    def heads(self) -> Floats:
        """Return the probabilities of every head, (n_test, H, K)."""
        return self.collected(len(self.seen), self.spec.n_classes)

    def probabilities(self) -> Floats:
        """Return what all would answer to the test items, (n_test, K)."""
        share = self.share().cpu().numpy().astype(np.float64)
        mean: Floats = np.einsum("nhk,h->nk", self.heads(), share / share.sum())
        return mean

    def group_probabilities(self) -> Floats | None:
        """See `Method`."""
        if self.target == "hard" or not self.spec.n_groups:
            return super().group_probabilities()
        if self.target == "groups":
            return self.heads()
        seen = self.seen.cpu().numpy() if self.seen.any() else np.ones(len(self.seen), dtype=bool)
        return group_means(
            self.heads()[:, seen], np.array(self.spec.group)[seen], self.spec.n_groups
        )
