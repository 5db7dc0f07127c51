"""Crowd layer: the network and a matrix for each annotator, learned together from every vote.

Rodrigues, Pereira: Deep learning from crowds, AAAI 2018. The loss is
`annorun.objective.crowd_layer`. The layer is for training alone: the answer is the network's own
softmax, the bottleneck.

The matrices learn at the network's rate, as theirs do (one Adam for all), unless `annotator_lr`
says otherwise. What they tell of accuracy is then its order, not its size: theirs had some 8000
steps at 1e-3 (LabelMe), and in a few hundred a matrix stays near the identity, where a sure network
is right with probability e / (e + K - 1). A larger rate tells the size and costs answers. Digits,
550 steps, five seeds, at 6e-4 (the network's), 5e-3 and 2e-2: uniform errors (linspace) give a test
accuracy of .95, .93, .88 and a mean error of expertise of .33, .15, .04; asymmetric ones
(one_expert) .90, .89, .86 and .29, .15, .06.

Deviations from the paper and its code:

1. The matrices have no weight decay and no clipping, as theirs; the network has both.
2. An annotator's accuracy is what his matrix makes of a network that is sure, the mean over the
   classes; they look at the matrices themselves.
"""

from typing import Any

import numpy as np
from torch import Tensor, nn

from annorun.kinds import Positive
from annorun.method.base import Batch, Method
from annorun.objective.crowd_layer import crowd_layer_loss, identity, implied_accuracy
from annorun.votes import Floats, TaskSpec


class CrowdLayer(Method):
    """A matrix for each annotator over the network's softmax.

    Args:
        spec, network, optimizer, seed: see `Method`.
        annotator_lr: learning rate of the matrices; None for the network's.
    """

    expertise_scale = "accuracy"

    def __init__(
        self,
        spec: TaskSpec | dict[str, Any],
        network: dict[str, Any],
        optimizer: dict[str, Any],
        seed: int,
        annotator_lr: Positive | None,
    ):
        super().__init__(spec, network, optimizer, seed)
        self.annotator_lr = annotator_lr or optimizer["lr"]
        self.matrices = nn.Parameter(identity(self.spec.n_annotators, self.spec.n_classes))

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of the votes."""
        probs = logits.softmax(dim=1)[batch["row"]]
        return crowd_layer_loss(probs, batch["annotator"], batch["label"], self.matrices)

    def annotator_group(self) -> dict[str, Any]:
        """See `Method`."""
        return {"params": [self.matrices], "lr": self.annotator_lr}

    def expertise(self) -> Floats:
        """Return the implied probability of a right label, (n_annotators,)."""
        return implied_accuracy(self.matrices.detach()).cpu().numpy().astype(np.float64)
