"""A run's folder: what its identity holds, when it is done, and what happens after a failure."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
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
