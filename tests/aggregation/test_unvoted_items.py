"""Items that nobody voted on change no annotator and no item that was voted on."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from annorun.aggregation.agreement import agreement
from annorun.aggregation.bcc import bcc
from annorun.aggregation.dawid_skene import dawid_skene
from annorun.aggregation.glad import glad
from annorun.aggregation.lfc import lfc
from annorun.aggregation.mace import mace
from annorun.aggregation.majority import majority
from annorun.aggregation.majority_by_group import majority_by_group
from annorun.aggregation.nutmeg import nutmeg
from annorun.aggregation.nutmeg_inferred import nutmeg_inferred
from annorun.aggregation.one_coin import one_coin
from annorun.aggregation.wawa import wawa
from annorun.votes import Posterior, Votes

N_ITEMS, N_ANNOTATORS = 40, 8
PLAIN = [agreement, bcc, dawid_skene, glad, lfc, majority, majority_by_group, one_coin, wawa]
DRAWN: list[tuple[Callable[..., Posterior], dict[str, Any]]] = [
    *((mace, {"inference": i, "n_restarts": 3}) for i in ("vb", "em")),
    *(
        (nutmeg, {"imputation": i, "n_restarts": 3})
        for i in ("none", "released", "naive_bayes", "joint")
    ),
    (nutmeg, {"imputation": "released", "estep": "released", "n_restarts": 3}),
    (nutmeg_inferred, {"most_groups": 2, "n_iter": 10}),
]


def of(votes: Votes, method: Callable[..., Posterior], keys: dict[str, Any]) -> Posterior:
    """Aggregate; who draws, draws the same."""
    return method(votes, **keys, **({} if method in PLAIN else {"rng": np.random.default_rng(0)}))


def spread(step: int) -> tuple[Votes, np.ndarray]:
    """Return votes on every `step`-th item, four of five for class 0, and which items these are.

    Annotators spam with favourites: what they get right by chance hangs on how frequent a class is.
    """
    rng = np.random.default_rng(1)
    truth = (rng.random(N_ITEMS) < 0.2).astype(np.int64)
    item, annotator = np.nonzero(rng.random((N_ITEMS, N_ANNOTATORS)) < 0.8)
    spam = rng.random(len(item)) < np.linspace(0.1, 0.8, N_ANNOTATORS)[annotator]
    label = np.where(spam, annotator % 2, truth[item])
    voted = step - 1 + step * np.arange(N_ITEMS)
    group = np.arange(N_ANNOTATORS) % 2
    columns = (voted[item], annotator, label)
    return Votes(*columns, N_ITEMS * step + 5, N_ANNOTATORS, 2, group=group), voted


@pytest.mark.parametrize(("method", "keys"), [*((m, {}) for m in PLAIN), *DRAWN])
def test_items_without_a_vote_change_nothing_else(
    method: Callable[..., Posterior], keys: dict[str, Any]
) -> None:
    """The same votes, alone and between three times as many items that nobody saw."""
    (dense, _), (votes, voted) = spread(1), spread(4)
    alone = Votes(*(dense.item, dense.annotator, dense.label, N_ITEMS, 8, 2), group=dense.group)
    one, more = (of(v, method, keys) for v in (alone, votes))
    of_item = ("probs", "group_probs", "disagreement")
    for key in (f.name for f in fields(Posterior)):
        got, wanted = getattr(more, key), getattr(one, key)
        if key == "trace":
            # an item without a vote adds a constant to an objective, or nothing
            continue
        if isinstance(wanted, np.ndarray):
            got = got[voted] if key in of_item else got
            np.testing.assert_allclose(got, wanted, atol=1e-9, rtol=0, err_msg=key)
        elif key != "restarts":
            assert got == wanted, key
    # annotators are not all alike, and none is without a number
    assert np.isfinite(one.accuracy).all() and np.ptp(one.accuracy) > 0.02


def test_maces_accuracy_takes_the_classes_of_the_voted_items_alone() -> None:
    """Controls that nobody voted on are known, but nobody was judged by them."""
    votes, voted = spread(2)
    base = mace(votes, rng=np.random.default_rng(0), n_restarts=2)
    known = np.ones(votes.n_items, dtype=np.int64)
    known[voted] = -1
    told = mace(votes, rng=np.random.default_rng(0), n_restarts=2, known=known)
    np.testing.assert_allclose(told.accuracy, base.accuracy, atol=1e-12)
    p = base.probs[voted].mean(axis=0)
    # accuracy = theta + (1 - theta) sum_l p_l xi_l lies between those of its two classes
    low, high = base.competence, base.competence + (1 - base.competence) * p.max()
    assert ((base.accuracy > low) & (base.accuracy < high)).all()
