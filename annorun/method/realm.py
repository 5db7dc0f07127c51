"""REALM: the network and an expertise per annotator, learned together (Ghiasvand et al. 2026).

The loss is `annorun.objective.expertise` (3.2). Two parameter groups: the network's, with decay and
the trainer's schedule, and omega's, with a learning rate of its own and no decay.
Training ends after `trainer.max_steps` steps with the last weights (4.1), unless
`trainer.choose_on` says otherwise; the validation loss is the same mixture loss on the votes of
held-out items, so no gold label is looked at.

What the votes can tell of expertise is limited. Blunting every answer, pi' = a pi + (1 - a)/K, and
raising every rho to rho / a leaves the likelihood as it is, so expertise is known up to a common
factor, which the network's sharpness settles. And where an annotator's errors are predictable, a
network that learns them (pi_y = .9 on the truth, .1 on its systematic error) with rho = 1 is more
likely than the truth with rho = .87: the longer it trains, the more the expert's rho drifts up.

Deviations from the paper, or readings of what our sources do not state:

1. omega starts at logit(expertise_start), default 0 (rho = .5).
2. omega's rate follows the same schedule. The paper names one cosine schedule for all; with a
   constant rate, omega drifts on after the network has stopped moving.
3. omega is held in [-6, 6]: beyond, the sigmoid's gradient vanishes and rho could not come back.
4. Not implemented: the multi-task form (Eq. 4), with an expertise for each annotator and task.
"""

from typing import Any

import numpy as np
import torch
from scipy.special import logit
from torch import Tensor, nn

from annorun.kinds import Positive, Probability
from annorun.method.base import Batch, Method
from annorun.objective.expertise import expertise_loss
from annorun.votes import Floats, TaskSpec

LIMIT = 6.0


class Realm(Method):
    """The mixture of the network's answer and a uniform guess, weighted by learned expertise.

    Args:
        spec, network, optimizer, seed: see `Method`.
        expertise_lr: learning rate of omega.
        expertise_start: rho before the first step, the same for everybody.
    """

    def __init__(
        self,
        spec: TaskSpec | dict[str, Any],
        network: dict[str, Any],
        optimizer: dict[str, Any],
        seed: int,
        expertise_lr: Positive,
        expertise_start: Probability,
    ):
        super().__init__(spec, network, optimizer, seed)
        self.expertise_lr = expertise_lr
        start = float(np.clip(logit(expertise_start), -LIMIT, LIMIT))
        self.omega = nn.Parameter(torch.full((self.spec.n_annotators,), start))

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """REALM Eq. 3 over the batch's votes."""
        log_probs = torch.log_softmax(logits, dim=1)[batch["row"]]
        return expertise_loss(log_probs, batch["label"], self.omega[batch["annotator"]])

    def annotator_group(self) -> dict[str, Any]:
        """See `Method`."""
        return {"params": [self.omega], "lr": self.expertise_lr}

    def on_train_batch_end(self, *_: Any) -> None:
        """Hold omega where its gradient lives."""
        with torch.no_grad():
            self.omega.clamp_(-LIMIT, LIMIT)

    def expertise(self) -> Floats:
        """Return rho, (n_annotators,)."""
        return torch.sigmoid(self.omega.detach()).cpu().numpy().astype(np.float64)
