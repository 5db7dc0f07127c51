"""`annorun.fit`: any aggregator on a table in memory, in one line.

    annorun.fit(frame, "mace", n_restarts=10, seed=0).labels

The table is whatever gives its columns by name: a pandas or polars data frame, a dict of lists.
`task`, `worker` and `label` are needed; `subpopulation` (of a worker) and `control` (of a task: its
label, told to the aggregator as the truth; empty where there is none) are used where they are
there; other columns are not read. A cell is text, a number, or any other value that can be a key of
a dict; the names in the answer are these values.

A method is a function in a module of its own name in `annorun.aggregation`. The keys not given have
the defaults of its signature, and the values of the others are held to its rules; the values in
conf/method are those of the papers' runs and may differ. Draws come from the children of the seed
that a run draws from.

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

import importlib
import pkgutil
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from annorun import aggregation
from annorun.errors import ConfigError
from annorun.frame_table import REQUIRED, read
from annorun.seeds import rng
from annorun.signature import fault, nearest, parameters
from annorun.votes import Floats, Posterior, group_labels, hard_labels

# what the table and the seed give
GIVEN = ("votes", "rng", "known")

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
    # numpy's numbers and lists are as good as Python's
    keys = {k: v.tolist() if isinstance(v, np.generic | np.ndarray) else v for k, v in keys.items()}
    faults: list[str] = []
    takes = _checked(method, keys, faults)
    table = read(frame, faults)
    if takes and table and table.known is not None and "known" not in takes:
        faults.append(
            f"method={method}: uses no control items, and the data have some; "
            "allowed is a method that does, such as mace, or a table without the column 'control'"
        )
    if faults or table is None:
        raise ConfigError(*faults)
    given = {"rng": rng(seed, "aggregator"), "known": table.known}
    function = getattr(importlib.import_module(f"{aggregation.__name__}.{method}"), method)
    posterior: Posterior = function(
        table.votes, **keys, **{key: value for key, value in given.items() if key in takes}
    )
    tasks, workers, classes = (table.names[key] for key in REQUIRED)
    labels = hard_labels(posterior.probs, rng=rng(seed, "ties"))
    return Fitted(
        labels={task: classes[k] for task, k in zip(tasks, labels.tolist(), strict=True)},
        probs=posterior.probs,
        accuracy=dict(zip(workers, posterior.accuracy.tolist(), strict=True)),
        tasks=tasks,
        workers=workers,
        classes=classes,
        posterior=posterior,
        groups=_groups(posterior, tasks, classes, table.names.get("subpopulation"), seed),
    )


def _checked(method: str, keys: dict[str, Any], faults: list[str]) -> list[str]:
    """Return all that the aggregator takes, and note the keys and values that it does not."""
    target = _target(method)
    if target is None:
        allowed = [name for name in _modules() if _target(name)]
        faults.append(
            f"method={method}: unknown; allowed: {', '.join(allowed)}"
            + nearest(str(method), allowed)
        )
        return []
    known = {k: v for k, v in parameters(target).items() if k not in GIVEN}
    for key, value in keys.items():
        if key == "known":
            faults.append(
                f"{method}.known: unknown key; allowed is a column 'control' of the table, with "
                "the labels of the control tasks"
            )
        elif key not in known:
            words = ", ".join(known) or "no key"
            faults.append(
                f"{method}.{key}: unknown key; allowed: {words}{nearest(key, list(known))}"
            )
        elif wanted := fault(value, known[key].annotation):
            faults.append(f"{method}.{key}={value!r}: allowed is {wanted}")
    for key, parameter in known.items():
        if key not in keys and parameter.required:
            faults.append(f"{method}.{key}: missing; it must be given")
    return list(parameters(target))


def _modules() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(aggregation.__path__))


def _target(name: str) -> str | None:
    """Return the dotted name of an aggregator, None where there is no such one."""
    if name not in _modules():
        return None
    target = f"{aggregation.__name__}.{name}.{name}"
    try:
        return target if "votes" in parameters(target) else None
    except ConfigError:
        return None


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
