"""Anyone's table of labels with explanations: read right, the same in any order, or refused."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig

from annorun.dataset.explained_table import explained_table
from annorun.dataset.synthetic_styles import synthetic_styles
from annorun.run import run
from annorun.seeds import rng
from annorun.votes import Items, Votes

Row = Sequence[str]
NAMES = ("task", "worker", "label", "explanation", "text", "split")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
ROWS: list[Row] = [
    ("10", "bob", "yes", " it says so. ", "A cat\nsat.", "train"),
    ("9", "ann", "no", "nan", "42", "test"),
    ("10", "ann", "no", "two\nlines\n", "A cat\nsat.", "train"),
    ("9", "bob", "maybe", "3.50", "42", "test"),
    ("10", "ann", "maybe", 'or "so", perhaps\t', "A cat\nsat.", "train"),
    ("2", "cy", "yes", "it says so", " blanks ", "val"),
]


def read(path: Path, seed: int = 0, **names: str) -> tuple[Items, Votes]:
    return explained_table(rng=np.random.default_rng(seed), path=str(path), **names)


def write(path: Path, rows: Sequence[Row], names: Sequence[str] = NAMES) -> Path:
    """Write rows in the format of the suffix; those of CSV and TSV with quotes where needed."""
    rows = [row[: len(names)] for row in rows]
    if path.suffix == ".parquet":
        columns = zip(names, zip(*rows, strict=True), strict=True)
        pq.write_table(pa.table({name: list(cells) for name, cells in columns}), path)
    elif path.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="," if path.suffix == ".csv" else "\t")
            writer.writerows([names, *rows])
    return path


def plain(read: tuple[Items, Votes]) -> list[Any]:
    """Return all that was read as plain values, arrays as bytes."""
    items, votes = read
    assert items.held_out is not None
    parts = [
        [getattr(own, name).tobytes() for name in ("item", "annotator", "label")]
        + [own.explanation, own.n_items, own.n_annotators, own.n_classes, own.multi_label]
        for own in (votes, items.held_out)
    ]
    names = [items.names, items.class_names, items.annotator_names, items.inputs["text"]]
    return [*parts, *names, items.split.tolist(), items.n_classes, items.kind]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_small_table_by_hand(suffix: str, tmp_path: Path) -> None:
    """Numbers sort 2 < 9 < 10, letters ann < bob < cy and maybe < no < yes."""
    items, votes = read(write(tmp_path / f"said{suffix}", ROWS))
    assert (items.kind, items.n_classes, items.truth) == ("explain", 3, None)
    assert items.names == ["2", "9", "10"]
    assert items.inputs == {"text": [" blanks ", "42", "A cat\nsat."]}
    assert items.split.tolist() == ["val", "test", "train"]
    assert items.annotator_names == ["ann", "bob", "cy"]
    assert items.class_names == ["maybe", "no", "yes"]
    # as written: blanks at the ends, lines, quotes
    assert list(
        zip(votes.item, votes.annotator, votes.label, votes.explanation or (), strict=True)
    ) == [
        (0, 2, 2, "it says so"),
        (2, 0, 0, 'or "so", perhaps\t'),
        (2, 0, 1, "two\nlines\n"),
        (2, 1, 2, " it says so. "),
    ]
    held = items.held_out
    assert held is not None
    assert (held.item.tolist(), held.annotator.tolist()) == ([1, 1], [0, 1])
    assert (held.label.tolist(), held.explanation) == ([1, 0], ("nan", "3.50"))
    assert (votes.n_items, votes.n_annotators, votes.n_classes) == (3, 3, 3)


def test_only_a_task_with_several_labels_of_one_annotator_makes_them_many(tmp_path: Path) -> None:
    path = tmp_path / "said.csv"
    assert read(write(path, ROWS))[1].multi_label
    assert not read(write(path, [row for row in ROWS if row[2] != "maybe"]))[1].multi_label


def generated(n_items: int) -> list[Row]:
    """Return rows of generated pairs, of their own split."""
    items, votes = synthetic_styles(rng=rng(0, "dataset"), n_items=n_items, strength=0.3, error=0.1)
    assert items.held_out is not None and items.annotator_names is not None
    return [
        (
            items.name(i),
            items.annotator_names[who],
            items.classes()[label],
            why,
            items.inputs["text"][i],
            str(items.split[i]),
        )
        for own in (votes, items.held_out)
        for i, who, label, why in zip(
            own.item, own.annotator, own.label, own.explanation or (), strict=True
        )
    ]


@pytest.mark.parametrize("columns", [6, 5], ids=["own split", "drawn split"])
def test_any_order_and_any_format_is_the_same_to_the_bit(columns: int, tmp_path: Path) -> None:
    rows, names = generated(40), NAMES[:columns]
    first = plain(read(write(tmp_path / "said.csv", rows, names)))
    order = np.random.default_rng(1).permutation(len(rows))
    for suffix in SUFFIXES:
        shuffled = write(tmp_path / f"again{suffix}", [rows[k] for k in order], names)
        assert plain(read(shuffled)) == first


def test_the_data_seed_draws_a_split_where_there_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "said.csv", generated(50), NAMES[:5])
    one, again, other = (read(path, seed)[0] for seed in (0, 0, 1))
    assert one.split.tolist() == again.split.tolist() != other.split.tolist()
    assert [int((one.split == part).sum()) for part in ("train", "val", "test")] == [40, 5, 5]
    items, votes = read(path)
    held = items.held_out
    assert held is not None and len(votes) == 45 * 4 and len(held) == 5 * 4
    assert set(items.split[votes.item]) == {"train", "val"}
    assert set(items.split[held.item]) == {"test"}
    # a column of the file may be passed over
    whole = write(tmp_path / "whole.csv", generated(50))
    assert plain(read(whole, split="none")) == plain(read(path))


def test_tasks_of_one_text_are_of_one_part(tmp_path: Path) -> None:
    """Two tasks a text: a tenth of 20 texts, twice, and none on both sides."""
    rows = [
        [f"{task}", who, label, "so", f"text {task % 20}"]
        for task in range(40)
        for who, label in (("x", "1"), ("y", "2"))
    ]
    items, _ = read(write(tmp_path / "said.csv", rows, NAMES[:5]))
    parts: dict[str, set[str]] = {}
    for text, part in zip(items.inputs["text"], items.split, strict=True):
        parts.setdefault(text, set()).add(part)
    assert all(len(own) == 1 for own in parts.values())
    assert [int((items.split == part).sum()) for part in ("train", "val", "test")] == [32, 4, 4]


def test_columns_can_be_renamed(tmp_path: Path) -> None:
    named = write(tmp_path / "said.csv", ROWS, [f"my {name}" for name in NAMES])
    plainly = write(tmp_path / "said.tsv", ROWS)
    assert plain(read(named, **{name: f"my {name}" for name in NAMES})) == plain(read(plainly))


# content, what the one fault starts with (after the path), what it says beside that
def test_a_written_table_has_the_signal_of_what_it_was_written_from(
    compose: Callable[..., DictConfig], tmp_path: Path
) -> None:
    few = ["method.aggregator.draws=20", "method.aggregator.exchanges=9"]
    words = ["dataset=synthetic_styles", "dataset.n_items=60", "dataset.error=0.1"]
    expected = run(compose(*words, *few))["metrics"]
    path = write(tmp_path / "said.tsv", generated(60))
    given = ["method=signal", "dataset=explained_table", f"dataset.path={path}"]
    assert run(compose(*given, *few))["metrics"] == expected
    assert {"judge/acc_raw_bag1", "centroid/p_none"} <= set(expected)


@pytest.mark.parametrize("method", ["capo", "explain_sft", "explain_prompt"])
def test_methods_that_write_take_it(
    method: str, compose: Callable[..., DictConfig], tmp_path: Path
) -> None:
    path = write(tmp_path / "said.csv", ROWS)
    given = ["dataset=explained_table", f"dataset.path={path}"]
    cfg = compose(*given, f"method={method}", "model_size=tiny")
    assert (cfg.choices.noise, cfg.choices.annotator_dist) == ("none", "real")
