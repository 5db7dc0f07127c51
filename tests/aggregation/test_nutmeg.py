"""NUTMEG against MACE, group by group, and its symmetries and options."""

import doctest
from itertools import product

import numpy as np
import pytest

from annorun.aggregation import nutmeg as module
from annorun.aggregation.mace import mace
from annorun.aggregation.nutmeg import nutmeg, one_truth
from annorun.errors import ConfigError
from annorun.votes import Votes

FIELDS = ("probs", "accuracy", "competence", "group_probs", "disagreement")
IMPUTATIONS = ["none", "released", "naive_bayes", "joint"]
both = pytest.mark.parametrize("inference", ["vb", "em"])
every = pytest.mark.parametrize(
    ("estep", "imputation"),
    [*product(["exact"], IMPUTATIONS), *product(["released"], IMPUTATIONS[:3])],
)


def run(votes, seed=0, **keys):
    return nutmeg(votes, rng=np.random.default_rng(seed), **keys)


def crowd(seed=0, n_items=60, n_annotators=12, n_classes=3, n_groups=3, share=0.5):
    """Half of the items have one truth, half one a group; annotators know with .2 to .95."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(n_classes, size=(n_items, n_groups))
    truth[::2] = truth[::2, :1]
    item, annotator = np.nonzero(rng.random((n_items, n_annotators)) < share)
    group = np.arange(n_annotators) % n_groups
    right = rng.random(len(item)) < np.linspace(0.2, 0.95, n_annotators)[annotator]
    guess = rng.integers(n_classes, size=len(item))
    label = np.where(right, truth[item, group[annotator]], guess)
    return Votes(item, annotator, label, n_items, n_annotators, n_classes, group=group), truth


def of_group(votes, k):
    mine = votes.group[votes.annotator] == k
    columns = (votes.item[mine], votes.annotator[mine], votes.label[mine])
    return Votes(*columns, votes.n_items, votes.n_annotators, votes.n_classes)


@both
@pytest.mark.parametrize("imputation", ["none", "naive_bayes", "released"])
def test_one_group_is_mace(inference, imputation):
    votes, _ = crowd(1, n_groups=1, share=0.7)
    keys = {"inference": inference, "n_restarts": 4, "alpha": 0.3, "class_prior": [1.0, 2.0, 3.0]}
    keys["known"] = np.where(np.arange(60) % 9 == 0, 1, -1)
    one = mace(votes, rng=np.random.default_rng(0), **keys)
    keys["known"] = keys["known"][:, None]
    got = run(votes, imputation=imputation, **keys)
    for name in ("probs", "competence", "trace", "restarts"):
        np.testing.assert_allclose(getattr(got, name), getattr(one, name), atol=1e-10, rtol=0)
    np.testing.assert_allclose(got.group_probs[:, 0], one.probs, atol=1e-10)
    np.testing.assert_allclose(got.disagreement, 0, atol=1e-12)
    # both are judged on the items' mean posterior; here each item has votes
    np.testing.assert_allclose(got.accuracy, one.accuracy, atol=1e-10)


def test_one_group_of_the_released_code_has_the_tables_of_mace():
    """The objectives differ: a floor, and no prior."""
    votes, _ = crowd(1, n_groups=1, share=0.7)
    one = mace(votes, rng=np.random.default_rng(0), n_restarts=1)
    got = run(votes, estep="released", n_restarts=1)
    np.testing.assert_allclose(got.probs, one.probs, atol=1e-10)
    np.testing.assert_allclose(got.competence, one.competence, atol=1e-10)


@both
def test_several_groups_are_mace_on_the_votes_of_each(inference):
    """The starts are drawn by annotator: with all of them in place, they are the same.

    One restart's objective is the sum of the groups' under VB; under EM each run also counts the
    prior's density of its silent annotators, who are even: s (2 log 1/2 + 3 log 1/3) each.
    """
    votes, _ = crowd(2)
    keys = {"inference": inference, "n_restarts": 1, "n_iter": 30, "smoothing": 0.1}
    got = run(votes, imputation="none", **keys)
    silent = 8 * 0.1 * (2 * np.log(1 / 2) + 3 * np.log(1 / 3)) if inference == "em" else 0.0
    total = np.zeros(30)
    for k in range(3):
        part = of_group(votes, k)
        alone = mace(part, rng=np.random.default_rng(0), **keys)
        voted = np.bincount(part.item, minlength=60) > 0
        np.testing.assert_allclose(got.group_probs[voted, k], alone.probs[voted], atol=1e-10)
        assert np.isnan(got.group_probs[~voted, k]).all() and not voted.all()
        mine = votes.group == k
        np.testing.assert_allclose(got.competence[mine], alone.competence[mine], atol=1e-10)
        np.testing.assert_allclose(got.accuracy[mine], alone.accuracy[mine], atol=1e-10)
        total += np.array(alone.trace) - silent
    np.testing.assert_allclose(got.trace, total, rtol=1e-12)


@both
@pytest.mark.parametrize("seed", range(4))
def test_the_objective_never_falls(inference, seed):
    votes, _ = crowd(seed, n_classes=2 + seed, n_groups=1 + seed)
    trace = np.array(run(votes, seed, inference=inference, n_restarts=1, n_iter=100).trace)
    assert len(trace) == 100 and trace[-1] > trace[0] + 1
    assert np.diff(trace).min() >= -1e-12 * np.abs(trace).max()


@every
def test_shuffled_rows_are_the_same_to_the_bit(estep, imputation):
    votes, _ = crowd(3)
    order = np.random.default_rng(1).permutation(len(votes))
    columns = (votes.item[order], votes.annotator[order], votes.label[order])
    shuffled = Votes(*columns, 60, 12, 3, group=votes.group)
    keys = {"estep": estep, "imputation": imputation, "n_restarts": 3, "n_iter": 20}
    one, other = run(votes, **keys), run(shuffled, **keys)
    assert one.trace == other.trace and one.restarts == other.restarts
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("imputation", ["naive_bayes", "joint"])
def test_other_names_reach_the_same_best_objective(imputation):
    votes, _ = crowd(4, n_items=150, share=0.7, n_classes=2, n_groups=2)
    rng = np.random.default_rng(3)
    i, a, z, g = (rng.permutation(n) for n in (150, 12, 2, 2))
    group = np.empty(12, int)
    group[a] = g[votes.group]
    named = Votes(i[votes.item], a[votes.annotator], z[votes.label], 150, 12, 2, group=group)
    keys = {"imputation": imputation, "n_iter": 800, "n_restarts": 4}
    one, other = run(votes, **keys), run(named, **keys)
    assert other.trace[-1] == pytest.approx(one.trace[-1], abs=1e-6)
    back = other.group_probs[i][:, g][:, :, z]
    np.testing.assert_allclose(back, one.group_probs, atol=1e-5)
    np.testing.assert_allclose(other.competence[a], one.competence, atol=1e-5)
    np.testing.assert_allclose(other.disagreement[i], one.disagreement, atol=1e-5)
    clear = np.abs(one.group_probs[..., 0] - 0.5) > 1e-4
    assert (back.argmax(axis=2) == one.group_probs.argmax(axis=2))[clear].all()


def test_restarts_differ_or_are_copies():
    votes, _ = crowd(share=0.2)
    own, copies = run(votes, n_iter=8), run(votes, n_iter=8, restarts="identical")
    assert len(set(own.restarts)) == len(own.restarts) == 10
    assert len(set(copies.restarts)) == 1 and len(copies.restarts) == 10
    assert copies.restarts[0] == pytest.approx(own.restarts[0], rel=1e-12)
    assert own.trace[-1] == max(own.restarts)


@every
def test_answers_are_probabilities(estep, imputation):
    votes, _ = crowd(5, share=0.15)
    keys = {"estep": estep, "imputation": imputation, "n_restarts": 3}
    got = run(votes, **keys)
    np.testing.assert_allclose(got.probs.sum(axis=1), 1, atol=1e-12)
    missing = np.isnan(got.group_probs[..., 0])
    voted = np.zeros((60, 3), bool)
    voted[votes.item, votes.group[votes.annotator]] = True
    np.testing.assert_array_equal(missing, ~voted if imputation == "none" else np.zeros_like(voted))
    np.testing.assert_allclose(got.group_probs[~missing].sum(axis=1), 1, atol=1e-12)
    kept = got.disagreement[~np.isnan(got.disagreement)]
    assert len(kept) and kept.min() > -1e-12 and kept.max() <= 1
    assert (np.isnan(got.disagreement) == missing.any(axis=1)).all()
    for told in (got.competence, got.accuracy):
        assert ((told >= 0) & (told <= 1)).all()


def test_the_accuracy_is_on_the_truths_of_the_own_group():
    """Group 0's truths are all 0 and group 1's all 1; a spammer always says 1."""
    item, annotator = np.divmod(np.arange(50 * 8), 8)
    group = np.arange(8) // 4
    label = np.where(annotator % 4 == 3, np.random.default_rng(0).integers(2, size=400), 0)
    votes = Votes(item, annotator, label ^ group[annotator], 50, 8, 2, group=group)
    got = run(votes)
    np.testing.assert_allclose(got.group_probs.argmax(axis=2), np.tile([0, 1], (50, 1)))
    share = np.bincount(annotator, votes.label == group[annotator]) / 50
    np.testing.assert_allclose(got.accuracy, share, atol=0.06)


@every
def test_control_pairs_are_clamped_with_or_without_votes(estep, imputation):
    votes, truth = crowd(6, share=0.3)
    votes = Votes(
        *(c[votes.item > 1] for c in (votes.item, votes.annotator, votes.label)),
        *(60, 12, 3),
        group=votes.group,
    )
    known = np.full((60, 3), -1)
    known[0, 1], known[5:9, 0], known[10] = 2, (truth[5:9, 0] + 1) % 3, truth[10]
    got = run(votes, estep=estep, imputation=imputation, known=known, n_restarts=3)
    told = np.eye(3)[known[known >= 0]]
    np.testing.assert_allclose(got.group_probs[known >= 0], told, atol=1e-12)
    differ = float(len(set(truth[10])) > 1)
    assert got.disagreement[10] == pytest.approx(differ, abs=1e-12)


def test_an_unvoted_control_pair_informs_the_other_groups():
    """The groups agree wherever both have voted; of an item without votes only T_1 is told."""
    item, annotator = np.divmod(np.arange(40 * 6), 6)
    group = np.arange(6) % 2
    votes = Votes(item, annotator, item % 2, 41, 6, 2, group=group)
    for imputation, label in product(["naive_bayes", "joint"], (0, 1)):
        known = np.full((41, 2), -1)
        known[40, 1] = label
        got = run(votes, imputation=imputation, known=known, n_restarts=2)
        assert got.group_probs[40, 0, label] > 0.9


@every
def test_unused_annotators_groups_and_items(estep, imputation):
    votes, _ = crowd(7)
    group = np.concatenate([votes.group, [5, 5]])  # groups 3 and 4 have nobody, 5 no votes
    more = Votes(votes.item, votes.annotator, votes.label, 62, 14, 4, group=group)
    got = run(more, estep=estep, imputation=imputation, n_restarts=2)
    assert got.group_probs.shape == (62, 6, 4)
    assert np.isnan(got.competence[12:]).all() and not np.isnan(got.competence[:12]).any()
    np.testing.assert_allclose(got.probs.sum(axis=1), 1, atol=1e-12)
    if imputation == "naive_bayes":
        np.testing.assert_allclose(got.group_probs[:, 3:], 0.25, atol=1e-12)


@every
@both
def test_little_to_go_by(estep, imputation, inference):
    keys = {"estep": estep, "imputation": imputation, "inference": inference, "n_restarts": 2}
    got = run(Votes([], [], [], 2, 3, 2, group=np.array([0, 1, 1])), **keys)
    assert np.isnan(got.accuracy).all() and np.isfinite(got.trace).all()
    np.testing.assert_allclose(got.probs, 0.5, atol=1e-12)
    for shape, n_classes in product([(1, 1), (1, 4), (5, 1)], [1, 3]):
        item, annotator = (index.ravel() for index in np.indices(shape))
        group = np.arange(shape[1]) % 2
        votes = Votes(item, annotator, np.zeros_like(item), *shape, n_classes, group=group)
        got = run(votes, **keys)
        assert np.isfinite(got.trace).all() and (got.probs.argmax(axis=1) == 0).all()


def test_one_truth_weighs_groups_by_their_annotators():
    """Groups of 3 and 1 annotators with votes (a fourth of group 1 has none)."""
    group = np.array([0, 0, 0, 1, 1])
    votes = Votes([0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 0, 1], 3, 5, 2, group=group)
    nan = [np.nan, np.nan]
    probs = np.array([[[1.0, 0], [0, 1]], [nan, [0.2, 0.8]], [nan, nan]])
    expected = [[0.75, 0.25], [0.2, 0.8], [0.5, 0.5]]
    np.testing.assert_allclose(one_truth(probs, votes), expected, atol=1e-15)


def test_what_does_not_go_together_is_refused():
    votes, _ = crowd()
    bare = Votes(votes.item, votes.annotator, votes.label, 60, 12, 3)
    several = Votes([0, 0], [0, 0], [0, 1], 1, 1, 2, group=np.array([0]), multi_label=True)
    for wrong, keys, fault in (
        (bare, {}, "wants the group of each annotator"),
        (several, {}, "wants one label"),
        (votes, {"imputation": "joint", "estep": "released"}, "joint wants estep=exact"),
        (votes, {"imputation": "joint", "class_prior": [1, 1, 1]}, "and no class_prior"),
        (votes, {"known": np.full((3, 60), -1)}, "known has the shape"),
        (votes, {"known": np.full((60, 3), 3)}, "allowed is a label in 0..2"),
        (votes, {"class_prior": [1, 1]}, "one finite weight"),
    ):
        with pytest.raises(ConfigError, match=fault):
            run(wrong, **keys)


def test_docstring_example():
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0


def test_a_control_of_an_item_is_one_of_all_its_groups() -> None:
    votes = Votes(
        np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([0, 1, 1, 1]), 3, 2, 2,
        group=np.array([0, 1]),
    )  # fmt: skip
    one, two = np.array([1, -1, 0]), np.array([[1, 1], [-1, -1], [0, 0]])
    found = [nutmeg(votes, rng=np.random.default_rng(0), known=known) for known in (one, two)]
    assert found[0].group_probs is not None
    assert found[1].group_probs is not None
    assert (found[0].group_probs == found[1].group_probs).all()
    assert found[0].group_probs[[0, 2]].argmax(axis=2).tolist() == [[1, 1], [0, 0]]
