"""MC dropout: the mean answer of a network whose dropout goes on after training.

Gal & Ghahramani, Dropout as a Bayesian Approximation, ICML 2016, 4. A control of SeedBERT: several
answers out of one network that has learned one label. An item's answer depends on the batch it is
in, as the draws do.
"""

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
        dropout = [m for m in self.net.modules() if isinstance(m, nn.Dropout)]
        for module in dropout:
            module.train()
        # so many batches have been answered before
        with net.seeded(self.hparams["seed"], f"test_dropout/{len(self.predicted)}"):
            mean: Tensor = sum(
                (self(batch["inputs"]).softmax(dim=-1) for _ in range(self.samples)),
                torch.zeros((), device=self.device),
            )
        for module in dropout:
            module.eval()
        self.predicted.append((mean / self.samples).cpu())
