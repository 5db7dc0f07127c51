"""Co-teaching: two networks, each learning from the terms that the other finds easy.

Han et al.: Co-teaching, NeurIPS 2018, Algorithm 1. The loss is `annorun.objective.small_loss`. The
first network starts as the other methods' one network does at the same seed, the second from a
child of that seed. Networks that are taken whole from a file (a T5 without a head of its own) are
parted by their dropout; where there is none, the second starts a little off (`part`).

Deviations from the paper and its code:

1. A term is a vote (`target: votes`, where they have one label for each image), or an item with an
   aggregator's label (`hard`, `soft`).
2. tau, `forget`, is a number of the config; theirs is the data's noise rate, taken as known.
3. The answer is the mean of both softmaxes; their code tells the accuracy of each network.
4. Both networks have one AdamW, and their gradients are clipped together; theirs are apart.
5. The validation loss is over all terms: those of small loss change with the networks and with t.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from annorun import net
from annorun.kinds import Probability, Share
from annorun.method.base import Batch, Method
from annorun.objective.small_loss import exchanged_loss, kept
from annorun.seeds import child
from annorun.votes import TaskSpec


class Pair(nn.ModuleList):
    """Two networks side by side."""

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the logits of both, (B, 2, K)."""
        return torch.stack([network(**inputs) for network in self], dim=1)


def alike(first: nn.Module, second: nn.Module) -> bool:
    """Say whether two networks have the same weights and no dropout to part them."""
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    parted = any(isinstance(m, nn.Dropout) and m.p > 0 for m in first.modules())
    return not parted and all(torch.equal(a, b) for a, b in pairs)


@torch.no_grad()
def part(network: nn.Module) -> None:
    """Move every weight that learns by a hundredth of its tensor's deviation."""
    for weight in network.parameters():
        if weight.requires_grad and weight.numel() > 1:
            weight.add_(torch.randn_like(weight), alpha=0.01 * float(weight.std()))


class CoTeaching(Method):
    """Two networks that teach each other.

    Args:
        spec, network, optimizer, seed: see `Method`.
        target: what is learned, as in `Classifier`; never gold.
        forget: tau, the share of a batch's terms that is left out in the end.
        ramp: the share of all steps over which it rises from 0.
    """

    net: Pair

    def __init__(
        self,
        spec: TaskSpec | dict[str, Any],
        network: dict[str, Any],
        optimizer: dict[str, Any],
        seed: int,
        target: Literal["votes", "hard", "soft"],
        forget: Share,
        ramp: Probability,
    ):
        super().__init__(spec, network, optimizer, seed)
        self.target, self.forget, self.ramp = target, forget, ramp
        self.net = Pair([self.net, net.build(network, self.spec, child(seed, "second"))])
        if alike(*self.net):
            with net.seeded(seed, "second"):
                part(self.net[1])

    def networks(self) -> list[nn.Module]:
        """Return both, the first first."""
        return list(self.net)

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the cross-entropy of each term under each network, (n, 2)."""
        if self.target == "votes":
            logits, label = logits[batch["row"]], batch["label"][:, None].expand(-1, 2)
        else:
            label = batch["target"][:, :, None].expand(-1, -1, 2)
        # the classes are cross_entropy's second dimension
        return cross_entropy(logits.transpose(1, 2), label, reduction="none")

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the sum of both networks' losses over what the peer finds easy."""
        losses = self.losses(logits, batch)
        n, ramp_steps = len(losses), self.ramp * self.optimizer["max_steps"]
        keep = kept(n, self.global_step, self.forget, ramp_steps) if self.training else n
        return exchanged_loss(losses, keep)

    def weight(self, batch: Batch) -> int:
        """Return the number of votes, or of items."""
        return len(batch["label"] if self.target == "votes" else batch["item"])

    def answers(self, logits: Tensor) -> Tensor:
        """Return the mean of both softmaxes, (B, K)."""
        return logits.softmax(dim=-1).mean(dim=1)

    def test_step(self, batch: Batch) -> None:
        """Collect the probabilities, (B, K)."""
        self.predicted.append(self.answers(self(batch["inputs"])).cpu())
