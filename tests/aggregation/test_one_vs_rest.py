"""Several labels an item as questions of one label each."""

import numpy as np
import pytest

from annorun.aggregation.mace import mace
from annorun.aggregation.one_vs_rest import one_vs_rest
from annorun.votes import Votes


def test_each_label_is_a_question_to_those_who_voted() -> None:
    """By hand: annotator 0 gives item 0 labels a and c, annotator 1 gives item 1 label b."""
    votes = Votes([0, 0, 1], [0, 0, 1], [0, 2, 1], 2, 3, 3, multi_label=True)
    asked = one_vs_rest(votes)
    assert (asked.n_items, asked.n_annotators, asked.n_classes) == (6, 3, 2)
    assert not asked.multi_label
    table = asked.dense()
    assert table[:, 0].tolist() == [1, 0, 1, -1, -1, -1]
    assert table[:, 1].tolist() == [-1, -1, -1, 0, 1, 0]
    assert (table[:, 2] == -1).all()


def test_of_two_labels_it_is_the_question_and_its_opposite() -> None:
    rng = np.random.default_rng(0)
    votes = Votes(
        np.repeat(np.arange(20), 3), np.tile(np.arange(3), 20), rng.integers(2, size=60), 20, 3, 2
    )
    asked = one_vs_rest(votes).dense()
    assert (asked[1::2] == votes.dense()).all() and (asked[::2] == 1 - votes.dense()).all()


def test_who_answers_at_random_is_the_least_competent() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(4, size=300)
    said = np.stack(
        [
            np.where(rng.random(300) < p, truth, rng.integers(4, size=300))
            for p in (0.95, 0.8, 0.8, 0.0)
        ],
        axis=1,
    )
    item, annotator = np.repeat(np.arange(300), 4), np.tile(np.arange(4), 300)
    votes = Votes(item, annotator, said.ravel(), 300, 4, 4, multi_label=True)
    found = mace(one_vs_rest(votes), rng=np.random.default_rng(0)).competence
    assert found is not None and found.argmin() == 3 and found.argmax() == 0
    assert found[0] - found[3] > 0.2


def test_it_takes_votes_of_nobody() -> None:
    nobody = np.empty(0, dtype=np.int64)
    assert len(one_vs_rest(Votes(nobody, nobody, nobody, 2, 1, 3))) == 0


@pytest.mark.parametrize("n_classes", [2, 5])
def test_every_voter_answers_every_label_once(n_classes: int) -> None:
    votes = Votes([0, 1], [1, 0], [0, 1], 3, 2, n_classes, multi_label=True)
    assert len(one_vs_rest(votes)) == 2 * n_classes
