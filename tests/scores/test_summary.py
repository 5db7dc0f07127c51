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


# 6 items, of which 1, 3, 4 and 5 are voted on; nothing is alike in two places
PROBS_6 = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6], [0.35, 0.65], [0.75, 0.25]])
LABELS_6 = np.array([1, 0, 0, 1, 1, 0])
SOME = Votes(
    item=np.array([5, 3, 1, 4, 4]), annotator=np.array([0, 1, 0, 1, 2]),
    label=np.array([0, 1, 0, 1, 0]), n_items=6, n_annotators=3, n_classes=2,
    group=np.array([0, 0, 1]),
)  # fmt: skip


def test_labels_are_held_against_the_truth_of_their_own_items() -> None:
    """Known and voted are 1, 3 and 5, of truths 0, 0, 1: p of them .7, .4, .25."""
    truth = np.array([1, 0, 1, 0, -1, 1])
    told = Posterior(PROBS_6, np.ones(3), disagreement=np.array([0.9, 0.1, 0.9, 0.2, 0.3, 0.4]))
    found = of_labels(told, LABELS_6, None, SOME, truth, [])
    assert found["labels/nll"] == pytest.approx(-np.log([0.7, 0.4, 0.25]).mean())
    assert found["labels/brier"] == pytest.approx(2 * (0.3**2 + 0.6**2 + 0.75**2) / 3)
    # labels 0, 1, 0: right once, TP of class 0 one, FN one, FP one; class 1 never right
    assert found["labels/acc"] == pytest.approx(1 / 3)
    assert found["labels/macro_f1"] == pytest.approx((2 / 4 + 0) / 2)
    assert found["labels/disagreement"] == pytest.approx(0.25)


def test_each_groups_labels_are_held_against_its_own_truth() -> None:
    """Group u: truths 0, 1, 1, 0 of items 1, 3, 4, 5; v: 1, 1, unknown, 0; its p are other ones."""
    truth = np.array([[1, 1], [0, 1], [0, 0], [1, 1], [1, -1], [0, 0]])
    mine = np.array([0.5, 0.8, 0.5, 0.3, 0.55, 0.6])  # of class 0, group v
    group_probs = np.stack([PROBS_6, np.column_stack([mine, 1 - mine])], axis=1)
    by_group = group_probs.argmax(axis=2)
    told = Posterior(PROBS_6, np.ones(3), group_probs=group_probs)
    found = of_labels(told, LABELS_6, by_group, SOME, truth, ["u", "v"])
    of_u, of_v = [0.7, 0.6, 0.65, 0.75], [0.2, 0.7, 0.6]
    assert found["labels/nll_u"] == pytest.approx(-np.log(of_u).mean())
    assert found["labels/nll_v"] == pytest.approx(-np.log(of_v).mean())
    assert found["labels/nll"] == pytest.approx(-np.log(of_u + of_v).mean())
    assert (found["labels/acc_u"], found["labels/acc_v"]) == (1, pytest.approx(2 / 3))
    assert found["labels/acc"] == pytest.approx(6 / 7)
    # of the items 1, 3, 4 and 5, labels differ on 4; of those of two known truths, these on 1
    assert found["labels/disagreement_argmax"] == 0.25
    assert found["labels/disagreement_true"] == pytest.approx(1 / 3)


def test_one_label_for_all_is_held_against_each_groups_truth() -> None:
    truth = np.array([[1, 1], [0, 1], [0, 0], [1, 1], [1, 0], [0, 0]])
    found = of_labels(Posterior(PROBS_6, np.ones(3)), LABELS_6, None, SOME, truth, ["u", "v"])
    assert found["labels/nll_u"] == pytest.approx(-np.log([0.7, 0.6, 0.65, 0.75]).mean())
    assert found["labels/nll_v"] == pytest.approx(-np.log([0.3, 0.6, 0.35, 0.75]).mean())
    assert (found["labels/acc_u"], found["labels/acc_v"]) == (1, 0.5)


def test_answers_of_unknown_truth_take_their_labels_with_them() -> None:
    """Truths of items 1, 3 and 4 are known, 0, 1, 1; a rule for ties says 0, 0, 1 there."""
    truth, rule = np.array([-1, 0, -1, 1, 1, -1]), np.array([1, 0, 1, 0, 1, 1])
    drawn = of_answers("test", PROBS_6, truth)
    assert drawn["test/nll"] == pytest.approx(-np.log([0.7, 0.6, 0.65]).mean())
    assert drawn["test/acc"] == drawn["test/macro_f1"] == 1
    ruled = of_answers("test", PROBS_6, truth, labels=rule, decided=True)
    assert ruled["test/acc"] == pytest.approx(2 / 3)
    assert ruled["test/macro_f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    # labels that were drawn: the accuracy stays the expectation, F1 is of what was drawn
    half = of_answers("test", np.full((6, 2), 0.5), truth, labels=rule)
    assert (half["test/acc"], half["test/macro_f1"]) == (0.5, ruled["test/macro_f1"])
    assert ruled["test/nll"] == drawn["test/nll"]


def test_recovery_of_groups_of_unequal_size_that_lie_mixed() -> None:
    learned, planted = np.array([0.9, 0.8, 0.3, 0.1]), np.array([0.9, 0.4, 0.4, 0.3])
    found = of_annotators(learned, planted, np.array([1, 0, 1, 1]), ["u", "v"])
    assert found["annotators/mae_u"] == pytest.approx(0.4)
    assert found["annotators/mae_v"] == pytest.approx(0.3 / 3)
    assert not any(key.endswith("_u") for key in of_annotators(learned, planted, None, ["u"]))
