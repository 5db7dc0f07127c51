"""What the tiny T5 knows beforehand, and that the default run means something (slow: it learns)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors import safe_open

from annorun import config, net, pretrain
from annorun.dataset import synthetic_qa as qa
from annorun.run import run
from annorun.scores.recovery import mixture_equivalent
from annorun.votes import TaskSpec

PROMPT = "{question} {options}"


def test_a_bad_pretraining_is_an_error_and_leaves_no_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANNORUN_CACHE", str(tmp_path))
    monkeypatch.setattr(pretrain, "STAGES", ((1, None, 1.0),))
    monkeypatch.setattr(pretrain, "LOOK", 1)
    with pytest.raises(RuntimeError, match="not near"):
        pretrain.tiny_weights(3, PROMPT)
    assert not list(tmp_path.iterdir())


def test_the_default_questions_have_weights_in_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They are of the network that is built now, and as accurate as the file says."""
    monkeypatch.setenv("ANNORUN_CACHE", str(tmp_path))
    node = OmegaConf.load(config.conf_dir() / "dataset" / "synthetic_qa.yaml")
    path = pretrain.tiny_weights(node.n_classes, node.prompt)
    assert path == pretrain.FILE and not list(tmp_path.iterdir())
    network = {"family": "seq2seq", "model": "tiny", "weights": str(path)}
    model = net.build(network, TaskSpec("choice", node.n_classes, 0), seed=1)
    accuracy = pretrain.accuracy(model, *pretrain.held_out(node.n_classes, node.prompt))
    with safe_open(path, "pt") as file:
        assert accuracy == pytest.approx(float(file.metadata()["accuracy"]), abs=5e-4)
    assert abs(accuracy - pretrain.TARGET) < pretrain.NEAR


def test_pretraining_computes_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    monkeypatch.setattr(pretrain, "STAGES", ((1, None, 1.0),))
    monkeypatch.setattr(pretrain, "LOOK", 1)
    monkeypatch.setattr(
        pretrain, "accuracy", lambda *_: threads.append(torch.get_num_threads()) or 0.675
    )
    monkeypatch.setattr(
        pretrain, "learn", lambda *_: threads.append(torch.get_num_threads()) or 1.0
    )
    torch.set_num_threads(2)
    pretrain.pretrain(3, PROMPT, 0)
    assert threads == [1, 1] and torch.get_num_threads() == 2


def test_the_cache_is_read_and_named_by_the_recipe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = []

    def instead(n_classes: int, prompt: str, seed: int) -> tuple[torch.nn.Module, float]:
        made.append((n_classes, prompt))
        return torch.nn.Linear(1, 1), 0.675

    monkeypatch.setenv("ANNORUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pretrain, "pretrain", instead)
    first = pretrain.tiny_weights(3, PROMPT)
    assert pretrain.tiny_weights(3, PROMPT) == first and made == [(3, PROMPT)]
    paths = {first, pretrain.tiny_weights(5, PROMPT), pretrain.tiny_weights(4, "{options}")}
    other = tmp_path / "net.py"
    other.write_text("another network", encoding="utf-8")
    changes: list[tuple[object, str, object]] = [
        (pretrain.net, "TINY_T5", {**pretrain.net.TINY_T5, "d_ff": 64}),
        (pretrain, "SOURCES", (*pretrain.SOURCES[:-1], str(other))),
        (pretrain.torch, "__version__", "9.9"),
        (pretrain.torch.backends.cpu, "get_cpu_capability", lambda: "another"),
    ]
    for place, name, value in changes:
        with monkeypatch.context() as patch:
            patch.setattr(place, name, value)
            paths.add(pretrain.tiny_weights(3, PROMPT))
    assert len(paths) == len(made) == 7
    assert {p.suffix for p in (tmp_path / "cache").iterdir()} == {".safetensors"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """The default run's methods, on a data seed of their own; pretraining in the user's cache."""
    out = tmp_path_factory.mktemp("runs")
    cells = {
        "oracle": ["method=oracle"],
        "noisy": ["method=noisy", "noise=systematic"],
        "realm": ["noise=systematic"],
    }
    shared = [f"out_root='{out}'", "data_seed=77", "seed=7"]
    return {k: run(config.compose("config", [*shared, *v])) for k, v in cells.items()}


@pytest.mark.slow
def test_every_method_starts_informed_and_from_the_same_point(rows: dict[str, dict]) -> None:
    start = {row["metrics"]["start/acc"] for row in rows.values()}
    assert len(start) == 1
    assert 0.65 <= start.pop() <= 0.70


@pytest.mark.slow
def test_realm_comes_near_oracle_where_noisy_does_not(rows: dict[str, dict]) -> None:
    oracle, noisy, realm = (rows[m]["metrics"]["test/acc"] for m in ("oracle", "noisy", "realm"))
    assert 0.90 <= oracle <= 0.97
    assert realm - noisy >= 0.15
    assert oracle - realm <= 0.07


@pytest.mark.slow
def test_realm_finds_the_one_expert(rows: dict[str, dict]) -> None:
    assert rows["realm"]["metrics"]["annotators/max_error"] <= 0.1
    np.testing.assert_allclose(
        mixture_equivalent(np.array([0.9, 0.1, 0.1]), 4), [0.8667, 0, 0], atol=1e-4
    )


@pytest.mark.slow
def test_it_knows_familiar_words_and_guesses_the_others() -> None:
    model, _ = pretrain.pretrain(4, PROMPT, pretrain.SEED)
    draw = np.random.default_rng(5)
    known, unknown, rare = (
        pretrain.accuracy(model, *pretrain.tensors(qa.clean_questions(draw, 2000, 4, sort), PROMPT))
        for sort in range(3)
    )
    assert known > 0.9
    assert max(abs(unknown - 0.25), abs(rare - 0.25)) < 0.12
