"""Reader of anyone's labels with explanations: a long table, one row a response.

    task,worker,label,explanation,text
    q1,ann,yes,"It says so, in the first line.","The cat sat. Did it sit?"
    q1,bob,no,not while it lay,"The cat sat. Did it sit?"

CSV, TSV, JSON lines or Parquet; what is not usable is a fault, as in `annorun.dataset.table`, whose
rules for `task`, `worker` and `label` hold here too. Beside them:

- `explanation` and `text` (of the task, the same in all of its rows) are needed in every row. They
  are free: blanks at the ends, line breaks, numbers and the word nan are as written, for format at
  the ends tells annotators apart. One that is empty or blank is a fault; so is NaN without quotes
  in JSON.
- An annotator may give a task several labels, each with its explanation; none twice.
- `split` (of a task: train, val or test) is used when the file has it: tasks of train and of test
  must be there, and tasks of one text are of one part. Without it a tenth of the texts validates
  and a tenth tests, drawn by `data_seed`.

There is no truth. The responses to test tasks are those of `Items.held_out`.
"""

import numpy as np

from annorun.dataset.explained import sizes
from annorun.dataset.table import checked, ranked
from annorun.dataset.table_columns import UNUSED, Column, Form
from annorun.errors import ConfigError
from annorun.votes import Ints, Items, Votes

PARTS = ("train", "val", "test")
FORM = Form(
    needed={
        "task": "q1",
        "worker": "ann",
        "label": "yes",
        "explanation": "it says so",
        "text": "The cat sat. Did it sit?",
    },
    words={
        "task": "every row needs a task",
        "worker": "every row needs a worker",
        "label": "every row needs a label",
        "explanation": "every row needs an explanation",
        "text": "every row needs the text of its task",
        "split": f"allowed: {', '.join(PARTS)} (or do without: dataset.split={UNUSED})",
    },
    owner={"text": "task", "split": "task"},
    vote=("task", "worker", "label"),
    parts=PARTS,
    free=("explanation", "text"),
)
# texts of which a tenth is one
FEWEST = 10


def explained_table(
    *,
    rng: np.random.Generator,
    path: str,
    task: str = "task",
    worker: str = "worker",
    label: str = "label",
    explanation: str = "explanation",
    text: str = "text",
    split: str = "split",
) -> tuple[Items, Votes]:
    """Read a long table of labels with explanations.

    Args:
        rng: draws the parts where the file has none; not used otherwise.
        path: the file; its suffix says the format: .csv, .tsv, .jsonl or .parquet.
        task: name of the column of the item that was labelled.
        worker: name of the column of the annotator.
        label: name of the column of the answer.
        explanation: name of the column of the reason for it.
        text: name of the column of what the annotator read.
        split: name of the optional column of the item's part; `none` does without: it is drawn.

    Raises:
        ConfigError: all that is wrong with the file.
    """
    wanted = dict(
        task=task, worker=worker, label=label, explanation=explanation, text=text, split=split
    )
    columns = checked(path, wanted, FORM).columns
    item, names = ranked(columns["task"])
    annotator, annotator_names = ranked(columns["worker"])
    answer, class_names = ranked(columns["label"])
    row = np.zeros(len(names), dtype=np.int64)
    # any row of a task: its text and part are the same in all
    row[item] = np.arange(len(item))
    texts = _cells(columns["text"], row)
    parts = _parts(path, columns.get("split"), row, texts, rng)
    pair = item * len(annotator_names) + annotator
    votes = Votes(
        item=item,
        annotator=annotator,
        label=answer,
        n_items=len(names),
        n_annotators=len(annotator_names),
        n_classes=len(class_names),
        explanation=tuple(_cells(columns["explanation"])),
        multi_label=len(np.unique(pair)) < len(pair),
    )
    items = Items(
        kind="explain",
        inputs={"text": texts},
        split=parts,
        n_classes=len(class_names),
        held_out=votes.on(parts == "test"),
        names=names,
        class_names=class_names,
        annotator_names=annotator_names,
    )
    return items, votes.on(parts != "test")


def _cells(column: Column, rows: Ints | None = None) -> list[str]:
    """Return the cells of some rows, or of all; none is null once the table has been checked."""
    codes = column.codes if rows is None else column.codes[rows]
    return [str(column.values[code]) for code in codes.tolist()]


def _parts(
    path: str,
    column: Column | None,
    row: Ints,  # (n_items,) one of each item
    texts: list[str],  # of each item
    rng: np.random.Generator,
) -> np.ndarray:  # (n_items,)
    """Return the part of each item, drawn where the table says none."""
    if column is None:
        once, own = np.unique(np.array(texts, dtype=object), return_inverse=True)
        if len(once) < FEWEST:
            raise ConfigError(
                f"{path}: {len(once)} texts and no column of their split; allowed: {FEWEST} texts "
                "or more, of which a tenth validates and a tenth tests, or a column with "
                f"{', '.join(PARTS)} (dataset.split=COLUMN)"
            )
        return rng.permutation(np.repeat(PARTS, sizes(len(once))))[own]
    parts = np.array(_cells(column, row))
    missing = [part for part in ("train", "test") if part not in parts]
    if missing:
        raise ConfigError(
            f"{path}, column {column.name}: no task is of {' or '.join(missing)}; allowed: "
            f"{', '.join(PARTS)}, of these train and test are needed "
            f"(or do without: dataset.split={UNUSED})"
        )
    part_of = dict(zip(texts, parts.tolist(), strict=True))
    if apart := [k for k, text in enumerate(texts) if parts[k] != part_of[text]]:
        text, first = texts[apart[0]], parts[apart[0]]
        raise ConfigError(
            f"{path}, column {column.name}: text {text[:60]!r} is of {first} in one task and of "
            f"{part_of[text]} in another; allowed is one part a text"
        )
    return parts
