from pathlib import Path

import numpy as np
import pytest

from annorun.dataset.table import table
from annorun.errors import ConfigError


def faults_of(path: Path, **names: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        table(rng=np.random.default_rng(0), path=str(path), **names)
    return error.value.faults


H = "task,worker,label\n"
G = "task,worker,label,gold,split,subpopulation\n"
OK = "a,x,1\nb,x,2\n"
# content, what the one fault starts with (after the path), what it says is allowed
BAD: dict[str, tuple[str, str | bytes, str, str]] = {
    "empty file": ("v.csv", "", ": an empty file", "names the columns: task, worker, label"),
    "blank file": ("v.csv", "\n\n", ": an empty file", "the first line names the columns"),
    "header only": ("v.csv", H, ": no votes", "no row below it"),
    "missing column": (
        "v.csv",
        "task,worker,Labels\na,x,1\n",
        ", line 1: no column 'label' (nearest: 'Labels')",
        "there are: 'task', 'worker', 'Labels'; name yours with dataset.label=COLUMN",
    ),
    "blank in header": (
        "v.csv",
        "task, worker,label\na,x,1\nb,x,2",
        ", line 1: no column 'worker'",
        "' worker'",
    ),
    "repeated column": (
        "v.csv",
        "task,worker,label,label\na,x,1,1\nb,x,2,2\n",
        ", line 1, column label: 2 columns",
        "one is allowed",
    ),
    "short row": ("v.csv", H + OK + "c,x\n", ", line 4: 2 cells", "every row needs 3"),
    "long row": ("v.csv", H + OK + "c,x,1,2\n", ", line 4: 4 cells", "needs quotes"),
    "semicolons": (
        "v.csv",
        "task;worker;label\na;x;1\nb;x;2\n",
        ", line 1: one column only, 'task;worker;label'",
        "separated by semicolons, this suffix needs commas (.csv)",
    ),
    "commas in tsv": ("v.tsv", H + OK, ", line 1: one column only", "needs tabs (.tsv)"),
    "empty label": (
        "v.csv",
        H + OK + "c,x,\n",
        ", line 4, column label: empty",
        "every vote needs a label",
    ),
    "empty worker": (
        "v.csv",
        H + OK + "c,,1\n",
        ", line 4, column worker: empty",
        "needs a worker",
    ),
    "empty task": (
        "v.csv",
        H + OK + ",x,1\n",
        ", line 4, column task: empty",
        "every vote needs a task",
    ),
    "blanks only": (
        "v.csv",
        H + OK + "c,x,  \n",
        ", line 4, column label: only blanks",
        "needs a label",
    ),
    "blank at the end": (
        "v.csv",
        H + OK + "c,x,1 \n",
        ", line 4, column label: '1 '",
        "remove them",
    ),
    "hard blank": (
        "v.csv",
        H + OK + "c,x,\u00a01\n",
        ", line 4, column label: '\\xa01'",
        "remove them",
    ),
    "NaN": (
        "v.csv",
        H + OK + "c,x,NaN\n",
        ", line 4, column label: 'NaN'",
        "every vote needs a label",
    ),
    "-nan": ("v.csv", H + OK + "c,-nan,1\n", ", line 4, column worker: '-nan'", "needs a worker"),
    "NUL": (
        "v.csv",
        H + OK + "c,x,1\0\n",
        ", line 4, column label: '1\\x00' holds a NUL",
        "is allowed",
    ),
    "duplicate": (
        "v.csv",
        H + OK + "a,x,2\n",
        ", line 4, column worker: 'x' labelled task 'a' already in line 2",
        "one vote a task and worker is allowed",
    ),
    "same vote again": (
        "v.csv",
        H + OK + "b,x,2\n",
        ", line 4, column worker: ",
        "already in line 3",
    ),
    "one class": (
        "v.csv",
        H + "a,x,1\nb,x,1\n",
        ", column label: every label is '1'",
        "at least 2 classes",
    ),
    "latin-1": (
        "v.csv",
        b"task,worker,label\na,x,1\nb,J\xe9,2\n",
        ", line 3: byte 27 (0xe9) is not UTF-8",
        "save the file as UTF-8",
    ),
    "utf-16": (
        "v.csv",
        (H + OK).encode("utf-16"),
        ", line 1: not a text file (NUL bytes",
        "needed: text in UTF-8",
    ),
    "Excel": (
        "v.csv",
        b"PK\x03\x04rest",
        ", line 1: not a text file (a zip or Excel file)",
        "UTF-8",
    ),
    "open quote": (
        "v.csv",
        H + OK + 'c,x,"1\nd,x,1\n',
        ", line 4: a quote is opened",
        "never closed",
    ),
    "text after quote": ("v.csv", H + OK + 'c,"x"y,1\n', ", line 4: ", "ends with one"),
    "long open quote": (
        "v.csv",
        H + '"' + "a,x,1\n" * 40000,
        ", line 2: field larger than",
        "never closed?",
    ),
    "line inside a cell": (
        "v.csv",
        H + 'a,x,"1\r\n2\n3"\n\nb,x,1\nc,x,\n',
        ", line 7, column label: empty",
        "every vote needs a label",
    ),
    "gold differs": (
        "v.csv",
        G + "a,x,1,1,train,g\na,y,1,,train,g\na,z,2,2,train,g\n",
        ", line 4, column gold: '2', but task 'a' has '1' in line 2",
        "one gold a task is allowed",
    ),
    "gold nan": (
        "v.csv",
        G + "a,x,1,nan,train,g\nb,x,2,1,train,g\n",
        ", line 2, column gold: 'nan'",
        "empty",
    ),
    "group differs": (
        "v.csv",
        G + "a,x,1,1,train,g\nb,x,2,,train,h\n",
        ", line 3, column subpopulation: 'h', but worker 'x' has 'g' in line 2",
        "one subpopulation a worker is allowed",
    ),
    "no group": (
        "v.csv",
        G + "a,x,1,1,train,g\nb,y,2,,train,\n",
        ", line 3, column subpopulation: empty",
        "=none",
    ),
    "split differs": (
        "v.csv",
        G + "a,x,1,1,train,g\na,y,2,,test,h\n",
        ", line 3, column split: 'test', but task 'a' has 'train' in line 2",
        "one split a task is allowed",
    ),
    "other split": (
        "v.csv",
        G + "a,x,1,1,train,g\nb,y,2,,dev,h\n",
        ", line 3, column split: 'dev'",
        "allowed: train, test (or do without: dataset.split=none)",
    ),
    "json list": (
        "v.jsonl",
        '{"task": 1}\n[1, 2]\n',
        ", line 2: not a JSON object",
        '{"task": "q1"',
    ),
    "json syntax": ("v.jsonl", '\n{"task": 1,}\n', ", line 2: not JSON: ", 'like {"task": "q1"'),
    "json null": (
        "v.jsonl",
        '{"task":1,"worker":1,"label":1}\n{"task":2,"worker":1,"label":null}\n{"task":2,"worker":2,"label":0}',
        ", line 2, column label: null or absent",
        "every vote needs a label",
    ),
    "json absent": (
        "v.jsonl",
        '{"task":1,"worker":1,"label":1}\n{"task":2,"worker":1}\n{"task":2,"worker":2,"label":0}',
        ", line 2, column label: null or absent",
        "every vote needs a label",
    ),
    "json nan": (
        "v.jsonl",
        '{"task":1,"worker":1,"label":1}\n{"task":2,"worker":1,"label":NaN}\n{"task":2,"worker":2,"label":0}',
        ", line 2, column label: 'NaN'",
        "every vote needs a label",
    ),
    "json cell": (
        "v.jsonl",
        '{"task":1,"worker":1,"label":1}\n{"task":2,"worker":1,"label":["a"]}\n',
        ", line 2, column label: a list",
        "allowed: text, a number, true, false",
    ),
    "json surrogate": (
        "v.jsonl",
        '{"task":1,"worker":1,"label":1}\n{"task":2,"worker":1,"label":"\\ud800"}\n',
        ", line 2, column label: '\\ud800' holds half a character",
        "valid text is allowed",
    ),
    "json key twice": (
        "v.jsonl",
        '{"task":1,"worker":1,"label":1,"label":2}\n{"task":2,"worker":1,"label":2}\n'
        '{"task":3,"worker":1,"label":1}',
        ", line 1: the key 'label' is there twice",
        "once is allowed",
    ),
    "json bytes": (
        "v.jsonl",
        b'\n{"task": "\xff"}\n',
        ", line 2: byte 11 (0xff) is not UTF-8",
        "save",
    ),
    "json empty": ("v.jsonl", "\n", ": no JSON object", "one a line is needed"),
    "not parquet": ("v.parquet", "hello", ": not a readable Parquet file", ""),
    "suffix": ("v.xlsx", "", ": the suffix is .xlsx", "allowed: .csv, .tsv, .jsonl, .parquet"),
    "no suffix": ("votes", H + OK, ": the suffix is none", "allowed: .csv"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_one_error_with_the_place(name: str, tmp_path: Path) -> None:
    file, data, place, allowed = BAD[name]
    path = tmp_path / file
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    faults = faults_of(path)
    found = [fault for fault in faults if fault.startswith(f"{path}{place}")]
    assert len(found) == 1, faults
    assert allowed in found[0], faults
    if name not in {"json list", "json syntax", "json absent", "missing column", "json bytes"}:
        assert len(faults) == 1, faults
