"""Label smoothing: each label is right but for a share that all classes have alike.

Szegedy et al., Rethinking the Inception Architecture, CVPR 2016, 7. A control of SeedBERT: one
label, one network, and distributions that are no spikes.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from annorun.kinds import Probability
from annorun.method.base import Batch
from annorun.method.classifier import Classifier
from annorun.votes import TaskSpec


class LabelSmoothing(Classifier):
    """A classifier of smoothed labels.

    Args:
        spec, network, optimizer, seed: see `Method`.
        smoothing: the share that is spread over all K classes.
    """

    def __init__(
        self,
        spec: TaskSpec | dict[str, Any],
        network: dict[str, Any],
        optimizer: dict[str, Any],
        seed: int,
        smoothing: Probability,
    ):
        super().__init__(spec, network, optimizer, seed, target="hard")
        self.smoothing = smoothing

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean cross-entropy."""
        return F.cross_entropy(logits, batch["target"], label_smoothing=self.smoothing)
