"""`annorun.fit`: any aggregator on a table in memory, in one line.

    annorun.fit(frame, "mace", n_restarts=10, seed=0).labels

The table is whatever gives its columns by name: a pandas or polars data frame, a dict of lists.
`task`, `worker` and `label` are needed, `subpopulation` (of a worker) is used where it is there;
other columns are not read. A cell is text, a number, or any other value that can be a key of a
dict; the names in the answer are these values.

A method is a function in a module of its own name in this package. The keys not given have the
defaults of its signature; the values in conf/method are those of the papers' runs and may differ.
Draws come from the children of the seed that a run draws from.

Example:
    >>> votes = {
    ...     "task": ["q1", "q1", "q1", "q2", "q2"],
    ...     "worker": ["ann", "bob", "cy", "ann", "bob"],
    ...     "label": ["yes", "yes", "no", "no", "no"],
    ... }
    >>> fitted = fit(votes, "majority")
    >>> fitted.labels, round(fitted.accuracy["cy"], 3)
    ({'q1': 'yes', 'q2': 'no'}, 0.333)
"""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annorun import aggregation
from annorun.errors import ConfigError
from annorun.seeds import rng
from annorun.votes import Floats, Ints, Posterior, Votes, group_labels, hard_labels

REQUIRED = ("task", "worker", "label")
# what pandas writes for a missing value: they equal nothing, not even themselves
MISSING = ("NAType", "NaTType")

Name = Hashable


@dataclass(frozen=True, eq=False)
class Fitted:
    """What an aggregator says, by the names in the table.

    Attributes:
        labels: the label of each task; exact ties are drawn.
        probs: (n_tasks, n_classes), rows in the order of `tasks`, columns in that of `classes`.
        accuracy: of each worker, the estimated probability of a right label.
        tasks, workers, classes: names in sorted order.
        posterior: all that the aggregator believes, by number.
        groups: the label of each task by group, where each group has a truth of its own.
    """

    labels: dict[Name, Name]
    probs: Floats
    accuracy: dict[Name, float]
    tasks: list[Name]
    workers: list[Name]
    classes: list[Name]
    posterior: Posterior
    groups: dict[Name, dict[Name, Name]] | None = None


def fit(frame: Any, method: str, *, seed: int = 0, **keys: Any) -> Fitted:
    """Aggregate a table of votes.

    Args:
        frame: columns by name, as `frame["task"]`.
        method: an aggregator: majority, dawid_skene, mace, ...
        seed: of random starts and of ties.
        keys: arguments of the aggregator.

    Raises:
        ConfigError: all that is wrong with the method, its keys and the table.
    """
    faults: list[str] = []
    function = _function(method, keys, faults)
    columns = _columns(frame, faults)
    names, votes = _votes(columns, faults) if columns else ({}, None)
    if faults or function is None or votes is None:
        raise ConfigError(*faults)
    if "rng" in inspect.signature(function).parameters:
        keys["rng"] = rng(seed, "aggregator")
    posterior: Posterior = function(votes, **keys)
    tasks, workers, classes = (names[key] for key in REQUIRED)
    labels = hard_labels(posterior.probs, rng=rng(seed, "ties"))
    return Fitted(
        labels={task: classes[k] for task, k in zip(tasks, labels.tolist(), strict=True)},
        probs=posterior.probs,
        accuracy=dict(zip(workers, posterior.accuracy.tolist(), strict=True)),
        tasks=tasks,
        workers=workers,
        classes=classes,
        posterior=posterior,
        groups=_groups(posterior, tasks, classes, names.get("subpopulation"), seed),
    )


def _function(
    method: str, keys: dict[str, Any], faults: list[str]
) -> Callable[..., Posterior] | None:
    function = _aggregator(method)
    if function is None:
        allowed = [name for name in _modules() if _aggregator(name)]
        faults.append(
            f"method={method}: unknown; allowed: {', '.join(allowed)}"
            + _nearest(str(method), allowed)
        )
        return None
    known = dict(inspect.signature(function).parameters)
    for given in ("votes", "rng"):
        known.pop(given, None)
    for key in keys:
        if key not in known:
            words = ", ".join(known) or "no key"
            faults.append(
                f"{method}.{key}: unknown key; allowed: {words}{_nearest(key, list(known))}"
            )
    for key, parameter in known.items():
        if key not in keys and parameter.default is parameter.empty:
            faults.append(f"{method}.{key}: missing; it must be given")
    return function


def _modules() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(aggregation.__path__))


def _aggregator(name: str) -> Callable[..., Posterior] | None:
    if name not in _modules():
        return None
    function = getattr(importlib.import_module(f"{aggregation.__name__}.{name}"), name, None)
    if not callable(function) or "votes" not in inspect.signature(function).parameters:
        return None
    aggregator: Callable[..., Posterior] = function
    return aggregator


def _nearest(word: str, allowed: Sequence[str]) -> str:
    match = difflib.get_close_matches(word, allowed, n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""


def _columns(frame: Any, faults: list[str]) -> dict[str, list[Any]]:
    """Return the columns as lists, none if one is absent or they differ in length."""
    # a polars frame is iterated by column, a dict and a pandas frame by name
    header = [str(name) for name in getattr(frame, "columns", frame)]
    absent = [key for key in REQUIRED if key not in header]
    for key in absent:
        shown = ", ".join(header[:20]) or "none"
        faults.append(f"no column {key!r}; there are: {shown}{_nearest(key, header)}")
    if absent:
        return {}
    wanted = [*REQUIRED, *(["subpopulation"] if "subpopulation" in header else [])]
    # tolist: Python's own numbers and texts instead of numpy's
    columns = {
        key: frame[key].tolist() if hasattr(frame[key], "tolist") else list(frame[key])
        for key in wanted
    }
    sizes = {key: len(cells) for key, cells in columns.items()}
    if len(set(sizes.values())) > 1:
        faults.append(f"the columns differ in length: {sizes}")
        return {}
    if not sizes["task"]:
        faults.append("no votes: the table has no row")
        return {}
    return columns


def _votes(
    columns: dict[str, list[Any]], faults: list[str]
) -> tuple[dict[str, list[Name]], Votes | None]:
    """Return the names of each column in sorted order, and the votes."""
    usable = [_usable(key, cells, faults) for key, cells in columns.items()]
    rows = np.flatnonzero(np.logical_and.reduce(usable))
    names: dict[str, list[Name]] = {}
    codes: dict[str, Ints] = {}
    for key, cells in columns.items():
        used = cells if len(rows) == len(cells) else [cells[row] for row in rows.tolist()]
        names[key] = _in_order(set(used))
        place = {name: k for k, name in enumerate(names[key])}
        codes[key] = np.fromiter(map(place.__getitem__, used), np.int64, len(used))
    task, worker, label = (codes[key] for key in REQUIRED)
    again = np.ones(len(rows), dtype=np.bool_)
    again[np.unique(task * len(names["worker"]) + worker, return_index=True)[1]] = False
    _note(rows[again], columns, "labelled this task before; one vote a task and worker", faults)
    group = None
    if "subpopulation" in codes:
        _, first = np.unique(worker, return_index=True)
        group = codes["subpopulation"][first]
        differs = group[worker] != codes["subpopulation"]
        _note(rows[differs], columns, "has another subpopulation; one a worker", faults)
    # with other faults this may be untrue: a faulty row may hold the class that is missed
    if not faults and len(names["label"]) < 2:
        faults.append(f"every label is {names['label'][0]!r}; at least 2 classes are needed")
    if faults:
        return names, None
    n_items, n_annotators, n_classes = (len(names[key]) for key in REQUIRED)
    return names, Votes(task, worker, label, n_items, n_annotators, n_classes, group)


def _usable(key: str, cells: list[Any], faults: list[str]) -> NDArray[np.bool_]:
    with suppress(TypeError):  # a cell that has no hash is found below
        # a look at each different cell is far cheaper than one at each cell
        if all(map(_is_name, set(cells))):
            return np.ones(len(cells), dtype=np.bool_)
    known = np.fromiter(map(_is_name, cells), np.bool_, len(cells))
    rows = np.flatnonzero(~known)
    if len(rows):
        faults.append(
            f"column {key}: {len(rows)} cells are missing or cannot be names, the first in row "
            f"{rows[0]} ({cells[rows[0]]!r}); every row needs one"
        )
    return known


def _is_name(cell: Any) -> bool:
    if cell is None or type(cell).__name__ in MISSING:
        return False
    try:
        hash(cell)
    except TypeError:
        return False
    return bool(cell == cell) and cell != ""


def _note(rows: Ints, columns: dict[str, list[Any]], words: str, faults: list[str]) -> None:
    if len(rows):
        row = int(rows[0])
        faults.append(
            f"rows: {len(rows)}, the first is row {row} (task {columns['task'][row]!r}): worker "
            f"{columns['worker'][row]!r} {words} is allowed"
        )


def _in_order(names: set[Any]) -> list[Name]:
    try:
        return sorted(names)
    except TypeError:  # text and numbers in one column
        return sorted(names, key=lambda name: (type(name).__name__, repr(name)))


def _groups(
    posterior: Posterior,
    tasks: list[Name],
    classes: list[Name],
    names: list[Name] | None,
    seed: int,
) -> dict[Name, dict[Name, Name]] | None:
    """Return each group's labels of the tasks on which its truth is estimated."""
    labels = group_labels(posterior, rng=rng(seed, "group_ties"))
    if labels is None:
        return None
    found: dict[Name, dict[Name, Name]] = {}
    for group, column in enumerate(labels.T.tolist()):
        # groups that were inferred have numbers
        name = group if names is None or posterior.group is not None else names[group]
        found[name] = {task: classes[k] for task, k in zip(tasks, column, strict=True) if k >= 0}
    return found
