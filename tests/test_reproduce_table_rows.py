"""scripts/reproduce_table.py over rows that are written by hand: whose numbers its tables show."""

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig

from annorun import config, results
from annorun.scores.significance import corrected_resampled_t

SCRIPT = Path(__file__).parents[1] / "scripts" / "reproduce_table.py"
GRID = ["dataset.divisiveness=0.4,1", "annotator_dist.spam=[0.2,0.2]", "data_seed=4,2"]
ACC = ("labels/acc_0", "labels/acc_1")


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the script, with experiments/ a copy that a test may write to."""
    copy = tmp_path / "experiments"
    shutil.copytree(config.experiments_dir(), copy)
    monkeypatch.setattr(config, "experiments_dir", lambda: copy)
    spec = importlib.util.spec_from_file_location("reproduce_table", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells(script: ModuleType, tmp_path: Path, name: str, *overrides: str) -> list[DictConfig]:
    found: list[DictConfig] = script.sweep(name, False, [*overrides, f"out_root={tmp_path}/out"])
    return found


def finish(script: ModuleType, cfg: DictConfig, metrics: dict[str, float], **more: Any) -> Path:
    """Write the row of a cell."""
    c = config.plain(cfg)
    folder: Path = script.place_of(cfg)
    folder.mkdir(parents=True)
    row = results.new_row(c, results.identity(c)) | {"metrics": metrics, "steps": 1} | more
    results.write_row(folder, {"seconds": 1.0, "device": "cpu"} | row)
    return folder


def test_the_command_line_wins_over_the_smoke_cells(script: ModuleType) -> None:
    (smoke,) = (list(script._file(n).smoke) for n in ["realm_pools"])
    assert {"seed=0", "trainer=smoke"} <= set(smoke)
    found = script.sweep("realm_pools", True, ["seed=4", "trainer.max_steps=3", "method=noisy"])
    assert {(c.seed, c.data_seed, c.trainer.max_steps, c.trainer.val_every) for c in found} == {
        (4, 0, 3, 10)
    }
    # without --smoke nothing of them
    found = script.sweep("realm_pools", False, ["method=noisy"])
    assert {(c.seed, c.data_seed) for c in found} == {
        (s, d) for s in (0, 1) for d in (601, 602, 603)
    }
    assert {c.trainer.val_every for c in found} == {50}


def test_a_table_shows_each_cells_own_runs_under_each_metric(
    script: ModuleType, tmp_path: Path
) -> None:
    """Ours: 2 divisivenesses, 2 data seeds; the paper's number is of the cell and the metric."""
    expected = config.experiments_dir() / "expected" / "nutmeg_baselines.csv"
    keys = list(script._file("nutmeg_baselines")["keys"])
    configs = cells(script, tmp_path, "nutmeg_baselines_joint", *GRID)
    number = {("0.4", 4): 0.5, ("0.4", 2): 0.7, ("1", 4): 0.1, ("1", 2): 0.2}
    for cfg in configs:
        value = number[f"{cfg.dataset.divisiveness:g}", cfg.data_seed]
        finish(script, cfg, {ACC[0]: value, ACC[1]: value / 2})
    paper = ["nutmeg", "exact", "joint", "0.2"]
    lines = [[*paper, "0.4", 0.25, 0.5], [*paper, "1", 0.75, 0.125]]
    results.write_csv(expected, [*keys, *ACC], lines)
    text = script.report("nutmeg_baselines", configs)
    shown = results.read_csv(tmp_path / "out" / "nutmeg_baselines" / "table.csv")
    columns = ("metric", "dataset.divisiveness", "ours", "paper", "difference", "missing")
    assert [tuple(row[c] for c in columns) for row in shown] == [
        (ACC[0], "0.4", "0.6000", "0.2500", "+0.3500", "0"),
        (ACC[0], "1", "0.1500", "0.7500", "-0.6000", "0"),
        (ACC[1], "0.4", "0.3000", "0.5000", "-0.2000", "0"),
        (ACC[1], "1", "0.0750", "0.1250", "-0.0500", "0"),
    ]
    assert shown[0]["std"] == f"{np.std([0.5, 0.7], ddof=1):.4f}"
    # in the Markdown, too, the numbers of a metric stand below its name
    _, first, second = text.split("nutmeg_baselines: ")
    assert first.startswith(ACC[0]) and "0.6000" in first and "0.0750" not in first
    assert second.startswith(ACC[1]) and "0.0750" in second and "0.6000" not in second


def test_measured_lines_are_of_their_runs_column_by_column(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight cells, of which one failed, one was never begun and one lacks a metric."""
    configs = cells(script, tmp_path, "nutmeg_baselines_joint", *GRID, "seed=6,8")
    assert len(configs) == 8
    versions = {"annorun": "1.2", "numpy": "9.9"}
    for n, cfg in enumerate(configs[:6]):
        metrics = {ACC[1]: n / 100, ACC[0]: n / 10, "labels/other": 0.5}
        if n == 3:
            del metrics[ACC[1]]
        commit = {"commit": "b" * 7 if n == 1 else "a" * 7, "dirty": n == 1}
        more = {"steps": 100 + n, "seconds": n + 0.25, "device": f"d{n}", "versions": versions}
        finish(script, cfg, metrics, **commit, **more)
    failed = script.place_of(configs[6])
    failed.mkdir()
    (failed / "error.txt").touch()
    words = ["x", "nutmeg_baselines_joint", "--measured", "seed=6,8", f"out_root={tmp_path}"]
    monkeypatch.setattr(sys, "argv", words)
    path = Path(script.measured("nutmeg_baselines_joint", configs))
    rows = results.read_csv(path)
    assert len(rows) == 6
    for n, (cfg, row) in enumerate(zip(configs, rows, strict=False)):
        assert row["dataset.divisiveness"] == f"{cfg.dataset.divisiveness:g}"
        assert (row["seed"], row["data_seed"]) == (str(cfg.seed), str(cfg.data_seed))
        assert (row["method"], row["annotator_dist"]) == ("nutmeg", "subpopulations")
        assert (row["dataset"], row["noise"]) == ("subpopulation_items", "spam")
        assert row[ACC[0]] == f"{n / 10:.4f}"
        assert row[ACC[1]] == ("" if n == 3 else f"{n / 100:.4f}")
        assert (row["steps"], row["seconds"]) == (str(100 + n), str(n + 0.25))
        assert row["device"] == f"d{n}"
        assert "labels/other" not in row
    assert {(r["seed"], r["data_seed"]) for r in rows} == {
        *(("6", "4"), ("6", "2"), ("8", "4"), ("8", "2")),
    }
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert "# commit: aaaaaaa, bbbbbbb (changed)" in head
    (command,) = (line for line in head if line.startswith("# command: "))
    assert command.endswith("reproduce_table.py nutmeg_baselines_joint --measured seed=6,8")
    assert any("annorun 1.2, numpy 9.9" in line for line in head)


def test_a_table_of_one_metric_is_measured_with_all_that_its_rows_have(
    script: ModuleType, tmp_path: Path
) -> None:
    words = ["dataset=digits", "method=noisy", "annotator_dist=spread", "seed=0,1"]
    configs = cells(script, tmp_path, "realm_pools", *words)
    metrics = [{"test/acc": 0.5, "test/nll": 1.5}, {"test/acc": 0.25, "test/ece": 0.125}]
    for cfg, own in zip(configs, metrics, strict=False):
        finish(script, cfg, own)
    rows = [r for r in results.read_csv(Path(script.measured("realm_pools", configs)))]
    shown = [(r["seed"], r["test/acc"], r["test/nll"], r["test/ece"]) for r in rows]
    assert shown == [("0", "0.5000", "1.5000", ""), ("1", "0.2500", "", "0.1250")]


def test_folds_are_tested_with_their_share_of_the_items(script: ModuleType, tmp_path: Path) -> None:
    """Four folds, a fifth of the training items for validation: n_test / n_train = 1 / (3 * .8)."""
    words = ["dataset=two_clauses", "dataset.folds=4", "dataset.fold=0,1,2,3", "data_seed=0,1"]
    words += ["trainer.val_share=0.2", "model_size=tiny", "method=bert,seedbert"]
    configs = cells(script, tmp_path, "seedbert_table4", *words)
    by_fold = (0.01, 0.02, -0.03, 0.04)
    difference = {(f, s): by_fold[f] + 0.02 * s for f in range(4) for s in (0, 1)}
    for cfg in configs:
        place = cfg.dataset.fold, cfg.data_seed
        # the level of a fold is more than any difference
        level = 0.2 * place[0] + 0.1 * place[1]
        value = level + difference[place] * (cfg.choices.method == "seedbert")
        finish(script, cfg, {"test/acc": value})
    text = script.differences(configs, ["method"], ["test/acc"])
    p = corrected_resampled_t(np.array([*difference.values()]), 1 / (3 * 0.8))
    (line,) = (line for line in text.splitlines() if "seedbert - bert" in line)
    shown = [cell.strip() for cell in line.split("|")[1:-1]]
    mean = np.mean([*difference.values()])
    assert shown[2:6] == [f"{mean:+.4f}", "8 folds", f"{p:.4f}", f"{p:.4f}"]
    assert "corrected resampled t-tests" in text
    for other in (1 / 4, 1 / 3, 1 / (4 * 0.8), 0):
        assert abs(corrected_resampled_t(np.array([*difference.values()]), other) - p) > 1e-3


def test_a_keyless_base_or_no_compare_tests_nothing(script: ModuleType, tmp_path: Path) -> None:
    words = ["dataset=two_clauses", "dataset.fold=0", "model_size=tiny", "method=bert,seedbert"]
    configs = cells(script, tmp_path, "seedbert_table4", *words)
    assert script.differences(configs, ["dataset.fold"], ["test/acc"]) == ""
    plain = cells(script, tmp_path, "nutmeg_baselines_joint", *GRID)
    assert script.differences(plain, list(plain[0]["keys"]), list(ACC)) == ""


def test_bars_are_of_the_first_seed_that_is_done(script: ModuleType, tmp_path: Path) -> None:
    words = ["dataset=digits", "annotator_dist=spread", "method=realm,noisy", "seed=2,0,1"]
    words += ["data_seed=0"]
    # those that the table asks for beside the sweep's own are the same ones here
    asked = cells(script, tmp_path, "realm_pools", *words)
    configs = list({script.place_of(cfg): cfg for cfg in asked}.values())
    assert len(configs) == 6
    header = ("item", "p_no", "p_yes", "n_no", "n_yes")
    for cfg in configs:
        if cfg.choices.method == "realm" and cfg.seed == 2:
            continue
        folder = finish(script, cfg, {})
        share = (0.25 if cfg.choices.method == "realm" else 0.5) + cfg.seed / 10
        results.write_csv(folder / "predictions.csv", header, [("a", share, 1 - share, 3, 1)])
    (axis,) = script.bars({"series": ["method"], "kind": "bars"}, configs).axes
    # people, realm of seed 0, noisy of seed 2
    heights = [bar.get_height() for bar in axis.patches]
    assert heights == pytest.approx([0.75, 0.25, 0.25, 0.75, 0.7, 0.3])


def test_the_exit_code_tells_of_failed_cells(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = cells(script, tmp_path, "nutmeg_baselines_joint", *GRID)
    done = [True, False, False, False]
    monkeypatch.setattr(script, "one", lambda _: done.pop())
    assert script.execute(configs, 1) == 3
    monkeypatch.setattr(script, "one", lambda _: False)
    words = ["x", "nutmeg_baselines_joint", "--run", *GRID, f"out_root={tmp_path}/out"]
    monkeypatch.setattr(sys, "argv", words)
    assert script.main() == 1
    monkeypatch.setattr(script, "one", lambda _: True)
    assert script.main() == 0
