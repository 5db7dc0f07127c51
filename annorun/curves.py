"""What metrics.csv will hold, collected while a network trains."""

from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import torch

from annorun.method.base import Method

MOST_CURVES = 20


class Curves(L.Callback):
    """Collects what metrics.csv will hold, a row every `every` steps, and moves the bar.

    Args:
        every: steps between rows.
        has_val: a row waits for the validation that follows it.
    """

    def __init__(self, every: int, steps: int, has_val: bool):
        self.every, self.steps, self.has_val = min(every, steps), steps, has_val
        self.show: Callable[[int, dict[str, float]], None] = lambda step, values: None
        self.rows: list[dict[str, float]] = []
        self._since: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        """Remember the step's loss and accuracy."""
        logged = {
            k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("train/")
        }
        self._since.append(logged)
        self.show(trainer.global_step, self._means())
        if not self.has_val and trainer.global_step % self.every == 0:
            self._record(trainer, module)

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Remember the state of the global generator: dropout does not depend on `val_every`."""
        self._generator = torch.get_rng_state()

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Restore the global generator and write a row."""
        torch.set_rng_state(self._generator)
        self._record(trainer, module)

    @property
    def unrecorded(self) -> int:
        """Steps since the last row."""
        return len(self._since)

    def _means(self) -> dict[str, float]:
        last = self._since[-self.every :]
        return {k: float(np.mean([m[k] for m in last if k in m])) for k in last[-1]} if last else {}

    def _record(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        row: dict[str, float] = {"step": trainer.global_step, **self._means()}
        row |= {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        expertise = module.expertise() if isinstance(module, Method) else None
        if expertise is not None and len(expertise) <= MOST_CURVES:
            row |= {f"annotators/{m}": float(e) for m, e in enumerate(expertise)}
        self.rows.append(row)
        self._since.clear()

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """Return header and rows."""
        header = list(dict.fromkeys(k for row in self.rows for k in row))
        return header, [[row.get(k) for k in header] for row in self.rows]
