"""Two clauses: who reads what, feelings on their circle, and where the second clause begins."""

from typing import Any

import numpy as np
import pytest

from annorun.dataset.two_clauses import WORDS, two_clauses
from annorun.errors import ConfigError

NAMES = list(WORDS)
KEYS: dict[str, Any] = {
    "feelings": "opposite",
    "n_items": 200,
    "n_annotators": 10,
    "per_item": 5,
    "folds": 5,
    "fold": 0,
}


def make(seed: int = 0, **keys: Any):
    return two_clauses(rng=np.random.default_rng(seed), **{**KEYS, **keys})


def feeling(clause: str) -> int:
    """Return the feeling of a clause, by its word."""
    (found,) = (k for k, name in enumerate(NAMES) if set(clause.strip(" .").split()) & words(name))
    return found


def words(name: str) -> set[str]:
    return set(WORDS[name].split()) | {f"{w}{end}" for w in WORDS[name].split() for end in ",;"}


@pytest.mark.parametrize("feelings", ["opposite", "adjacent"])
def test_annotators_say_what_their_clause_says(feelings: str) -> None:
    items, votes = make(feelings=feelings)
    clauses = [
        (text[:second], text[second:])
        for text, second in zip(items.inputs["text"], items.inputs["second"], strict=True)
    ]
    felt = np.array([[feeling(c) for c in pair] for pair in clauses])
    apart = (felt[:, 1] - felt[:, 0]) % 4
    assert set(apart.tolist()) == ({2} if feelings == "opposite" else {1, 3})
    assert np.array_equal(felt, items.inputs["felt"])
    assert votes.group.tolist() == [0] * 5 + [1] * 5
    for part in (votes, items.held_out):
        assert len(part) and (part.label == felt[part.item, part.group[part.annotator]]).all()
    assert len(set(items.inputs["text"])) == 200
    assert all(text[0].isupper() and text.endswith(".") for text in items.inputs["text"])


def test_votes_of_test_items_are_held_out_and_none_is_lost() -> None:
    items, votes = make()
    test = items.split == "test"
    assert test.sum() == 40
    assert not test[votes.item].any() and test[items.held_out.item].all()
    counts = np.bincount(np.concatenate([votes.item, items.held_out.item]))
    assert (counts == 5).all()
    # either clause makes the label, about as often
    together = votes.counts() + items.held_out.counts()
    first = [np.bincount(votes.group[votes.annotator[votes.item == i]])[0] for i in votes.item]
    assert 0.3 < np.mean(np.array(first) >= 3) < 0.7
    assert ((together > 0).sum(axis=1) <= 2).all()
    assert np.array_equal(together.argmax(axis=1), items.truth)


def test_folds_share_everything_but_the_split() -> None:
    (one, _), (other, _), (repeat, _) = make(), make(fold=1), make(seed=1)
    assert one.inputs["text"] == other.inputs["text"] != repeat.inputs["text"]
    assert not ((one.split == "test") & (other.split == "test")).any()


@pytest.mark.parametrize(
    "keys", [{"n_annotators": 9}, {"per_item": 4}, {"per_item": 11}, {"n_items": 10**6}]
)
def test_numbers_out_of_range(keys: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(keys))):
        make(**keys)
