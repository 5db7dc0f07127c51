"""Target tasks with the votes of real annotators: whose classes, whose votes, in which order."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig

from annorun import episodes, real_tasks, results
from annorun.episodes import Drawn, Episodes
from annorun.errors import ConfigError
from annorun.run import run
from annorun.seeds import rng
from annorun.votes import Items, Votes

Compose = Callable[..., DictConfig]


def crowd(n_classes: int = 6, each: int = 30, n_annotators: int = 7) -> tuple[Items, Votes]:
    """Two thirds of the items are for training and have votes of three, one in four wrong."""
    draw = np.random.default_rng(5)
    truth = np.tile(np.arange(n_classes), each)
    train = np.arange(len(truth)) < 2 * len(truth) // 3
    voted = np.flatnonzero(train)
    who = draw.random((len(voted), n_annotators)).argsort(axis=1)[:, :3]
    said = np.repeat(truth[voted], 3)
    wrong = draw.random(len(said)) < 0.25
    said = np.where(wrong, draw.integers(n_classes, size=len(said)), said)
    votes = Votes(np.repeat(voted, 3), who.ravel(), said, len(truth), n_annotators, n_classes)
    x = (truth[:, None] == np.arange(n_classes)) + draw.normal(0, 0.3, (len(truth), n_classes))
    split = np.where(train, "train", "test")
    return Items("features", {"x": x.astype(np.float32)}, split, n_classes, truth=truth), votes


def test_target_classes_are_not_learned_from_and_other_votes_are_dropped() -> None:
    items, votes = crowd()
    found, own = real_tasks.apart(items, votes, 3, rng(0, "classes"))
    assert items.truth is not None
    kinds = {
        part: set(items.truth[found.split == part]) for part in ("train", real_tasks.VOTED, "test")
    }
    assert kinds["test"] == kinds[real_tasks.VOTED]
    assert len(kinds["test"]) == len(kinds["train"]) == 3
    assert not kinds["test"] & kinds["train"]
    # a vote counts if the image and what was said of it are of the target classes
    wanted = [
        (i, a, v)
        for i, a, v in zip(votes.item, votes.annotator, votes.label, strict=True)
        if items.truth[i] in kinds["test"] and v in kinds["test"]
    ]
    assert list(zip(own.item, own.annotator, own.label, strict=True)) == wanted
    assert set(np.flatnonzero(found.split == real_tasks.VOTED)) == set(own.item)


def test_votes_on_test_items_and_items_without_a_truth_are_left_out() -> None:
    """Classes 0 to 3; the last item of each part is of no known class, which is not the last."""
    truth = np.array([0, 1, 2, 3, -1, 0, 1, 2, 3, -1])
    split = np.array(["train"] * 5 + ["test"] * 5)
    items = Items("features", {"x": np.zeros((10, 1), dtype=np.float32)}, split, 4, truth=truth)
    for seed in range(6):
        label = np.maximum(truth, 0)
        # each item has a vote for its class by one, and for every class by the others
        item, annotator = np.repeat(np.arange(10), 5), np.tile(np.arange(5), 10)
        said = np.where(annotator == 4, label[item], annotator)
        votes = Votes(item, annotator, said, 10, 5, 4)
        found, own = real_tasks.apart(items, votes, 2, rng(seed, "classes"))
        target = set(truth[found.split == "test"])
        assert len(target) == 2 and -1 not in target
        assert found.split[[4, 9]].tolist() == ["", ""]
        assert (split[np.unique(own.item)] == "train").all()
        assert set(truth[own.item]) == target == set(own.label)
        assert set(truth[found.split == "train"]) == set(range(4)) - target
        assert (found.split[5:] != real_tasks.VOTED).all()


def test_votes_are_those_of_the_data_by_hand() -> None:
    """Two tasks of classes (4, 1) and (1, 4); of three annotators the second is in both."""
    items = Items(
        kind="features",
        inputs={"x": np.zeros((4, 1), dtype=np.float32)},
        split=np.full(4, real_tasks.VOTED),
        n_classes=5,
        truth=np.array([4, 1, 4, 1]),
    )
    item, annotator, label = np.array([[0, 1, 4], [1, 1, 4], [1, 2, 1], [2, 0, 4], [3, 1, 1]]).T
    votes = Votes(item, annotator, label, 4, 3, 5)
    drawn = Drawn(
        support=np.array([[0, 1], [3, 2]]),
        query=np.zeros((2, 0), dtype=np.int64),
        support_truth=np.array([[0, 1], [0, 1]]),
        query_truth=np.zeros((2, 0), dtype=np.int64),
        classes=np.array([[1, 0], [0, 1]]),
        seed=np.zeros(2, dtype=np.int64),
    )
    own = real_tasks.labelled(votes, items, drawn)
    # task 0: annotator 1 said 4, 4, which are its class 0; annotator 2 said 1, its class 1
    assert own.who is not None
    assert own.who.tolist() == [[1, 2], [0, 1]]
    assert own.votes.tolist() == [[[0, -1], [0, 1]], [[-1, 0], [1, -1]]]
    # annotator 1 is right on items 0 and 3, wrong on 1
    np.testing.assert_allclose(own.accuracy, [[2 / 3, 1.0], [1.0, 2 / 3]])


def test_support_has_votes_and_queries_are_of_the_test_part() -> None:
    items, votes = crowd()
    found, own = real_tasks.apart(items, votes, 3, rng(1, "classes"))
    e = Episodes(way=3, shots=2, queries=4, annotators=[5], tasks=20, real=True)
    voted = episodes.by_class(found, real_tasks.VOTED, 2, 3)
    groups = episodes.by_class(found, "test", 4, 3)
    drawn = episodes.draw(groups, e, 20, rng(1, "tasks"), voted)
    assert items.truth is not None
    assert set(found.split[drawn.support.ravel()]) == {real_tasks.VOTED}
    assert set(found.split[drawn.query.ravel()]) == {"test"}
    for t in range(20):
        classes = items.truth[drawn.support[t]].reshape(3, 2)
        assert (classes == classes[:, :1]).all()
        np.testing.assert_array_equal(np.repeat(classes[:, 0], 4), items.truth[drawn.query[t]])
    labels = real_tasks.labelled(own, found, drawn)
    assert ((labels.votes >= 0).sum(axis=2) > 0).all()
    assert labels.who is not None
    assert ((labels.votes >= 0).any(axis=1) == (labels.who >= 0)).all()
    right = labels.votes == drawn.support_truth[..., None]
    # one vote in four is wrong, and most of the wrong ones name other classes
    assert 0.8 < right[labels.votes >= 0].mean() < 1


def test_too_few_classes_or_no_votes_are_refused() -> None:
    items, votes = crowd()
    with pytest.raises(ConfigError, match="allowed is 3 at most"):
        real_tasks.apart(items, votes, 4, rng(0, "classes"))
    none = np.empty(0, dtype=np.int64)
    with pytest.raises(ConfigError, match="have no votes of their own"):
        real_tasks.apart(items, Votes(none, none, none, len(items), 0, 6), 3, rng(0, "classes"))


METHODS = ("meta_em", "prototypical", "maml", "shallow", "crowd_tasks")


def write(folder: Path) -> Path:
    """Write a crowd as LabelMe's authors do, and return the folder."""
    items, votes = crowd(8)
    assert items.truth is not None
    folder.mkdir()
    for split in ("train", "test"):
        own = items.split == split
        np.save(folder / f"LabelMe_VGG_avg_{split}.npy", items.inputs["x"][own])
        np.savetxt(folder / f"LabelMe_Z_{split}.txt", items.truth[own], "%d")
    answers = np.full((int((items.split == "train").sum()), votes.n_annotators), -1)
    answers[votes.item, votes.annotator] = votes.label
    np.savetxt(folder / "answers.txt", answers, "%d")
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_every_method_answers_tasks_of_real_votes(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setenv("ANNORUN_CACHE", str(tmp_path / "cache"))
    row = run(
        compose(
            *("dataset=labelme", f"dataset.path={write(tmp_path / 'labelme')}", "trainer=smoke"),
            *("noise=confusion", "annotator_dist=expert_hammer_spammer", f"method={method}"),
            *("method.episodes.shots=2", "method.episodes.queries=4", "method.episodes.tasks=6"),
            *("method.episodes.real=true", "trainer.max_steps=40", "trainer.val_share=0.3"),
        )
    )
    # classes are far apart: whoever learns anything beats a guess by far
    assert row["metrics"]["test/acc"] > 0.5
    assert not any(name.startswith("test_") for name in row["metrics"])
    (path,) = tmp_path.rglob("annotators.csv")
    named = results.read_csv(path)
    assert {a["annotator"] for a in named} <= set(map(str, range(7)))
    assert all(int(a["votes"]) > 0 for a in named)
