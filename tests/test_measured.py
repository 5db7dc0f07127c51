"""Measured rows: what tells them apart, what a table's deviation is over, and the slow guard."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from annorun import config, results, tables

SCRIPTS = Path(__file__).parents[1] / "scripts"
FILES = sorted((config.experiments_dir() / "measured").glob("*.csv"))
COSTS = ("steps", "seconds", "device", "peak_mib", "passes", "iterations")
# columns of the files of times that are figures, not settings
TIMES = ("ours", "plain", "ratio", "difference", "n", "at once", "one by one", "members", "one")
FIGURES = (*COSTS, *TIMES, "accuracy")

SWEEP = """
defaults:
  - config
  - override dataset: subpopulation_items
  - override method: majority
  - override noise: spam
  - override annotator_dist: subpopulations
  - override model_size: none
  - _self_
name: small
also: {also}
keys: {keys}
metric: [labels/acc_0, labels/acc_1]
folds: {folds}
dataset:
  n_items: {n_items}
annotator_dist:
  spam: [0.2, 0.2]
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      {params}
"""


def sweep_text(params: dict[str, str], **keys: Any) -> str:
    """Return a sweep file over 60 simulated items."""
    given = {"also": "null", "keys": "[method]", "folds": "null", "n_items": 60} | keys
    return SWEEP.format(params="\n      ".join(f"{k}: {v}" for k, v in params.items()), **given)


@pytest.fixture(scope="module")
def reproduce_table() -> ModuleType:
    sys.path.insert(0, str(SCRIPTS))
    try:
        import reproduce_table
    finally:
        sys.path.remove(str(SCRIPTS))
    return reproduce_table


@pytest.fixture
def experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder in place of experiments/."""
    folder = tmp_path / "experiments"
    folder.mkdir()
    monkeypatch.setattr(config, "experiments_dir", lambda: folder)
    return folder


Measure = Callable[..., int]


@pytest.fixture
def measure(
    reproduce_table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Measure:
    """Return a function that runs and measures the sweep `small`, and returns the exit code."""

    def measured(*words: str) -> int:
        arguments = ["small", "--run", "--measured", *words, f"out_root={tmp_path / 'out'}"]
        monkeypatch.setattr(sys, "argv", ["reproduce_table.py", *arguments])
        return int(reproduce_table.main())

    return measured


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_two_rows_of_a_file_have_equal_settings(path: Path) -> None:
    rows = results.read_csv(path)
    names = [c for c in rows[0] if "/" not in c and c not in FIGURES]
    equal = [k for k, n in Counter(tuple(r[c] for c in names) for r in rows).items() if n > 1]
    assert names and not equal


def test_a_measured_row_names_every_swept_key_that_nothing_else_determines(
    experiments: Path, measure: Measure, reproduce_table: ModuleType
) -> None:
    """`divisiveness` is no key of the table; `n_classes` goes with it, `n_items` never differs."""
    pairs = {"dataset.divisiveness": "0.4,1", "dataset.n_items": "60", "data_seed": "0,1"}
    (experiments / "small.yaml").write_text(sweep_text(pairs, also="[part]"))
    three = {"dataset.divisiveness": "0.7", "dataset.n_classes": "3", "data_seed": "0,1"}
    (experiments / "part.yaml").write_text(sweep_text(three))
    assert measure() == 0
    rows = results.read_csv(experiments / "measured" / "small.csv")
    assert list(rows[0]) == [
        *reproduce_table.CHOICES,
        "dataset.divisiveness",
        *("seed", "data_seed", "labels/acc_0", "labels/acc_1"),
        *reproduce_table.COSTS,
    ]
    assert [(r["dataset.divisiveness"], r["data_seed"]) for r in rows] == [
        (d, s) for d in ("0.4", "1", "0.7") for s in ("0", "1")
    ]


def test_a_measured_row_names_a_key_that_the_command_sweeps(
    experiments: Path, measure: Measure
) -> None:
    (experiments / "small.yaml").write_text(sweep_text({"data_seed": "0"}))
    assert measure("dataset.n_items=60,80") == 0
    rows = results.read_csv(experiments / "measured" / "small.csv")
    assert [r["dataset.n_items"] for r in rows] == ["60", "80"]


def test_a_measured_row_of_a_table_with_folds_names_its_fold_even_if_all_have_one(
    experiments: Path, measure: Measure
) -> None:
    text = sweep_text({"data_seed": "0,1"}, folds="dataset.n_groups")
    (experiments / "small.yaml").write_text(text)
    assert measure() == 0
    rows = results.read_csv(experiments / "measured" / "small.csv")
    assert [r["dataset.n_groups"] for r in rows] == ["2", "2"]


def test_rows_that_only_a_fixed_value_of_a_part_tells_apart_are_refused(
    experiments: Path, measure: Measure, capsys: pytest.CaptureFixture[str]
) -> None:
    (experiments / "small.yaml").write_text(sweep_text({"data_seed": "0"}, also="[part]"))
    (experiments / "part.yaml").write_text(sweep_text({"data_seed": "0"}, n_items=80))
    assert measure() == 2
    fault = capsys.readouterr().err
    assert "small: several rows of method=majority, dataset=subpopulation_items, " in fault
    assert not (experiments / "measured").exists()


def test_a_table_says_what_its_deviation_is_over(
    experiments: Path, measure: Measure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = {"method": "majority,mace", "data_seed": "0,1,2", "seed": "0,1"}
    (experiments / "small.yaml").write_text(sweep_text(params))
    assert measure() == 0
    table = results.read_csv(tmp_path / "out" / "small" / "table.csv")
    assert [r["over"] for r in table] == ["3 data seeds x 2 training seeds"] * 4
    assert capsys.readouterr().out.count("| 3 data seeds x 2 training seeds |") == 4


def test_seeds_that_follow_one_another_are_both_in_the_deviation(
    experiments: Path, measure: Measure, tmp_path: Path
) -> None:
    text = sweep_text({"data_seed": "0,1"}).replace(
        "name: small", "name: small\nseed: ${data_seed}"
    )
    (experiments / "small.yaml").write_text(text)
    assert measure() == 0
    table = results.read_csv(tmp_path / "out" / "small" / "table.csv")
    assert [r["over"] for r in table] == ["2 runs of 2 data seeds and 2 training seeds"] * 2


def test_a_deviation_over_values_of_other_keys_is_named_so(
    experiments: Path, measure: Measure, tmp_path: Path
) -> None:
    """The table's key is swept, too; within a cell it has one value."""
    params = {"dataset.n_classes": "2,3", "dataset.divisiveness": "0.4,1", "data_seed": "0,1"}
    (experiments / "small.yaml").write_text(sweep_text(params, keys="[dataset.n_classes]"))
    assert measure() == 0
    table = results.read_csv(tmp_path / "out" / "small" / "table.csv")
    assert [r["over"] for r in table] == ["2 data seeds x 2 dataset.divisiveness"] * 4


@pytest.mark.parametrize(
    ("settings", "over"),
    [
        ([], ""),
        ([{"data_seed": "0", "seed": "0"}], ""),
        ([{"seed": "0", "dataset.fold": f} for f in "01"], "2 folds"),
        (
            [{"data_seed": d, "dataset.fold": f} for d in "01" for f in "012"],
            "2 data seeds x 3 folds",
        ),
        # seeds that go by pairs are three runs, not nine
        (
            [{"data_seed": s, "seed": s} for s in "012"],
            "3 runs of 3 data seeds and 3 training seeds",
        ),
    ],
)
def test_a_spread_counts_what_runs_differ_in(settings: list[dict[str, str]], over: str) -> None:
    assert tables.spread(settings) == over


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_measured_rows_are_reproduced() -> None:
    # some five minutes where nothing runs beside it
    command = [sys.executable, str(SCRIPTS / "check_measured.py"), "--minutes", "14"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    files = {line.split(":")[0] for line in done.stdout.splitlines()[:-1]}
    assert files == {path.stem for path in FILES}
