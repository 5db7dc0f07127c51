"""What is kept of a network: what learns, tied weights, whole files; another network is left."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from annorun import learned


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
