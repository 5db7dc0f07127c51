"""Runs over episodes: what they write, what they share, and what the seeds move."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from annorun import config, meta_training, results
from annorun.errors import ConfigError
from annorun.run import load, run, training

Compose = Callable[..., DictConfig]
SMOKE = [
    *("dataset=digits", "noise=confusion", "annotator_dist=expert_hammer_spammer"),
    *("trainer=smoke", "trainer.max_steps=4", "trainer.val_every=2", "trainer.batch_size=2"),
    *("method.episodes.shots=2", "method.episodes.queries=3", "method.episodes.tasks=6"),
]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is learned here apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANNORUN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def made(compose: Compose, *overrides: str) -> meta_training.MetaTraining:
    """Return a method and its tasks, nothing trained."""
    c = config.plain(compose(*SMOKE, *overrides))
    found: meta_training.MetaTraining = training(c, load(c))
    return found


def test_a_run_has_scores_by_annotators_and_by_mixture(compose: Compose) -> None:
    row = run(compose("method=meta_em", *SMOKE))
    m = row["metrics"]
    cells = {f"test_r{r}_m{i}/acc" for r in (3, 5, 7) for i in range(4)}
    assert cells <= set(m)
    assert m["test/acc"] == pytest.approx(np.mean([m[c] for c in cells]))
    assert m["test_r5/acc"] == pytest.approx(np.mean([m[f"test_r5_m{i}/acc"] for i in range(4)]))
    assert m["test_m2/acc"] == pytest.approx(np.mean([m[f"test_r{r}_m2/acc"] for r in (3, 5, 7)]))
    assert row["steps"] == 4
    assert {"annotators/pearson", "support/acc", "test/ece"} <= set(m)


def test_its_files_read_back(compose: Compose, tmp_path: Path) -> None:
    row = run(compose("method=meta_em", *SMOKE))
    (path,) = tmp_path.rglob("row.json")
    names = {p.name for p in path.parent.iterdir()}
    assert {"tasks.csv", "predictions.csv", "annotators.csv", "task.csv", "task.png"} <= names
    tasks = results.read_csv(path.parent / "tasks.csv")
    assert len(tasks) == 3 * 4 * 6
    assert np.mean([float(t["acc"]) for t in tasks]) == pytest.approx(row["metrics"]["test/acc"])
    answers = results.read_csv(path.parent / "predictions.csv")
    assert len(answers) == 3 * 4 * 6 * (4 * 3)
    right = [max(range(4), key=lambda k: float(a[f"p_{k}"])) == int(a["truth"]) for a in answers]
    assert np.mean(right) == pytest.approx(row["metrics"]["test/acc"], abs=0.01)
    annotators = results.read_csv(path.parent / "annotators.csv")
    assert len(annotators) == (3 + 5 + 7) * 4 * 6
    assert {a["votes"] for a in annotators} == {"8"}
    assert {a["true_expertise"] for a in annotators} >= {"0.25", "0.95"}
    plane = results.read_csv(path.parent / "task.csv")
    kinds = [p["kind"] for p in plane]
    assert [kinds.count(k) for k in ("support", "query", "prototype")] == [8, 12, 4]


def test_methods_that_differ_in_their_answers_alone_share_a_network(compose: Compose) -> None:
    first = made(compose, "method=prototypical").learned()
    same = [
        ["method=prototypical", "method.module.labels=dawid_skene"],
        ["method=prototypical", "method.module.classes=1", "method.module.right=3"],
        ["method=prototypical", "method.module.wrong=0.1"],
        ["method=prototypical", "annotator_dist.test=[{spammer:1.0}]"],
        ["method=prototypical", "annotator_dist=pair_flip"],
        ["method=crowd_tasks", "method.module.start=prototypical"],
    ]
    for overrides in same:
        assert made(compose, *overrides).learned() == first, overrides
    other = [
        ["method=prototypical", "seed=1"],
        ["method=prototypical", "data_seed=1"],
        ["method=prototypical", "trainer.lr=0.5"],
        ["method=prototypical", "method.episodes.shots=1"],
        ["method=prototypical", "method.episodes.pseudo=true"],
        ["method=meta_em"],
    ]
    marks = [made(compose, *overrides).learned() for overrides in other]
    assert len({first, *marks}) == 1 + len(other)
    shared = ["method=meta_em", "method.module.acquire=entropy", "method.module.budget=3"]
    assert made(compose, *shared).learned() == made(compose, "method=meta_em").learned()
    # the mixture that it learns from matters, where it learns from annotators
    mixture = "annotator_dist.train={hammer: 0.5, spammer: 0.4}"
    assert made(compose, "method=meta_em", mixture).learned() not in (first, *marks)
    assert made(compose, "method=prototypical", mixture).learned() == first


def test_a_network_from_the_cache_answers_as_the_one_that_was_trained(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*SMOKE, "method=meta_em", "seed=5"]
    fresh = run(compose(*overrides))

    def never(*_: object) -> None:
        raise AssertionError("it was trained again")

    monkeypatch.setattr(meta_training.MetaTraining, "_fit", never)
    again = run(compose(*overrides, "mode=force"))
    assert again["steps"] == fresh["steps"] == 4
    assert again["metrics"] == fresh["metrics"]


def test_target_tasks_are_the_same_for_every_method_and_run_seed(compose: Compose) -> None:
    ours, theirs = made(compose, "method=meta_em"), made(compose, "method=maml", "seed=7")
    for mixture in (0, 3):
        drawn, own = ours.target(5, mixture)
        other, same = theirs.target(5, mixture)
        assert (drawn.support == other.support).all()
        assert (drawn.query == other.query).all()
        assert (own.votes == same.votes).all()
        assert (own.accuracy == same.accuracy).all()
    assert (ours.target(5, 0)[0].query == ours.target(7, 1)[0].query).all()
    assert (ours.target(5, 0)[1].votes != ours.target(5, 1)[1].votes).any()
    others = made(compose, "method=meta_em", "data_seed=1").target(5, 0)[0]
    assert (others.query != drawn.query).any()


def test_training_tasks_without_pseudo_annotation_have_right_votes(compose: Compose) -> None:
    clean = made(compose, "method=meta_em", "method.episodes.pseudo=false")
    tasks = clean.source(clean.train, 8, np.random.default_rng(0))
    # class after class
    order = torch.arange(4).repeat_interleave(2)[None, :, None]
    assert (tasks.votes == order).all()
    noisy = made(compose, "method=meta_em")
    tasks = noisy.source(noisy.train, 200, np.random.default_rng(0))
    # experts .1 at .95, hammers .7 at .7, spammers .2 at .25
    right = float((tasks.votes == order).float().mean())
    assert right == pytest.approx(0.1 * 0.95 + 0.7 * 0.7 + 0.2 * 0.25, abs=0.03)
    assert tasks.votes.shape[2] in (3, 5, 7)
    wrong = made(compose, "method=meta_em", "method.episodes.source_noise=0.5")
    tasks = wrong.source(wrong.train, 200, np.random.default_rng(0))
    asked = np.tile(np.repeat(np.arange(4), 3), (200, 1))
    assert (tasks.query_truth.numpy() != asked).mean() == pytest.approx(0.5, abs=0.03)


def test_images_come_with_their_own_class(compose: Compose) -> None:
    m = made(compose, "method=meta_em")
    drawn, own = m.target(3, 0)
    tasks = m.tasks(drawn, own.votes, drawn.query_truth)
    truth = m.items.truth
    assert truth is not None
    np.testing.assert_array_equal(tasks.query[2, 5], m.items.inputs["x"][drawn.query[2, 5]])
    group = m.test[drawn.classes[2, tasks.query_truth[2, 5]]]
    assert drawn.query[2, 5] in group
    assert set(truth[group]) == {truth[drawn.query[2, 5]]}


def test_what_cannot_go_together_is_refused(compose: Compose) -> None:
    with pytest.raises(ConfigError, match="draws the annotators of each task"):
        compose("method=meta_em", "dataset=digits")
    with pytest.raises(ConfigError, match="draws the annotators of each task"):
        compose("method=meta_em", *SMOKE, "annotator_dist.test=[]")
    with pytest.raises(ConfigError, match="choose_on=votes: validation tasks are clean"):
        compose("method=meta_em", *SMOKE, "trainer.choose_on=votes")
    with pytest.raises(ConfigError, match="takes data of kind image, features"):
        compose("method=meta_em", "dataset=synthetic_qa")
    with pytest.raises(ConfigError, match=r"method\.episodes\.wya=3: unknown key"):
        compose("method=meta_em", *SMOKE, "+method.episodes.wya=3")
    with pytest.raises(ConfigError, match=r"0 classes have 500 examples"):
        made(compose, "method=meta_em", "method.episodes.queries=498")
    with pytest.raises(ConfigError, match=r"way=11: 10 classes"):
        made(compose, "method=meta_em", "method.episodes.way=11")
    with pytest.raises(ConfigError, match=r"aggregator: a method over tasks"):
        aggregator = "{_target_: annorun.aggregation.majority.majority}"
        compose("method=meta_em", *SMOKE, f"method.aggregator={aggregator}")
    with pytest.raises(ConfigError, match=r"MetaEM learns from tasks; allowed is a node"):
        made(compose, "method=meta_em", "method.episodes=null")
    with pytest.raises(ConfigError, match=r"choose_on=gold: 0 classes have 62 examples"):
        few = ["dataset.test_share=0.5", "method.episodes.queries=60"]
        made(compose, "method=meta_em", *few, "trainer.choose_on=gold")
    module = "method.module."
    for key, words in (
        ("model=variational", r"module\.precision=0: prototypes without a prior"),
        ("budget=3", r"module\.budget=3: nothing is asked for"),
    ):
        with pytest.raises(ConfigError, match=words):
            made(compose, "method=meta_em", module + key)
    with pytest.raises(ConfigError, match=r"module\.acquire=random: a vote is predicted"):
        made(compose, "method=meta_em", f"{module}model=gated", f"{module}acquire=random")


def test_a_network_that_diverged_is_not_kept(compose: Compose) -> None:
    overrides = [*SMOKE, "method=prototypical", "trainer.lr=1e30", "seed=3"]
    with pytest.raises(FloatingPointError, match="not numbers"):
        run(compose(*overrides))
    kept = made(compose, *overrides[-3:]).learned()
    assert kept is not None
    assert not kept.exists()


def test_a_broken_file_in_the_cache_is_made_anew(compose: Compose) -> None:
    overrides = [*SMOKE, "method=prototypical", "seed=4"]
    row = run(compose(*overrides))
    kept = made(compose, *overrides[-2:]).learned()
    assert kept is not None
    kept.write_bytes(b"no weights")
    assert run(compose(*overrides, "mode=force"))["metrics"] == row["metrics"]
    kept.with_suffix(".csv").unlink()
    assert run(compose(*overrides, "mode=force"))["metrics"] == row["metrics"]


def test_validation_is_on_items_that_are_not_learned_from(compose: Compose) -> None:
    m = made(compose, "method=meta_em")
    learned, held = (set(np.concatenate(groups).tolist()) for groups in (m.train, m.val))
    assert held
    assert not learned & held
    assert made(compose, "method=meta_em", "trainer.val_share=0").val == []


def test_votes_that_were_asked_for_are_those_that_are_counted(
    compose: Compose, tmp_path: Path
) -> None:
    run(
        compose(
            *(*SMOKE, "method=meta_em", "method.module.acquire=random", "method.module.budget=2"),
            "method.episodes.annotators=[3]",
        )
    )
    (path,) = tmp_path.rglob("annotators.csv")
    rows = results.read_csv(path)
    votes = [sum(int(r["votes"]) for r in rows if r["task"] == str(t)) for t in range(6)]
    # four mixtures; each of 8 examples has one, and two were asked for
    assert votes == [4 * (8 + 2)] * 6


def test_classes_that_were_never_learned_are_refused_to_a_classifier(tmp_path: Path) -> None:
    from annorun.training import Training
    from annorun.votes import Items, Votes

    truth = np.array([0, 1, 0, 1, 2, 3])
    split = np.array(["train"] * 4 + ["test"] * 2)
    x = np.zeros((6, 1, 8, 8), dtype=np.float32)
    items = Items("image", {"x": x}, split, 4, truth=truth)
    votes = Votes(np.arange(4), np.zeros(4), truth[:4], n_items=6, n_annotators=1, n_classes=4)
    c = config.plain(config.compose("config", ["method=oracle", "dataset=digits"]))
    with pytest.raises(ConfigError, match="no class of the test part is in the train part"):
        Training(c, items, votes, lambda *_: None)


def test_a_method_without_training_keeps_nothing(compose: Compose) -> None:
    assert made(compose, "method=shallow").learned() is None
    assert made(compose, "method=crowd_tasks").learned() is None


def test_the_pool_serves_ordinary_methods_too(compose: Compose) -> None:
    overrides = ["method=dawid_skene", "model_size=none", *SMOKE[:3]]
    c: dict[str, Any] = config.plain(compose(*overrides, "annotator_dist.n_annotators=9"))
    crowd = load(c)
    assert crowd.votes.n_annotators == 9
    assert crowd.accuracy is not None
    assert crowd.items.truth is not None
    right = crowd.items.truth[crowd.votes.item] == crowd.votes.label
    share = np.array([right[crowd.votes.annotator == m].mean() for m in range(9)])
    assert np.abs(share - crowd.accuracy).max() < 0.06
