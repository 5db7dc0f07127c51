import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annorun.dataset.table import table
from annorun.errors import ConfigError


def faults_of(path: Path, **names: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        table(rng=np.random.default_rng(0), path=str(path), **names)
    return error.value.faults


H = "task,worker,label\n"
OK = "a,x,1\nb,x,2\n"


def parquet_faults(folder: Path, **columns: Any) -> list[str]:
    given = {"task": ["a", "b"], "worker": ["x", "x"], "label": ["1", "2"]}
    path = folder / "v.parquet"
    pq.write_table(pa.table({**given, **columns}), path)
    return [fault.removeprefix(str(path)) for fault in faults_of(path)]


def test_bad_parquet_columns(tmp_path: Path) -> None:
    floating, missing = parquet_faults(tmp_path, label=[1.0, float("nan")])
    assert floating.startswith(", column label: floating-point numbers (double)")
    assert "text or integers" in floating
    assert missing == ", row 2, column label: NaN; a value is needed"
    (fault,) = parquet_faults(tmp_path, label=["1", None])
    assert fault == ", row 2, column label: null or absent; every vote needs a label"
    (fault,) = parquet_faults(tmp_path, gold=[1.0, None])
    assert fault.startswith(", column gold: floating-point numbers")
    (fault,) = parquet_faults(tmp_path, worker=[["x"], ["y"]])
    assert fault.startswith(", column worker: of type list") and "allowed: text, integers" in fault
    (fault,) = parquet_faults(tmp_path, task=["a", "a"])
    assert "already in row 1" in fault
    (fault,) = parquet_faults(tmp_path, task=pa.array([], pa.string()), worker=[], label=[])[-1:]
    assert fault.startswith(": no votes")


def test_parquet_with_a_repeated_or_absent_column(tmp_path: Path) -> None:
    path = tmp_path / "v.parquet"
    columns = [["a", "b"], ["x", "x"], ["1", "2"], ["1", "2"]]
    pq.write_table(pa.table(columns, names=["task", "worker", "label", "label"]), path)
    assert faults_of(path) == [f"{path}, column label: 2 columns have this name; one is allowed"]
    pq.write_table(pa.table(columns[:3], names=["task", "worker", "answer"]), path)
    (fault,) = faults_of(path)
    assert fault.startswith(f"{path}: no column 'label'; there are: 'task', 'worker', 'answer'")


def test_files_that_are_none(tmp_path: Path) -> None:
    (fault,) = faults_of(tmp_path / "absent.csv")
    assert "no such file" in fault and str(tmp_path) in fault and "dataset.path=FILE" in fault
    (fault,) = faults_of(tmp_path)
    assert "a folder; dataset.path=FILE takes one file: .csv, .tsv" in fault
    if os.geteuid():
        (tmp_path / "v.csv").touch(mode=0)
        assert "permission denied" in faults_of(tmp_path / "v.csv")[0]


def test_names_of_columns_that_are_wrong(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    path.write_text(H + OK)
    (fault,) = faults_of(path, gold="truth")
    assert fault.startswith(f"{path}, line 1: no column 'truth'") and "dataset.gold=none" in fault
    assert any(
        "dataset.task and dataset.worker are both 'task'" in f
        for f in faults_of(path, worker="task")
    )
    path.write_text("a,x,1\n")
    assert any("none of the needed columns is there" in fault for fault in faults_of(path))


def test_faults_come_together_in_the_order_of_the_file_and_are_capped(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    path.write_text(H + "a,x,1\nb,,\nc,x\na,x,2\n,y,2 \n")
    lines = [fault.removeprefix(f"{path}, line ").split(":")[0] for fault in faults_of(path)]
    assert lines == [
        "3, column worker",
        "3, column label",
        "4",
        "5, column worker",
        "6, column task",
        "6, column label",
    ]
    path.write_text(H + OK + "c,x\n" * 3000 + "c,y,\n" * 2000)
    faults = faults_of(path)
    assert len(faults) == 21 and faults[-1] == f"{path}: and {3000 + 2000 + 1999 - 20} more"
    assert faults[0].startswith(f"{path}, line 4: ") and faults[19].startswith(f"{path}, line 23: ")


def test_rows_before_a_broken_one_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    path.write_text(H + OK + "c,x,\n" + 'd,x,"1\n')
    empty, quote = faults_of(path)
    assert "line 4, column label: empty" in empty and "line 5: a quote is opened" in quote


def test_lines_are_right_beyond_the_first_block(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    body = "".join(f'{k},x,"{k % 2}{chr(10) if k % 7 == 0 else ""}!"\n' for k in range(3000))
    path.write_text(H + body + "z,x,\n")
    (fault,) = faults_of(path)
    assert fault.startswith(f"{path}, line {1 + 3000 + len(range(0, 3000, 7)) + 1}, column label")


def test_reading_leaves_no_file_open(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    path.write_text("task;worker;label\n" + "a;b;c\n" * 5000)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        assert len(faults_of(path)) == 1
