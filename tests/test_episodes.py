"""Episodes: classes of a task, disjoint parts, and the votes that its annotators give."""

import numpy as np
import pytest

from annorun import episodes
from annorun.episodes import Episodes
from annorun.errors import ConfigError
from annorun.seeds import rng
from annorun.votes import Items


def of(**values: object) -> Episodes:
    return Episodes(
        **{"way": 3, "shots": 2, "queries": 4, "annotators": [3], "tasks": 5, **values}  # type: ignore[arg-type]
    )


def items(n_classes: int = 9, each: int = 8) -> Items:
    """Classes 0..5 are for training, the others for testing; items of a class are not together."""
    truth = np.tile(np.arange(n_classes), each)
    return Items(
        kind="features",
        inputs={"x": np.zeros((len(truth), 2), dtype=np.float32)},
        split=np.where(truth < 6, "train", "test"),
        n_classes=n_classes,
        truth=truth,
    )


def test_a_task_has_its_shots_and_queries_of_each_class_and_no_item_twice() -> None:
    data = items()
    assert data.truth is not None
    groups = episodes.by_class(data, "train", 6, 3)
    drawn = episodes.draw(groups, of(), 50, rng(0, "tasks"))
    for t in range(50):
        both = np.concatenate([drawn.support[t], drawn.query[t]])
        assert len(set(both)) == 3 * (2 + 4)
        assert len(set(drawn.classes[t])) == 3
        # the task's class j is the data's class `classes[t, j]`, in support and queries
        own = drawn.classes[t]
        assert (data.truth[drawn.support[t]] == own[drawn.support_truth[t]]).all()
        assert (data.truth[drawn.query[t]] == own[drawn.query_truth[t]]).all()
        assert (np.bincount(drawn.support_truth[t]) == 2).all()
        assert (np.bincount(drawn.query_truth[t]) == 4).all()


def test_parts_are_disjoint_and_small_classes_are_left_out() -> None:
    data = items()
    assert data.truth is not None
    train = np.concatenate(episodes.by_class(data, "train", 6, 3))
    test = np.concatenate(episodes.by_class(data, "test", 6, 3))
    assert set(data.truth[train]) == set(range(6))
    assert set(data.truth[test]) == {6, 7, 8}
    with pytest.raises(ConfigError, match=r"way=3: 0 classes have 9 examples .* in the train"):
        episodes.by_class(data, "train", 9, 3)
    with pytest.raises(ConfigError, match=r"way=4: 3 classes have 6 examples .* in the test part"):
        episodes.by_class(data, "test", 6, 4)


def test_what_is_held_out_is_not_learned_from() -> None:
    groups = [np.arange(20), np.arange(20, 30), np.arange(30, 36)]
    kept, held = episodes.hold_out(groups, 0.25, 4, rng(0, "validation"))
    # a quarter of 20; 4 of 10, as few as a task needs; 6 are too few for both
    assert [len(g) for g in held] == [5, 4]
    assert [len(g) for g in kept] == [15, 6, 6]
    for group, k, h in zip(groups, kept, held, strict=False):
        assert sorted([*k, *h]) == group.tolist()
    assert episodes.hold_out(groups, 0.0, 4, rng(0, "validation")) == (groups, [])


def test_what_is_held_out_is_drawn() -> None:
    groups = [np.arange(100, 140), np.arange(40)]
    held = [episodes.hold_out(groups, 0.25, 4, rng(seed, "validation"))[1] for seed in (0, 0, 1)]
    for k in range(2):
        assert held[0][k].tolist() == held[1][k].tolist() != held[2][k].tolist()
        # of forty in order, ten drawn ones lie in all four quarters but once in a hundred times
        assert len(set((held[0][k] % 100) // 10)) > 2


def test_a_class_with_as_many_examples_as_a_task_needs_is_not_left_out() -> None:
    data = items(each=6)
    assert len(episodes.by_class(data, "train", 6, 3)) == 6
    # the truth of some is unknown: they are of no class
    assert data.truth is not None
    few = Items(
        "features", data.inputs, data.split, 9, truth=np.where(data.truth == 8, -1, data.truth)
    )
    assert len(episodes.by_class(few, "test", 6, 2)) == 2
    found = np.concatenate(episodes.by_class(few, "train", 6, 3))
    assert set(found) == set(np.flatnonzero(data.truth < 6))


def test_a_support_out_of_voted_items_has_none_twice_and_neither_have_the_queries() -> None:
    groups = [np.arange(8) + 10 * k for k in range(4)]
    voted = [np.arange(5) + 100 + 10 * k for k in range(4)]
    e = of(way=3, shots=4, queries=7)
    drawn = episodes.draw(groups, e, 40, rng(0, "tasks"), voted)
    for t in range(40):
        assert len(set(drawn.support[t])) == 3 * 4
        assert len(set(drawn.query[t])) == 3 * 7
        np.testing.assert_array_equal(drawn.support[t] // 10 - 10, drawn.classes[t].repeat(4))
        np.testing.assert_array_equal(drawn.query[t] // 10, drawn.classes[t].repeat(7))
    assert len(set(drawn.seed)) == 40


def test_each_task_has_the_votes_of_its_own_annotators() -> None:
    turns = np.stack([np.roll(np.eye(3), k, axis=1) for k in range(3)])
    # the task's number and the annotator's are how far a vote is turned
    confusion = turns[(np.arange(2)[:, None] + np.arange(4)) % 3]
    truth = np.array([[0, 1, 2, 2], [2, 0, 1, 1]])
    votes = episodes.annotate(truth, confusion, None, rng(0, "votes"))
    turned = np.arange(2)[:, None, None] + np.arange(4)
    np.testing.assert_array_equal(votes, (truth[..., None] + turned) % 3)


def test_every_class_is_drawn_as_often_and_in_every_place() -> None:
    groups = [np.arange(10) + 10 * k for k in range(5)]
    drawn = episodes.draw(groups, of(way=2, shots=1, queries=1), 4000, rng(0, "tasks"))
    for place in range(2):
        share = np.bincount(drawn.classes[:, place], minlength=5) / 4000
        # 4 standard deviations of a share of 1/5 over 4000 draws
        assert np.abs(share - 0.2).max() < 4 * np.sqrt(0.2 * 0.8 / 4000)


def test_votes_follow_each_annotators_own_matrix() -> None:
    # no symmetry: a transposed matrix would show
    own = np.array([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5], [0.9, 0.1, 0.0]])
    other = np.eye(3)[[1, 2, 0]]
    confusion = np.broadcast_to(np.stack([own, other]), (2, 2, 3, 3))
    truth = np.tile(np.arange(3), (2, 20000))
    votes = episodes.annotate(truth, confusion, None, rng(0, "votes"))
    for k in range(3):
        share = np.bincount(votes[..., 0][truth == k], minlength=3) / (truth == k).sum()
        assert np.abs(share - own[k]).max() < 0.02
        assert (votes[..., 1][truth == k] == (k + 1) % 3).all()


def test_sparse_annotation_leaves_as_many_votes_as_asked_evenly() -> None:
    confusion = np.broadcast_to(np.eye(3), (4, 5, 3, 3))
    truth = np.tile(np.arange(3), (4, 1000))
    votes = episodes.annotate(truth, confusion, 2, rng(0, "votes"))
    assert ((votes >= 0).sum(axis=-1) == 2).all()
    assert np.abs((votes >= 0).mean(axis=(0, 1)) - 0.4).max() < 0.03
    assert (votes[votes >= 0] == np.broadcast_to(truth[..., None], votes.shape)[votes >= 0]).all()


def test_source_noise_is_wrong_as_often_as_asked_and_evenly() -> None:
    truth = np.tile(np.arange(4), 5000)
    said = episodes.mislabelled(truth, 4, 0.3, rng(0, "noise"))
    assert abs((said != truth).mean() - 0.3) < 0.02
    shift = (said - truth)[said != truth] % 4
    assert np.abs(np.bincount(shift, minlength=4)[1:] / len(shift) - 1 / 3).max() < 0.03
    assert (episodes.mislabelled(truth, 4, 0.0, rng(0, "noise")) == truth).all()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"way=1: allowed is 2 or more"):
        of(way=1)
    with pytest.raises(ConfigError, match="annotators=\\[\\]"):
        of(annotators=[])
    with pytest.raises(ConfigError, match="per_item=4: allowed is null, or 1 to 3"):
        of(annotators=[3, 5], per_item=4)
    with pytest.raises(ConfigError, match=r"annotators=\[3, 3\]: allowed is each number once"):
        of(annotators=[3, 3])
