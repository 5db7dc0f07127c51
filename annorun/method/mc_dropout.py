"""MC dropout: the mean answer of a network whose dropout goes on after training.

Gal & Ghahramani, Dropout as a Bayesian Approximation, ICML 2016, 4. A control of SeedBERT: several
answers out of one network that has learned one label. An item's answer depends on the batch it is
in, as the draws do. A network without dropout (`tiny` encoders, heads on a frozen one) answers as
`bert` does, and says so.
"""

import sys
from typing import Any

import torch
from torch import Tensor, nn

from annorun import net
from annorun.kinds import Count
from annorun.method.base import Batch
from annorun.method.classifier import Classifier
from annorun.votes import TaskSpec


class McDropout(Classifier):
    """A classifier that answers `samples` times.

    Args:
        spec, network, optimizer, seed: see `Method`; the child `test_dropout` of the seed draws.
        samples: answers an item.
    """

    def __init__(
        self,
        spec: TaskSpec | dict[str, Any],
        network: dict[str, Any],
        optimizer: dict[str, Any],
        seed: int,
        samples: Count,
    ):
        super().__init__(spec, network, optimizer, seed, target="hard")
        self.samples = samples

    def test_step(self, batch: Batch) -> None:
        """Collect the mean probabilities, (B, K)."""
        # all of it: attention asks itself, not its dropout layer, whether it is in training
        self.net.train()
        for module in self.net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        # so many batches have been answered before
        with net.seeded(self.hparams["seed"], f"test_dropout/{len(self.predicted)}"):
            mean: Tensor = sum(
                (self(batch["inputs"]).softmax(dim=-1) for _ in range(self.samples)),
                torch.zeros((), device=self.device),
            )
        self.net.eval()
        self.predicted.append((mean / self.samples).cpu())

    def on_fit_start(self) -> None:
        """Say so where there is nothing to drop."""
        rates = [m.p for m in self.net.modules() if isinstance(m, nn.Dropout)]
        if not any(rates) or self.hparams["network"].get("frozen"):
            print("annorun: mc_dropout: no dropout here; its answers are bert's", file=sys.stderr)
