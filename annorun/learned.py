"""What was learned, kept in the cache for other runs: one file of weights, one of curves.

Networks that learned from training tasks: methods that differ only in how they answer, and target
pools, share one. The first stage of CAPO: what is preferred, how and for how long, shares one. A
file's name is a hash of everything that training depends on: data, tasks, annotators, network,
trainer, seeds, our own code and torch. `mode=force` runs again with the weights that are there.
"""

import hashlib
import inspect
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from annorun import fitting, results
from annorun.episodes import Episodes
from annorun.method.episodic import Episodic

# of an annotator_dist: what only target tasks are drawn with
TARGET = ("test", "part", "mixture", "n_annotators")


def _digest(files: list[Path]) -> str:
    return hashlib.sha256("".join(p.read_text("utf-8") for p in files).encode()).hexdigest()


# when this is imported, not when it is asked for: by then somebody may have edited the files
CODE = _digest(sorted(Path(__file__).parent.rglob("*.py")))


def place(c: dict[str, Any], module: Episodic, episodes: Episodes) -> Path | None:
    """Return where the network of a run is kept; None for a method that learns from no task."""
    learner = module.learner(c["method"]["module"])
    if learner is None:
        return None
    tasks = {k: v for k, v in asdict(episodes).items() if k != "tasks"}
    pool = {k: v for k, v in c["annotator_dist"].items() if k not in TARGET}
    method = {"module": learner, "episodes": tasks, "aggregator": None}
    asked = {**c, "method": method, "annotator_dist": pool if episodes.pseudo else {}}
    parts = [results.identity(asked), *code(module)]
    return (
        fitting.cache_folder()
        / f"meta-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}.safetensors"
    )


def code(module: nn.Module) -> list[str]:
    """Return hashes of our code and of the module's own, and the version of torch."""
    # a plugin's classes stand in files of its own
    own = {inspect.getfile(k) for k in type(module).__mro__ if not _known(k.__module__)}
    return [CODE, _digest(sorted(map(Path, own))), torch.__version__]


def _known(module: str) -> bool:
    return module.split(".")[0] in ("annorun", "torch", "lightning", "builtins", "abc")


def load(path: Path, module: nn.Module, folder: Path) -> bool:
    """Put what is kept into the module and its curves into the folder; False if it is not there."""
    curves = path.with_suffix(".csv")
    if not (path.is_file() and curves.is_file()):
        return False
    try:
        weights = load_file(path)
        # before anything is copied
        if {k: v.shape for k, v in weights.items()} != {
            k: v.shape for k, v in state(module).items()
        }:
            return False
        module.load_state_dict(weights, strict=False)
    except (SafetensorError, RuntimeError):
        # a broken file: it is made anew
        return False
    shutil.copyfile(curves, folder / "metrics.csv")
    return True


def state(module: nn.Module) -> dict[str, Tensor]:
    """Return what can have changed in training: buffers, and parameters that learn."""
    # a tied weight has two names
    every = module.named_parameters(remove_duplicate=False)
    still = {name for name, p in every if not p.requires_grad}
    return {k: v for k, v in module.state_dict().items() if k not in still}


def keep(path: Path, weights: dict[str, Tensor], curves: Path) -> None:
    """Write both, so that another process finds whole files; the weights last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as aside:
        shutil.copyfile(curves, f"{aside}/curves")
        # tied ones apart: a file holds no two names of one memory
        apart = {k: v.clone(memory_format=torch.contiguous_format) for k, v in weights.items()}
        save_file(apart, f"{aside}/weights")
        os.replace(f"{aside}/curves", path.with_suffix(".csv"))
        os.replace(f"{aside}/weights", path)
