"""The names and numbers that a run reports of an aggregator's labels."""

import numpy as np
import pytest

from annorun.scores.summary import of_annotators, of_answers, of_labels
from annorun.votes import Posterior, Votes

# 3 items, the last without a vote; annotators 0, 1 of group 0, annotator 2 of group 1
VOTES = Votes(
    item=np.array([0, 0, 0, 1, 1]), annotator=np.array([0, 1, 2, 0, 2]),
    label=np.array([0, 0, 1, 1, 1]), n_items=3, n_annotators=3, n_classes=2,
    group=np.array([0, 0, 1]),
)  # fmt: skip
TRUTH = np.array([[0, 1], [1, 0], [0, 0]])
PROBS = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])


def posterior(**more: object) -> Posterior:
    return Posterior(PROBS, np.ones(3), trace=(1.0, 2.0), **more)  # type: ignore[arg-type]


def test_one_truth_is_judged_on_voted_items_of_known_truth() -> None:
    found = of_labels(posterior(), np.array([0, 1, 1]), None, VOTES, np.array([0, -1, 0]), [])
    assert found["labels/acc"] == 1
    assert found["labels/nll"] == pytest.approx(-np.log(0.9))
    assert (found["labels/iterations"], found["labels/converged"]) == (2, 1)


def test_one_label_an_item_is_given_to_every_group() -> None:
    """Items 0, 1 voted: labels 0, 1 against group 0's 0, 1 and group 1's 1, 0."""
    found = of_labels(posterior(), np.array([0, 1, 1]), None, VOTES, TRUTH, ["u", "v"])
    assert (found["labels/acc_u"], found["labels/acc_v"], found["labels/acc"]) == (1, 0, 0.5)
    assert found["labels/disagreement_true"] == 1
    assert "labels/disagreement_argmax" not in found


def test_labels_a_group_and_their_disagreement() -> None:
    group_probs = np.stack([PROBS, PROBS[:, ::-1]], axis=1)
    by_group = np.array([[0, 1], [1, 0], [0, 0]])
    own = posterior(group_probs=group_probs, disagreement=np.array([0.5, 1.0, 0.0]))
    found = of_labels(own, np.array([0, 1, 1]), by_group, VOTES, TRUTH, ["u", "v"])
    assert (found["labels/acc_u"], found["labels/acc_v"], found["labels/acc"]) == (1, 1, 1)
    assert found["labels/disagreement"] == 0.75
    assert found["labels/disagreement_argmax"] == 1


def test_what_is_not_estimated_is_not_judged() -> None:
    """Group 1 of item 0 has no estimate: its one pair that has is wrong."""
    group_probs = np.stack([PROBS, PROBS], axis=1)
    group_probs[0, 1] = np.nan
    by_group = np.array([[0, -1], [1, 1], [0, 0]])
    own = posterior(group_probs=group_probs, disagreement=np.array([np.nan, 0.25, 0.0]))
    found = of_labels(own, np.array([0, 1, 1]), by_group, VOTES, TRUTH, ["u", "v"])
    assert (found["labels/acc_u"], found["labels/acc_v"]) == (1, 0)
    assert found["labels/acc"] == pytest.approx(2 / 3)
    assert found["labels/disagreement"] == 0.25
    assert "labels/disagreement_argmax" not in found


def test_inferred_groups_stand_for_the_known_ones() -> None:
    """Found: annotators 0, 1 are group 1 and annotator 2 is group 0, the reverse of the names."""
    group_probs = np.stack([PROBS[:, ::-1], PROBS], axis=1)
    by_group = np.array([[1, 0], [0, 1], [0, 0]])
    own = posterior(group_probs=group_probs, group=np.array([1, 1, 0]))
    found = of_labels(own, np.array([0, 1, 1]), by_group, VOTES, TRUTH, ["u", "v"])
    assert (found["labels/acc_u"], found["labels/acc_v"]) == (1, 1)
    assert (found["annotators/rand"], found["annotators/groups"]) == (1, 2)


def test_no_votes_and_no_truth() -> None:
    empty = np.zeros(0, dtype=np.int64)
    nobody = Votes(empty, empty, empty, 3, 3, 2, group=np.array([0, 0, 1]))
    found = of_labels(posterior(), np.array([0, 1, 1]), None, nobody, TRUTH, ["u", "v"])
    assert set(found) == {"labels/iterations", "labels/converged"}
    assert np.isnan(of_answers("test", PROBS, np.full(3, -1))["test/acc"])


def test_annotators_by_group() -> None:
    learned, planted = np.array([0.9, 0.8, 0.3, 0.1]), np.array([0.9, 0.7, 0.4, 0.2])
    found = of_annotators(learned, planted, np.array([0, 0, 1, 1]), ["u", "v"])
    assert found["annotators/mae"] == pytest.approx(0.075)
    assert found["annotators/mae_u"] == pytest.approx(0.05)
    assert found["annotators/mae_v"] == pytest.approx(0.1)
