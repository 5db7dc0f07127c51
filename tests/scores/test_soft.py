"""Distances between distributions, by hand and against slow definitions; who is counted."""

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.stats import spearmanr

from annorun.scores import soft
from annorun.votes import Votes

LN2, LN3 = np.log(2), np.log(3)


def random_rows(seed: int, n: int = 20, k: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(k) / 2, n), rng.dirichlet(np.ones(k) / 2, n)


def test_jsd_by_hand_in_nats():
    """P = (1, 0), q = (1/2, 1/2): m = (3/4, 1/4).

    KL(p || m) = ln 4/3; KL(q || m) = 1/2 ln 2/3 + 1/2 ln 2 = 1/2 ln 4/3; half the sum is
    3/4 ln 4/3 = .2158. Disjoint: ln 2, the greatest there is (1 in bits; its root would be .833).
    """
    p = np.array([[1.0, 0.0], [1.0, 0.0], [0.3, 0.7]])
    q = np.array([[0.5, 0.5], [0.0, 1.0], [0.3, 0.7]])
    assert soft.jsd(p, q) == pytest.approx([0.75 * np.log(4 / 3), LN2, 0], abs=1e-15)
    np.testing.assert_allclose(soft.jsd(p, q), soft.jsd(q, p))


def test_manhattan_is_a_sum_over_the_classes_and_wasserstein_knows_their_order():
    """All of it two classes further: 2 and 2; half of it one class: 1 and 1/2."""
    p = np.array([[1.0, 0, 0], [1.0, 0, 0], [0.5, 0.5, 0], [1.0, 0, 0]])
    q = np.array([[0, 0, 1.0], [0, 1.0, 0], [0, 1.0, 0], [0.5, 0, 0.5]])
    assert soft.manhattan(p, q).tolist() == [2, 2, 1, 1]
    assert soft.wasserstein(p, q).tolist() == [2, 1, 0.5, 1]


def test_wasserstein_is_the_cheapest_transport():
    """The linear program of optimal transport with cost |i - j|, solved."""
    p, q = random_rows(0, n=6, k=4)
    cost = np.abs(np.subtract.outer(np.arange(4), np.arange(4))).ravel()
    moves = np.arange(16).reshape(4, 4)
    leave, arrive = np.zeros((4, 16)), np.zeros((4, 16))
    for k in range(4):
        leave[k, moves[k]] = arrive[k, moves[:, k]] = 1
    for i in range(6):
        best = linprog(cost, A_eq=np.vstack([leave, arrive]), b_eq=np.concatenate([p[i], q[i]]))
        assert soft.wasserstein(p, q)[i] == pytest.approx(best.fun, abs=1e-9)


def test_an_empty_bin_changes_nothing_and_a_permutation_only_wasserstein():
    p, q = random_rows(1)
    wide = [np.insert(x, 0, 0, axis=1) for x in (p, q)]
    mixed = [x[:, [3, 0, 4, 1, 2]] for x in (p, q)]
    for measure in (soft.jsd, soft.manhattan, soft.wasserstein, soft.cross_entropy):
        np.testing.assert_allclose(measure(*wide), measure(p, q), atol=1e-12)
        same = np.allclose(measure(*mixed), measure(p, q))
        assert same == (measure is not soft.wasserstein)


def test_cross_entropy_by_hand_and_with_a_class_thought_impossible():
    """Q = (1/2, 1/2), p = (1/4, 3/4): -(ln 1/4 + ln 3/4) / 2 = ln 4 - ln 3 / 2."""
    p = np.array([[0.25, 0.75], [1.0, 0.0]])
    q = np.array([[0.5, 0.5], [0.0, 1.0]])
    assert soft.cross_entropy(p, q) == pytest.approx([2 * LN2 - LN3 / 2, -np.log(1e-12)])


def test_entropy_correlation_sees_where_it_is_unsure_and_not_what_it_says():
    """Entropies 0, ln 2, ln 2 against the same of other classes: 1; against ln 2, 0, 0: -1."""
    p = np.array([[1, 0], [0.5, 0.5], [0.5, 0.5]])
    assert soft.entropy_correlation(p, p[:, ::-1]) == pytest.approx(1)
    assert soft.entropy_correlation(p, p[[1, 0, 0]]) == pytest.approx(-1)
    assert np.isnan(soft.entropy_correlation(p, np.full((3, 2), 0.5)))
    p, q = random_rows(2)
    entropy = [-(x * np.log(x)).sum(axis=1) for x in (p, q)]
    assert soft.entropy_correlation(p, q) == pytest.approx(np.corrcoef(*entropy)[0, 1])


def test_kl_is_what_cross_entropy_costs_beyond_the_least_there_is():
    """Of (1/2, 1/2) from (1/4, 3/4): ln 2 - ln 3 / 2; of a row from itself 0."""
    p, q = np.array([[0.25, 0.75], [1.0, 0.0]]), np.array([[0.5, 0.5], [1.0, 0.0]])
    assert soft.kl(p, q) == pytest.approx([LN2 - LN3 / 2, 0])
    p, q = random_rows(3)
    both = zip(p, q, strict=True)
    slow = [sum(b * np.log(b / a) for a, b in zip(x, y, strict=True)) for x, y in both]
    np.testing.assert_allclose(soft.kl(p, q), slow)


def test_entropy_rank_correlation_is_spearmans_with_ties():
    p, q = random_rows(4)
    p[3], p[5] = p[7][::-1], p[7]  # entropies that tie, but for rounding
    entropy = [-(x * np.log(x)).sum(axis=1).round(9) for x in (p, q)]
    assert soft.entropy_rank_correlation(p, q) == pytest.approx(spearmanr(*entropy)[0])
    assert np.isnan(soft.entropy_rank_correlation(p, np.full(q.shape, 0.2)))


def test_scores_of_single_votes_by_hand():
    """Of 4 votes one is met; distances 0 + 1 + 5 + 2 over 4 votes and 5 steps (CSC): 8 / 20."""
    predicted, label = np.array([2, 2, 0, 3]), np.array([2, 3, 5, 1])
    assert soft.error_rate(predicted, label) == 0.75
    assert soft.absolute_distance(predicted, label, 5) == pytest.approx(0.4)
    nothing = np.array([], dtype=np.int64)
    assert np.isnan(soft.error_rate(nothing, nothing))
    assert np.isnan(soft.absolute_distance(nothing, nothing, 5))


def test_binary_f1_by_hand():
    """TP 1, FP 2, FN 1: 2 / 5; class 0 does not matter; nothing there and nothing said: 0."""
    predicted, label = np.array([1, 1, 1, 0, 0, 0]), np.array([1, 0, 0, 1, 0, 0])
    assert soft.binary_f1(predicted, label) == 0.4
    assert soft.binary_f1(np.append(predicted, 0), np.append(label, 0)) == 0.4
    assert soft.binary_f1(np.zeros(3), np.zeros(3)) == 0


@pytest.fixture
def votes() -> Votes:
    """Annotators 0, 1 are group 1, annotator 2 is group 0; item 1 has one vote, item 2 none."""
    item, annotator, label = [0, 0, 0, 1], [0, 1, 2, 2], [1, 0, 1, 0]
    group = np.array([1, 1, 0])
    return Votes(*map(np.array, (item, annotator, label)), 3, 3, 2, group)


def test_group_counts_and_shares_by_hand(votes):
    counts = soft.group_counts(votes, 3)
    assert counts.tolist() == [
        [[0, 1], [1, 1], [0, 0]],
        [[1, 0], [0, 0], [0, 0]],
        [[0, 0], [0, 0], [0, 0]],
    ]
    assert np.array_equal(counts.sum(axis=1), votes.counts())
    share = soft.shares(counts)
    assert share[0, 1].tolist() == [0.5, 0.5] and np.isnan(share[1, 1]).all()


def test_by_group_takes_the_pairs_that_exist_only(votes):
    """Group a: items 0 and 1; group b: item 0, where the tie of its votes is a no; c: none.

    a: JSD of (0, 1), (1, 0) against (0, 1), (1/2, 1/2), which is 0 and 3/4 ln 4/3; labels 1, 0
    against 1, 0 (the prediction's tie is a no, too): F1 1. b: (1/2, 1/2) against (0, 1): label 1
    against 0: F1 0.
    """
    probs = np.full((3, 3, 2), 7.0)
    probs[0, 0], probs[1, 0], probs[0, 1] = (0, 1), (0.5, 0.5), (0, 1)
    found = soft.by_group(probs, votes, ["a", "b", "c"])
    one = 0.75 * np.log(4 / 3)
    expected = {"jsd_a": one / 2, "jsd_b": one, "f1_a": 1, "f1_b": 0, "jsd": one * 3 / 4, "f1": 0.5}
    assert found == pytest.approx(expected)


def test_by_item_leaves_items_without_votes_out(votes):
    probs = np.array([[0.5, 0.5], [0.5, 0.5], [9.0, 9.0]])
    found = soft.by_item(probs, votes.counts())
    # shares (1/3, 2/3) and (1, 0)
    assert found["soft_manhattan"] == pytest.approx((1 / 3 + 1) / 2)
    assert found["soft_wasserstein"] == pytest.approx((1 / 6 + 1 / 2) / 2)
    assert found["soft_cross_entropy"] == pytest.approx(LN2)
    assert soft.by_item(probs, np.zeros((3, 2))) == {}


def test_by_item_holds_answers_against_the_label_with_the_most_votes():
    """Most votes: 1, 0, a tie, 0. Answers 1, 1, 1, 0: 2 of 3 right; F1 of 0 2/3, of 1 2/3."""
    counts = np.array([[1, 2], [3, 0], [2, 2], [1, 0]], dtype=np.float64)
    found = soft.by_item(np.eye(2)[[1, 1, 1, 0]], counts)
    assert found["voted_acc"] == pytest.approx(2 / 3)
    assert found["voted_macro_f1"] == pytest.approx(2 / 3)


def test_yes_shares_count_annotators_and_not_labels():
    """Item 0: annotator 0 says both, annotator 1 only class 2. Item 1: nobody."""
    item, annotator, label = np.array([0, 0, 0]), np.array([0, 0, 1]), np.array([0, 2, 2])
    votes = Votes(item, annotator, label, 2, 2, 3, multi_label=True)
    share = soft.yes_shares(votes)
    assert share[0].tolist() == [0.5, 0, 1] and np.isnan(share[1]).all()


@pytest.fixture
def gaps() -> Votes:
    """Five items; nobody votes on 0 and 2, group a on 1 and 4 alone, group b on 3 and 4."""
    item, annotator = [1, 1, 3, 4, 4, 4], [0, 1, 2, 0, 1, 2]
    label, group = [0, 1, 1, 1, 1, 0], np.array([0, 0, 1])
    return Votes(*map(np.array, (item, annotator, label)), 5, 3, 2, group)


P_5 = np.array([[0.9, 0.1], [0.3, 0.7], [0.8, 0.2], [0.6, 0.4], [0.1, 0.9]])


def test_an_item_is_held_against_its_own_votes(gaps):
    """Shares of class 1 on items 1, 3 and 4: 1/2, 1, 2/3; predicted .7, .4, .9."""
    found = soft.by_item(P_5, gaps.counts())
    distance = np.abs(np.array([0.7, 0.4, 0.9]) - [0.5, 1, 2 / 3])
    assert found["soft_manhattan"] == pytest.approx(2 * distance.mean())
    assert found["soft_wasserstein"] == pytest.approx(distance.mean())
    costs = [-(np.log(0.3) + np.log(0.7)) / 2, -np.log(0.4), -(np.log(0.1) + 2 * np.log(0.9)) / 3]
    assert found["soft_cross_entropy"] == pytest.approx(np.mean(costs))
    # item 1 is a tie; of 3 and 4 most say 1, predicted is 0, 1
    assert found["voted_acc"] == 0.5


def test_labels_by_a_rule_are_of_their_own_items(gaps):
    """Most say 1 of items 3 and 4: the rule is right in 3 and wrong in 4, by its labels alone."""
    found = soft.by_item(P_5, gaps.counts(), np.array([0, 0, 0, 1, 0]))
    assert found["voted_acc"] == 0.5
    # class 1: TP 1, FN 1; class 0: FP 1
    assert found["voted_macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    both = soft.by_item(P_5, gaps.counts(), np.array([0, 0, 0, 1, 1]))
    assert both["voted_acc"] == both["voted_macro_f1"] == 1
    assert both["soft_jsd"] == soft.by_item(P_5, gaps.counts())["soft_jsd"]


def test_a_group_is_held_against_its_own_votes(gaps):
    """Group a on items 1 and 4: shares (1/2, 1/2), (0, 1); b on 3 and 4: (0, 1), (1, 0)."""
    probs = np.stack([P_5, P_5[::-1]], axis=1)
    found = soft.by_group(probs, gaps, ["a", "b"])
    q_a, q_b = np.array([[0.5, 0.5], [0, 1.0]]), np.array([[0, 1.0], [1.0, 0]])
    assert found["jsd_a"] == pytest.approx(soft.jsd(P_5[[1, 4]], q_a).mean())
    # backwards, items 3 and 4 have the rows of 1 and 0
    assert found["jsd_b"] == pytest.approx(soft.jsd(P_5[[1, 0]], q_b).mean())
    # a: predicted 1, 1 against 0 (tie), 1; b: predicted 1, 0 against 1, 0
    assert (found["f1_a"], found["f1_b"]) == (pytest.approx(2 / 3), 1)


def test_heads_of_a_group_are_averaged_and_a_group_without_has_all():
    """Heads 0 and 2 are of group 1, head 1 of group 2, none of group 0."""
    probs = np.array([[[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], [[0.1, 0.9], [0.4, 0.6], [1.0, 0.0]]])
    means = soft.group_means(probs, np.array([1, 2, 1]), 3)
    expected = [[1.6 / 3, 0.7, 0.2], [1.5 / 3, 0.55, 0.4]]
    assert means[..., 0] == pytest.approx(np.array(expected))
    assert means[..., 1] == pytest.approx(1 - np.array(expected))


def test_yes_shares_of_items_that_lie_apart():
    """Item 1 nobody, item 2 one who says both, item 0 two."""
    item, annotator, label = np.array([2, 2, 0, 0, 0]), np.array([1, 1, 0, 1, 1]), [1, 2, 0, 0, 2]
    votes = Votes(item, annotator, np.array(label), 3, 2, 3, multi_label=True)
    share = soft.yes_shares(votes)
    assert share[[0, 2]].tolist() == [[1, 0, 0.5], [0, 1, 1]] and np.isnan(share[1]).all()
