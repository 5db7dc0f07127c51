"""Class prior: the shares of the labels in training, whatever is asked.

The least that an annotator distribution must beat. Nothing is learned from the inputs; the steps
of the trainer move nothing.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from annorun.method.base import Batch
from annorun.method.classifier import Classifier
from annorun.votes import TaskSpec

# labels that are not there are rare, not impossible: Laplace's rule
COUNT = 1.0


class Constant(nn.Module):
    """The same logits for every item."""

    def __init__(self, n_classes: int):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(n_classes))

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the logits, (B, K)."""
        return self.logits.expand(len(next(iter(inputs.values()))), -1)


class ClassPrior(Classifier):
    """The classifier that answers with shares of labels.

    Args:
        spec, network, optimizer, seed: see `Method`; the network gives way.
    """

    net: Constant

    def __init__(
        self,
        spec: TaskSpec | dict[str, Any],
        network: dict[str, Any],
        optimizer: dict[str, Any],
        seed: int,
    ):
        super().__init__(spec, network, optimizer, seed, target="hard")
        # not a submodule: for those who ask what its texts look like to it
        self._built: list[nn.Module] = [self.net]
        self.net = Constant(self.spec.n_classes)

    def networks(self) -> list[nn.Module]:
        """Return the network that gave way."""
        return self._built

    def on_fit_start(self) -> None:
        """Count the labels."""
        data = cast(Any, self.trainer).datamodule
        count = data.target[data.train].sum(dim=0) + COUNT
        self.prior_logits = (count / count.sum()).log().to(self.device)
        self.net.logits.data = self.prior_logits.clone()

    def on_train_batch_end(self, *_: Any) -> None:
        """Undo the step's weight decay, before a checkpoint is written."""
        self.net.logits.data.copy_(self.prior_logits)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the cross-entropy; in training of what does not move."""
        return super().loss(logits if not self.training else logits.detach() + 0 * logits, batch)
