"""Forward correction: the aggregator's confusion matrices stand between network and votes.

Patrini et al.: Making deep neural networks robust to label noise, CVPR 2017, section 4.2. The loss
is `annorun.objective.forward_correction`; the annotators' accuracy is the aggregator's.

Deviations from the paper:

1. T is each annotator's confusion matrix, estimated by the aggregator from the votes alone (section
   4.3 takes one T from the surest answers, the anchor points, of a network that was first trained
   on the noisy labels). With several annotators each errs in his own way, and their votes on the
   same items tell how, without a first training.
2. An annotator without an estimate has the identity: no vote of his is learned.
"""

from typing import Any, cast

import torch
from torch import Tensor

from annorun.method.base import Batch, Method
from annorun.objective.forward_correction import forward_loss
from annorun.votes import TaskSpec


class Forward(Method):
    """The likelihood of every vote, given how its annotator errs.

    Args:
        spec, network, optimizer, seed: see `Method`.
    """

    needs_confusion = True
    confusion: Tensor

    def __init__(
        self,
        spec: TaskSpec | dict[str, Any],
        network: dict[str, Any],
        optimizer: dict[str, Any],
        seed: int,
    ):
        super().__init__(spec, network, optimizer, seed)
        start = torch.eye(self.spec.n_classes).repeat(self.spec.n_annotators, 1, 1)
        self.register_buffer("confusion", start)

    def on_fit_start(self) -> None:
        """Take the aggregator's confusion matrices."""
        found: Tensor = cast(Any, self.trainer).datamodule.confusion.to(self.confusion)
        self.confusion.copy_(torch.where(found.isnan(), self.confusion, found))

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean negative log likelihood of the votes."""
        log_probs = logits.log_softmax(dim=1)[batch["row"]]
        return forward_loss(log_probs, batch["annotator"], batch["label"], self.confusion)
