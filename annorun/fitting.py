"""What every training has of Lightning: device, trainer, checkpoint of the best weights, logger."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from annorun.curves import Curves
from annorun.errors import ConfigError

# Lightning's banners and advertisements; what matters to a run is in its row
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

OPTIMIZER = ("lr", "betas", "weight_decay", "clip", "schedule", "max_steps")


def device(t: dict[str, Any]) -> str:
    """Return the name of the trainer's device, and take its number of threads.

    Raises:
        ConfigError: there is no such device.
    """
    if t["accelerator"] == "gpu" and not torch.cuda.is_available():
        raise ConfigError("trainer.accelerator=gpu: there is none here; allowed is cpu")
    torch.set_num_threads(t["threads"])
    return torch.cuda.get_device_name() if t["accelerator"] == "gpu" else "cpu"


def best(t: dict[str, Any], folder: Path) -> ModelCheckpoint | None:
    """Return what keeps the weights that `choose_on` asks for; None for the last."""
    if t["choose_on"] == "last":
        return None
    monitor, mode = ("val/acc", "max") if t["choose_on"] == "gold" else ("val/loss", "min")
    return ModelCheckpoint(folder, "best", monitor=monitor, mode=mode)


def trainer(
    c: dict[str, Any],
    folder: Path,
    curves: Curves,
    best: ModelCheckpoint | None,
    inference_mode: bool = True,
) -> L.Trainer:
    """Return a trainer that writes nothing but what it is told to, and validates if curves do."""
    t = c["trainer"]
    every = min(t["val_every"], t["max_steps"])
    return L.Trainer(
        accelerator=t["accelerator"],
        devices=1,
        precision=t["precision"],
        max_steps=t["max_steps"],
        max_epochs=-1,
        val_check_interval=every,
        check_val_every_n_epoch=None,
        log_every_n_steps=every,
        limit_val_batches=1.0 if curves.has_val else 0,
        num_sanity_val_steps=0,
        callbacks=[curves, *([best] if best else [])],
        logger=logger(c, folder),
        default_root_dir=folder,
        enable_checkpointing=best is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=inference_mode,
    )


def cache_folder() -> Path:
    """Return where what was learned is kept for other runs."""
    return Path(os.environ.get("ANNORUN_CACHE") or "~/.cache/annorun").expanduser()


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out the warnings of Lightning that are about what is meant to be so."""
    with warnings.catch_warnings():
        # lightning 2.6 on torch 2.13; batches are slices of tensors, workers would slow them
        warnings.filterwarnings("ignore", ".*LeafSpec.*")
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        # curves are kept for every step; the run's folder is where its checkpoint belongs
        warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
        warnings.filterwarnings("ignore", ".*exists and is not empty.*")
        yield


def logger(c: dict[str, Any], folder: Path) -> Any:
    """Return Lightning's logger for the config's `logger` group; False for none."""
    kind = c["logger"]["kind"]
    if kind == "csv":
        from lightning.pytorch.loggers import CSVLogger

        return CSVLogger(folder, name="csv", version="")
    if kind == "wandb":
        from lightning.pytorch.loggers import WandbLogger

        return WandbLogger(
            name=folder.name,
            project=c["logger"]["project"],
            offline=c["logger"]["offline"],
            save_dir=folder,
            config=c,
        )
    return False
