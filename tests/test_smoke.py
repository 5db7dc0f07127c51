"""Every sweep file runs from end to end on its smoke cells (slow)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from annorun import config, results

SWEEPS = config.sweeps()


def test_smoke_sees_every_sweep() -> None:
    assert len(SWEEPS) >= 7
    assert {"realm_table1", "synthetic_qa", "digits", "labelme"} <= set(SWEEPS)


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_goes_through_and_gives_a_full_table(name: str, tmp_path: Path) -> None:
    script = config.experiments_dir().parent / "scripts" / "reproduce_table.py"
    command = [sys.executable, str(script), name, "--run", "--smoke", f"out_root={tmp_path}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    table = results.read_csv(tmp_path / f"{name}_smoke" / "table.csv")
    ours = [row for row in table if row["ours"]]
    assert ours and all(row["missing"] == row["failed"] == "0" for row in table)
    assert all(0 <= float(row["ours"]) <= 1 for row in ours)
    assert len(results.read_rows(tmp_path)) == sum(int(row["seeds"]) for row in ours)
