"""Learning to write explanations and judging what is written: the part of a run that needs torch.

Two stages of one network (`annorun.method.capo`). The first is kept in the cache
(`annorun.learned`) unless it is large: preferences that differ, and none, begin with the same; a
row's steps count it, its seconds only where it was learned. Between the two every
response is scored once by the frozen first stage; these scores are kept under a hash of its weights
and of the tokens, and stage 2 has no second model in memory.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader

from annorun import explained_results, fitting, learned, net, results, writing
from annorun.aggregation.mace import mace
from annorun.aggregation.one_vs_rest import one_vs_rest
from annorun.check_network import family
from annorun.curves import Curves
from annorun.dataset.encode import MAX_TOKENS
from annorun.dataset.responses import BAR, Branch, Responses
from annorun.errors import ConfigError
from annorun.method.capo import Capo
from annorun.seeds import child, rng
from annorun.show import bar
from annorun.votes import Items, Posterior, TaskSpec, Votes
from annorun.written import Written

VERSIONS = [metadata.version(name) for name in ("torch", "transformers")]
# what of a batch tells a response's score
SCORED = ("tokens", "position", "sees", "whose", "row", "place", "token", "response", "number")
# bytes of a first stage that is kept: adapters, or a small network
MOST = 2**28


class Explaining:
    """A language model of responses and its trainer, built before anything is written.

    Raises:
        ConfigError: the network cannot be loaded, there is no such device, or nothing to learn.
    """

    def __init__(self, c: dict[str, Any], items: Items, votes: Votes, build: Callable[..., Any]):
        t, size = c["trainer"], c["model_size"]
        if t["choose_on"] != "last":
            raise ConfigError(
                f"trainer.choose_on={t['choose_on']}: each stage ends with its last weights; "
                "allowed is last"
            )
        refuse(c["method"]["module"], size["lora"], items, votes)
        self.device = fitting.device(t)
        self.place = "cuda" if t["accelerator"] == "gpu" else "cpu"
        self.c, self.items, self.votes = c, items, votes
        used = family(c)
        model = size[used]
        self.module: Capo = build(
            c["method"]["module"],
            network={
                "family": used,
                "model": model,
                "lora": size["lora"],
                "checkpointing": t["checkpointing"],
            },
            optimizer={k: t[k] for k in fitting.OPTIMIZER},
            seed=c["seed"],
            spec=TaskSpec("explain", items.n_classes, votes.n_annotators),
        )
        self.judges = writing.judges(self.module, items, votes, c["seed"], self.place)
        self.tokenizer = net.tokenizer(model)
        self.data = Responses(
            items,
            votes,
            self.tokenizer,
            prompt=c["dataset"]["prompt"],
            who=self.module.who,
            max_length=c["dataset"].get("max_length", MAX_TOKENS),
            pairs=self.module.pairs,
            weights=self._weights(),
        )
        self.steps = 0
        part = items.split[[branch.item for branch in self.data.branches]]
        self.train, self.val = (self._of(part == name) for name in ("train", "val"))
        if not self.train:
            raise ConfigError("dataset: no explanation of a training item")
        if self.module.preference_steps and not any(
            len(b.pairs) for own in self.train for b in own
        ):
            raise ConfigError(
                f"method.module.pairs={self.module.pairs}: no training item has two such responses "
                "of two annotators"
            )

    def refuse(self, posterior: Posterior | None) -> None:
        """See `Training`: there is nothing to refuse."""

    def _weights(self) -> Any:
        """Return what `Responses` weighs pairs by."""
        if self.module.weights != "competence":
            return self.module.weights
        votes = self.votes.on(self.items.split == "train")
        draw = rng(self.c["seed"], "competence")
        found = mace(one_vs_rest(votes) if votes.multi_label else votes, rng=draw).competence
        assert found is not None
        # who has no training item has no pair that is learned from
        return np.nan_to_num(found, nan=float(np.nanmean(found)))

    def _of(self, which: np.ndarray) -> list[list[Branch]]:
        """Return the branches of a mask, item by item."""
        kept = [b for b, yes in zip(self.data.branches, which, strict=True) if yes]
        return [list(own) for _, own in groupby(kept, key=lambda b: b.item)]

    def explain(self, folder: Path) -> dict[str, float]:
        """Learn in both stages, write to the test items, judge it; write the run's files."""
        module = self.module
        self._first_stage(folder)
        metrics: dict[str, float] = {}
        if module.preference_steps:
            module.paired = True
            if module.kind != "simpo":
                module.reference = self.reference()
            steps = {"max_steps": module.preference_steps, "lr": module.preference_lr}
            self._fit(folder / "preference.csv", self.c["trainer"] | steps)
            pairs = [b.pairs for own in self.train for b in own if len(b.pairs)]
            label = self.votes.label
            same = np.concatenate([label[p[:, 0]] == label[p[:, 1]] for p in pairs])
            metrics |= {"pairs/same_label": float(same.sum()), "pairs/all": float(len(same))}
        written = self.write()
        return metrics | explained_results.judge(
            folder,
            self.items,
            self.votes,
            written,
            seed=self.c["seed"],
            **self.judges,
        )

    def _first_stage(self, folder: Path) -> None:
        """Take what is kept, or learn and keep it."""
        c = self.c
        depends = (c["trainer"], c["seed"], learned.code(self.module))
        path = fitting.cache_folder() / f"stage1-{self._hash(repr(depends))}.safetensors"
        if learned.load(path, self.module, folder):
            self.steps += c["trainer"]["max_steps"]
            return
        self._fit(folder / "metrics.csv", c["trainer"])
        found = learned.state(self.module)
        if sum(value.nbytes for value in found.values()) <= MOST:
            learned.keep(path, found, folder / "metrics.csv")

    def _fit(self, curve: Path, t: dict[str, Any]) -> None:
        """Train for one stage."""
        curves = Curves(t["val_every"], t["max_steps"], has_val=bool(self.val))
        # a logger of its own: the second would begin the first one's file anew
        place = curve.parent if curve.stem == "metrics" else curve.with_suffix("")
        trainer = fitting.trainer(self.c | {"trainer": t}, place, curves, None)
        seed, stage = self.c["seed"], curve.stem
        order = torch.Generator().manual_seed(child(seed, f"order/{stage}"))
        train, val = (
            DataLoader[list[Branch]](
                own,  # type: ignore[arg-type]
                t["batch_size"],
                shuffle=drawn,
                # without one, each pass would draw from the global generator
                generator=order if drawn else torch.Generator(),
                collate_fn=self.batch,
            )
            for own, drawn in ((self.train, True), (self.val, False))
        )
        with fitting.quiet(), bar(t["max_steps"]) as curves.show:
            # of each stage by itself: the first may come from the cache
            with net.seeded(seed, f"dropout/{stage}"):
                trainer.fit(self.module, train, val if self.val else None)
            if curves.unrecorded and self.val:
                trainer.validate(self.module, val, verbose=False)
        self.steps += t["max_steps"]
        if not all(p.isfinite().all() for p in self.module.learned()):
            raise FloatingPointError("training diverged: a weight is no number; lower trainer.lr")
        results.write_csv(curve, *curves.table())

    def batch(self, own: list[list[Branch]]) -> dict[str, Tensor]:
        """Return a batch of some items, for the stage that the module is in."""
        module = self.module
        arrays = self.data.batch(
            [branch for one in own for branch in one],
            paired=module.paired,
            explanation_only=module.paired and module.mask == "explanation",
        )
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    @torch.no_grad()
    def reference(self) -> Tensor:  # (n_scored,)
        """Return what the frozen first stage gives each response, from the cache or anew."""
        module = self.module
        # in the precision that stage 2 will compute in: its first loss is log 2
        half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
        kind = half.get(self.c["trainer"]["precision"])
        cache = fitting.cache_folder()
        depends = repr((kind, learned.code(module)))
        path = cache / f"reference-{self._hash(depends)}.safetensors"
        if path.is_file():
            return load_file(path)["scores"]
        scores = torch.full((self.data.n_scored,), torch.nan)
        training = module.training
        module.eval().to(self.place)
        for own in (*self.train, *self.val):
            batch = self.batch([own])
            moved = {name: value.to(self.place) for name, value in batch.items()}
            with torch.autocast(self.place, kind, enabled=kind is not None):
                scores[batch["number"]] = module.scores(moved)[0].float().cpu()
        module.train(training)
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache, suffix=".part", delete=False) as part:
            save_file({"scores": scores}, part.name)
        os.replace(part.name, path)
        return scores

    def _hash(self, depends: str) -> str:
        """Return a hash of the network's weights, of what is scored in this stage, and of more."""
        # equal weights under another config, or other versions, are another network
        lm: Any = self.module.net.lm
        settings = sorted(lm.config.to_dict().items(), key=str)
        # adapters apart are no other weights
        beside = (settings, len(self.train), self.module.who, VERSIONS)
        digest = hashlib.sha256(f"{depends} {beside}".encode())
        for name, value in sorted(self.module.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().view(torch.uint8).numpy().data)
        for own in (*self.train, *self.val):
            batch = self.batch([own])
            for name in SCORED:
                digest.update(batch[name].numpy().data)
        return digest.hexdigest()[:16]

    def write(self) -> list[Written]:
        """Return what each annotator would say of each test item, by decoding."""
        self.module.to(self.place)
        pairs = writing.to_answer(self.items, self.votes)
        asked = {pair: self.data.prompt(*pair) for pair in pairs}
        written = []
        said = writing.texts(self.module, self.tokenizer, asked, self.c["seed"])
        for pair, decoding, text in said:
            label, _, why = text.partition(BAR)
            written.append(Written(*pair, decoding, label.strip(), why.strip()))
        return sorted(written)


def refuse(module: dict[str, Any], rank: int, items: Items, votes: Votes) -> None:
    """Raise ConfigError for keys that the loss does not use, and data that cannot be judged."""
    found = []
    if module["who"] == "adapter" and not rank:
        found.append(
            "method.module.who=adapter: each annotator's own adapters want a rank; allowed is "
            "model_size.lora=16, say"
        )
    if module["loss"] == "listwise" and (module["pairs"], module["weights"]) != ("all", "none"):
        found.append(
            f"method.module.pairs={module['pairs']} weights={module['weights']}: listwise has no "
            "pairs, it sees all responses; allowed is pairs=all weights=none"
        )
    if module["who"] == "pooled" and module["preference_steps"]:
        found.append(
            "method.module.who=pooled: where nobody is named no response is preferred; allowed is "
            "token, or preference_steps=0"
        )
    found += writing.unjudged(items, votes)
    if found:
        raise ConfigError(*found)
