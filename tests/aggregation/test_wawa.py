"""Wawa against a derivation by hand, a slow reference and its limits."""

import doctest
from collections import Counter

import numpy as np

from annorun.aggregation import wawa as module
from annorun.aggregation.majority import majority
from annorun.aggregation.wawa import agreement, wawa
from annorun.votes import Votes


def crowd(seed=0, n_items=200, n_annotators=8, n_classes=3):
    rng = np.random.default_rng(seed)
    truth = rng.integers(n_classes, size=n_items)
    item, annotator = np.nonzero(rng.random((n_items, n_annotators)) < 0.6)
    right = rng.random(len(item)) < np.linspace(0.2, 0.95, n_annotators)[annotator]
    label = np.where(right, truth[item], rng.integers(n_classes, size=len(item)))
    return Votes(item, annotator, label, n_items, n_annotators, n_classes), truth


def test_by_hand():
    """Items 0, 1, 2 got 0 0 1, 1 1 0, 0 - 1 of annotators 0, 1, 2; item 3 nothing.

    Top labels: {0}, {1}, {0, 1}. Annotator 0 agrees (1 + 1 + 1/2) / 3 = 5/6, annotator 1 in both,
    annotator 2 (0 + 0 + 1/2) / 3 = 1/6. Item 0: (5/6 + 1) / 2; item 1: (1/6) / 2 for label 0; item
    2: 5/6. All votes weigh 5, those for label 0 11/6 + 1/6 + 5/6 = 17/6.
    """
    votes = Votes(
        [0, 0, 0, 1, 1, 1, 2, 2], [0, 1, 2, 0, 1, 2, 0, 2], [0, 0, 1, 1, 1, 0, 0, 1], 4, 3, 2
    )
    got = wawa(votes)
    np.testing.assert_allclose(got.accuracy, [5 / 6, 1, 1 / 6], atol=1e-15)
    np.testing.assert_allclose(got.probs[:, 0], [11 / 12, 1 / 12, 5 / 6, 17 / 30], atol=1e-15)
    assert got.trace == () and got.confusion is None


def test_equals_the_slow_reference():
    votes, _ = crowd(n_items=40)
    rows = list(
        zip(votes.item.tolist(), votes.annotator.tolist(), votes.label.tolist(), strict=True)
    )
    tops = {}
    for i in range(40):
        count = Counter(z for j, _, z in rows if j == i)
        tops[i] = [z for z, n in count.items() if n == max(count.values())]
    skill = {}
    for a in range(8):
        mine = [(z in tops[i]) / len(tops[i]) for i, b, z in rows if b == a]
        skill[a] = sum(mine) / len(mine)
    got = wawa(votes)
    np.testing.assert_allclose(got.accuracy, [skill[a] for a in range(8)], atol=1e-14)
    assert any(len(top) > 1 for top in tops.values())
    for i in range(40):
        weight = [sum(skill[a] for j, a, z in rows if (j, z) == (i, k)) for k in range(3)]
        if sum(weight):
            np.testing.assert_allclose(got.probs[i], np.array(weight) / sum(weight), atol=1e-14)


def test_annotators_who_agree_alike_weigh_alike():
    """Everybody errs on one item of his own: all agree by 4/5, shares are the majority's."""
    item, annotator = np.divmod(np.arange(25), 5)
    votes = Votes(item, annotator, (item == annotator).astype(int), 5, 5, 2)
    np.testing.assert_allclose(agreement(votes), 0.8, atol=1e-15)
    np.testing.assert_allclose(wawa(votes).probs, majority(votes).probs, atol=1e-15)


def test_spammers_lose_their_say():
    votes, truth = crowd(n_items=4000)
    got = wawa(votes)
    assert (np.diff(got.accuracy) > 0).all()
    right = (got.probs.argmax(axis=1) == truth).mean()
    assert right > (majority(votes).probs.argmax(axis=1) == truth).mean() + 0.01


def test_docstring_example():
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0
