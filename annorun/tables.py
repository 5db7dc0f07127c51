"""Rows to a table: mean and standard deviation over seeds, beside what was published.

Reads rows (row.json), never a tracker. A cell is one setting of the table's keys; its runs differ
by seed. Accuracies and other scores are shown as they are stored, in [0, 1].
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annorun import results
from annorun.scores.significance import corrected_resampled_t, holm, paired_bootstrap, sign_flip

Key = tuple[str, ...]
HEADER = ("ours", "std", "over", "seeds", "missing", "failed", "paper", "difference")
COMPARED = ("metric", "difference", "mean", "pairs", "p", "p (Holm)", "95 %")
# what of a written response counts for a metric
BY_ITEM: dict[str, Callable[[dict[str, str]], bool]] = {
    "attribution/acc_clean_bag1": lambda line: line["judged"] == line["target"],
    "test/label_acc": lambda line: line["agrees"] == "1",
}
UNKNOWN = "not published in our sources"
# what each value of a setting stands for, where a cell's runs differ in it
UNITS = {"data_seed": "data seeds", "seed": "training seeds", "dataset.fold": "folds"}


@dataclass(frozen=True)
class Cell:
    """One line of a table.

    Attributes:
        key: values of the table's keys.
        values: one finished run each.
        missing, failed: runs without a row.
        paper: the published value; UNKNOWN where the paper has the cell and we could not read it;
            None where the paper has no such cell.
        over: what the finished runs differ in, from `spread`.
    """

    key: Key
    values: tuple[float, ...] = ()
    missing: int = 0
    failed: int = 0
    paper: float | str | None = None
    over: str = ""

    @property
    def mean(self) -> float | None:
        """Mean over the finished runs."""
        return float(np.mean(self.values)) if self.values else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the finished runs; None below two."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        known = isinstance(self.paper, float) and self.values
        return self.mean - self.paper if known else None  # type: ignore[operator]


def key_of(config: dict[str, Any], names: Sequence[str]) -> Key:
    """Return the values of a table's keys for one run's plain config.

    A key is a group, or the path of a value: `dataset.divisiveness`, `annotator_dist.spam.0`. What
    the run's config does not have is empty.
    """
    choices = config["choices"]
    return tuple(choices[n] if n in choices else word(_value(config, n)) for n in names)


def _value(node: Any, path: str) -> Any:
    for part in path.split("."):
        node = node[int(part)] if isinstance(node, list) else (node or {}).get(part)
    return node


def word(value: Any) -> str:
    """Return a config's value as a table shows it: 0, 0.0 and 0.00 are one number."""
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)


def published(path: Path, names: Sequence[str], metric: str = "value") -> dict[Key, float | str]:
    """Read expected/NAME.csv: the keys and a column a metric, or `value` where there is but one.

    An empty value is one that we could not read. Under fewer keys than the file has, a cell is the
    mean over the others, as it is of our runs.
    """
    found: dict[Key, list[str]] = {}
    for row in results.read_csv(path) if path.is_file() else []:
        column = metric if metric in row else "value"
        if column in row and row.keys() >= set(names):
            found.setdefault(tuple(row[n] for n in names), []).append(row[column])
    return {
        key: float(np.mean([float(v) for v in values])) if all(values) else UNKNOWN
        for key, values in found.items()
    }


def spread(settings: Sequence[Mapping[str, str]]) -> str:
    """Return what a cell's runs differ in, as `3 data seeds x 2 training seeds`; empty for one run.

    Args:
        settings: of each run, the values of the settings that may differ within a cell.
    """
    if len(settings) < 2:
        return ""
    names = list(settings[0])
    counts = {n: len({s[n] for s in settings}) for n in names}
    factors = [n for n in names if counts[n] > 1]
    words = [f"{counts[n]} {UNITS.get(n, n)}" for n in factors]
    runs = {tuple(s[n] for n in factors) for s in settings}
    if len(runs) == math.prod(counts[n] for n in factors):
        return " x ".join(words)
    # not every value with every other, such as seeds that go by pairs
    return f"{len(runs)} runs of {' and '.join(words)}"


def collect(
    runs: Sequence[tuple[Key, Path]],
    metric: str,
    expected: dict[Key, float | str],
    settings: Mapping[Path, Mapping[str, str]] | None = None,
) -> list[Cell]:
    """Return the table's cells, ours in the order of the runs, then those only the paper has.

    Args:
        runs: the key and the folder of every run that the sweep asks for.
        metric: a name in row.json's metrics.
        expected: from `published`.
        settings: of each folder, what runs of one cell may differ in.
    """
    found: dict[Key, dict[str, Any]] = {}
    # two sweep files of one table may ask for the same run
    for key, folder in dict.fromkeys(runs):
        cell = found.setdefault(key, {"values": [], "settings": [], "missing": 0, "failed": 0})
        state = results.state(folder)
        value = results.read_row(folder)["metrics"].get(metric) if state == "done" else None
        if value is not None:
            cell["values"].append(value)
            cell["settings"].append((settings or {}).get(folder, {}))
        else:
            cell["failed" if state == "failed" else "missing"] += 1
    ours = [
        Cell(
            key,
            tuple(c["values"]),
            c["missing"],
            c["failed"],
            expected.get(key),
            spread(c["settings"]),
        )
        for key, c in found.items()
    ]
    return ours + [Cell(key, paper=value) for key, value in expected.items() if key not in found]


def by_bag(
    names: Sequence[str], cells: dict[str, list[Cell]]
) -> tuple[list[str], dict[str, list[Cell]]]:
    """Return metrics `NAME_VIEW_bagB` as NAME, with `view` and `bag` for two more keys of a cell.

    Others are left out.
    """
    found: dict[str, list[Cell]] = {}
    for metric, own in cells.items():
        if parts := re.fullmatch(r"(.+)_([^_]+)_bag(\d+)", metric):
            name, *more = parts.groups()
            found.setdefault(name, []).extend(replace(c, key=(*c.key, *more)) for c in own)
    return [*names, "view", "bag"], found


def compare(
    runs: Sequence[tuple[Key, Path]],
    names: Sequence[str],
    metric: str,
    base: dict[str, str],
    folds: str | None = None,
    test_share: float = 0.0,
) -> list[list[str]]:
    """Return how runs that have the values of `base` differ from those that do not.

    A pair of runs has the other keys of the table and both seeds in common. Of runs over target
    tasks, `test/acc` is paired by task: its mean over annotators, mixtures and the table's other
    keys. p then speaks of these tasks, not of other classes or of how the networks came out. Of
    runs that write, what `BY_ITEM` has is paired by test item: the mean over annotators, decodings
    and seeds, for each value of the other keys by itself. The interval, over tasks or items, is the
    paired bootstrap's.

    Args:
        runs: the key and the folder of every run.
        names: of the keys.
        metric: a name in row.json's metrics.
        base: keys and their values, such as method: nutmeg.
        folds: the key that is a fold of cross-validation: p is of the corrected resampled t-test,
            for each value of the other keys by itself.
        test_share: of that test.
    """
    at = [i for i, name in enumerate(names) if name in base]
    scores: dict[Key, dict[tuple[object, ...], list[float]]] = {}
    for key, folder in dict.fromkeys(runs):
        if results.state(folder) == "done":
            own = scores.setdefault(tuple(key[i] for i in at), {})
            rest = tuple(value for i, value in enumerate(key) if i not in at)
            for place, score in _scores(folder, metric).items():
                own.setdefault((*rest, *place), []).append(score)
    # runs that differ in none of the table's keys are one
    found = {k: {p: float(np.mean(v)) for p, v in own.items()} for k, own in scores.items()}
    asked = tuple(base[names[i]] for i in at)
    mine, rows, rng = found.pop(asked, {}), [], np.random.default_rng(0)
    others = [name for name in names if name not in base]
    at_fold = others.index(folds) if folds is not None else None
    for value, other in found.items():
        for beside, (difference, kind) in _paired(mine, other, at_fold).items():
            if len(difference) < 2:
                # of one pair p is always 1
                continue
            if folds is None:
                p = sign_flip(difference, rng=rng)
            else:
                p = corrected_resampled_t(difference, test_share)
            words = " - ".join(" ".join(filter(None, part)) for part in (asked, value))
            words += f" ({', '.join(beside)})" if beside else ""
            interval = ""
            if kind in ("tasks", "items"):
                ends = paired_bootstrap(difference, rng=rng)
                interval = " to ".join(_number(end, sign=True) for end in ends)
            rows.append((words, float(difference.mean()), f"{len(difference)} {kind}", interval, p))
    adjusted = holm([p for *_, p in rows])
    return [
        [metric, words, _number(mean, sign=True), pairs, _number(p), _number(q), interval]
        for (words, mean, pairs, interval, p), q in zip(rows, adjusted, strict=True)
    ]


def _paired(
    mine: dict[tuple[object, ...], float],
    other: dict[tuple[object, ...], float],
    at_fold: int | None,
) -> dict[tuple[str, ...], tuple[NDArray[np.float64], str]]:
    """Return the differences, and of what they are, by the values of the keys that set tests apart.

    A place is the other keys' values, both seeds, and the task or item with its kind.
    """
    found: dict[tuple[str, ...], dict[tuple[object, ...], list[float]]] = {}
    for place in (p for p in other if p in mine):
        # a task under other shots, say, is not another task
        beside: tuple[str, ...] = ()
        unit = place[-3:] if place[-1] is not None else place
        if at_fold is not None:
            unit = (place[at_fold], *place[-3:])
            beside = tuple(str(v) for i, v in enumerate(place[:-3]) if i != at_fold)
        elif _kind(unit) == "items":
            # one item under several seeds is one item
            unit, beside = place[-1:], tuple(map(str, place[:-3]))
        found.setdefault(beside, {}).setdefault(unit, []).append(mine[place] - other[place])
    kinds = {b: _kind(next(iter(u))) for b, u in found.items()}
    return {
        beside: (
            np.array([float(np.mean(own)) for own in units.values()]),
            kinds[beside] if at_fold is None else "folds",
        )
        for beside, units in found.items()
    }


def _kind(unit: tuple[object, ...]) -> str:
    """Return what a pair is of: runs, tasks or items."""
    return unit[-1][0] if isinstance(unit[-1], tuple) else "runs"


def _scores(folder: Path, metric: str) -> dict[tuple[object, ...], float]:
    """Return a run's scores by seed, data seed and (kind, task or item), None for a whole run."""
    row = results.read_row(folder)
    seeds = (row["seed"], row["data_seed"])
    if metric == "test/acc" and (folder / "tasks.csv").is_file():
        scored = [
            ("tasks", line["task"], float(line["acc"]))
            for line in results.read_csv(folder / "tasks.csv")
        ]
    elif metric in BY_ITEM and (folder / "responses.csv").is_file():
        scored = [
            ("items", line["item"], float(BY_ITEM[metric](line)))
            for line in results.read_csv(folder / "responses.csv")
        ]
    else:
        return {(*seeds, None): row["metrics"][metric]} if metric in row["metrics"] else {}
    found: dict[tuple[object, ...], list[float]] = {}
    for kind, name, score in scored:
        found.setdefault((*seeds, (kind, name)), []).append(score)
    return {place: float(np.mean(own)) for place, own in found.items()}


def lines(cells: Sequence[Cell]) -> list[list[str]]:
    """Return the cells as text, in the columns of HEADER after the keys."""
    return [
        [
            *cell.key,
            _number(cell.mean),
            _number(cell.std),
            cell.over,
            str(len(cell.values)),
            str(cell.missing),
            str(cell.failed),
            cell.paper if isinstance(cell.paper, str) else _number(cell.paper),
            _number(cell.difference, sign=True),
        ]
        for cell in cells
    ]


def _number(value: float | None, sign: bool = False) -> str:
    return "" if value is None else f"{value:+.4f}" if sign else f"{value:.4f}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, its columns aligned for a person who reads the source."""
    table = [list(header), *[list(row) for row in rows]]
    widths = [max(3, *(len(row[i]) for row in table)) for i in range(len(header))]
    text = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in table
    ]
    text.insert(1, "| " + " | ".join("-" * w for w in widths) + " |")
    return "\n".join(text)
