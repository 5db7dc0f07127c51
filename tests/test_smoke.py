"""Every sweep file runs from end to end on its smoke cells (slow)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from annorun import config, results

SWEEPS = config.sweeps()
# texts of annotators with groups: none is embedded
TABLES = ("nutmeg_downstream", "nutmeg_hs_brexit", "seedbert_table1")
REAL = [name for name in SWEEPS if name.startswith(TABLES)]


def test_smoke_sees_every_sweep() -> None:
    assert len(SWEEPS) >= 25
    assert len(REAL) == 5
    assert {"realm_table1", "synthetic_qa", "digits", "labelme", "nutmeg_baselines"} <= set(SWEEPS)


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_goes_through_and_gives_a_full_table(name: str, tmp_path: Path) -> None:
    if name in REAL and not os.environ.get("ANNORUN_DATA"):
        pytest.skip("ANNORUN_DATA names no folder")
    script = config.experiments_dir().parent / "scripts" / "reproduce_table.py"
    command = [sys.executable, str(script), name, "--run", "--smoke", f"out_root={tmp_path}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    table = results.read_csv(tmp_path / f"{name}_smoke" / "table.csv")
    ours = [row for row in table if row["ours"]]
    # not defined: a correlation with what is constant, such as the entropies of a class prior;
    # words of responses without a word, which a few steps teach
    unknown = ("correlation", "test/copied", "test/distinct2")
    whole = [row for row in table if not row.get("metric", "").endswith(unknown)]
    assert ours and whole and all(row["missing"] == "0" for row in whole)
    assert all(row["failed"] == "0" for row in table)
    # a correlation may be below zero, groups are counted up to 3; a KL is at most -ln 1e-6
    most = {"test/soft_kl": 14}
    assert all(-1 <= float(row["ours"]) <= most.get(row.get("metric", ""), 3) for row in ours)
    # a table of several metrics has every run once a metric
    first = [row for row in ours if row.get("metric") == table[0].get("metric")]
    assert len(results.read_rows(tmp_path)) == sum(int(row["seeds"]) for row in first)
