"""Lightning's part of a training: what the trainer, the checkpoint and the logger are made of."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from annorun import config, fitting
from annorun.curves import Curves
from annorun.errors import ConfigError


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    return config.plain(config.compose("config", ["dataset=digits", "method=noisy"]))


@pytest.fixture
def c(composed: dict[str, Any]) -> dict[str, Any]:
    found = copy.deepcopy(composed)
    found["trainer"] |= {"max_steps": 70, "val_every": 30, "precision": "bf16-mixed", "clip": 0.4}
    return found


def trainer(c: dict[str, Any], folder: Path, has_val: bool = True, **more: Any) -> Any:
    t = c["trainer"]
    curves = Curves(t["val_every"], t["max_steps"], has_val)
    return fitting.trainer(c, folder, curves, fitting.best(t, folder), **more)


def test_every_step_is_one_batch_of_the_configs_number_of_steps(
    c: dict[str, Any], tmp_path: Path
) -> None:
    """Nothing is accumulated, left out or clipped beside what the method clips."""
    own = trainer(c, tmp_path)
    assert (own.max_steps, own.max_epochs) == (70, -1)
    assert own.accumulate_grad_batches == 1 and own.gradient_clip_val is None
    limits = (own.limit_train_batches, own.limit_val_batches, own.limit_test_batches)
    # 1.0 is all of them, 1 would be one
    assert limits == (1.0, 1.0, 1.0) and all(isinstance(n, float) for n in limits)
    assert own.precision == "bf16-mixed" and own.num_devices == 1
    assert own.num_sanity_val_steps == 0
    assert own.strategy.root_device.type == "cpu"


@pytest.mark.parametrize(("val_every", "every"), [(30, 30), (200, 70)])
def test_validation_comes_after_so_many_steps_and_once_at_least(
    c: dict[str, Any], tmp_path: Path, val_every: int, every: int
) -> None:
    c["trainer"]["val_every"] = val_every
    own = trainer(c, tmp_path)
    assert own.val_check_interval == every and own.check_val_every_n_epoch is None
    assert trainer(c, tmp_path, has_val=False).limit_val_batches == 0


@pytest.mark.parametrize(
    ("choose_on", "monitor", "mode"), [("gold", "val/acc", "max"), ("votes", "val/loss", "min")]
)
def test_the_best_weights_are_by_what_the_config_chooses_on(
    c: dict[str, Any], tmp_path: Path, choose_on: str, monitor: str, mode: str
) -> None:
    assert fitting.best(c["trainer"], tmp_path) is None
    assert trainer(c, tmp_path).checkpoint_callback is None
    c["trainer"]["choose_on"] = choose_on
    callback = trainer(c, tmp_path).checkpoint_callback
    assert (callback.monitor, callback.mode, callback.save_top_k) == (monitor, mode, 1)
    assert Path(callback.dirpath) == tmp_path


def test_gradients_are_there_in_evaluation_where_they_are_asked_for(
    c: dict[str, Any], tmp_path: Path
) -> None:
    modes = [trainer(c, tmp_path, inference_mode=mode) for mode in (True, False)]
    assert [own.validate_loop.inference_mode for own in modes] == [True, False]


def test_the_device_and_its_threads(c: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    c["trainer"]["threads"] = 3
    assert fitting.device(c["trainer"]) == "cpu" and asked == [3]
    c["trainer"]["accelerator"] = "gpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="accelerator=gpu: there is none here; allowed is cpu"):
        fitting.device(c["trainer"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H100")
    assert fitting.device(c["trainer"]) == "H100"


def test_the_logger_is_the_configs(c: dict[str, Any], tmp_path: Path) -> None:
    assert fitting.logger(c, tmp_path) is False
    c["logger"] = {"kind": "csv"}
    own = fitting.logger(c, tmp_path)
    assert isinstance(own, CSVLogger) and Path(own.log_dir) == tmp_path / "csv"


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ANNORUN_CACHE", str(tmp_path / "here"))
    assert fitting.cache_folder() == tmp_path / "here"
    monkeypatch.setenv("ANNORUN_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fitting.cache_folder() == tmp_path / ".cache" / "annorun"
