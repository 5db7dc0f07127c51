"""The label and how much the annotators disagree about it, by two heads of one encoder.

The multi-task comparison model of SeedBERT (arXiv 2211.13196, notes 3.3) after Han et al., From
Hard to Soft, ACM MM 2017: L = cross-entropy of the label + w (u - d)^2, u in (0, 1) the second
head's answer, d the disagreement of an item's annotators. It is told more than SeedBERT is: the
single votes.

Reading: for classes, d is the entropy of the votes' shares over ln K, 0 if all agree, 1 if all
labels are as frequent; Han et al. have the deviation of numbers. w = 1; theirs is tuned.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from annorun import net
from annorun.kinds import NonNegative
from annorun.method.base import Batch, Method
from annorun.method.output_layer import with_head
from annorun.objective.disagreement import disagreement
from annorun.votes import TaskSpec


class LabelAndDisagreement(Method):
    """A head for the label and one for the disagreement.

    Args:
        spec, network, optimizer, seed: see `Method`.
        disagreement: w, the weight of the second head's error.
    """

    def __init__(
        self,
        spec: TaskSpec | dict[str, Any],
        network: dict[str, Any],
        optimizer: dict[str, Any],
        seed: int,
        disagreement: NonNegative,
    ):
        super().__init__(spec, network, optimizer, seed)
        self.disagreement = disagreement
        with net.seeded(seed, "disagreement"):
            # the label's rows stay as they are drawn for other methods
            with_head(self.net, wider)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the cross-entropy of the label and the weighted error of the disagreement."""
        label = cross_entropy(logits[:, :-1], batch["target"])
        error = mse_loss(logits[:, -1].sigmoid(), disagreement(batch["shares"]))
        return label + self.disagreement * error

    def weight(self, batch: Batch) -> int:
        """Return the number of items."""
        return len(batch["item"])

    def answers(self, logits: Tensor) -> Tensor:
        """Return the label's logits, (B, K)."""
        return logits[:, :-1]

    def test_step(self, batch: Batch) -> None:
        """Collect the probabilities, (B, K)."""
        self.predicted.append(self.answers(self(batch["inputs"])).softmax(dim=-1).cpu())


def wider(head: nn.Linear) -> nn.Linear:
    """Return a layer with one output more, the others as they were."""
    own = nn.Linear(head.in_features, head.out_features + 1)
    with torch.no_grad():
        own.weight[:-1], own.bias[:-1] = head.weight, head.bias
    return own
