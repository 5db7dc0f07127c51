"""The classifier of the baselines: cross-entropy on gold, every vote, or an aggregator's labels.

`target` names what it learns: `gold` (oracle), `votes` (noisy), `hard` or `soft` (the second stage
after an aggregator: its most probable label, exact ties drawn, or its posterior), `shares` (label
distribution learning: the shares of an item's votes or ratings; Geng 2016 minimises KL(d || p) of a
softmax, which is this but for the entropy of d).
"""

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from annorun.method.base import Batch, Method
from annorun.votes import TaskSpec


class Classifier(Method):
    """Cross-entropy of the restricted softmax.

    Args:
        spec, network, optimizer, seed: see `Method`.
        target: what is learned; `hard` and `soft` both read the batch's `target` rows.
    """

    def __init__(
        self,
        spec: TaskSpec | dict[str, Any],
        network: dict[str, Any],
        optimizer: dict[str, Any],
        seed: int,
        target: Literal["gold", "votes", "hard", "soft", "shares"],
    ):
        super().__init__(spec, network, optimizer, seed)
        self.target = target

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean cross-entropy."""
        if self.target == "votes":
            return F.cross_entropy(logits[batch["row"]], batch["label"])
        label = {"gold": "truth", "shares": "shares"}.get(self.target, "target")
        return F.cross_entropy(logits, batch[label])

    def weight(self, batch: Batch) -> int:
        """Return the number of votes, or of items."""
        return len(batch["label"] if self.target == "votes" else batch["item"])
