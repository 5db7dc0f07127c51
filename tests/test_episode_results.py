"""The files and metrics of target tasks, by hand: two cells of unequal R, three tasks, K = 2."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from annorun import episode_results, results
from annorun.episode_results import Judged
from annorun.episodes import Drawn
from annorun.real_tasks import Annotated
from annorun.votes import Floats, Ints, Items

ITEMS = Items(
    "features",
    {"x": np.zeros((30, 1), dtype=np.float32)},
    np.full(30, "test"),
    2,
    truth=np.arange(30) % 2,
    names=[f"item{i}" for i in range(30)],
    annotator_names=["ann", "bob", "cy", "dee"],
)
# three tasks of two classes, one shot, two queries a class; items 0 to 5 are the support
DRAWN = Drawn(
    support=np.arange(6).reshape(3, 2),
    query=np.arange(6, 18).reshape(3, 4),
    support_truth=np.tile([0, 1], (3, 1)),
    query_truth=np.tile([0, 0, 1, 1], (3, 1)),
    classes=np.tile([0, 1], (3, 1)),
    seed=np.zeros(3, dtype=np.int64),
)
# probability of class 1 of each query: 4, 3 and 1 of 4 are right; then 2, 2 and 0
FIRST = np.array([[0.1, 0.2, 0.9, 0.8], [0.4, 0.7, 0.6, 0.9], [0.6, 0.6, 0.1, 0.8]])
SECOND = np.array([[0.9, 0.8, 0.7, 0.6], [0.4, 0.3, 0.2, 0.1], [0.9, 0.9, 0.1, 0.1]])


def log_probs(p: Floats) -> Floats:
    """Return (T, N, 2) of the probabilities of class 1."""
    return np.log(np.stack([1 - p, p], axis=-1))


def cell(n_annotators: int, mixture: int, p: Floats, seed: int, **changed: object) -> Judged:
    """One cell: votes, labels, learned and planted accuracies are drawn."""
    draw = np.random.default_rng(seed)
    votes = draw.integers(-1, 2, (3, 2, n_annotators))
    labels = draw.dirichlet([1.0, 1.0], (3, 2))
    learned, planted = draw.random((2, 3, n_annotators))
    made = Judged(
        n_annotators,
        mixture,
        DRAWN,
        Annotated(votes, None, planted),
        log_probs(p),
        labels,
        learned,
        None,
    )
    return replace(made, **changed)  # type: ignore[arg-type]


def two() -> list[Judged]:
    return [cell(2, 0, FIRST, 0), cell(3, 1, SECOND, 1)]


def test_accuracies_are_by_task_and_by_cell(tmp_path: Path) -> None:
    metrics = episode_results.write(tmp_path, ITEMS, iter(two()))
    rows = results.read_csv(tmp_path / "tasks.csv")
    assert [[float(v) for v in row.values()] for row in rows] == [
        *([2, 0, 0, 1.0], [2, 0, 1, 0.75], [2, 0, 2, 0.25]),
        *([3, 1, 0, 0.5], [3, 1, 1, 0.5], [3, 1, 2, 0.0]),
    ]
    first, second = 2 / 3, 1 / 3
    wanted = {"test/acc": 0.5}
    wanted |= {f"test_{name}/acc": first for name in ("r2", "m0", "r2_m0")}
    wanted |= {f"test_{name}/acc": second for name in ("r3", "m1", "r3_m1")}
    found = {k: v for k, v in metrics.items() if k.startswith("test") and k.endswith("/acc")}
    assert found == pytest.approx(wanted)


def test_a_mean_by_annotators_is_over_mixtures_and_one_by_mixture_over_annotators() -> None:
    cells = [cell(r, m, FIRST, 0) for r in (3, 30) for m in (0, 1, 2)]
    scores = [0.1, 0.2, 0.6, 0.5, 0.9, 1.0]
    assert episode_results.by_cell(cells, scores) == pytest.approx(
        {
            **{"test_r3/acc": 0.3, "test_r30/acc": 0.8},
            **{"test_m0/acc": 0.3, "test_m1/acc": 0.55, "test_m2/acc": 0.8},
            **{"test_r3_m0/acc": 0.1, "test_r3_m1/acc": 0.2, "test_r3_m2/acc": 0.6},
            **{"test_r30_m0/acc": 0.5, "test_r30_m1/acc": 0.9, "test_r30_m2/acc": 1.0},
        }
    )
    assert episode_results.by_cell([cell(0, 0, FIRST, 0)], [0.5]) == {}


def test_probabilistic_scores_are_of_all_queries_and_of_the_support_of_all_cells(
    tmp_path: Path,
) -> None:
    # of the support the first cell is right in 5 of 6, the second in 2 of 6, at one confidence
    right = np.array([[0, 1], [0, 1], [0, 0]]), np.array([[1, 0], [1, 1], [1, 1]])
    labels = [0.9 * np.eye(2)[r] + 0.05 for r in right]
    cells = [replace(c, labels=own) for c, own in zip(two(), labels, strict=True)]
    metrics = episode_results.write(tmp_path, ITEMS, cells)
    p, truth = np.concatenate([FIRST, SECOND]).ravel(), np.tile([0, 0, 1, 1], 6)
    of_truth = np.where(truth == 1, p, 1 - p)
    assert metrics["test/nll"] == pytest.approx(-np.log(of_truth).mean())
    assert metrics["test/brier"] == pytest.approx((2 * (1 - of_truth) ** 2).mean())
    assert metrics["support/acc"] == pytest.approx(7 / 12)
    assert metrics["support/ece"] == pytest.approx(0.95 - 7 / 12)
    none = [replace(c, labels=None) for c in two()]
    assert not any(k.startswith("support") for k in episode_results.answered(none))


def test_predictions_name_each_query_its_class_and_its_probabilities(tmp_path: Path) -> None:
    episode_results.write(tmp_path, ITEMS, two())
    rows = results.read_csv(tmp_path / "predictions.csv")
    assert len(rows) == 2 * 3 * 4
    for n, row in enumerate(rows):
        c, task, position = np.unravel_index(n, (2, 3, 4))
        p = (FIRST, SECOND)[c][task, position]
        assert (row["annotators"], row["mixture"], row["task"]) == (("2", "0"), ("3", "1"))[c] + (
            str(task),
        )
        assert row["item"] == f"item{6 + 4 * task + position}"
        assert row["truth"] == str(position // 2)
        assert (float(row["p_0"]), float(row["p_1"])) == pytest.approx((1 - p, p))


def test_annotators_have_their_votes_and_both_accuracies(tmp_path: Path) -> None:
    cells = two()
    assert cells[1].accuracy is not None
    # one of whom a method says nothing
    cells[1].accuracy[2, 1] = np.nan
    metrics = episode_results.write(tmp_path, ITEMS, cells)
    rows = results.read_csv(tmp_path / "annotators.csv")
    places = [(c, t, r) for c, n in ((0, 2), (1, 3)) for t in range(3) for r in range(n)]
    assert len(rows) == len(places) == 15
    errors = []
    for row, (c, t, r) in zip(rows, places, strict=True):
        own = cells[c]
        assert row["annotator"] == f"r{(2, 3)[c]}-m{c}-t{t}-{r}"
        assert (row["group"], row["task"]) == (f"m{c}", str(t))
        assert int(row["votes"]) == (own.own.votes[t, :, r] >= 0).sum()
        assert float(row["true_expertise"]) == own.own.accuracy[t, r]
        if (c, t, r) == (1, 2, 1):
            assert row["expertise"] == ""
            continue
        assert own.accuracy is not None
        assert float(row["expertise"]) == own.accuracy[t, r]
        errors.append(abs(own.accuracy[t, r] - own.own.accuracy[t, r]))
    assert metrics["annotators/mae"] == pytest.approx(np.mean(errors))


def test_votes_that_were_asked_for_are_counted_in_place_of_all(tmp_path: Path) -> None:
    given = np.zeros((3, 2, 2), dtype=np.int64)
    asked = np.array([[[0, -1], [0, 1]], [[-1, -1], [0, 1]], [[-1, 0], [-1, 1]]])
    own = Annotated(given, None, np.full((3, 2), 0.5))
    episode_results.write(tmp_path, ITEMS, [cell(2, 0, FIRST, 0, own=own, asked=asked)])
    rows = results.read_csv(tmp_path / "annotators.csv")
    assert [int(row["votes"]) for row in rows] == [2, 1, 1, 1, 0, 2]


def test_real_annotators_have_their_names_and_those_who_are_not_there_no_row(
    tmp_path: Path,
) -> None:
    who = np.array([[3, 1], [2, -1], [0, 3]])
    votes = np.array([[[0, 1], [0, -1]], [[1, -1], [1, -1]], [[-1, 1], [0, 1]]])
    planted = np.array([[0.3, 0.1], [0.2, np.nan], [0.0, 0.3]])
    learned = np.array([[0.5, 0.6], [0.7, 0.8], [0.9, 0.4]])
    real = cell(0, 0, FIRST, 0, own=Annotated(votes, who, planted), accuracy=learned)
    metrics = episode_results.write(tmp_path, ITEMS, [real])
    rows = results.read_csv(tmp_path / "annotators.csv")
    found = [
        (
            r["annotator"],
            r["task"],
            int(r["votes"]),
            float(r["expertise"]),
            float(r["true_expertise"]),
        )
        for r in rows
    ]
    assert found == [
        *(("dee", "0", 2, 0.5, 0.3), ("bob", "0", 1, 0.6, 0.1), ("cy", "1", 2, 0.7, 0.2)),
        *(("ann", "2", 1, 0.9, 0.0), ("dee", "2", 2, 0.4, 0.3)),
    ]
    assert {r["group"] for r in rows} == {""}
    assert metrics["annotators/mae"] == pytest.approx(np.mean([0.2, 0.5, 0.5, 0.9, 0.1]))
    assert metrics["test/acc"] == pytest.approx(2 / 3)
    assert not any(k.startswith("test_") for k in metrics)


def test_a_method_that_says_nothing_of_annotators_has_no_score_of_them(tmp_path: Path) -> None:
    quiet = [replace(c, accuracy=None) for c in two()]
    metrics = episode_results.write(tmp_path, ITEMS, quiet)
    assert not any(k.startswith("annotators") for k in metrics)
    assert {r["expertise"] for r in results.read_csv(tmp_path / "annotators.csv")} == {""}


def test_answers_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    bad = FIRST.copy()
    bad[1, 2] = np.nan
    with pytest.raises(FloatingPointError, match="not numbers"):
        episode_results.write(tmp_path, ITEMS, [cell(2, 0, FIRST, 0), cell(3, 0, bad, 0)])
    assert not list(tmp_path.iterdir())


def plane(votes: Ints, folder: Path) -> list[dict[str, str]]:
    """Write the plane of points in three numbers, of which the last says least, and read it."""
    draw = np.random.default_rng(0)
    support, query = (draw.normal(size=(n, 3)) * [5, 2, 0.1] + 10 for n in (2, 4))
    prototypes = draw.normal(size=(2, 3)) + 10
    episode_results.write_plane(folder, DRAWN, votes, support, query, prototypes)
    rows = results.read_csv(folder / "task.csv")
    every = np.concatenate([support, query, prototypes])
    found = np.array([[float(r["x"]), float(r["y"])] for r in rows])
    # an isometry but for the direction that says least, of the support and queries
    near = np.linalg.norm(found[:, None] - found[None], axis=-1)
    far = np.linalg.norm(every[:, None, :2] - every[None, :, :2], axis=-1)
    np.testing.assert_allclose(near[:6, :6], far[:6, :6], atol=0.3)
    np.testing.assert_allclose(found[:6].mean(axis=0), 0, atol=1e-9)
    assert found[:6, 0].std() > found[:6, 1].std()
    return rows


def test_the_plane_is_of_the_first_task_with_its_classes_and_majorities(tmp_path: Path) -> None:
    # the other tasks' votes say the opposite; the second example is tied
    votes = np.array([[[1, 1, 0], [0, 1, -1]], [[0, 0, 0], [1, 1, 1]], [[0, 0, 0], [0, 0, 0]]])
    rows = plane(votes, tmp_path)
    assert [r["kind"] for r in rows] == ["support"] * 2 + ["query"] * 4 + ["prototype"] * 2
    assert [r["class"] for r in rows] == ["0", "1", "0", "0", "1", "1", "0", "1"]
    assert [r["majority"] for r in rows] == ["1", ""] + [""] * 6


def test_places_that_are_not_numbers_have_no_picture(tmp_path: Path) -> None:
    bad = np.full((2, 3), np.nan)
    votes = np.zeros((3, 2, 2), dtype=np.int64)
    episode_results.write_plane(tmp_path, DRAWN, votes, bad, np.zeros((4, 3)), np.zeros((2, 3)))
    assert not (tmp_path / "task.csv").exists()
