"""What every test starts from: no network, one thread, no state left by Hydra."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

# read by huggingface_hub when it is imported, and inherited by subprocesses
os.environ["HF_HUB_OFFLINE"] = "1"

Compose = Callable[..., DictConfig]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that want the real data sets, so that `-m real_data` runs them alone."""
    for item in items:
        if "data" in getattr(item, "fixturenames", ()):
            item.add_marker("real_data")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One torch thread, and no composed config from another test."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # annorun.cli sets it
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    yield
    GlobalHydra.instance().clear()


@pytest.fixture
def compose(tmp_path: Path) -> Compose:
    """Return a function: overrides -> checked config that writes below tmp_path/runs."""
    from annorun import config

    def composed(*overrides: str, name: str = "config") -> DictConfig:
        return config.compose(name, [f"out_root='{tmp_path / 'runs'}'", *overrides])

    return composed


@pytest.fixture
def data() -> Path:
    """Return the folder of the real data sets, where there is one."""
    folder = os.environ.get("ANNORUN_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("ANNORUN_DATA names no folder")
    return Path(folder)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a CSV of 8 items, 3 annotators; `ann` and `bob` agree, `cy` errs on every third."""
    lines = ["task,worker,label"]
    for i in range(8):
        label = i % 2
        lines += [f"t{i},ann,{label}", f"t{i},bob,{label}", f"t{i},cy,{label ^ (i % 3 == 0)}"]
    path = tmp_path / "votes.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def explained(tmp_path: Path) -> Path:
    """Return a CSV of 18 items, their parts interleaved; no two inputs or explanations alike long.

    Of `ann`, `bob` and `cy` each leaves out every fifth item; `cy` gives 2 and 5 a second label.
    """
    labels, lines = ("no", "unsure", "yes"), ["task,worker,label,explanation,text,split"]
    for i in range(18):
        part = ("train", "test", "train", "train", "val", "train")[i % 6]
        what = f"{('red', 'old', 'big')[i // 5 % 3]} {('fox', 'cat', 'owl', 'bee')[i // 2 % 4]}"
        text = f"is {i} a {what} " + "so " * (i * 7 % 11) + "?"
        for a, name in enumerate(("ann", "bob", "cy")):
            why = f"{name} reads {i}" + " and why" * ((i + 3 * a) % 7)
            if (i + a) % 5:
                lines.append(f"{i},{name},{labels[i * (a + 1) % 3]},{why},{text},{part}")
        if i in (2, 5):
            lines.append(f"{i},cy,{labels[1 + i % 2]},another view of {i},{text},{part}")
    path = tmp_path / "explained.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def script(request: pytest.FixtureRequest) -> ModuleType:
    """Return the file of scripts/ that a test file is named after."""
    folder = str(Path(__file__).parents[1] / "scripts")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(request.path.stem.removeprefix("test_"))
    finally:
        sys.path.remove(folder)
