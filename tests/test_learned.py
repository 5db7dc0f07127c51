"""What is kept of a network: what learns, tied weights, whole files; another network is left."""

import os
from copy import deepcopy
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from annorun import config, learned
from annorun.episodes import Episodes
from annorun.method.episodic import Episodic
from annorun.votes import TaskSpec


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


class Few(Episodic):
    """A method whose budget changes answers alone."""

    ONLY_ANSWERS = ("budget",)

    def __init__(self) -> None:
        super().__init__(TaskSpec("image", 4, 0, (1, 8, 8)), {}, {}, 0)


# of a config with these values, each in turn is replaced by another
CHANGED: dict[str, Any] = {
    "seed": 7,
    "data_seed": 7,
    "model_size.image": "small",
    "model_size.start": "scratch",
    "dataset._target_": "annorun.dataset.omniglot.omniglot",
    "dataset.n_classes": 9,
    "dataset.test_share": 0.2,
    "dataset.size": 28,
    "method.episodes.way": 3,
    "method.episodes.shots": 1,
    "method.episodes.queries": 11,
    "method.episodes.annotators": [3, 7, 5],
    "method.episodes.per_item": 3,
    "method.episodes.pseudo": False,
    "method.episodes.source_noise": 0.1,
    "method.episodes.real": True,
    "method.module._target_": "few.Fewer",
    "method.module.steps": 4,
    "method.module.priors": [2.0, 1.0],
    "method.module.first": 1,
    "trainer.precision": "32-true",
    "trainer.max_steps": 901,
    "trainer.batch_size": 5,
    "trainer.lr": 0.002,
    "trainer.betas": [0.9, 0.99],
    "trainer.weight_decay": 0.01,
    "trainer.clip": 1.0,
    "trainer.schedule": "constant",
    "trainer.choose_on": "last",
    "trainer.val_share": 0.2,
    "trainer.val_every": 50,
    "annotator_dist._target_": "annorun.annotator_dist.others",
    "annotator_dist.train": {"hammer": 0.8, "spammer": 0.2},
    "annotator_dist.expert": 0.9,
    "annotator_dist.hammer": [0.5, 0.8],
    "annotator_dist.flip": 0.3,
    "annotator_dist.spammed": 0.4,
}
# how it is judged, where it runs and what it is called
INDIFFERENT: dict[str, Any] = {
    "name": "other",
    "out_root": "elsewhere",
    "mode": "force",
    "overrides": ["seed=0"],
    "choices.method": "maml",
    "method.accepts": ["image"],
    "method.needs": [],
    "method.module.budget": 3,
    "method.episodes.tasks": 10,
    "trainer.accelerator": "gpu",
    "trainer.threads": 2,
    "annotator_dist.test": [{"spammer": 1.0}],
    "annotator_dist.part": "test",
    "annotator_dist.mixture": 1,
    "annotator_dist.n_annotators": 7,
}


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    keys = ["method=meta_em", "dataset=digits", "noise=confusion", "trainer=episodes"]
    keys += ["annotator_dist=expert_hammer_spammer", "method.episodes.per_item=2"]
    c = config.plain(config.compose("config", keys))
    module = {"_target_": "few.Few", "steps": 3, "priors": [1.0, 2.0], "first": None, "budget": 2}
    c["method"]["module"] = module
    return c


def place(c: dict[str, Any], changed: dict[str, Any] | None = None) -> Path | None:
    """Return where the network of a config with some values replaced is kept."""
    copy = deepcopy(c)
    for path, value in (changed or {}).items():
        *nodes, key = path.split(".")
        node = reduce(getitem, nodes, copy)
        assert node[key] != value, path
        node[key] = value
    episodes = {k: v for k, v in copy["method"]["episodes"].items() if k != "_target_"}
    return learned.place(copy, Few(), Episodes(**episodes))


def test_the_place_of_a_network_depends_on_each_value_that_training_does(
    base: dict[str, Any],
) -> None:
    places = {path: place(base, {path: value}) for path, value in CHANGED.items()}
    assert len({place(base), *places.values()}) == 1 + len(CHANGED)
    for path, value in INDIFFERENT.items():
        assert place(base, {path: value}) == place(base), path


def test_every_value_of_data_tasks_trainer_and_pool_is_looked_at(base: dict[str, Any]) -> None:
    """A new key of these groups is to be named above, on one side or the other."""
    nodes = [(group, base[group]) for group in ("dataset", "trainer", "annotator_dist")]
    nodes += [(f"method.{part}", base["method"][part]) for part in ("episodes", "module")]
    paths = {f"{group}.{key}" for group, node in nodes for key in node}
    # of the data, what it is read by says what kind it is
    left = {"dataset.kind", "dataset.provides", "method.episodes._target_"}
    # of texts and of large networks
    left |= {"trainer.bucket", "trainer.checkpointing"}
    assert paths - left <= CHANGED.keys() | INDIFFERENT.keys()


def test_pseudo_annotators_matter_where_training_tasks_are_labelled_by_them(
    base: dict[str, Any],
) -> None:
    clean = {"method.episodes.pseudo": False}
    for path, value in CHANGED.items():
        if path.startswith("annotator_dist"):
            assert place(base, {**clean, path: value}) == place(base, clean), path
    assert place(base, {**clean, "seed": 7}) != place(base, clean)


def test_the_place_of_a_network_depends_on_the_content_of_the_data_and_not_on_where_it_lies(
    base: dict[str, Any], tmp_path: Path
) -> None:
    c = deepcopy(base)
    c["dataset"]["path"] = ""
    places = []
    for name, text in (("here", "1"), ("there", "1"), ("other", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "votes.csv").write_text(text)
        places.append(place(c, {"dataset.path": str(tmp_path / name)}))
    assert places[0] == places[1] != places[2]


def test_the_place_of_a_network_depends_on_the_code_and_on_torch(
    base: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = place(base)
    with monkeypatch.context() as patch:
        patch.setattr(learned, "CODE", "0" * 64)
        assert place(base) != first
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "1.0")
        assert place(base) != first
    # this file stands for a plugin's
    with monkeypatch.context() as patch:
        patch.setattr(learned, "_digest", lambda files: ",".join(p.name for p in files))
        assert learned.code(Few())[1] == "test_learned.py"


def test_a_method_that_learns_from_no_task_has_no_place(
    base: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Few, "learner", classmethod(lambda cls, node: None))
    assert place(base) is None


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
