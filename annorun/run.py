"""One run, top to bottom: data, votes, aggregate, train, row. `run(cfg) -> row` needs no CLI.

A run that needs no network never imports torch. Whatever the user can have got wrong raises
ConfigError before the run's folder is made.
"""

import importlib
import resource
import sys
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from annorun import check, config, report, results, show
from annorun.check_network import family
from annorun.errors import ConfigError
from annorun.noise import planted_accuracy
from annorun.scores import recovery, summary
from annorun.seeds import rng
from annorun.signature import parameters
from annorun.votes import Floats, Items, Posterior, Votes, group_labels, group_names, hard_labels


@dataclass(frozen=True, eq=False)
class Crowd:
    """Items and votes, how accurate each annotator is known to be, and whether somebody voted.

    Attributes:
        accuracy: (n_annotators,), or None.
        real: the votes are the data's own, not simulated; False for methods over tasks, which see
            to that themselves.
    """

    items: Items
    votes: Votes
    accuracy: Floats | None
    real: bool


def run(cfg: DictConfig) -> dict[str, Any]:
    """Run one cell, or return its row if it is finished.

    Args:
        cfg: from `annorun.config.compose`, or the command line.

    Returns:
        The row, as in row.json.

    Raises:
        ConfigError: the config or a data file is wrong; nothing has been written.
    """
    config.check(cfg)
    c = config.plain(cfg)
    identity = results.identity(c)
    folder = results.folder(c, identity)
    if c["mode"] == "cached" and results.state(folder) == "done":
        row = results.read_row(folder)
        show.finished(row, folder, cached=True)
        return row
    start = time.perf_counter()
    for path in check.GIVEN:
        # a method's module imports torch: not before the data have been read
        if path != "method.module":
            resolve(path, c)
    crowd = load(c)
    network, begun = training(c, crowd) if family(c) else None, False
    try:
        # before the folder: an aggregator may refuse data that only it can judge
        posterior = aggregate(c, crowd)
        if network:
            network.refuse(posterior)
        begun = True
        results.begin(folder)
        OmegaConf.save(OmegaConf.create(c), folder / "config.yaml")
        metrics = execute(c, crowd, posterior, network, folder)
        row = results.new_row(c, identity) | {
            "metrics": {k: float(v) for k, v in metrics.items() if np.isfinite(v)},
            "steps": network.steps if network else 0,
            "seconds": round(time.perf_counter() - start, 3),
            "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            "device": network.device if network else "cpu",
        }
        results.write_row(folder, row)
    except BaseException as error:
        # a refusal leaves no trace, unless something has been written by then
        if begun or not isinstance(error, ConfigError):
            results.fail(folder, traceback.format_exc())
        raise
    finally:
        # the next cell of this process must not write into this one's run
        if "wandb" in sys.modules:
            import wandb

            wandb.finish()
    show.finished(row, folder)
    return row


def load(c: dict[str, Any]) -> Crowd:
    """Read the items, and take their votes or simulate them; `data_seed` alone decides."""
    seed = c["data_seed"]
    reader = {k: v for k, v in c["dataset"].items() if k not in check.DECLARED["dataset"]}
    items, votes = build(reader, rng=rng(seed, "dataset"))
    train = np.flatnonzero(items.split == "train")
    if "{context}" in c["dataset"].get("prompt", "") and "context" not in items.inputs:
        raise ConfigError(
            f"dataset.prompt={c['dataset']['prompt']}: the data have no context; "
            "allowed is a text with {question} and {options} alone"
        )
    if votes is not None and votes.group is None and "groups" in c["method"]["needs"]:
        raise ConfigError(
            f"method={c['choices']['method']}: needs groups, and the data have none; allowed is "
            "data with a group of each annotator (dataset=table: dataset.subpopulation=COLUMN)"
        )
    if c["method"].get("episodes"):
        # whoever labels a task is drawn with it, unless the data's own votes are asked for
        if votes is None:
            nobody = np.empty(0, dtype=np.int64)
            votes = Votes(nobody, nobody, nobody, len(items), 0, items.n_classes)
        return Crowd(items, votes, None, real=False)
    pool = build(
        c["annotator_dist"],
        n_items=len(train),
        n_classes=items.n_classes,
        rng=rng(seed, "pool"),
    )
    if pool is None:
        if votes is None:
            raise ConfigError("annotator_dist=real: the data have no votes of their own")
        known = None if items.truth is None else recovery.empirical_accuracy(votes, items.truth)
        return Crowd(items, votes, known, real=True)
    drawn = build(
        c["noise"],
        truth=items.truth[train],
        pool=pool,
        n_classes=items.n_classes,
        rng=rng(seed, "noise"),
    )
    votes = replace(drawn, item=train[drawn.item], n_items=len(items))
    # the pool has annotators of its own, whatever names the data's have
    items = replace(items, annotator_names=None, group_names=None, held_out=None)
    keys = dict(c["noise"])
    if keys.pop("_target_").startswith("annorun.noise."):
        known = planted_accuracy(
            pool=pool, n_classes=items.n_classes, truth=items.truth[train], **keys
        )
    else:
        known = recovery.empirical_accuracy(votes, items.truth)
    return Crowd(items, votes, known, real=False)


def training(c: dict[str, Any], crowd: Crowd) -> Any:
    """Build what training needs; the only door to torch."""
    resolve("method.module", c)
    module, _, name = c["method"]["module"]["_target_"].rpartition(".")
    method = getattr(importlib.import_module(module), name)
    if c["dataset"]["kind"] == "explain":
        if not hasattr(method, "writes"):
            raise ConfigError(
                f"method={c['choices']['method']}: {name} writes no explanations; allowed is "
                "model_size=none, or a method that does, such as capo"
            )
        if not getattr(method, "learns", True):
            from annorun.prompting import Prompting

            return Prompting(c, crowd.items, crowd.votes, build)
        from annorun.explaining import Explaining

        return Explaining(c, crowd.items, crowd.votes, build)
    over_tasks = hasattr(method, "practise")
    if over_tasks != bool(c["method"].get("episodes")):
        raise ConfigError(
            f"method.episodes: {name} {'learns from' if over_tasks else 'knows no'} tasks; allowed "
            f"is {'a node' if over_tasks else 'null'}, as in the YAML of the method"
        )
    if over_tasks:
        from annorun.meta_training import MetaTraining

        return MetaTraining(c, crowd.items, crowd.votes, build)
    from annorun.training import Training

    return Training(c, crowd.items, crowd.votes, build)


def execute(
    c: dict[str, Any], crowd: Crowd, posterior: Posterior | None, network: Any, folder: Path
) -> dict[str, float]:
    """Judge and write what was aggregated, train if asked; return the metrics."""
    if c["method"].get("episodes"):
        tasks: dict[str, float] = network.judge_tasks(folder)
        draw(folder)
        return tasks
    if network and crowd.items.kind == "explain":
        return explained(crowd, network, folder)
    items, votes = crowd.items, crowd.votes
    metrics: dict[str, float] = {}
    target, by_group, learned, scale = None, None, None, "accuracy"
    group = votes.group
    names = in_data = group_names(group, items.group_names)
    if posterior is not None:
        labels = hard_labels(posterior.probs, rng=rng(c["seed"], "ties"))
        by_group = group_labels(posterior, rng=rng(c["seed"], "group_ties"))
        metrics |= summary.of_labels(posterior, labels, by_group, votes, items.truth, names)
        metrics |= posterior.numbers
        learned = posterior.accuracy
        if posterior.competence is not None:
            learned, scale = posterior.competence, "mixture"
        if posterior.group is not None:
            group, names = posterior.group, group_names(posterior.group, None)
        results.write_labels(folder, items, votes, posterior, labels, by_group, names)
        if crowd.real:
            metrics |= summary.of_agreement(votes, items.classes(), rng=rng(c["seed"], "agreement"))
            name = c["choices"]["method"]
            report.write(folder, items, votes, posterior, labels, metrics, method=name)
        soft = (c["method"]["module"] or {}).get("target") == "soft"
        target = posterior.probs if soft else np.eye(items.n_classes)[labels]
    if network:
        fitted = network.fit(target, folder, by_group, posterior and posterior.confusion)
        if not np.isfinite(fitted.probs).all():
            raise FloatingPointError(
                "training diverged: the answers are not numbers; lower trainer.lr"
            )
        metrics |= fitted.metrics
        if fitted.expertise is not None:
            learned, scale = fitted.expertise, fitted.scale
        test = items.split == "test"
        results.write_predictions(folder, items, fitted.probs, fitted.labels)
        if items.truth is not None and len(fitted.probs):
            given = {"labels": fitted.labels, "decided": fitted.labels is not None}
            metrics |= summary.of_answers("test", fitted.probs, items.truth[test], **given)
    planted = crowd.accuracy
    if planted is not None and scale == "mixture":
        planted = recovery.mixture_equivalent(planted, items.n_classes)
    if learned is not None and planted is not None:
        metrics |= summary.of_annotators(learned, planted, votes.group, in_data)
    results.write_annotators(folder, items, votes, learned, planted, group, names)
    if network:
        draw(folder)
    return metrics


def explained(crowd: Crowd, network: Any, folder: Path) -> dict[str, float]:
    """Let a network learn to write explanations, write some, and judge them."""
    metrics: dict[str, float] = network.explain(folder)
    results.write_annotators(folder, crowd.items, crowd.votes, None, None, None, [])
    draw(folder)
    return metrics


def draw(folder: Path) -> None:
    """Draw what a trained network's files show."""
    from annorun import plots

    if (folder / "metrics.csv").is_file():
        plots.figure(folder)
    if (folder / "task.csv").is_file():
        plots.task(folder)


def aggregate(c: dict[str, Any], crowd: Crowd) -> Posterior | None:
    """Call the method's aggregator, if it has one, with the control items where there are any."""
    node, known = c["method"]["aggregator"], crowd.items.known
    if node is None:
        return None
    if known is not None and "known" not in parameters(node["_target_"]):
        raise ConfigError(
            f"method={c['choices']['method']}: uses no control items, and the data have some; "
            "allowed is a method that does, such as mace, or dataset.control=none"
        )
    given: dict[str, Any] = {} if known is None else {"known": known}
    given |= {"votes": crowd.votes, "items": crowd.items, "rng": rng(c["seed"], "aggregator")}
    posterior: Posterior = build(node, **given)
    if not np.isfinite(posterior.probs).all():
        raise FloatingPointError("the aggregator's probabilities are not numbers")
    return posterior


def build(node: dict[str, Any], **given: Any) -> Any:
    """Call a node's target with its values, and with those given things that it takes."""
    taken = {k: v for k, v in given.items() if k in parameters(node["_target_"])}
    return instantiate(node, _convert_="all", _partial_=True)(**taken)


def resolve(path: str, c: dict[str, Any]) -> None:
    """Refuse a target whose own module lies outside the allow-list, whatever name led to it."""
    group, _, part = path.partition(".")
    node = c[group].get(part) if part else c[group]
    if node is None:
        return
    module, _, name = node["_target_"].rpartition(".")
    home = getattr(getattr(importlib.import_module(module), name), "__module__", None)
    if not check.allowed_target(f"{home}."):
        raise ConfigError(f"{path}._target_={node['_target_']}: is of {home}, which is not allowed")
