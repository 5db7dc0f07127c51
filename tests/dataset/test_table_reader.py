import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annorun.dataset.table import table
from annorun.errors import ConfigError
from annorun.votes import Items, Votes

ROWS: dict[str, list[Any]] = {
    "task": ["q2", "q1", "q2", "q10"],
    "worker": ["bob", "ann", "ann", "cy"],
    "label": ["yes", "no", "maybe", "yes"],
    "subpopulation": ["old", "young", "young", "old"],
    "gold": ["yes", "", "", "sure"],
    "split": ["test", "train", "test", "train"],
    "comment": ["a,b", 'say "hi"', "two\nlines", ""],
}


def read(path: Path, **names: str) -> tuple[Items, Votes]:
    return table(rng=np.random.default_rng(0), path=str(path), **names)


def write(folder: Path, suffix: str, rows: Mapping[str, list[Any]]) -> Path:
    """Write the rows in one of the formats, gold as null where the format has it."""
    path = folder / f"votes{suffix}"
    records = list(zip(*rows.values(), strict=True))
    if suffix == ".parquet":
        pq.write_table(
            pa.table({k: [v or None for v in column] for k, column in rows.items()}), path
        )
    elif suffix == ".jsonl":
        lines = [json.dumps(dict(zip(rows, [v or None for v in r], strict=True))) for r in records]
        path.write_text("\n".join(lines))
    else:
        separator = "," if suffix == ".csv" else "\t"
        quoted = [
            ['"' + str(cell).replace('"', '""') + '"' for cell in r] for r in [rows, *records]
        ]
        path.write_text("".join(separator.join(row) + "\n" for row in quoted))
    return path


def assert_same(a: tuple[Items, Votes], b: tuple[Items, Votes]) -> None:
    for name in ("item", "annotator", "label", "group"):
        x, y = getattr(a[1], name), getattr(b[1], name)
        assert (x is None) == (y is None)
        if x is not None:
            assert x.dtype == y.dtype and x.tobytes() == y.tobytes()
    for name in ("names", "class_names", "annotator_names", "n_classes", "kind"):
        assert getattr(a[0], name) == getattr(b[0], name)
    assert a[0].split.tolist() == b[0].split.tolist()
    np.testing.assert_array_equal(a[0].truth, b[0].truth)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_small_table_by_hand(suffix: str, tmp_path: Path) -> None:
    """Letters sort q1 < q10 < q2, ann < bob < cy, maybe < no < sure < yes, old < young."""
    items, votes = read(write(tmp_path, suffix, ROWS))
    assert items.kind == "votes" and not items.inputs
    assert items.names == ["q1", "q10", "q2"]
    assert items.annotator_names == ["ann", "bob", "cy"]
    assert items.class_names == ["maybe", "no", "sure", "yes"]
    assert votes.dense().tolist() == [[1, -1, -1], [-1, -1, 3], [0, 3, -1]]
    assert (
        (votes.n_items, votes.n_annotators, votes.n_classes) == (3, 3, 4) == (3, 3, items.n_classes)
    )
    assert items.truth is not None and items.truth.tolist() == [-1, 2, 3]
    assert items.split.tolist() == ["train", "train", "test"]
    assert votes.group is not None and votes.group.tolist() == [1, 0, 0]


def test_optional_columns_may_be_absent_or_ignored(tmp_path: Path) -> None:
    bare = read(write(tmp_path, ".csv", {k: ROWS[k] for k in ("task", "worker", "label")}))
    assert bare[0].truth is None and bare[1].group is None
    assert bare[0].split.tolist() == ["train"] * 3
    assert bare[0].class_names == ["maybe", "no", "yes"]
    path = write(tmp_path, ".csv", ROWS)
    assert_same(bare, read(path, gold="none", split="none", subpopulation="none"))


def test_columns_can_be_renamed(tmp_path: Path) -> None:
    path = write(tmp_path, ".csv", {f"my {k}": v for k, v in ROWS.items()})
    names = {k: f"my {k}" for k in ROWS if k != "comment"}
    assert_same(read(path, **names), read(write(tmp_path, ".tsv", ROWS)))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_shuffled_rows_are_the_same_votes_to_the_bit(suffix: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    cells = rng.permutation(40 * 30)[:700]
    rows: dict[str, list[Any]] = {
        "task": [f"{cell // 30}" for cell in cells],
        "worker": [f"w{cell % 30}" for cell in cells],
        "label": [f"{label}" for label in rng.integers(9, 12, size=700)],
        "gold": [f"{cell // 30 % 4}" if cell // 30 % 3 else "" for cell in cells],
        "subpopulation": [f"{cell % 30 % 5}" for cell in cells],
    }
    order = rng.permutation(700)
    first = read(write(tmp_path, suffix, rows))
    again = read(write(tmp_path, suffix, {k: [v[i] for i in order] for k, v in rows.items()}))
    assert_same(first, again)
    assert first[0].names == sorted({*rows["task"]}, key=int)
    assert first[0].class_names == ["0", "1", "2", "3", "9", "10", "11"]


def test_letters_decide_what_is_the_same_label(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    path.write_text("task,worker,label\na,1,1\nb,1,1.0\nc,1,01\nd,1,Yes\ne,1,yes\nf,1,None\n")
    assert read(path)[0].class_names == ["01", "1", "1.0", "None", "Yes", "yes"]
    path.write_text("task,worker,label\na,1,-1\nb,1,+2\nc,1,01\nd,1,1\ne,1,10\n")
    assert read(path)[0].class_names == ["-1", "01", "1", "+2", "10"]


def test_values_that_are_not_text(tmp_path: Path) -> None:
    """Numbers and booleans have one text in JSON and Parquet; digits of JSON stay as written."""
    path = tmp_path / "votes.jsonl"
    path.write_text(
        '{"task": 2, "worker": 7, "label": true}\n{"task": 10, "worker": "7", "label": 1.50}\n'
        '\n{"task": 1e2, "worker": 12345678901234567890123, "label": "x"}\n'
    )
    items, _ = read(path)
    assert items.class_names == ["1.50", "true", "x"]
    assert items.annotator_names == ["12345678901234567890123", "7"]
    assert items.names == ["10", "1e2", "2"]
    pq.write_table(
        pa.table(
            {
                "task": pa.array(["a", "b"]).dictionary_encode(),
                "worker": pa.array([10, 9], pa.uint8()),
                "label": [True, False],
                "gold": pa.nulls(2),
            }
        ),
        tmp_path / "votes.parquet",
    )
    items, votes = read(tmp_path / "votes.parquet")
    assert items.class_names == ["false", "true"] and items.annotator_names == ["9", "10"]
    assert items.truth is None and votes.annotator.tolist() == [1, 0]


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbftask,worker,label\na,x,1\nb,y,2\n",
        b"task,worker,label\r\na,x,1\r\nb,y,2\r\n",
        b"task,worker,label\ra,x,1\rb,y,2",
        b"task,worker,label\na,x,1\n\n\nb,y,2\n\n",
        b'"task","worker","label","note"\n"a","x","1","l1\nl2"\nb,y,2,\n',
        b",label,task,worker\n0,1,a,x\n1,2,b,y\n",
    ],
    ids=["byte order mark", "CRLF", "CR", "blank lines", "quotes", "another order"],
)
def test_forms_of_the_same_csv(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "votes.CSV"
    path.write_bytes(data)
    items, votes = read(path)
    assert items.names == ["a", "b"] and items.class_names == ["1", "2"]
    assert votes.label.tolist() == [0, 1]


def test_a_csv_imports_neither_torch_nor_pandas_nor_pyarrow(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    path.write_text("task,worker,label\na,x,1\nb,x,2\n")
    code = (
        "import sys, numpy, annorun.dataset.table as t;"
        f"t.table(rng=numpy.random.default_rng(0), path={str(path)!r});"
        "assert not {'torch', 'pandas', 'pyarrow', 'scipy', 'sklearn'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_controls_are_told_and_gold_is_not(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    lines = ["task,worker,label,gold,control", "a,x,no,no,", "a,y,yes,,yes", "b,x,no,no,"]
    path.write_text("\n".join(lines) + "\n")
    items, _ = read(path)
    assert items.known is not None
    assert items.truth is not None
    assert items.known.tolist() == [1, -1]
    assert items.truth.tolist() == [0, 0]
    assert read(path, control="none")[0].known is None
    path.write_text("\n".join([*lines, "b,y,no,,no", "b,z,yes,,yes"]) + "\n")
    with pytest.raises(ConfigError, match="one control a task is allowed"):
        read(path)
