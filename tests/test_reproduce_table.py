"""scripts/reproduce_table.py: a table from what has been run, and running what is missing."""

import csv
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hydra import compose as hydra_compose
from omegaconf import OmegaConf

from annorun import config, results
from annorun.tables import UNKNOWN

SCRIPT = Path(__file__).parents[1] / "scripts" / "reproduce_table.py"
# seconds instead of minutes: images, three steps
SMALL = ["dataset=digits", "trainer=smoke", "trainer.max_steps=3", "annotator_dist=two_experts"]
SMALL.append("model_size=tiny")


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reproduce_table", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Go = Callable[..., int]


@pytest.fixture
def go(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    """Return a function: words -> exit code, writing below tmp_path/out."""

    def called(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["x", *words, f"out_root={tmp_path / 'out'}"])
        return int(script.main())

    return called


def ours(path: Path) -> dict[str, dict[str, str]]:
    """Return the lines of table.csv that stand for runs of ours, by method."""
    lines = [r for r in results.read_csv(path) if r["dataset"] == "digits"]
    return {r["method"]: r for r in lines}


def test_a_partial_sweep_gives_a_partial_table(
    go: Go, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go("realm_table1", *SMALL, "seed=0,1") == 0
    place = tmp_path / "out" / "realm_table1"
    empty = ours(place / "table.csv")
    assert {m: (r["ours"], r["seeds"], r["missing"]) for m, r in empty.items()} == {
        m: ("", "0", "2") for m in ("realm", "noisy", "oracle")
    }
    # one cell of the sweep, run as anyone would run it
    from annorun.run import run

    words = [*SMALL, "method=noisy", "seed=1", f"out_root={tmp_path / 'out'}"]
    row = run(config.compose("realm_table1", [*words, "noise=uniform"]))
    capsys.readouterr()
    assert go("realm_table1", *SMALL, "seed=0,1") == 0
    printed = capsys.readouterr().out
    partial = ours(place / "table.csv")
    assert (partial["noisy"]["seeds"], partial["noisy"]["missing"]) == ("1", "1")
    assert float(partial["noisy"]["ours"]) == pytest.approx(row["metrics"]["test/acc"], abs=1e-4)
    assert partial["realm"]["missing"] == "2"
    # the paper's other cells stand below ours
    with (place / "table.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    published = [r for r in rows if r["dataset"] == "arc" and r["method"] == "oracle"]
    assert {r["model_size"]: r["paper"] for r in published}["large"] == "0.6481"
    assert sum(r["paper"] == UNKNOWN for r in rows) > 50
    text = (place / "table.md").read_text()
    assert text in printed
    bars = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert bars == {4 + 8 + 1}


def test_run_does_what_is_missing_and_once(
    go: Go, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # overrides may stand on both sides of a flag
    words = ("realm_pools", SMALL[0], "--run", "--smoke", *SMALL[1:], "method=noisy")
    assert go(*words) == 0
    place = tmp_path / "out" / "realm_pools_smoke"
    assert len(list(place.rglob("row.json"))) == 1
    done = ours(place / "table.csv")
    assert (done["noisy"]["seeds"], done["noisy"]["missing"]) == ("1", "0")
    capsys.readouterr()
    assert go(*words) == 0
    assert "not run again" in capsys.readouterr().out


def test_a_failed_run_is_counted_and_the_others_go_on(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from annorun import run as runner

    execute = runner.execute

    def sometimes(c: dict, *rest: object) -> object:
        if c["seed"] == 0:
            raise RuntimeError("out of luck")
        return execute(c, *rest)

    monkeypatch.setattr(runner, "execute", sometimes)
    assert go("realm_table1", "--run", *SMALL, "method=noisy", "seed=0,1") == 1
    assert "failed: RuntimeError: out of luck" in capsys.readouterr().err
    line = ours(tmp_path / "out" / "realm_table1" / "table.csv")["noisy"]
    assert (line["seeds"], line["missing"], line["failed"]) == ("1", "0", "1")


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["realm_table"], "realm_table: no such sweep file; allowed: "),
        (["realm_pools", "dataset=digits", "method=reelm", "seed=0"], "did you mean 'realm'?"),
        (["realm_pools", "dataset=digits", "seed=-1"], "seed=-1: allowed is an integer"),
    ],
)
def test_bad_commands(
    go: Go, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], fault: str
) -> None:
    assert go(*words) == 2
    error = capsys.readouterr().err
    assert fault in error
    assert all(line.startswith("annorun: ") for line in error.splitlines())
    assert not (tmp_path / "out").exists()


# a cell of the synthetic grid in a tenth of a second
GRID = ["dataset.n_items=60", "annotator_dist.spam=[0.2,0.2]", "data_seed=0"]
MEANS = "keys=[method,method.aggregator.imputation]"


def lines(path: Path, metric: str) -> dict[tuple[str, str], dict[str, str]]:
    """Return a grid table's lines that stand for runs, by imputation and divisiveness."""
    return {
        (r["method.aggregator.imputation"], r["dataset.divisiveness"]): r
        for r in results.read_csv(path)
        if r["metric"] == metric and r["ours"]
    }


def test_a_table_of_several_metrics_and_its_means(go: Go, tmp_path: Path) -> None:
    small = [*GRID, "dataset.divisiveness=0.4,1.0", "method=nutmeg"]
    assert go("nutmeg_baselines", "--run", "--figure", *small) == 0
    place = tmp_path / "out" / "nutmeg_baselines"
    rows = results.read_rows(place)
    assert len(rows) == 3 * 2
    for metric in ("labels/acc_0", "labels/acc_1"):
        table = lines(place / "table.csv", metric)
        variants = ("naive_bayes", "released", "joint")
        assert set(table) == {(v, d) for v in variants for d in ("0.4", "1")}
        shown = sorted(float(r["ours"]) for r in table.values())
        assert shown == pytest.approx(sorted(r["metrics"][metric] for r in rows), abs=5e-5)
        # the paper's numbers are of the released code, and of all other cells
        assert {v for (v, _), r in table.items() if r["paper"]} == {"released"}
    assert {p.stem for p in place.glob("*.png")} == {"grid", "divisiveness", "nutmeg_imputation"}
    text = (place / "table.md").read_text()
    assert text.count("nutmeg_baselines: labels/acc_") == 2
    assert go("nutmeg_baselines", *small, MEANS) == 0
    means = [r for r in results.read_csv(place / "table.csv") if r["metric"] == "labels/acc_1"]
    (joint,) = [r for r in means if r["method.aggregator.imputation"] == "joint"]
    by_hand = [float(r["ours"]) for (v, _), r in table.items() if v == "joint"]
    assert float(joint["ours"]) == pytest.approx(sum(by_hand) / 2, abs=1e-4)
    assert joint["seeds"] == "2"


def test_tables_may_share_runs(go: Go, tmp_path: Path) -> None:
    small = [*GRID, "dataset.divisiveness=0.4", "method=nutmeg"]
    assert go("nutmeg_baselines", "--run", *small) == 0
    assert go("nutmeg_competence", *small) == 0
    place = tmp_path / "out" / "nutmeg_competence"
    assert {p.name for p in place.iterdir()} == {"table.md", "table.csv"}
    table = lines(place / "table.csv", "annotators/pearson")
    assert {k: r["missing"] for k, r in table.items()} == {
        (v, "0.4"): "0" for v in ("naive_bayes", "released", "joint")
    }


def test_processes_give_the_rows_of_one(go: Go, tmp_path: Path) -> None:
    words = ["nutmeg_baselines_joint", "--run", *GRID, "dataset.divisiveness=0,0.4,0.8"]
    command = [sys.executable, str(SCRIPT), *words, "--jobs", "2", f"out_root={tmp_path / 'two'}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("3/3: ")]
    assert go(*words) == 0
    one, two = (results.read_rows(tmp_path / p) for p in ("out", "two"))
    assert [r["id"] for r in one] == [r["id"] for r in two]
    assert [r["metrics"] for r in one] == [r["metrics"] for r in two]
    assert len(one) == 3


def test_a_failure_in_another_process_is_told(tmp_path: Path) -> None:
    """60 items at 1000 an annotator make 3 annotators, and each item wants 60 of them."""
    words = [*GRID, "dataset.divisiveness=0", "annotator_dist.per_item=60"]
    command = [sys.executable, str(SCRIPT), "nutmeg_baselines_joint", "--run", "--jobs", "2"]
    command += [*words, "annotator_dist.most_items=1000", f"out_root={tmp_path}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "annotator_dist.per_item=60: " in done.stdout


def test_measured_lines_hold_the_settings_and_the_tables_metrics(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "experiments"
    shutil.copytree(config.experiments_dir(), copy)
    monkeypatch.setattr(config, "experiments_dir", lambda: copy)
    small = [*GRID, "dataset.divisiveness=0.4,1", "data_seed=0,1"]
    assert go("nutmeg_baselines_joint", "--run", "--measured", *small) == 0
    rows = results.read_csv(copy / "measured" / "nutmeg_baselines_joint.csv")
    assert [(r["dataset.divisiveness"], r["data_seed"]) for r in rows] == [
        (d, s) for d in ("0.4", "1") for s in ("0", "1")
    ]
    assert {r["annotator_dist.spam.0"] for r in rows} == {"0.2"}
    assert {k for k in rows[0] if "/" in k} == {"labels/acc_0", "labels/acc_1"}


@pytest.mark.parametrize(
    "words",
    [
        ["dataset.divisiveness=0.4", "annotator_dist.spam=[0.2,0.1]", "seed=3"],
        ["dataset.divisiveness=0.4", "dataset.divisiveness=0.5", "method=mace"],
        ["+dataset.prompt=x", "dataset.prompt=y", "name=z"],
        ["seed=3", "method.module=null", "hydra.verbose=false"],
        ["trainer.lr=${oc.env:LR}", "annotator_dist.shares.1=0.3"],
    ],
)
def test_a_cell_of_many_is_composed_as_hydra_does(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what chooses options is composed anew a cell; the answer must be Hydra's own."""
    monkeypatch.setenv("LR", "0.1")
    words = ["dataset=subpopulation_items", *words]
    with config.loader() as known:
        # the second time, from what the first left
        for _ in range(2):
            ours, found = config.compose_cell(known, "config", words)
        theirs = hydra_compose("config", words)
    assert ours is not None and not found
    kept = {k: v for k, v in config.plain(ours).items() if k not in ("choices", "overrides")}
    assert kept == OmegaConf.to_container(theirs, resolve=True)
    assert ours.overrides == words
