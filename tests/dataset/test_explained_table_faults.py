"""Faults of a table of explanations: each named by file, line and column, all at once."""

from pathlib import Path

import numpy as np
import pytest

from annorun.dataset.explained_table import explained_table
from annorun.errors import ConfigError

HEAD = "task,worker,label,explanation,text\n"
OK = "a,x,1,why,t\nb,x,2,why,u\n"
SPLIT = "task,worker,label,explanation,text,split\n"


def faults_of(path: Path, **names: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        explained_table(rng=np.random.default_rng(0), path=str(path), **names)
    return [fault.removeprefix(str(path)) for fault in error.value.faults]


BAD: dict[str, tuple[str, str, str, str]] = {
    "no column": (
        "v.csv",
        "task,worker,label,reason,text\n" + OK,
        ", line 1: no column 'explanation'",
        "name yours with dataset.explanation=COLUMN",
    ),
    "empty": ("v.csv", "", ": an empty file", "task, worker, label, explanation, text"),
    "no rows": ("v.csv", HEAD, ": no votes", "no row below it"),
    "no task": ("v.csv", HEAD + OK + ",x,1,w,t\n", ", line 4, column task: empty", "a task"),
    "no explanation": (
        "v.csv",
        HEAD + OK + "c,x,1,,t\n",
        ", line 4, column explanation: empty",
        "every row needs an explanation",
    ),
    "blank explanation": (
        "v.csv",
        HEAD + OK + 'c,x,1," \n\t",t\n',
        ", line 4, column explanation: only blanks",
        "every row needs an explanation",
    ),
    "no text": (
        "v.csv",
        HEAD + OK + "a,y,1,w,\n",
        ", line 4, column text: empty",
        "every row needs the text of its task",
    ),
    "null": (
        "v.jsonl",
        '{"task": 1, "worker": 1, "label": 1, "explanation": null, "text": "t"}',
        ", line 1, column explanation: null or absent",
        "every row needs an explanation",
    ),
    "NaN that is no word": (
        "v.jsonl",
        '{"task": 1, "worker": 1, "label": 1, "explanation": NaN, "text": "t"}',
        ", line 1, column explanation: NaN without quotes",
        "text is allowed",
    ),
    "another text": (
        "v.csv",
        HEAD + OK + "a,y,1,w,t \n",
        ", line 4, column text: 't ', but task 'a' has 't' in line 2",
        "one text a task is allowed",
    ),
    "another long text": (
        "v.csv",
        f"{HEAD}a,x,1,w,{'k' * 500}\na,y,2,w,{'k' * 400}!\n",
        f", line 3, column text: ...'{'k' * 30}!', but task 'a' has ...'{'k' * 60}'... in line 2",
        "one text a task is allowed",
    ),
    "the same label again": (
        "v.csv",
        HEAD + OK + "a,x,1,another,t\n",
        ", line 4, column label: 'x' labelled task 'a' '1' already in line 2",
        "one vote a task, worker and label is allowed",
    ),
    "blank at a label's end": (
        "v.csv",
        HEAD + OK + "c,x,1 ,w,t\n",
        ", line 4, column label: '1 ' has blanks",
        "remove them",
    ),
    "label nan": ("v.csv", HEAD + OK + "c,x,nan,w,t\n", ", line 4, column label: 'nan'", "label"),
    "NUL": (
        "v.csv",
        HEAD + OK + "c,x,1," + "w" * 90 + "\0,t\n",
        f", line 4, column explanation: ...'{'w' * 30}\\x00' holds a NUL byte",
        "text without it is allowed",
    ),
    "half a character": (
        "v.jsonl",
        '{"task": 1, "worker": 1, "label": 1, "explanation": "w\\ud800", "text": "t"}',
        ", line 1, column explanation: 'w\\ud800' holds half a character",
        "valid text is allowed",
    ),
    "one class": ("v.csv", HEAD + "a,x,1,w,t\n", ", column label: every label is '1'", "2 classes"),
    "another split": (
        "v.csv",
        SPLIT + "a,x,1,w,t,train\na,y,2,w,t,test\n",
        ", line 3, column split: 'test', but task 'a' has 'train' in line 2",
        "one split a task is allowed",
    ),
    "a part that is none": (
        "v.csv",
        SPLIT + "a,x,1,w,t,train\nb,y,2,w,t,dev\n",
        ", line 3, column split: 'dev'",
        "allowed: train, val, test (or do without: dataset.split=none)",
    ),
    "nothing tests": (
        "v.csv",
        SPLIT + "a,x,1,w,t,train\nb,y,2,w,t,val\n",
        ", column split: no task is of test",
        "allowed: train, val, test, of these train and test are needed",
    ),
    "nothing trains": (
        "v.csv",
        SPLIT + "a,x,1,w,t,test\nb,y,2,w,t,val\n",
        ", column split: no task is of train;",
        "dataset.split=none",
    ),
    "one text in two parts": (
        "v.csv",
        SPLIT + "a,x,1,w,t,train\nb,y,2,w,u,train\nc,y,2,w,t,test\n",
        ", column split: text 't' is of train in one task and of test in another",
        "one part a text",
    ),
    "too few to draw from": ("v.csv", HEAD + OK, ": 2 texts and no column of", "10 texts or more"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named_with_its_place(name: str, tmp_path: Path) -> None:
    file, content, place, words = BAD[name]
    path = tmp_path / file
    path.write_text(content, encoding="utf-8")
    found = [fault for fault in faults_of(path) if fault.startswith(place)]
    assert len(found) == 1, faults_of(path)
    assert words in found[0], found


def test_faults_come_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    path.write_text(HEAD + OK + "a,y,,,t\nb,y,1,w,v\na,x,1,w,t\n", encoding="utf-8")
    assert [fault.split(":")[0] for fault in faults_of(path)] == [
        ", line 4, column label",
        ", line 4, column explanation",
        ", line 5, column text",
        ", line 6, column label",
    ]
