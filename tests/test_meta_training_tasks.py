"""Which tasks meta-training learns from, validates on and is judged by, on data of unequal classes.

Every item has features of its own, so that a task's inputs tell which items it has.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import reduce
from itertools import islice
from operator import getitem
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from annorun import fitting, meta_training, results
from annorun.config import compose, plain
from annorun.meta_training import MetaTraining
from annorun.method.episodic import Answers, Episodic, Tasks
from annorun.run import build
from annorun.votes import Ints, Items, TaskSpec, Votes

Made = Callable[..., MetaTraining]
WAY, SHOTS, QUERIES, N_TASKS = 3, 2, 4, 23
KEYS = [
    *("method=prototypical", "dataset=digits", "noise=confusion", "trainer=smoke"),
    *("annotator_dist=expert_hammer_spammer", "trainer.max_steps=4", "trainer.val_every=1"),
    *("trainer.batch_size=2", "seed=8", "data_seed=6", f"method.episodes.way={WAY}"),
    *(f"method.episodes.shots={SHOTS}", f"method.episodes.queries={QUERIES}"),
    *(f"method.episodes.tasks={N_TASKS}", "method.episodes.annotators=[5,3]"),
]
REAL = {"method.episodes.real": True}
# the parts and mixtures differ beyond doubt: in training everybody says the next class
POOL = {
    "annotator_dist.train": {"pair_flip": 1.0},
    "annotator_dist.test": [{"spammer": 1.0}, {"expert": 1.0}, {"class_spammer": 1.0}],
    "annotator_dist.flip": 1.0,
    "annotator_dist.expert": 1.0,
}


class Planted(Episodic):
    """One weight, w = 0, which each step moves to w - 1; an answer shows all that was handed over.

    Queries are answered right where w is nearer to -2 than to any other step's.
    """

    def __init__(self, spec: TaskSpec, optimizer: dict[str, Any], seed: int):
        super().__init__(spec, {}, optimizer, seed)
        self.w = nn.Parameter(torch.zeros(()))
        self.register_buffer("seen", torch.zeros(()))
        self.asked: list[Tasks] = []
        self.modes: list[tuple[bool, bool]] = []

    def loss(self, tasks: Tasks) -> Tensor:
        """Return w: its gradient is 1."""
        self.seen += 1
        return self.w

    def practise(self, tasks: Tasks) -> Tensor:
        """Return nearly sure answers, right after two steps, and less sure ones later."""
        right = abs(self.w.item() + 2) < 0.5
        share = 0.9 - 0.1 * abs(self.w.item())
        shown = tasks.query_truth if right else (tasks.query_truth + 1) % self.spec.n_classes
        sure = nn.functional.one_hot(shown, self.spec.n_classes)
        return (share * sure + (1 - share) / self.spec.n_classes).log()

    def answer(self, tasks: Tasks) -> Answers:
        """Return the first numbers of each input, and how many votes each annotator gave."""
        self.asked.append(tasks)
        self.modes.append((self.training, torch.is_grad_enabled()))
        k = self.spec.n_classes
        given = (tasks.votes >= 0).sum(dim=1).float()
        return Answers(tasks.query[..., :k], tasks.support[..., :k], given, tasks.votes)

    def places(self, tasks: Tasks) -> tuple[Tensor, Tensor, Tensor]:
        """Return the inputs as they are."""
        self.asked.append(tasks)
        return tasks.support[0], tasks.query[0], tasks.query[0][: self.spec.n_classes]


def crowd(by_class: bool = False, n_classes: int = 8) -> tuple[Items, Votes]:
    """Classes of 14 to 21 items; test items lie far from those to learn from.

    Votes: two annotators of six an item of the train part, the second wrong.
    """
    draw = np.random.default_rng(0)
    truth = draw.permutation(np.repeat(np.arange(n_classes), np.arange(14, 14 + n_classes)))
    part = np.where(draw.random(len(truth)) < 0.4, "test", "train")
    if by_class:
        n_classes = 12
        truth = draw.permutation(np.repeat(np.arange(12), np.arange(14, 26)))
        part = np.select([truth % 3 == 0, truth % 3 == 1], ["train", "val"], "test")
    x = draw.normal(size=(len(truth), 4)) * [1, 5, 1, 1]
    x += np.select([part == "test", part == "val"], [40.0, -30.0], 0.0)[:, None]
    x[:, 3] = 7.0
    items = Items("features", {"x": x.astype(np.float32)}, part, n_classes, truth=truth)
    voted = np.flatnonzero(part == "train")
    who = np.stack([voted % 6, (voted + 1) % 6], axis=1)
    label = np.stack([truth[voted], (truth[voted] + 1) % n_classes], axis=1)
    votes = Votes(np.repeat(voted, 2), who.ravel(), label.ravel(), len(truth), 6, n_classes)
    return items, votes


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    """Return the config that each test changes some keys of."""
    return plain(compose("config", KEYS))


@pytest.fixture
def made(base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Return a function: keys and their values -> meta-training of the planted method."""
    monkeypatch.setenv("ANNORUN_CACHE", str(tmp_path / "cache"))

    def build_planted(node: dict[str, Any], **given: Any) -> Any:
        if "Prototypical" in node["_target_"]:
            return Planted(given["spec"], given["optimizer"], given["seed"])
        return build(node, **given)

    def make(changed: dict[str, Any] | None = None, by_class: bool = False) -> MetaTraining:
        c = deepcopy(base)
        for path, value in {"dataset.kind": "features", **(changed or {})}.items():
            *nodes, key = path.split(".")
            reduce(getitem, nodes, c)[key] = value
        return MetaTraining(c, *crowd(by_class), build_planted)

    return make


def items_of(m: MetaTraining, x: Tensor) -> Ints:
    """Return the numbers of the items that inputs (T, N, 4) are, (T, N)."""
    number = {tuple(row): i for i, row in enumerate(m.x.tolist())}
    return np.array([[number[tuple(row)] for row in task] for task in x.tolist()])


def fitted(
    m: MetaTraining, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> tuple[list[Tasks], list[Tasks]]:
    """Return three steps' training tasks and all validation tasks, as the trainer gets them."""
    got: dict[str, list[Tasks]] = {"val": []}

    def fit(module: Any, train: Any, val: Any) -> None:
        got["train"] = list(islice(train, 3))
        if val is not None:
            got["val"] = list(val)

    fake = SimpleNamespace(fit=fit, validate=lambda *_, **__: [], max_steps=4)
    monkeypatch.setattr(fitting, "trainer", lambda *_, **__: fake)
    m._fit(folder)
    return got["train"], got["val"]


def inputs(tasks: list[Tasks]) -> set[tuple[float, ...]]:
    """Return the inputs of all supports and queries."""
    parts = [part.flatten(0, 1) for t in tasks for part in (t.support, t.query)]
    return set(map(tuple, torch.cat(parts).tolist()))


@pytest.mark.parametrize("by_class", [False, True])
def test_features_are_standardised_by_the_items_to_learn_from(made: Made, by_class: bool) -> None:
    m = made(by_class=by_class)
    x = torch.from_numpy(m.items.inputs["x"])
    train = x[torch.from_numpy(m.items.split == "train")]
    # the last number is constant: moved, not divided
    std = torch.tensor([*train.std(dim=0, correction=0).tolist()[:3], 1.0])
    torch.testing.assert_close(m.x, (x - train.mean(dim=0)) / std)
    assert (m.x[:, :3].mean(dim=0).abs() > 0.5).all()


def test_features_of_target_classes_do_not_standardise_where_votes_are_real(
    made: Made,
) -> None:
    m = made(REAL)
    x = m.items.inputs["x"]
    truth = m.items.truth
    assert truth is not None
    target = set(truth[np.concatenate(m.test)])
    others = (crowd()[0].split == "train") & ~np.isin(truth, list(target))
    assert len(target) == WAY
    np.testing.assert_allclose(
        m.x[:, 1], (x[:, 1] - x[others, 1].mean()) / x[others, 1].std(), rtol=1e-4
    )


def test_images_stay_as_they_are(base: dict[str, Any]) -> None:
    x = np.random.default_rng(0).random((160, 1, 8, 8), dtype=np.float32) + 3
    items = Items("image", {"x": x}, np.tile(["train", "test"], 80), 4, truth=np.arange(160) // 40)
    none = np.empty(0, dtype=np.int64)
    m = MetaTraining(base, items, Votes(none, none, none, 160, 0, 4), build)
    np.testing.assert_array_equal(m.x, x)


@pytest.mark.parametrize("by_class", [False, True])
def test_each_part_of_the_data_has_tasks_of_its_own(
    made: Made,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    by_class: bool,
) -> None:
    """Training, validation and target tasks share no item; by classes, no class either."""
    m = made(by_class=by_class)
    train, val = fitted(m, monkeypatch, tmp_path)
    assert [t.votes.shape[0] for t in train] == [2, 2, 2]
    assert [t.votes.shape[0] for t in val] == [1] * 25
    target = m.tasks(*(lambda drawn, own: (drawn, own.votes))(*m.target(3, 0)))
    assert target.support.shape == (N_TASKS, WAY * SHOTS, 4)
    assert target.query.shape == (N_TASKS, WAY * QUERIES, 4)
    groups = [
        np.unique(
            np.concatenate([items_of(m, x).ravel() for t in part for x in (t.support, t.query)])
        )
        for part in (train, val, [target])
    ]
    # of a split by items, validation is held out of the train part
    parts = ("train", "val" if by_class else "train", "test")
    for group, part in zip(groups, parts, strict=True):
        assert set(m.items.split[group]) == {part}
    truth = m.items.truth
    assert truth is not None
    learned_from = np.concatenate(m.train)
    assert set(groups[0]) <= set(learned_from)
    assert not set(groups[1]) & set(learned_from)
    if by_class:
        classes = [set(truth[group]) for group in groups]
        assert not classes[0] & classes[1] and not classes[1] & classes[2]
        assert not classes[0] & classes[2]


def test_the_share_held_out_is_that_of_the_trainer(made: Made) -> None:
    least = SHOTS + QUERIES
    for share in (0.1, 0.6):
        m = made({"trainer.val_share": share})
        items = crowd()[0]
        sizes = [int(((items.truth == k) & (items.split == "train")).sum()) for k in range(8)]
        able = [n for n in sizes if n >= least]
        held = [max(round(share * n), least) for n in able]
        assert [len(g) for g in m.val] == [
            h for n, h in zip(able, held, strict=True) if n - h >= least
        ]
        both = np.concatenate(m.train + m.val)
        assert len(both) == len(set(both)) == sum(able)


def test_the_run_s_seed_draws_training_tasks_and_weights_and_the_data_s_all_else(
    made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each consumer has a child of its own: two that share one would draw the same numbers."""
    drawn: list[tuple[int, str]] = []
    plain_rng = meta_training.rng

    def recorded(seed: int, name: str) -> np.random.Generator:
        drawn.append((seed, name))
        return plain_rng(seed, name)

    monkeypatch.setattr(meta_training, "rng", recorded)
    m = made(REAL)
    assert m.module.seed == 8
    assert [seed for seed, _ in drawn] == [6] * 3
    m = made()
    fitted(m, monkeypatch, tmp_path)
    for r, mixture in m.cells():
        m.target(r, mixture)
    names = [name for seed, name in drawn if seed == 6]
    assert {name for seed, name in drawn if seed != 6} == {"training_tasks"}
    # made twice, so twice target tasks and what is held out: four names in six draws
    assert len(set(names)) == len(names) - 2
    assert m.module.seed == 8


def test_seeds_move_what_they_should_and_nothing_else(
    made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = {}
    for seeds in ((8, 6), (9, 6), (8, 7)):
        m = made({"seed": seeds[0], "data_seed": seeds[1]})
        train, val = fitted(m, monkeypatch, tmp_path)
        drawn, own = m.target(5, 2)
        numbers = (
            [*train[0], *train[2]],
            [part for t in val for part in t],
            [drawn.query, own.votes],
        )
        found[seeds] = [[np.asarray(part) for part in group] for group in numbers]

    def same(a: tuple[int, int], b: tuple[int, int]) -> list[bool]:
        return [
            all(np.array_equal(x, y) for x, y in zip(one, other, strict=True))
            for one, other in zip(found[a], found[b], strict=True)
        ]

    # training, validation and target tasks
    assert same((8, 6), (9, 6)) == [False, True, True]
    assert same((8, 6), (8, 7)) == [False, False, False]


def test_every_step_has_tasks_of_its_own(
    made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    m = made()
    train, val = fitted(m, monkeypatch, tmp_path)
    assert len({tuple(t.query.flatten().tolist()) for t in train}) == 3
    assert len({tuple(t.query.flatten().tolist()) for t in val}) == 25
    assert not torch.equal(train[0].query[0], train[0].query[1])
    # R is drawn for each step, each as often as another
    counts = [t.votes.shape[2] for t in islice(meta_training.Stream(m), 60)]
    assert set(counts) == {3, 5} and 15 < counts.count(3) < 45


def test_training_is_labelled_by_the_train_part_and_targets_by_each_mixture_of_the_test_part(
    made: Made,
) -> None:
    m = made({"method.episodes.pseudo": True, **POOL})
    tasks = m.source(m.train, 9, np.random.default_rng(0))
    truth = torch.arange(WAY).repeat_interleave(SHOTS)[None, :, None]
    assert (tasks.votes == (truth + 1) % WAY).all()
    # queries are clean
    assert (tasks.query_truth == torch.arange(WAY).repeat_interleave(QUERIES)).all()
    assert m.cells() == [(5, 0), (5, 1), (5, 2), (3, 0), (3, 1), (3, 2)]
    # spammers; experts; those who guess at two of three classes and know the third
    for r in (3, 5):
        right = []
        for mixture, accuracy in enumerate((1 / 3, 1.0, 5 / 9)):
            drawn, own = m.target(r, mixture)
            assert own.votes.shape == (N_TASKS, WAY * SHOTS, r)
            np.testing.assert_allclose(own.accuracy, np.full((N_TASKS, r), accuracy))
            right.append(float((own.votes == drawn.support_truth[..., None]).mean()))
            assert own.who is None
        np.testing.assert_allclose(right, [1 / 3, 1, 5 / 9], atol=0.1)
        assert right[1] == 1


def test_every_annotator_is_drawn_anew_for_each_task(made: Made) -> None:
    """Of two types of whom one is always right and one always wrong, a task may have both."""
    halves = {"expert": 0.5, "pair_flip": 0.5}
    pool = {**POOL, "annotator_dist.train": halves, "annotator_dist.test": [halves]}
    m = made({"method.episodes.pseudo": True, **pool})
    _, own = m.target(5, 0)
    source = m.source(m.train, 40, np.random.default_rng(0))
    truth = np.arange(WAY).repeat(SHOTS)[None, :, None]
    for votes in (own.votes, source.votes.numpy()):
        share = (votes == truth).mean(axis=1)
        assert set(share.ravel()) == {0.0, 1.0}
        # by annotator over tasks, and by task over annotators
        assert (share.std(axis=0) > 0).all() and (share.std(axis=1) > 0).any()
    np.testing.assert_array_equal(own.accuracy, (own.votes == truth).mean(axis=1))


def test_target_tasks_are_the_same_whoever_labels_them_and_votes_have_draws_of_their_own(
    made: Made,
) -> None:
    m = made({"annotator_dist.test": [{"spammer": 1.0}] * 2})
    cells = [m.target(r, mixture) for r, mixture in m.cells()]
    for drawn, _ in cells[1:]:
        for name in ("support", "query", "support_truth", "query_truth", "classes"):
            np.testing.assert_array_equal(getattr(drawn, name), getattr(cells[0][0], name))
    # what a method draws, and who says what, of one cell tells nothing of another
    assert len({tuple(drawn.seed) for drawn, _ in cells}) == len(cells) == 4
    assert all(len(set(drawn.seed)) == N_TASKS for drawn, _ in cells)
    agreed = (cells[0][1].votes == cells[1][1].votes).mean()
    assert abs(agreed - 1 / 3) < 0.1
    agreed = (cells[0][1].votes[..., :3] == cells[2][1].votes).mean()
    assert abs(agreed - 1 / 3) < 0.1


def test_a_few_of_the_annotators_label_an_example_where_that_is_asked(
    made: Made,
) -> None:
    for pseudo in (True, False):
        m = made({"method.episodes.per_item": 2, "method.episodes.pseudo": pseudo})
        tasks = m.source(m.train, 5, np.random.default_rng(0))
        assert ((tasks.votes >= 0).sum(dim=-1) == 2).all()
        for r, mixture in m.cells():
            assert ((m.target(r, mixture)[1].votes >= 0).sum(axis=-1) == 2).all()


def test_source_noise_is_in_the_support_and_the_queries_and_not_in_target_tasks(
    made: Made,
) -> None:
    m = made({"method.episodes.source_noise": 0.4, **POOL})
    tasks = m.source(m.train, 300, np.random.default_rng(0))
    asked = torch.arange(WAY).repeat_interleave(QUERIES)
    assert float((tasks.query_truth != asked).float().mean()) == pytest.approx(0.4, abs=0.04)
    labelled = torch.arange(WAY).repeat_interleave(SHOTS)[None, :, None]
    wrong = tasks.votes != labelled
    assert float(wrong.float().mean()) == pytest.approx(0.4, abs=0.04)
    # the class is wrong, so that all say the same
    assert (wrong == wrong[..., :1]).all()
    drawn, own = m.target(3, 1)
    assert (own.votes == drawn.support_truth[..., None]).all()
    assert (drawn.query_truth == asked.numpy()).all()


def test_target_tasks_are_answered_in_order_without_their_truth(
    made: Made,
) -> None:
    """23 tasks, of which at most ten are asked at once: each answer belongs to its task."""
    m = made(POOL)
    m.module.eval()
    judged = list(m.judge())
    assert [(j.n_annotators, j.mixture) for j in judged] == m.cells()
    asked: list[Tasks] = m.module.asked  # type: ignore[assignment]
    assert [len(t.votes) for t in asked] == [10, 10, 3] * 6
    assert all((t.query_truth == -1).all() for t in asked)
    assert set(m.module.modes) == {(False, False)}  # type: ignore[arg-type]
    for cell, j in enumerate(judged):
        drawn, own = m.target(j.n_annotators, j.mixture)
        np.testing.assert_array_equal(j.drawn.query, drawn.query)
        np.testing.assert_array_equal(j.own.votes, own.votes)
        np.testing.assert_allclose(j.log_probs, m.x[drawn.query][..., :WAY])
        np.testing.assert_allclose(j.labels, m.x[drawn.support][..., :WAY])
        np.testing.assert_allclose(j.accuracy, (own.votes >= 0).sum(axis=1))
        np.testing.assert_array_equal(j.asked, own.votes)
        seeds = torch.cat([t.seed for t in asked[3 * cell : 3 * cell + 3]])
        np.testing.assert_array_equal(seeds, drawn.seed)


def test_the_picture_is_of_the_first_target_task_of_the_first_cell(
    made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    m = made(POOL)
    got: list[Any] = []
    monkeypatch.setattr(meta_training.episode_results, "write_plane", lambda *a: got.extend(a))
    m.picture(tmp_path)
    folder, drawn, votes, support, query, _ = got
    wanted, own = m.target(5, 0)
    assert folder == tmp_path
    np.testing.assert_array_equal(drawn.support, wanted.support)
    np.testing.assert_array_equal(votes, own.votes)
    np.testing.assert_allclose(support, m.x[wanted.support[0]])
    np.testing.assert_allclose(query, m.x[wanted.query[0]])
    (asked,) = m.module.asked  # type: ignore[misc]
    assert (asked.query_truth == -1).all() and len(asked.votes) == 1


# w is 0, -1, -2, -3 after so many steps; the loss is least at first, the accuracy best after two
STEPS = {"lr": 1.0, "schedule": "constant", "weight_decay": 0.0, "clip": 5.0}


@pytest.mark.parametrize(
    ("choose_on", "val_every", "w", "accuracy"),
    [
        ("gold", 1, -2.0, {1: 0.0, 2: 1.0, 3: 0.0, 4: 0.0}),
        ("last", 1, -4.0, {1: 0.0, 2: 1.0, 3: 0.0, 4: 0.0}),
        ("gold", 2, -2.0, {2: 1.0, 4: 0.0}),
        # a last row for the steps after the last multiple
        ("last", 3, -4.0, {3: 0.0, 4: 0.0}),
    ],
)
def test_the_weights_of_the_best_validation_are_judged_and_cached(
    made: Made,
    tmp_path: Path,
    choose_on: str,
    val_every: int,
    w: float,
    accuracy: dict[int, float],
) -> None:
    own = {**STEPS, "choose_on": choose_on, "val_every": val_every}
    keys = {f"trainer.{key}": value for key, value in own.items()}
    m, folder = made(keys), tmp_path / "run"
    folder.mkdir()
    m.judge_tasks(folder)
    assert m.module.w.item() == pytest.approx(w, abs=1e-3)  # type: ignore[arg-type]
    assert m.steps == 4
    assert set(m.module.modes) == {(False, False)}  # type: ignore[arg-type]
    curves = results.read_csv(folder / "metrics.csv")
    assert {int(r["step"]): float(r["val/acc"]) for r in curves} == accuracy
    assert not list(folder.glob("*.ckpt"))
    # all that was learned, buffers too, comes back without a step
    again, other = made(keys), tmp_path / "again"
    other.mkdir()
    again.judge_tasks(other)
    assert torch.equal(again.module.w, m.module.w)  # type: ignore[arg-type]
    assert float(again.module.seen) == float(m.module.seen) == -w  # type: ignore[arg-type]
    assert again.steps == 4
    for name in ("metrics.csv", "tasks.csv", "predictions.csv", "task.csv"):
        assert (other / name).read_text() == (folder / name).read_text()


def test_real_votes_are_one_cell_and_their_tasks_are_of_the_target_classes(
    made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    m = made(REAL)
    items, votes = crowd()
    truth = items.truth
    assert truth is not None
    assert m.cells() == [(0, 0)]
    drawn, own = m.target(0, 0)
    assert set(items.split[drawn.query.ravel()]) == {"test"}
    assert set(items.split[drawn.support.ravel()]) == {"train"}
    train, val = fitted(m, monkeypatch, tmp_path)
    seen = [items_of(m, x).ravel() for t in [*train, *val] for x in (t.support, t.query)]
    classes = set(truth[drawn.query.ravel()])
    assert len(classes) == WAY
    assert not classes & set(truth[np.concatenate(seen)])
    # annotator i % 6 is right on item i, the next names the class after it
    assert own.who is not None
    dense = votes.dense()
    for t, task in enumerate(drawn.support):
        kinds = truth[task[::SHOTS]].tolist()
        for n, item in enumerate(task):
            for column, annotator in enumerate(own.who[t]):
                label = dense[item, annotator] if annotator >= 0 else -1
                wanted = kinds.index(label) if label in kinds else -1
                assert own.votes[t, n, column] == wanted
    assert (own.votes == drawn.support_truth[..., None]).any(axis=2).all()


def test_tasks_hide_their_truth_unless_it_is_handed_over(made: Made) -> None:
    m = made()
    drawn, own = m.target(3, 0)
    assert (m.tasks(drawn, own.votes).query_truth == -1).all()
    shown = m.tasks(drawn, own.votes, drawn.query_truth)
    np.testing.assert_array_equal(shown.query_truth, drawn.query_truth)
    np.testing.assert_array_equal(shown.seed, drawn.seed)
