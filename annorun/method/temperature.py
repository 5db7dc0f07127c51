"""Temperature scaling: logits divided by one number, found on validation items after training.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017, 4.2. The control of SeedBERT's
claim: a well calibrated network gives a distribution, too, out of one label and one member. The
most probable class stays the same. Validation items are those of the trainer's `val_share`, their
label the aggregated one.
"""

from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from torch import Tensor

from annorun.method.base import Batch
from annorun.method.classifier import Classifier
from annorun.votes import Floats, TaskSpec

# of ln T
BOUNDS = (-4.0, 4.0)


class Temperature(Classifier):
    """A classifier whose answers are tempered.

    Args:
        spec, network, optimizer, seed: see `Method`.
    """

    temperature: Tensor
    needs_validation = True

    def __init__(
        self,
        spec: TaskSpec | dict[str, Any],
        network: dict[str, Any],
        optimizer: dict[str, Any],
        seed: int,
    ):
        super().__init__(spec, network, optimizer, seed, target="hard")
        self.register_buffer("temperature", torch.ones(()))

    def on_test_start(self) -> None:
        """Find the temperature, with the weights that answer."""
        super().on_test_start()
        data = getattr(self.trainer, "datamodule", None)
        if data is None or not len(data.val):
            return
        logits, labels = [], []
        for batch in data.val_dataloader():
            batch = self.trainer.strategy.batch_to_device(batch, self.device)
            logits.append(self(batch["inputs"]).cpu())
            labels.append(batch["target"].cpu())
        found = temperature(*(torch.cat(v).double().numpy() for v in (logits, labels)))
        self.temperature.fill_(found)

    def numbers(self) -> dict[str, float]:
        """Return the temperature."""
        return {"train/temperature": float(self.temperature)}

    def test_step(self, batch: Batch) -> None:
        """Collect the probabilities, (B, K)."""
        tempered: Tensor = self(batch["inputs"]) / self.temperature
        self.predicted.append(tempered.softmax(dim=-1).cpu())


def temperature(
    logits: Floats,  # (n, K)
    labels: Floats,  # (n, K), rows sum to one
) -> float:
    """Return the temperature of the least cross-entropy, e^-4 to e^4."""

    def cost(log_t: float) -> float:
        return float(-(labels * log_softmax(logits / np.exp(log_t), axis=1)).sum())

    return float(np.exp(minimize_scalar(cost, bounds=BOUNDS, method="bounded").x))
