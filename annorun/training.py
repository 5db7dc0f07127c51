"""Fitting one method's network: the part of a run that needs torch and Lightning."""

import hashlib
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from annorun import check, net, results
from annorun.dataset.module import MAX_TOKENS, CrowdData, task_spec
from annorun.errors import ConfigError
from annorun.method.base import Method
from annorun.scores import soft
from annorun.seeds import child
from annorun.show import bar
from annorun.votes import Floats, Ints, Items, Votes, group_names

MOST_CURVES = 20
# Lightning's banners and advertisements; what matters to a run is in its row
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

# of the last frozen encoder and its texts
STATES: dict[tuple[str, str, int, bytes], Tensor] = {}


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a fitted network says: of the test items, of the annotators, of its training."""

    probs: Floats
    group_probs: Floats | None
    expertise: Floats | None
    scale: str
    metrics: dict[str, float]


class Training:
    """A method's module and trainer, built before anything is written.

    Raises:
        ConfigError: the network cannot be loaded or learns one label where the data have several,
            or there is no such device.
    """

    def __init__(self, c: dict[str, Any], items: Items, votes: Votes, build: Callable[..., Any]):
        t = c["trainer"]
        if t["accelerator"] == "gpu" and not torch.cuda.is_available():
            raise ConfigError("trainer.accelerator=gpu: there is none here; allowed is cpu")
        if votes.multi_label and c["method"]["module"].get("target") == "annotators":
            raise ConfigError(
                f"method={c['choices']['method']}: each annotator's head learns one label an item, "
                "the data have several; allowed is a method with an aggregator (majority)"
            )
        self.c, self.items, self.votes = c, items, votes
        self.groups = group_names(votes.group, items.group_names)
        self.device = torch.cuda.get_device_name() if t["accelerator"] == "gpu" else "cpu"
        self.steps = 0
        torch.set_num_threads(t["threads"])
        family = check.family(c)
        model = c["model_size"][family]
        self.network = {"family": family, "model": model, "weights": self._weights(model)}
        frozen = c["model_size"]["start"] == "frozen"
        if family == "encoder":
            self.network |= {"pooling": c["model_size"]["pooling"], "frozen": frozen}
        self.spec = task_spec(items, votes)
        keys = ("lr", "betas", "weight_decay", "clip", "schedule", "max_steps")
        self.module: Method = build(
            c["method"]["module"],
            spec=self.spec,
            network=self.network,
            optimizer={k: t[k] for k in keys},
            seed=c["seed"],
        )
        # dropout draws from the global generator, on every device
        torch.manual_seed(child(c["seed"], "dropout"))
        self.data = CrowdData(
            items,
            votes,
            tokenizer=None if "x" in items.inputs else net.tokenizer(model),
            prompt=c["dataset"].get("prompt", ""),
            batch_size=t["batch_size"],
            val_share=t["val_share"],
            data_seed=c["data_seed"],
            seed=c["seed"],
            max_length=self._max_length(),
        )
        if frozen:
            # the encoder never changes: each text is encoded once, not once an epoch
            self.data.inputs = {"x": self._states(model)}
        if t["choose_on"] != "last" and not len(self.data.val):
            raise ConfigError(
                f"trainer.choose_on={t['choose_on']}: of {len(self.data.train)} training items "
                f"val_share={t['val_share']} leaves none to choose on; allowed is last"
            )

    def _states(self, model: str) -> Tensor:
        """Return what a frozen encoder makes of the texts; the next run of a sweep has them too."""
        ids = self.data.inputs["input_ids"].numpy().tobytes()
        # the tiny encoder's weights are drawn from the run's seed
        seed = self.c["seed"] if model == "tiny" else 0
        key = (model, self.network["pooling"], seed, hashlib.sha256(ids).digest())
        if key not in STATES:
            STATES.clear()
            device = "cuda" if self.c["trainer"]["accelerator"] == "gpu" else "cpu"
            STATES[key] = net.states(
                cast(net.TextEncoder, self.module.net), self.data.inputs, device
            )
        return STATES[key]

    def _max_length(self) -> int:
        asked: int = self.c["dataset"].get("max_length", MAX_TOKENS)
        most = getattr(self.module.net, "positions", asked)
        if asked > most:
            raise ConfigError(
                f"dataset.max_length={asked}: allowed is at most {most}, the network's"
            )
        return asked

    def _weights(self, model: str) -> str | None:
        scratch = self.c["model_size"]["start"] == "scratch"
        if model != "tiny" or self.items.kind != "choice" or scratch:
            return None
        from annorun.pretrain import tiny_weights

        return str(tiny_weights(self.items.n_classes, self.c["dataset"]["prompt"]))

    def fit(self, target: Floats | None, folder: Path, group_target: Ints | None = None) -> Fitted:
        """Train for max_steps, then predict the test items.

        Args:
            target: (n_items, n_classes) labels of an aggregator, or None.
            folder: gets metrics.csv, the curves.
            group_target: (n_items, n_groups) its labels for each group, -1 for none, or None.
        """
        t, data = self.c["trainer"], self.data
        data.target = None if target is None else torch.from_numpy(target.astype(np.float32))
        data.group_target = None if group_target is None else torch.from_numpy(group_target)
        curves = Curves(t["val_every"], t["max_steps"], has_val=len(data.val) > 0)
        best = None
        if t["choose_on"] != "last":
            monitor, mode = ("val/acc", "max") if t["choose_on"] == "gold" else ("val/loss", "min")
            best = ModelCheckpoint(folder, "best", monitor=monitor, mode=mode)
        trainer = L.Trainer(
            accelerator=t["accelerator"],
            devices=1,
            precision=t["precision"],
            max_steps=t["max_steps"],
            max_epochs=-1,
            val_check_interval=min(t["val_every"], t["max_steps"]),
            check_val_every_n_epoch=None,
            log_every_n_steps=min(t["val_every"], t["max_steps"]),
            limit_val_batches=1.0 if len(data.val) else 0,
            num_sanity_val_steps=0,
            callbacks=[curves, *([best] if best else [])],
            logger=logger(self.c, folder),
            default_root_dir=folder,
            enable_checkpointing=best is not None,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with warnings.catch_warnings():
            # lightning 2.6 on torch 2.13; batches are slices of tensors, workers would slow them
            warnings.filterwarnings("ignore", ".*LeafSpec.*")
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            # curves are kept for every step; the run's folder is where its checkpoint belongs
            warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
            warnings.filterwarnings("ignore", ".*exists and is not empty.*")
            return self._fit(trainer, curves, best, folder)

    def _fit(
        self, trainer: L.Trainer, curves: "Curves", best: ModelCheckpoint | None, folder: Path
    ) -> Fitted:
        data = self.data
        metrics = self._start(trainer)
        with bar(trainer.max_steps) as curves.show:
            trainer.fit(self.module, data)
        self.steps = trainer.global_step
        if curves.unrecorded and len(data.val):
            # the steps after the last multiple of val_every
            trainer.validate(self.module, data, verbose=False)
        results.write_csv(folder / "metrics.csv", *curves.table())
        if best:
            trainer.test(self.module, data, ckpt_path="best", verbose=False, weights_only=True)
            Path(best.best_model_path).unlink()
        elif len(data.test):
            trainer.test(self.module, data, verbose=False)
        expertise, scale = self.module.expertise(), self.module.expertise_scale
        probs, groups = self.module.probabilities(), self.module.group_probabilities()
        metrics |= self._against_votes(probs, groups)
        return Fitted(probs, groups, expertise, scale, metrics)

    def _against_votes(self, probs: Floats, groups: Floats | None) -> dict[str, float]:
        """Return the soft scores on the test items' own votes, where the data have them."""
        held, test = self.items.held_out, self.data.test
        if held is None or held.multi_label or not len(held):
            return {}
        whole = np.zeros((held.n_items, *probs.shape[1:]))
        whole[test] = probs
        found = soft.by_item(whole, held)
        if groups is not None:
            parts = np.zeros((held.n_items, *groups.shape[1:]))
            parts[test] = groups
            found |= soft.by_group(parts, held, self.groups)
        return {f"test/{name}": value for name, value in found.items()}

    def _start(self, trainer: L.Trainer) -> dict[str, float]:
        """Return the accuracy before the first step, where the tiny network knows something."""
        truth = self.items.truth
        if self.network["weights"] is None or truth is None or not len(self.data.test):
            return {}
        trainer.test(self.module, self.data, verbose=False)
        guess = self.module.probabilities().argmax(axis=1)
        return {"start/acc": float(np.mean(guess == truth[self.data.test]))}


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

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write a row."""
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
