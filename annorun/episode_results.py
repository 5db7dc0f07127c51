"""What a run over episodes says and writes: scores over tasks, by annotators and by mixture.

`tasks.csv` has a line for each target task, number of annotators R and mixture of the pool: tasks
are the same for every method of a `data_seed`, so paired tests compare lines.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from annorun import results
from annorun.episodes import Drawn
from annorun.real_tasks import Annotated
from annorun.scores import calibration, summary
from annorun.votes import Floats, Ints, Items


@dataclass(frozen=True, eq=False)
class Judged:
    """The target tasks with R annotators of one mixture, and what a method answered.

    Attributes:
        n_annotators: R; 0 for the data's own.
        mixture: which of the pool's target mixtures.
        drawn: the tasks.
        own: who labelled the support, and how.
        log_probs: (n_tasks, n_query, K).
        labels: (n_tasks, n_support, K) what the method believes of the support, or None.
        accuracy: (n_tasks, R) what it believes of the annotators, or None.
        asked: (n_tasks, n_support, R) the votes that it asked for, or None: all.
    """

    n_annotators: int
    mixture: int
    drawn: Drawn
    own: Annotated
    log_probs: Floats
    labels: Floats | None
    accuracy: Floats | None
    asked: Ints | None


def write(folder: Path, items: Items, judged: Iterable[Judged]) -> dict[str, float]:
    """Write tasks.csv, predictions.csv and annotators.csv; return the metrics.

    `test/acc` is the mean over all cells; `test_r3/acc` over the mixtures with three annotators,
    `test_m0/acc` over the numbers of annotators with the first mixture, `test_r3_m0/acc` of one.
    """
    cells = list(judged)
    if not all(np.isfinite(cell.log_probs).all() for cell in cells):
        raise FloatingPointError("the answers are not numbers; lower trainer.lr or the inner rate")
    scores = [accuracies(cell) for cell in cells]
    lines = [
        (cell.n_annotators, cell.mixture, task, float(acc))
        for cell, score in zip(cells, scores, strict=True)
        for task, acc in enumerate(score)
    ]
    results.write_csv(folder / "tasks.csv", ("annotators", "mixture", "task", "acc"), lines)
    _write_predictions(folder, items, cells)
    metrics = answered(cells) | by_cell(cells, [float(s.mean()) for s in scores])
    return metrics | _write_annotators(folder, items, cells)


def accuracies(cell: Judged) -> Floats:
    """Return the share of right answers of each task, (n_tasks,)."""
    share: Floats = (cell.log_probs.argmax(axis=-1) == cell.drawn.query_truth).mean(axis=1)
    return share


def by_cell(cells: list[Judged], scores: list[float]) -> dict[str, float]:
    """Return the accuracy of each R, mixture, and both; nothing where the votes are real."""
    if not cells[0].n_annotators:
        return {}
    marks = [(f"r{c.n_annotators}", f"m{c.mixture}") for c in cells]
    found = {}
    for name in sorted({part for mark in marks for part in mark}):
        own = [s for s, mark in zip(scores, marks, strict=True) if name in mark]
        found[f"test_{name}/acc"] = float(np.mean(own))
    for score, (r, m) in zip(scores, marks, strict=True):
        found[f"test_{r}_{m}/acc"] = score
    return found


def answered(cells: list[Judged]) -> dict[str, float]:
    """Return the scores of all queries, and of what is believed of the support."""
    k = cells[0].log_probs.shape[-1]
    probs = np.exp(np.concatenate([c.log_probs.reshape(-1, k) for c in cells]))
    truth = np.concatenate([c.drawn.query_truth.ravel() for c in cells])
    found = summary.of_answers("test", probs, truth)
    labels = [c.labels for c in cells if c.labels is not None]
    if labels:
        believed = np.concatenate([part.reshape(-1, k) for part in labels])
        support = np.concatenate([c.drawn.support_truth.ravel() for c in cells])
        found["support/acc"] = float((believed.argmax(axis=1) == support).mean())
        found["support/ece"] = calibration.ece(believed, support)
    return found


def _write_predictions(folder: Path, items: Items, cells: list[Judged]) -> None:
    k = cells[0].log_probs.shape[-1]
    header = ("annotators", "mixture", "task", "item", "truth", *(f"p_{j}" for j in range(k)))

    def lines() -> Iterable[tuple[object, ...]]:
        for cell in cells:
            probs = np.exp(cell.log_probs)
            for task, position in np.ndindex(cell.drawn.query.shape):
                item = items.name(int(cell.drawn.query[task, position]))
                truth = int(cell.drawn.query_truth[task, position])
                own = (round(float(p), 6) for p in probs[task, position])
                yield cell.n_annotators, cell.mixture, task, item, truth, *own

    results.write_csv(folder / "predictions.csv", header, lines())


def _write_annotators(folder: Path, items: Items, cells: list[Judged]) -> dict[str, float]:
    header = ("annotator", "votes", "group", "task", "expertise", "true_expertise")
    lines, learned, planted = [], [], []
    for cell in cells:
        who, true = cell.own.who, cell.own.accuracy
        given = ((cell.own.votes if cell.asked is None else cell.asked) >= 0).sum(axis=1)
        believed = np.full(true.shape, np.nan) if cell.accuracy is None else cell.accuracy
        # a task of real votes may have fewer annotators than another
        there = np.ones(true.shape, dtype=np.bool_) if who is None else who >= 0
        learned.append(believed[there])
        planted.append(true[there])
        for task, r in np.argwhere(there):
            numbers = (believed[task, r], true[task, r])
            own = ("" if np.isnan(value) else float(value) for value in numbers)
            name, group = f"r{cell.n_annotators}-m{cell.mixture}-t{task}-{r}", f"m{cell.mixture}"
            if who is not None:
                name = str((items.annotator_names or range(who.max() + 1))[who[task, r]])
                group = ""
            lines.append((name, int(given[task, r]), group, int(task), *own))
    results.write_csv(folder / "annotators.csv", header, lines)
    flat = np.concatenate(learned)
    if np.isnan(flat).all():
        return {}
    return summary.of_annotators(flat, np.concatenate(planted), None, ())


def write_plane(
    folder: Path,
    drawn: Drawn,
    votes: Ints,  # (n_tasks, n_support, R)
    support: Floats,  # (n_support, M), of the first task
    query: Floats,  # (n_query, M)
    prototypes: Floats,  # (K, M)
) -> None:
    """Write task.csv: the first task on its first two principal components.

    Of a support example, `majority` is the class that most annotators named, empty where tied.
    """
    if not all(np.isfinite(part).all() for part in (support, query, prototypes)):
        return
    k = len(prototypes)
    every = np.concatenate([support, query, prototypes])
    middle = np.concatenate([support, query])
    axes = np.linalg.svd(middle - middle.mean(axis=0), full_matrices=False)[2][:2]
    x, y = ((every - middle.mean(axis=0)) @ axes.T).T
    counts = (votes[0][..., None] == np.arange(k)).sum(axis=1)
    top = counts == counts.max(axis=1, keepdims=True)
    named = [str(row.argmax()) if row.sum() == 1 else "" for row in top]
    kind = ["support"] * len(support) + ["query"] * len(query) + ["prototype"] * k
    truth = np.concatenate([drawn.support_truth[0], drawn.query_truth[0], np.arange(k)])
    majority = named + [""] * (len(query) + k)
    lines = zip(kind, truth.tolist(), majority, x.tolist(), y.tolist(), strict=True)
    results.write_csv(folder / "task.csv", ("kind", "class", "majority", "x", "y"), lines)
