"""A run's folder: what its identity holds, when it is done, and what happens after a failure."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig

from annorun import config, results
from annorun.run import run
from annorun.votes import Items, Posterior, Votes

Compose = Callable[..., DictConfig]


@pytest.fixture
def identity(compose: Compose) -> Callable[..., str]:
    return lambda *overrides: results.identity(config.plain(compose(*overrides)))


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "mode=force",
        "logger=csv",
        "trainer.threads=3",
        "trainer.accelerator=gpu",
        "out_root=elsewhere",
        "model_size.family=image",
        "model_size.seq2seq=another",
    ],
)
def test_what_cannot_change_the_result_is_not_in_the_identity(
    identity: Callable[..., str], override: str
) -> None:
    assert identity("dataset=digits", override) == identity("dataset=digits")


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "data_seed=1",
        "trainer.precision=bf16-mixed",
        "trainer.max_steps=7",
        "trainer.batch_size=7",
        "method=noisy",
        "method.module.expertise_lr=0.1",
        "noise=systematic",
        "noise.semantics=mixture",
        "annotator_dist=spread",
        "dataset.test_share=0.2",
        "model_size.start=scratch",
    ],
)
def test_what_can_change_the_result_is_in_the_identity(
    identity: Callable[..., str], override: str
) -> None:
    assert identity("dataset=digits", override) != identity("dataset=digits")


def test_a_gguf_files_content_counts(
    identity: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words, found = ["model_size.family=causal", "model_size.causal=own.gguf"], []
    for content in (b"one", b"two"):
        Path("own.gguf").write_bytes(content)
        found.append(identity(*words))
    assert found[0] != found[1]


def test_the_datas_content_counts_and_its_path_does_not(
    identity: Callable[..., str], table: Path, tmp_path: Path
) -> None:
    one = identity("dataset=table", f"dataset.path={table}")
    moved = tmp_path / "elsewhere" / "renamed.csv"
    moved.parent.mkdir()
    moved.write_bytes(table.read_bytes())
    assert identity("dataset=table", f"dataset.path={moved}") == one
    moved.write_bytes(table.read_bytes().replace(b"t0,ann,0", b"t0,ann,1"))
    assert identity("dataset=table", f"dataset.path={moved}") != one


def test_a_folders_content_and_names_count(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "x.txt").write_text("1")
    one = results.checksum(tmp_path / "a")
    assert one == results.checksum(tmp_path / "b")
    (tmp_path / "b" / "sub" / "x.txt").rename(tmp_path / "b" / "sub" / "y.txt")
    assert results.checksum(tmp_path / "b") != one
    assert one[0][:2] == ["sub/x.txt", 1]


def test_every_file_of_a_folder_counts_to_its_last_byte(tmp_path: Path) -> None:
    for name, content in {"b/2.bin": b"\0" * 3_000_000, "a.txt": b"1", "b/1.txt": b"2"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    base = results.checksum(tmp_path)
    assert [name for name, *_ in base] == ["a.txt", "b/1.txt", "b/2.bin"]
    assert [size for _, size, _ in base] == [1, 1, 3_000_000]
    for name in ("a.txt", "b/1.txt", "b/2.bin"):
        content = (tmp_path / name).read_bytes()
        # as many bytes, the last another
        (tmp_path / name).write_bytes(content[:-1] + b"x")
        changed = [
            old[0] for old, new in zip(base, results.checksum(tmp_path), strict=True) if old != new
        ]
        assert changed == [name]
        (tmp_path / name).write_bytes(content)
    # of a file alone, its name is nothing
    assert results.checksum(tmp_path / "a.txt")[0][0] == ""


def test_aggregation_does_not_depend_on_the_trainer(
    identity: Callable[..., str], table: Path
) -> None:
    words = ("dataset=table", f"dataset.path={table}")
    assert identity(*words, "trainer=smoke", "method.module=null") == identity(*words)
    assert identity(*words, "method=majority") != identity(*words)
    assert identity(*words, "dataset.label=label", "dataset.gold=none") != identity(*words)


def test_the_folders_name_says_what_it_is(compose: Compose) -> None:
    c = config.plain(compose("dataset=digits", "seed=3", "name=table/x"))
    place = results.folder(c, results.identity(c))
    assert place.parent.parts[-2:] == ("table", "x")
    assert place.name == f"realm-digits-uniform-one_expert-tiny-s3-{results.identity(c)[:8]}"


def test_states(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert results.state(folder) == "absent"
    results.begin(folder)
    assert results.state(folder) == "absent"
    results.fail(folder, "Traceback")
    assert results.state(folder) == "failed"
    results.begin(folder)
    assert list(folder.iterdir()) == []
    results.write_row(folder, {"metrics": {"test/acc": 0.1 + 0.2}})
    assert results.state(folder) == "done"
    assert results.read_row(folder)["metrics"]["test/acc"] == 0.1 + 0.2
    assert [p.name for p in folder.iterdir()] == ["row.json"]


def test_killed_between_write_and_rename_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        results.write_row(tmp_path, {"metrics": {}})
    assert results.state(tmp_path) == "absent"
    assert results.read_rows(tmp_path) == []


def test_a_row_is_json_that_everybody_can_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.write_row(tmp_path, {"metrics": {"test/acc": float("nan")}})
    assert results.state(tmp_path) == "absent"


def test_many_rows_in_the_order_of_their_folders(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        results.begin(tmp_path / "t" / name)
        results.write_row(tmp_path / "t" / name, {"id": name})
    results.begin(tmp_path / "t" / "d")
    assert [row["id"] for row in results.read_rows(tmp_path)] == ["a", "b", "c"]


def test_a_csv_comes_back_with_odd_names(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    names = ["#1", "a,b", 'say "x"', "two\nlines", "é", ""]
    results.write_csv(path, ["annotator", "value"], [[n, 0.1] for n in names])
    assert [r["annotator"] for r in results.read_csv(path)] == names
    path.write_text("# origin\n# more\na,b\n#1,2\n")
    assert results.read_csv(path) == [{"a": "#1", "b": "2"}]


def cells(path: Path) -> list[list[str]]:
    return list(csv.reader(path.read_text(encoding="utf-8").splitlines()))


def test_the_companion_files(tmp_path: Path) -> None:
    items = Items(
        kind="votes",
        inputs={},
        split=np.array(["train", "train", "test"]),
        n_classes=2,
        truth=np.array([1, 0, -1]),
        names=["x", "y", "z"],
        class_names=["no", "yes"],
        annotator_names=["ann", "idle"],
    )
    votes = Votes([0, 1], [0, 0], [1, 0], n_items=3, n_annotators=2, n_classes=2)  # type: ignore[arg-type]
    learned, planted = np.array([0.75, np.nan]), np.array([0.5, 0.25])
    results.write_annotators(tmp_path, items, votes, learned, planted, None, [])
    assert results.read_csv(tmp_path / "annotators.csv") == [
        dict(annotator="ann", votes="2", group="", task="", expertise="0.75", true_expertise="0.5"),
        dict(annotator="idle", votes="0", group="", task="", expertise="", true_expertise="0.25"),
    ]
    probs = np.array([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]])
    results.write_labels(
        tmp_path, items, votes, Posterior(probs, learned), np.array([1, 0, 0]), None, []
    )
    assert cells(tmp_path / "labels.csv") == [
        ["item", "group", "label", "p_no", "p_yes"],
        ["x", "", "yes", "0.25", "0.75"],
        ["y", "", "no", "1.0", "0.0"],
    ]
    group_probs = np.stack([probs, np.full((3, 2), np.nan)], axis=1)
    by_group = np.array([[1, -1], [0, -1], [0, -1]])
    posterior = Posterior(probs, learned, group_probs=group_probs)
    results.write_labels(
        tmp_path, items, votes, posterior, np.array([1, 0, 0]), by_group, ["u", "v"]
    )
    assert [row[:3] for row in cells(tmp_path / "labels.csv")[1:]] == [
        ["x", "", "yes"],
        ["y", "", "no"],
        ["x", "u", "yes"],
        ["y", "u", "no"],
    ]
    results.write_annotators(tmp_path, items, votes, learned, None, np.array([1, 0]), ["u", "v"])
    assert [r["group"] for r in results.read_csv(tmp_path / "annotators.csv")] == ["v", "u"]
    results.write_predictions(tmp_path, items, probs[2:] + np.array([0.0, 0.25]))
    assert cells(tmp_path / "predictions.csv") == [
        ["item", "label", "truth", "p_no", "p_yes"],
        ["z", "yes", "", "0.5", "0.75"],
    ]


def test_a_row_is_on_the_disk_before_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _: done.append(f"sync {results.state(tmp_path)}"))
    rename = Path.rename
    monkeypatch.setattr(
        Path, "rename", lambda self, to: [done.append(self.name), rename(self, to)][1]
    )
    results.write_row(tmp_path, {"metrics": {}})
    assert done == ["sync absent", "row.json.part"]


def test_a_failure_never_stands_beside_a_row(tmp_path: Path) -> None:
    """A run that is done fails when it is forced again: what it left is no result of this one."""
    results.begin(tmp_path / "run")
    results.write_row(tmp_path / "run", {"metrics": {}})
    (tmp_path / "run" / "labels.csv").touch()
    results.fail(tmp_path / "run", "Traceback")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["error.txt"]
    assert results.state(tmp_path / "run") == "failed"
    # what a run wrote before it failed stays, and a row decides, whatever else is there
    (tmp_path / "run" / "labels.csv").touch()
    results.fail(tmp_path / "run", "another")
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"error.txt", "labels.csv"}
    (tmp_path / "run" / "row.json").touch()
    assert results.state(tmp_path / "run") == "done"


def test_the_home_folder_is_expanded(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    c = config.plain(compose("dataset=digits")) | {"out_root": "~/runs"}
    assert results.folder(c, "0" * 16).parts[:5] == ("/", "home", "somebody", "runs", "default")


def test_a_row_has_the_runs_own_seeds_and_overrides(compose: Compose, table: Path) -> None:
    words = ["dataset=table", f"dataset.path={table}", "seed=3", "data_seed=5"]
    cfg = compose(*words)
    row = results.new_row(config.plain(cfg), "x" * 16)
    assert (row["seed"], row["data_seed"], row["id"], row["name"]) == (3, 5, "x" * 16, "default")
    assert row["overrides"][1:] == words
    assert row["choices"] == {
        **{"method": "dawid_skene", "dataset": "table", "noise": "none", "annotator_dist": "real"},
        **{"model_size": "none", "trainer": "cpu", "logger": "none"},
    }


def test_the_revision_is_that_of_the_code_and_says_whether_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> str:
        who = ("-c", "user.name=x", "-c", "user.email=x@y")
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    monkeypatch.setattr(results, "__file__", str(tmp_path / "annorun" / "results.py"))
    assert results.revision.__wrapped__() == (None, None)
    (tmp_path / "annorun").mkdir()
    git("init", "-q")
    for text in ("one", "two"):
        (tmp_path / "annorun" / "results.py").write_text(text)
        git("add", ".")
        git("commit", "-q", "-m", text)
    head = git("rev-parse", "HEAD")
    (tmp_path / "new.csv").touch()
    assert results.revision.__wrapped__() == (head, False)
    (tmp_path / "annorun" / "results.py").write_text("three")
    assert results.revision.__wrapped__() == (head, True)


def test_each_line_is_of_the_item_that_it_names(tmp_path: Path) -> None:
    """Six items, of which 4 and 2 are voted on and 1, 3 and 5 are test; two groups that differ."""
    split = np.array(["train", "test", "train", "test", "train", "test"])
    names, classes = list("abcdef"), ["no", "yes", "so"]
    held = Votes([3, 3, 3, 5], [0, 1, 2, 0], [2, 2, 0, 1], 6, 3, 3)  # type: ignore[arg-type]
    items = Items(
        *("votes", {}, split, 3),
        truth=np.array([0, 2, 1, 1, 0, -1]),
        held_out=held,
        names=names,
        class_names=classes,
        annotator_names=["ann", "bob", "cy"],
    )
    votes = Votes([4, 2, 4, 4], [0, 2, 2, 1], [2, 0, 2, 1], 6, 3, 3)  # type: ignore[arg-type]
    probs = np.arange(18.0).reshape(6, 3) / 100
    group_probs = np.stack([probs + 1, probs + 2], axis=1)
    labels, by_group = np.array([2, 2, 0, 2, 1, 0]), np.array([[0, 0], [1, 1], [1, 2], [0, 0]])
    by_group = np.concatenate([by_group, [[2, -1], [0, 0]]])
    posterior = Posterior(probs, np.ones(3), group_probs=group_probs)
    results.write_labels(tmp_path, items, votes, posterior, labels, by_group, ["u", "v"])
    assert cells(tmp_path / "labels.csv") == [
        ["item", "group", "label", "p_no", "p_yes", "p_so"],
        ["c", "", "no", "0.06", "0.07", "0.08"],
        ["e", "", "yes", "0.12", "0.13", "0.14"],
        ["c", "u", "yes", "1.06", "1.07", "1.08"],
        ["e", "u", "so", "1.12", "1.13", "1.1400000000000001"],
        # of e, group v has no label
        ["c", "v", "so", "2.06", "2.07", "2.08"],
    ]
    answers = np.array([[0.5, 0.25, 0.25], [0.125, 0.875, 0.0], [0.0, 0.25, 0.75]])
    results.write_predictions(tmp_path, items, answers)
    header = ["item", "label", "truth", "p_no", "p_yes", "p_so", "n_no", "n_yes", "n_so"]
    assert cells(tmp_path / "predictions.csv") == [
        header,
        ["b", "no", "so", "0.5", "0.25", "0.25", "0", "0", "0"],
        ["d", "yes", "yes", "0.125", "0.875", "0.0", "1", "0", "2"],
        ["f", "so", "", "0.0", "0.25", "0.75", "0", "1", "0"],
    ]
    # labels by a rule stand in place of the most probable; ratings in place of votes
    soft = replace(items, soft=np.arange(18.0).reshape(6, 3))
    results.write_predictions(tmp_path, soft, answers, np.array([2, 0, 1]))
    assert [[row[1], *row[6:]] for row in cells(tmp_path / "predictions.csv")[1:]] == [
        *(["so", "3", "4", "5"], ["no", "9", "10", "11"], ["yes", "15", "16", "17"]),
    ]
    learned, planted = np.array([0.25, np.nan, 0.75]), np.array([0.5, 0.125, np.nan])
    group = np.array([1, 0, 1])
    results.write_annotators(tmp_path, items, votes, learned, planted, group, ["u", "v"])
    assert cells(tmp_path / "annotators.csv")[1:] == [
        ["ann", "1", "v", "", "0.25", "0.5"],
        ["bob", "1", "u", "", "", "0.125"],
        ["cy", "2", "v", "", "0.75", ""],
    ]


@pytest.fixture
def votes_run(compose: Compose, table: Path) -> Callable[..., dict[str, Any]]:
    def go(*overrides: str) -> dict[str, Any]:
        return run(compose("dataset=table", f"dataset.path={table}", *overrides))

    return go


def test_a_finished_run_returns_its_row_and_does_not_run(
    votes_run: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = votes_run()
    with monkeypatch.context() as patch:
        patch.setattr("annorun.run.execute", None)
        patch.setattr("annorun.run.load", None)
        assert votes_run() == first
        assert "not run again" in capsys.readouterr().out
        with pytest.raises(TypeError):
            votes_run("mode=force")
    again = votes_run("mode=force")
    assert again["metrics"] == first["metrics"]
    assert again["id"] == first["id"]


def test_a_failed_run_leaves_its_error_and_is_run_again(
    votes_run: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patch:
        patch.setattr("annorun.run.execute", broken)
        with pytest.raises(RuntimeError, match="out of luck"):
            votes_run()
    (error,) = (tmp_path / "runs").rglob("error.txt")
    assert "RuntimeError: out of luck" in error.read_text()
    assert results.state(error.parent) == "failed"
    votes_run()
    assert results.state(error.parent) == "done"
    assert not error.exists()


FAILING = """
import sys
from annorun import cli, run

execute = run.execute

def sometimes(c, *rest):
    if c["method"]["aggregator"]["_target_"].endswith(".majority"):
        raise RuntimeError("out of luck")
    return execute(c, *rest)

run.execute = sometimes
sys.argv = ["annorun", *sys.argv[1:]]
cli.main()
"""


def test_a_failed_cell_ends_in_1_and_the_others_run(table: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    command = ["-m", "dataset=table", f"dataset.path={table}", "method=majority,dawid_skene"]

    def shell(*program: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *program, *command],
            cwd=here,
            env={**os.environ, "HYDRA_FULL_ERROR": "0"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    first = shell("-c", FAILING)
    assert first.returncode == 1
    assert "failed: RuntimeError: out of luck" in first.stderr
    states = {p.name.split("-")[0]: results.state(p) for p in (here / "runs/default").iterdir()}
    assert states == {"majority": "failed", "dawid_skene": "done"}
    second = shell("-m", "annorun")
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("not run again") == 1
    rows = [json.loads(p.read_text()) for p in here.rglob("row.json")]
    assert sorted(r["choices"]["method"] for r in rows) == ["dawid_skene", "majority"]
