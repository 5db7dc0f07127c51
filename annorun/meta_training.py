"""Meta-training and target tasks: the part of a run over episodes that needs torch."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from annorun import episode_results, episodes, fitting, learned, net, real_tasks, results
from annorun.check_network import family
from annorun.curves import Curves
from annorun.dataset.module import standardised
from annorun.episodes import Drawn, Episodes
from annorun.errors import ConfigError
from annorun.method.episodic import Episodic, Tasks
from annorun.seeds import rng
from annorun.show import bar
from annorun.votes import Floats, Ints, Items, Posterior, TaskSpec, Votes

# target tasks at once
AT_ONCE = 10
# of a network, between steps
VALIDATION_TASKS = 25
DIVERGED = "training diverged: the answers are not numbers; lower trainer.lr"


class MetaTraining:
    """A method over episodes and its trainer, built before anything is written.

    Raises:
        ConfigError: the data have too few classes or examples, or there is no such device.
    """

    def __init__(self, c: dict[str, Any], items: Items, votes: Votes, build: Callable[..., Any]):
        t = c["trainer"]
        self.device = fitting.device(t)
        self.c, self.build = c, build
        self.place = "cuda" if t["accelerator"] == "gpu" else "cpu"
        self.steps = 0
        self.episodes: Episodes = build(c["method"]["episodes"])
        least = self.episodes.shots + self.episodes.queries
        way = self.episodes.way
        voted: list[Ints] | None = None
        self.votes: Votes | None = None
        if self.episodes.real:
            parted = rng(c["data_seed"], "target_classes")
            items, self.votes = real_tasks.apart(items, votes, way, parted)
            voted = episodes.by_class(items, real_tasks.VOTED, self.episodes.shots, way)
            self.test = episodes.by_class(items, "test", self.episodes.queries, way)
        else:
            self.test = episodes.by_class(items, "test", least, way)
        self.items = items
        self.train = episodes.by_class(items, "train", least, way)
        asked = rng(c["data_seed"], "target_tasks")
        self.drawn = episodes.draw(self.test, self.episodes, self.episodes.tasks, asked, voted)
        if (items.split == "val").any():
            self.val = episodes.by_class(items, "val", least, way)
        else:
            held = rng(c["data_seed"], "validation")
            self.train, self.val = episodes.hold_out(self.train, t["val_share"], least, held)
        if t["choose_on"] == "gold" and len(self.val) < way:
            raise ConfigError(
                f"trainer.choose_on=gold: {len(self.val)} classes have {least} examples for "
                f"training and as many for validation, a task has {way}; allowed is last"
            )
        x = torch.from_numpy(items.inputs["x"])
        train = np.flatnonzero(items.split == "train")
        self.x = standardised(x, train) if items.kind == "features" else x
        spec = TaskSpec(items.kind, self.episodes.way, 0, tuple(x.shape[1:]))
        self.module: Episodic = build(
            c["method"]["module"],
            spec=spec,
            network={"family": family(c)},
            optimizer={k: t[k] for k in fitting.OPTIMIZER},
            seed=c["seed"],
        )

    def refuse(self, posterior: Posterior | None) -> None:
        """See `Training`: there is nothing to refuse."""

    def judge_tasks(self, folder: Path) -> dict[str, float]:
        """Meta-train, or take what is in the cache; judge target tasks; write the run's files."""
        kept = self.learned()
        if kept is not None:
            if not learned.load(kept, self.module, folder):
                self._fit(folder)
                state = self.module.state_dict()
                if not all(v.isfinite().all() for v in state.values()):
                    raise FloatingPointError(DIVERGED)
                learned.keep(kept, state, folder / "metrics.csv")
            # of the network, whoever trained it: a row does not depend on who came first
            self.steps = self.c["trainer"]["max_steps"]
        self.module.to(self.place).eval()
        self.picture(folder)
        return episode_results.write(folder, self.items, self.judge())

    def learned(self) -> Path | None:
        """Return where the network is kept, None for a method that learns from no task."""
        return learned.place(self.c, self.module, self.episodes)

    def tasks(self, drawn: Drawn, votes: Ints, truth: Ints | None = None) -> Tasks:
        """Return tasks as tensors; the queries' classes are -1 where they are not given."""
        if truth is None:
            truth = np.full_like(drawn.query_truth, -1)
        return Tasks(
            support=self.x[drawn.support],
            votes=torch.from_numpy(votes),
            query=self.x[drawn.query],
            query_truth=torch.from_numpy(truth.copy()),
            seed=torch.from_numpy(drawn.seed),
        )

    def pool(
        self, n_tasks: int, n_annotators: int, draw: np.random.Generator, **which: Any
    ) -> Floats:
        """Draw annotators, (n_tasks, n_annotators, K, K)."""
        k = self.episodes.way
        pool = self.build(
            self.c["annotator_dist"],
            n_annotators=n_tasks * n_annotators,
            n_classes=k,
            rng=draw,
            **which,
        )
        matrices: Floats = pool.confusion.reshape(n_tasks, n_annotators, k, k)
        return matrices

    def source(self, groups: list[Ints], n_tasks: int, draw: np.random.Generator) -> Tasks:
        """Draw training tasks: support labelled by pseudo-annotators, queries by their class."""
        e = self.episodes
        drawn = episodes.draw(groups, e, n_tasks, draw)
        n_annotators = int(draw.choice(e.annotators))
        said, asked = (
            episodes.mislabelled(truth, e.way, e.source_noise, draw)
            for truth in (drawn.support_truth, drawn.query_truth)
        )
        if e.pseudo:
            matrices = self.pool(n_tasks, n_annotators, draw, part="train", mixture=0)
        else:
            matrices = np.broadcast_to(np.eye(e.way), (n_tasks, n_annotators, e.way, e.way))
        votes = episodes.annotate(said, matrices, e.per_item, draw)
        return self.tasks(drawn, votes, asked)

    def target(self, n_annotators: int, mixture: int) -> tuple[Drawn, real_tasks.Annotated]:
        """Return the target tasks, the same for each R and mixture, and who labelled them how."""
        e, seed = self.episodes, self.c["data_seed"]
        draw = rng(seed, f"target_votes/{n_annotators}/{mixture}")
        if self.votes is not None:
            own = real_tasks.labelled(self.votes, self.items, self.drawn)
        else:
            matrices = self.pool(e.tasks, n_annotators, draw, part="test", mixture=mixture)
            votes = episodes.annotate(self.drawn.support_truth, matrices, e.per_item, draw)
            right = matrices.diagonal(axis1=-2, axis2=-1).mean(axis=-1)
            own = real_tasks.Annotated(votes, None, right)
        return replace(self.drawn, seed=draw.integers(2**62, size=e.tasks)), own

    def cells(self) -> list[tuple[int, int]]:
        """Return the R and mixture that target tasks are judged under; real votes are but one."""
        if self.votes is not None:
            return [(0, 0)]
        mixtures = range(len(self.c["annotator_dist"]["test"]))
        return [(r, m) for r in self.episodes.annotators for m in mixtures]

    def judge(self) -> Iterator[episode_results.Judged]:
        """Answer the target tasks of each R and mixture."""
        for n_annotators, mixture in self.cells():
            drawn, own = self.target(n_annotators, mixture)
            tasks = self.tasks(drawn, own.votes)
            with torch.no_grad():
                parts = [
                    self.module.answer(Tasks(*(v[i : i + AT_ONCE].to(self.place) for v in tasks)))
                    for i in range(0, self.episodes.tasks, AT_ONCE)
                ]
            yield episode_results.Judged(n_annotators, mixture, drawn, own, *joined(parts))

    def picture(self, folder: Path) -> None:
        """Write task.csv, the first target task in a plane, where the method has places for it."""
        drawn, own = self.target(*self.cells()[0])
        tasks = Tasks(*(v[:1].to(self.place) for v in self.tasks(drawn, own.votes)))
        with torch.no_grad():
            places = self.module.places(tasks)
        if places is not None:
            numbers = [p.cpu().double().numpy() for p in places]
            episode_results.write_plane(folder, drawn, own.votes, *numbers)

    def _fit(self, folder: Path) -> None:
        t = self.c["trainer"]
        held = rng(self.c["data_seed"], "validation_tasks")
        judged = len(self.val) >= self.episodes.way
        val = [self.source(self.val, 1, held) for _ in range(VALIDATION_TASKS * judged)]
        curves = Curves(t["val_every"], t["max_steps"], has_val=judged)
        best = fitting.best(t, folder)
        # a method may adapt by gradient in validation too
        trainer = fitting.trainer(self.c, folder, curves, best, inference_mode=False)
        with fitting.quiet(), bar(trainer.max_steps) as curves.show:
            loader: DataLoader[Tasks] | None = None
            if judged:
                loader = DataLoader(
                    val,  # type: ignore[arg-type]
                    batch_size=None,
                    generator=torch.Generator(),
                )
            tasks = DataLoader(Stream(self), batch_size=None, generator=torch.Generator())
            with net.seeded(self.c["seed"], "dropout"):
                trainer.fit(self.module, tasks, loader)
            if curves.unrecorded and loader:
                # the steps after the last multiple of val_every
                trainer.validate(self.module, loader, verbose=False)
        results.write_csv(folder / "metrics.csv", *curves.table())
        if best:
            state = torch.load(best.best_model_path, weights_only=True)["state_dict"]
            self.module.load_state_dict(state)
            Path(best.best_model_path).unlink()


class Stream(IterableDataset[Tasks]):
    """Training tasks without end, a step's at a time; the run's seed draws them."""

    def __init__(self, training: MetaTraining):
        self.training = training

    def __iter__(self) -> Iterator[Tasks]:
        """Yield the tasks of each step."""
        c = self.training.c
        draw = rng(c["seed"], "training_tasks")
        while True:
            yield self.training.source(self.training.train, c["trainer"]["batch_size"], draw)


def joined(parts: list[Any]) -> tuple[Floats, Floats | None, Floats | None, Ints | None]:
    """Return log probabilities, labels, accuracies and asked votes of all tasks."""

    def one(name: str) -> Floats | None:
        tensors: list[Tensor | None] = [getattr(p, name) for p in parts]
        if tensors[0] is None:
            return None
        return torch.cat([t.cpu().double() for t in tensors if t is not None]).numpy()

    log_probs = one("log_probs")
    assert log_probs is not None
    asked = one("votes")
    return log_probs, one("labels"), one("accuracy"), asked if asked is None else asked.astype(int)
