"""scripts/reproduce_table.py: a table from what has been run, and running what is missing."""

import csv
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from annorun import config, results
from annorun.tables import UNKNOWN

SCRIPT = Path(__file__).parents[1] / "scripts" / "reproduce_table.py"
# seconds instead of minutes: images, three steps
SMALL = ["dataset=digits", "trainer=smoke", "trainer.max_steps=3", "annotator_dist=two_experts"]


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
    assert bars == {4 + 7 + 1}


def test_run_does_what_is_missing_and_once(
    go: Go, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # overrides may stand on both sides of a flag
    words = ("realm_table1", SMALL[0], "--run", "--smoke", *SMALL[1:], "method=noisy")
    assert go(*words) == 0
    place = tmp_path / "out" / "realm_table1_smoke"
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
        (["realm_table1", "method=reelm"], "did you mean 'realm'?"),
        (["realm_table1", "dataset=digits", "seed=-1"], "seed=-1: allowed is an integer"),
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
