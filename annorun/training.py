"""Fitting one method's network: the part of a run that needs torch and Lightning."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from annorun import clauses, fitting, head_results, net, net_text, results
from annorun.check_network import TRANSFORMERS, family
from annorun.curves import Curves
from annorun.dataset.encode import MAX_TOKENS
from annorun.dataset.module import CrowdData, task_spec
from annorun.errors import ConfigError
from annorun.method.base import Method
from annorun.scores import soft, summary
from annorun.seeds import rng
from annorun.show import bar
from annorun.votes import Floats, Ints, Items, Posterior, Votes, group_names

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
    labels: Ints | None = None


class Training:
    """A method's module and trainer, built before anything is written.

    Raises:
        ConfigError: the network cannot be loaded or learns one label where the data have several,
            or there is no such device.
    """

    def __init__(self, c: dict[str, Any], items: Items, votes: Votes, build: Callable[..., Any]):
        t = c["trainer"]
        self.device = fitting.device(t)
        if votes.multi_label and c["method"]["module"].get("target") == "annotators":
            raise ConfigError(
                f"method={c['choices']['method']}: each annotator's head learns one label an item, "
                "the data have several; allowed is a method with an aggregator (majority)"
            )
        refuse_new_classes(items, c["choices"]["method"])
        self.c, self.items, self.votes = c, items, votes
        self.groups = group_names(votes.group, items.group_names)
        self.steps = 0
        used = family(c)
        model = c["model_size"][used]
        self.network = self._network(used)
        self.spec = task_spec(items, votes)
        self.module: Method = build(
            c["method"]["module"],
            spec=self.spec,
            network=self.network,
            optimizer={k: t[k] for k in fitting.OPTIMIZER},
            seed=c["seed"],
        )
        tokenizer = None if "x" in items.inputs else net.tokenizer(model)
        self.data = CrowdData(
            items,
            votes,
            tokenizer=tokenizer,
            prompt=c["dataset"].get("prompt", ""),
            batch_size=t["batch_size"],
            val_share=t["val_share"],
            data_seed=c["data_seed"],
            seed=c["seed"],
            max_length=self._max_length(tokenizer),
            pairs=used == "encoder" and items.kind == "choice",
            bucket=t["bucket"],
        )
        self.tokens, self.tokenizer = self.data.inputs, tokenizer
        if self.network.get("frozen"):
            # the encoder never changes: each text is encoded once, not once an epoch
            self.data.inputs = {"x": self._states(model)}
        left = f"of {len(self.data.train)} training items val_share={t['val_share']} leaves none"
        if t["choose_on"] != "last" and not len(self.data.val):
            raise ConfigError(
                f"trainer.choose_on={t['choose_on']}: {left} to choose on; allowed is last"
            )
        if self.module.needs_validation and not len(self.data.val):
            raise ConfigError(
                f"method={c['choices']['method']}: wants validation items, and {left}; "
                "allowed is a greater trainer.val_share"
            )

    def refuse(self, posterior: Posterior | None) -> None:
        """Raise ConfigError where the method needs more than its aggregator found."""
        if self.module.needs_confusion and (posterior is None or posterior.confusion is None):
            raise ConfigError(
                "method.aggregator: gives no confusion matrices; allowed is one that does, "
                "such as dawid_skene"
            )

    def _network(self, used: str | None) -> dict[str, Any]:
        """Return what `net.build` takes."""
        size = self.c["model_size"]
        network = {"family": used, "model": size[used], "weights": self._weights(used)}
        if used in TRANSFORMERS:
            network |= {
                "lora": size["lora"],
                "checkpointing": self.c["trainer"]["checkpointing"],
                "pooling": size["pooling"],
                "frozen": size["start"] == "frozen",
            }
        return network

    def _states(self, model: str) -> Tensor:
        """Return what a frozen encoder makes of the texts; the next run of a sweep has them too."""
        ids = self.data.inputs["input_ids"].numpy().tobytes()
        # the tiny encoder's weights are drawn from the run's seed
        seed = self.c["seed"] if model == "tiny" else 0
        key = (model, self.network["pooling"], seed, hashlib.sha256(ids).digest())
        if key not in STATES:
            STATES.clear()
            device = "cuda" if self.c["trainer"]["accelerator"] == "gpu" else "cpu"
            encoder = cast(net_text.TextEncoder, self.module.networks()[0])
            STATES[key] = net_text.states(encoder, self.data.inputs, device)
        return STATES[key]

    def _max_length(self, tokenizer: Any) -> int:
        asked: int = self.c["dataset"].get("max_length", MAX_TOKENS)
        positions = getattr(self.module.networks()[0], "positions", None)
        # RoBERTa counts two more positions than it has
        most = asked if positions is None else min(positions, tokenizer.model_max_length)
        if asked > most:
            raise ConfigError(
                f"dataset.max_length={asked}: allowed is at most {most}, the network's"
            )
        return asked

    def _weights(self, used: str | None) -> str | None:
        """Return the file of what the tiny T5 learned beforehand, of the questions that it met."""
        size, dataset = self.c["model_size"], self.c["dataset"]
        taught = dataset.get("_target_", "").endswith(".synthetic_qa")
        known = used == "seq2seq" and size["seq2seq"] == "tiny" and taught
        if not known or size["start"] == "scratch":
            return None
        from annorun.pretrain import tiny_weights

        return str(tiny_weights(self.items.n_classes, dataset["prompt"]))

    def fit(
        self,
        target: Floats | None,
        folder: Path,
        group_target: Ints | None = None,
        confusion: Floats | None = None,
    ) -> Fitted:
        """Train for max_steps, then predict the test items.

        Args:
            target: (n_items, n_classes) labels of an aggregator, or None.
            folder: gets metrics.csv, the curves.
            group_target: (n_items, n_groups) its labels for each group, -1 for none, or None.
            confusion: (n_annotators, n_classes, n_classes) its confusion matrices, or None.
        """
        t, data = self.c["trainer"], self.data
        data.target = None if target is None else torch.from_numpy(target.astype(np.float32))
        data.group_target = None if group_target is None else torch.from_numpy(group_target)
        data.confusion = None if confusion is None else torch.from_numpy(confusion).float()
        curves = Curves(t["val_every"], t["max_steps"], has_val=len(data.val) > 0)
        best = fitting.best(t, folder)
        trainer = fitting.trainer(self.c, folder, curves, best)
        with fitting.quiet():
            return self._fit(trainer, curves, best, folder)

    def _fit(
        self, trainer: L.Trainer, curves: Curves, best: ModelCheckpoint | None, folder: Path
    ) -> Fitted:
        data = self.data
        metrics = self._start(trainer)
        # dropout draws from the global generators
        with bar(trainer.max_steps) as curves.show, net.seeded(self.c["seed"], "dropout"):
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
        probs, groups = (
            data.in_order(self.module.probabilities()),
            self.module.group_probabilities(),
        )
        groups = None if groups is None else data.in_order(groups)
        labels = self.module.decided()
        labels = None if labels is None else data.in_order(labels)
        metrics |= self._against_votes("test", probs, groups, labels) | self.module.numbers()
        truth = self.items.truth
        for name, other in self.module.others().items():
            answers = data.in_order(other)
            metrics |= self._against_votes(f"test_{name}", answers, None)
            if truth is not None and len(answers):
                metrics |= summary.of_answers(f"test_{name}", answers, truth[data.test])
        several = self.module.heads()
        if several is not None and len(several):
            heads, draw = data.in_order(several), rng(self.c["seed"], "heads")
            metrics |= head_results.write(folder, self.items, data.test, heads, draw)
        if "second" in self.items.inputs:
            metrics |= clauses.write(
                folder,
                self.module,
                self.tokens,
                self.tokenizer,
                self.items,
                data.test,
                rng(self.c["seed"], "clauses"),
            )
        return Fitted(probs, groups, expertise, scale, metrics, labels)

    def _against_votes(
        self, split: str, probs: Floats, groups: Floats | None, labels: Ints | None = None
    ) -> dict[str, float]:
        """Return the soft scores on the test items' own votes or ratings, where there are any."""
        held, test = self.items.held_out, self.data.test
        if self.items.soft is not None:
            found = soft.by_item(probs, self.items.soft[test], labels)
        elif held is None or held.multi_label or not len(held):
            return {}
        else:
            found = soft.by_item(probs, held.counts()[test], labels)
        if held is not None and groups is not None:
            parts = np.zeros((held.n_items, *groups.shape[1:]))
            parts[test] = groups
            found |= soft.by_group(parts, held, self.groups)
        return {f"{split}/{name}": value for name, value in found.items()}

    def _start(self, trainer: L.Trainer) -> dict[str, float]:
        """Return the accuracy before the first step, where the tiny network knows something."""
        truth = self.items.truth
        if self.network["weights"] is None or truth is None or not len(self.data.test):
            return {}
        trainer.test(self.module, self.data, verbose=False)
        guess = self.data.in_order(self.module.probabilities()).argmax(axis=1)
        return {"start/acc": float(np.mean(guess == truth[self.data.test]))}


def refuse_new_classes(items: Items, method: str) -> None:
    """Raise ConfigError where no class that is asked for could have been learned."""
    if items.truth is None or items.truth.ndim > 1:
        return
    parts = (set(items.truth[items.split == part].tolist()) for part in ("train", "test"))
    learned, asked = (part - {-1} for part in parts)
    if learned and asked and not learned & asked:
        raise ConfigError(
            f"method={method}: no class of the test part is in the train part; "
            "allowed is a method over tasks, such as meta_em"
        )
