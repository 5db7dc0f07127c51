"""Comparisons of several methods at once: pairs by both seeds, one correction, no pair too few."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from annorun.results import write_csv
from annorun.scores.significance import corrected_resampled_t, paired_bootstrap
from annorun.tables import compare


def finish(folder: Path, seed: int = 0, data_seed: int = 0, **metrics: float) -> Path:
    folder.mkdir(parents=True)
    row = {"seed": seed, "data_seed": data_seed, "metrics": metrics}
    (folder / "row.json").write_text(json.dumps(row))
    return folder


# how many of ten pairs are won by .1; the others are lost by .1
WON = {"d": 6, "c": 9, "a": 10, "e": 1}


def test_several_comparisons_are_corrected_for_being_several(tmp_path: Path) -> None:
    """Of 10 pairs of one size, p is the share of sums as far from 0, of 1024.

    6 to 4: all but the 252 sums of 0, 772; 9 to 1, and 1 to 9: 2 (1 + 10) = 22; 10 to 0: 2.
    Holm: 4 * 2, 3 * 22, not 2 * 22 but as much as that before it, 1 * 772.
    """
    runs = []
    for place, (seed, data_seed) in enumerate(itertools.product(range(5), (2, 7))):
        # what a seed is worth is more than any difference: only true pairs give these p
        level = 0.07 * seed + 0.3 * (data_seed == 7) * (seed % 2)
        values = {"b": level} | {
            method: level - (0.1 if place < n_won else -0.1) for method, n_won in WON.items()
        }
        for method, value in values.items():
            folder = finish(tmp_path / f"{method}{place}", seed, data_seed, acc=value)
            runs.append(((method,), folder))
    # in the order of the sweep, not of the seeds
    runs = [run for method in "debca" for run in runs[::-1] if run[0] == (method,)]
    # neither begun, failed, nor of one pair alone: no comparison
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "error.txt").touch()
    alone = finish(tmp_path / "alone", 0, 2, acc=0.9)
    runs += [(("f",), tmp_path / "failed"), (("g",), tmp_path / "none"), (("h",), alone)]
    found = compare(runs, ["method"], "acc", {"method": "b"})
    p = {n: f"{k / 1024:.4f}" for n, k in {"d": 772, "e": 22, "c": 22, "a": 2}.items()}
    holm = {n: f"{k / 1024:.4f}" for n, k in {"d": 772, "e": 66, "c": 66, "a": 8}.items()}
    mean = {"d": "+0.0200", "e": "-0.0800", "c": "+0.0800", "a": "+0.1000"}
    assert found == [["acc", f"b - {m}", mean[m], "10 runs", p[m], holm[m], ""] for m in "deca"]


def test_a_run_without_its_pair_has_no_part(tmp_path: Path) -> None:
    """Seed 1 of a, data seed 1 of b: two pairs are left, and no mean over what is not both."""
    runs = []
    for method, cells in {
        "a": {(0, 0): 0.1, (1, 0): 0.9, (2, 0): 0.3},
        "b": {(0, 0): 0.2, (2, 0): 0.2, (1, 1): 0.5},
    }.items():
        for (seed, data_seed), value in cells.items():
            folder = finish(tmp_path / f"{method}{seed}{data_seed}", seed, data_seed, acc=value)
            runs.append(((method,), folder))
    (row,) = compare(runs, ["method"], "acc", {"method": "b"})
    assert row == ["acc", "b - a", "+0.0000", "2 runs", "1.0000", "1.0000", ""]


def test_runs_that_differ_in_no_key_are_one_at_their_mean(tmp_path: Path) -> None:
    """Of a, .2 and .6 under seed 0 are .4; b less a is .1 and .3, whichever came last."""
    runs = []
    for place, (method, seed, value) in enumerate(
        [("a", 0, 0.2), ("b", 0, 0.5), ("a", 0, 0.6), ("a", 1, 0.5), ("b", 1, 0.9), ("b", 1, 0.7)]
    ):
        runs.append(((method,), finish(tmp_path / str(place), seed, acc=value)))
    (row,) = compare(runs, ["method"], "acc", {"method": "b"})
    assert row[1:4] == ["b - a", "+0.2000", "2 runs"]


def test_folds_of_several_settings_are_corrected_together(tmp_path: Path) -> None:
    runs, difference = [], {"short": (0.1, 0.3, 0.2), "long": (0.3, -0.1, 0.2)}
    for regime, fold, method in itertools.product(difference, range(3), "ab"):
        value = (method == "b") * difference[regime][fold]
        folder = finish(tmp_path / f"{regime}{fold}{method}", acc=0.2 * fold + value)
        runs.append(((regime, method, str(fold)), folder))
    keys = ["regime", "method", "fold"]
    found = compare(runs, keys, "acc", {"method": "b"}, folds="fold", test_share=0.3)
    p, q = (corrected_resampled_t(np.array(d), 0.3) for d in difference.values())
    assert 2 * p < q < 1
    assert [row[4:] for row in found] == [
        [f"{p:.4f}", f"{2 * p:.4f}", ""],
        [f"{q:.4f}", f"{q:.4f}", ""],
    ]


def test_a_task_under_another_seed_is_another_task(tmp_path: Path) -> None:
    """Two seeds of three tasks, each with two mixtures: six pairs, of which one is lost."""
    runs, wins = [], np.array([[0.1, 0.2, 0.3], [0.4, 0.5, -0.1]])
    for seed, method in itertools.product((0, 1), "ab"):
        folder = finish(tmp_path / f"{method}{seed}", seed, **{"test/acc": 0.5})
        lines = []
        for task, mixture in itertools.product(range(3), (0, 1)):
            # the mixtures differ by more than the methods do, in opposite ways
            level = 0.5 if (mixture == 0) == (method == "b") else 0.1
            lines.append((mixture, task, level + (method == "b") * wins[seed, task]))
        write_csv(folder / "tasks.csv", ("mixture", "task", "acc"), lines)
        runs.append(((method,), folder))
    (row,) = compare(runs, ["method"], "test/acc", {"method": "b"})
    low, high = paired_bootstrap(wins.ravel(), rng=np.random.default_rng(0))
    # of 64 signs, sums as far from 0 as 1.4: all one sign, or -.1 turned, or .1 turned, both ways
    assert row[1:5] == ["b - a", "+0.2333", "6 tasks", f"{6 / 64:.4f}"]
    assert row[6] == f"{low:+.4f} to {high:+.4f}"
    narrow = paired_bootstrap(wins.ravel(), rng=np.random.default_rng(0), level=0.9)
    assert narrow[0] > low + 0.01 and narrow[1] < high - 0.01


@pytest.mark.parametrize("metric", ["attribution/acc_clean_bag1", "test/label_acc"])
def test_items_of_unequal_numbers_of_answers_count_alike(tmp_path: Path, metric: str) -> None:
    """Of item p three answers, of q one: means of items by hand, 1/3 - 1 and 1 - 0."""
    runs = []
    right = {"a": {"p": (1, 1, 1), "q": (0,)}, "b": {"p": (1, 0, 0), "q": (1,)}}
    for method, answers in right.items():
        folder = finish(tmp_path / method, **{metric: 0.5})
        lines = [
            # an answer that is right by one metric is wrong by the other
            (item, "x", *((1 - k, "xy"[1 - k]) if metric[0] == "a" else (k, "xy"[k])))
            for item, own in answers.items()
            for k in own
        ]
        write_csv(folder / "responses.csv", ("item", "target", "agrees", "judged"), lines)
        runs.append(((method,), folder))
    (row,) = compare(runs, ["method"], metric, {"method": "b"})
    assert row[1:5] == ["b - a", f"{(1 / 3 - 1 + 1) / 2:+.4f}", "2 items", "1.0000"]
