"""Target tasks whose support the data's own annotators have labelled; numpy only.

Kumagai et al., arXiv 2506.10259, 5 and Table 2: LabelMe's workers label the support of target
tasks.

Deviations from the paper:

1. Theirs are tasks of all eight classes, after training on images of another data set. Here the
   data's classes are parted, so that one set of features is enough: K classes, drawn by
   `data_seed`, are those of all target tasks, training tasks are of the others. Validation tasks
   are of the training classes, other items.
2. A vote for a class that is not of the task is none, and an item that then has no vote is left
   out. What is left is right more often than the crowd: the votes that are dropped are all wrong.
   An annotator's accuracy is over what is left, as his matrix over the task's classes is.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from annorun.episodes import Drawn
from annorun.errors import ConfigError
from annorun.scores import recovery
from annorun.votes import Floats, Ints, Items, Votes

# the part of the data that supports of target tasks come from
VOTED = "voted"


class Annotated(NamedTuple):
    """Who labelled the support of target tasks, and how.

    Attributes:
        votes: (n_tasks, n_support, R), -1: no vote; R is the most annotators that a task has.
        who: (n_tasks, R) their numbers in the data, -1 beyond those of a task; None: simulated.
        accuracy: (n_tasks, R) how often each is right, in all votes of `apart`, or as planted.
    """

    votes: Ints
    who: Ints | None
    accuracy: Floats


def apart(items: Items, votes: Votes, way: int, rng: np.random.Generator) -> tuple[Items, Votes]:
    """Return the data with the classes parted, and the votes that target tasks can use.

    The parts: "train", items of the other classes; "voted", train items of the target classes that
    have a vote for one of these; "test", test items of the target classes; "" are left out.

    Raises:
        ConfigError: nobody has voted, or there are fewer than 2 `way` classes.
    """
    assert items.truth is not None  # `check` holds: needs truth
    if not len(votes.item):
        raise ConfigError(
            "method.episodes.real=true: the data have no votes of their own; allowed is false"
        )
    if items.n_classes < 2 * way:
        raise ConfigError(
            f"method.episodes.way={way}: with method.episodes.real=true the data's "
            f"{items.n_classes} classes are for target tasks or for training tasks; allowed is "
            f"{items.n_classes // 2} at most"
        )
    target = np.zeros(items.n_classes, dtype=np.bool_)
    target[rng.choice(items.n_classes, way, replace=False)] = True
    train, test, known = items.split == "train", items.split == "test", items.truth >= 0
    wanted = known & target[items.truth]
    kept = target[votes.label] & (train & wanted)[votes.item]
    columns = {k: getattr(votes, k)[kept] for k in ("item", "annotator", "label")}
    own = replace(votes, **columns, explanation=None)
    voted = np.bincount(own.item, minlength=len(items)) > 0
    split = np.select([train & known & ~wanted, voted, test & wanted], ["train", VOTED, "test"], "")
    return replace(items, split=split), own


def labelled(votes: Votes, items: Items, drawn: Drawn) -> Annotated:
    """Return the votes on the support of tasks, a task's annotators side by side."""
    assert items.truth is not None
    own = votes.dense()[drawn.support]
    n_voted = (own >= 0).sum(axis=1)
    # those with the most votes first; nobody beyond the task with the most annotators
    order = np.argsort(-n_voted, axis=1, kind="stable")[:, : int((n_voted > 0).sum(axis=1).max())]
    given = np.take_along_axis(own, order[:, None, :], axis=2)
    # a task's classes are numbered 0 to K - 1
    shots = drawn.support.shape[1] // drawn.classes.shape[1]
    kinds = items.truth[drawn.support[:, ::shots]]
    label = np.argmax(given[..., None] == kinds[:, None, None, :], axis=-1)
    there = np.take_along_axis(n_voted, order, axis=1) > 0
    known = recovery.empirical_accuracy(votes, items.truth)
    return Annotated(
        np.where(given >= 0, label, -1),
        np.where(there, order, -1),
        np.where(there, known[order], np.nan),
    )
