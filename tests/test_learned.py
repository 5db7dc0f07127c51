"""What is kept of a network: what learns, tied weights, whole files; another network is left."""

import importlib.util
import os
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file
from torch import nn

from annorun import config, learned
from annorun.episodes import Episodes


class Tied(nn.Module):
    """A table whose transpose is the output, a frozen layer, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.out.weight = self.table.weight
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.register_buffer("seen", torch.zeros(2))


@pytest.fixture
def curves(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.csv"
    path.write_text("step\n1\n")
    return path


def test_what_does_not_learn_is_not_kept() -> None:
    module = Tied()
    assert set(learned.state(module)) == {"table.weight", "out.weight", "seen"}
    module.table.weight.requires_grad_(False)
    # by both of its names
    assert set(learned.state(module)) == {"seen"}


def test_tied_weights_come_back_and_stay_tied(tmp_path: Path, curves: Path) -> None:
    module, other = Tied(), Tied()
    module.seen += 1
    before = other.frozen.weight.clone()
    path, folder = tmp_path / "cache" / "net.safetensors", tmp_path / "run"
    folder.mkdir()
    learned.keep(path, learned.state(module), curves)
    assert learned.load(path, other, folder)
    assert torch.equal(other.out.weight, module.table.weight)
    assert other.out.weight is other.table.weight and torch.equal(other.seen, module.seen)
    assert torch.equal(other.frozen.weight, before)
    assert (folder / "metrics.csv").read_text() == curves.read_text()


@pytest.mark.parametrize("fault", ["weights", "curves", "broken", "another", "shape"])
def test_what_is_not_whole_or_not_its_own_is_left(tmp_path: Path, curves: Path, fault: str) -> None:
    module, other = Tied(), Tied()
    path = tmp_path / "net.safetensors"
    kept = learned.state(module)
    if fault == "shape":
        kept["seen"] = torch.ones(3)
    learned.keep(path, kept if fault != "another" else {"seen": kept["seen"]}, curves)
    assert len(load_file(path)) == (1 if fault == "another" else 3)
    if fault == "broken":
        path.write_bytes(path.read_bytes()[:20])
    elif fault in ("weights", "curves"):
        (path if fault == "weights" else path.with_suffix(".csv")).unlink()
    before = {k: v.clone() for k, v in other.state_dict().items()}
    assert not learned.load(path, other, tmp_path)
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())


class Learner(nn.Module):
    """A method over tasks, of which two keys matter to what is learned."""

    def learner(self, module: dict[str, Any]) -> dict[str, Any] | None:
        """Return what the network depends on; None where nothing is learned."""
        return None if module.get("still") else {"net": module["net"], "loss": module["loss"]}


@dataclass
class Asked:
    """What a cache path is of."""

    c: dict[str, Any]
    episodes: Episodes
    module: nn.Module


Change = Callable[[Asked], None]


@pytest.fixture
def asked(compose: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch) -> Asked:
    monkeypatch.setenv("ANNORUN_CACHE", "/somewhere")
    words = ["dataset=digits", "noise=confusion", "annotator_dist=expert_hammer_spammer"]
    c = config.plain(compose("method=meta_em", *words))
    c["method"]["module"] = {"net": "deep", "loss": "em", "answer": "soft"}
    return Asked(c, Episodes(4, 2, 5, [3, 5], tasks=6), Learner())


def put(*path: str, value: Any) -> Change:
    """Return what sets one value of the config."""

    def change(asked: Asked) -> None:
        node = asked.c
        for key in path[:-1]:
            node = node[key]
        assert node[path[-1]] != value
        node[path[-1]] = value

    return change


def tasks(**keys: Any) -> Change:
    """Return what changes the episodes."""

    def change(asked: Asked) -> None:
        asked.episodes = replace(asked.episodes, **keys)

    return change


# what a network that learns from tasks with pseudo-annotators does not depend on
FREE = {
    "how it answers": put("method", "module", "answer", value="hard"),
    "target pool": put("annotator_dist", "test", value=[{"spammer": 1.0}]),
    "target mixture": put("annotator_dist", "mixture", value=2),
    "annotators of a pool": put("annotator_dist", "n_annotators", value=9),
    "number of target tasks": tasks(tasks=7),
    "name": put("name", value="other"),
    "threads": put("trainer", "threads", value=3),
}
# and what it does
MATTERS = {
    "net": put("method", "module", "net", value="wide"),
    "loss": put("method", "module", "loss", value="prototype"),
    "training pool": put("annotator_dist", "train", "hammer", value=0.5),
    "expert": put("annotator_dist", "expert", value=0.7),
    "shots": tasks(shots=3),
    "queries": tasks(queries=7),
    "annotators": tasks(annotators=[4]),
    "pseudo": tasks(pseudo=False),
    "source noise": tasks(source_noise=0.25),
    "seed": put("seed", value=1),
    "data seed": put("data_seed", value=1),
    "precision": put("trainer", "precision", value="bf16-mixed"),
    "steps": put("trainer", "max_steps", value=7),
    "clip": put("trainer", "clip", value=7.0),
    "validation": put("trainer", "choose_on", value="gold"),
    "classes": put("dataset", "n_classes", value=8),
    "start": put("model_size", "start", value="scratch"),
}


def place(asked: Asked) -> Path | None:
    return learned.place(asked.c, asked.module, asked.episodes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FREE)
def test_runs_that_differ_in_their_answers_share_a_cache_path(asked: Asked, name: str) -> None:
    base = place(asked)
    FREE[name](asked)
    assert place(asked) == base and base is not None
    assert (base.parent, base.suffix) == (Path("/somewhere"), ".safetensors")


def test_whatever_training_depends_on_moves_the_cache_path(asked: Asked) -> None:
    """Each by itself, and no two to one place."""
    found = {"as it is": place(asked)}
    for name, change in MATTERS.items():
        own = Asked(deepcopy(asked.c), asked.episodes, asked.module)
        change(own)
        found[name] = place(own)
    assert len(set(found.values())) == 1 + len(MATTERS), found
    # without pseudo-annotators nobody's mixture matters
    tasks(pseudo=False)(asked)
    base = place(asked)
    MATTERS["training pool"](asked)
    assert place(asked) == base
    asked.c["method"]["module"]["still"] = True
    assert place(asked) is None


def test_the_code_of_annorun_of_a_plugin_and_torch_move_the_cache_path(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_plugin(text: str) -> Path | None:
        path = tmp_path / "plugged_method.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("plugged_method", path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "plugged_method", module)
        spec.loader.exec_module(module)
        asked.module = module.Plugged()
        return place(asked)

    source = "from torch import nn\nclass Plugged(nn.Module):\n    learner = lambda *_: {}\n"
    own = [of_plugin(source), of_plugin(source + "# edited\n")]
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "0.1")
        own.append(place(asked))
    with monkeypatch.context() as patch:
        patch.setattr(learned, "CODE", "edited")
        own.append(place(asked))
    assert len(set(own)) == 4


def test_every_file_of_annorun_is_in_the_hash_of_the_code() -> None:
    folder = Path(learned.__file__).parent
    files = sorted(folder.rglob("*.py"))
    assert {"net.py", "meta_em.py", "prototypes.py"} <= {path.name for path in files}
    assert learned.CODE == learned._digest(files)


def test_weights_are_named_after_their_curves(
    tmp_path: Path, curves: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process that finds the weights finds the curves, too."""
    order: list[str] = []
    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: [order.append(Path(b).name), rename(a, b)][1])
    learned.keep(tmp_path / "net.safetensors", learned.state(Tied()), curves)
    assert order == ["net.csv", "net.safetensors"]
