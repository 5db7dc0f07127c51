"""The wheel carries conf/ and experiments/, and works from a folder of its own."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=TOP, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment with the wheel, and this one's dependencies behind it."""
    place = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    python = place / "bin" / "python"
    command = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(command, check=True)
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    done = subprocess.run([str(python), "-c", asked], capture_output=True, text=True, check=True)
    # a plain folder on the path: its own .pth files, such as an editable annorun's, do not act
    behind = sysconfig.get_path("purelib")
    (Path(done.stdout.strip()) / "zz_dependencies.pth").write_text(f"{behind}\n")
    return python


def shell(python: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [str(python), "-m", "annorun", *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_every_config_travels(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = [f"annorun/_conf/{p.relative_to(TOP / 'conf')}" for p in TOP.glob("conf/**/*.yaml")]
    for suffix in ("yaml", "csv"):
        found = TOP.glob(f"experiments/**/*.{suffix}")
        wanted += [f"annorun/_experiments/{p.relative_to(TOP / 'experiments')}" for p in found]
    assert len(wanted) > 30
    assert set(wanted) <= names
    assert "annorun/py.typed" in names
    assert not any(n.startswith(("tests/", "conf/", "scripts/")) for n in names)


def test_the_installed_package_runs_from_another_folder(installed: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [str(installed), "-c", "import annorun; print(annorun.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not Path(where.stdout.strip()).is_relative_to(TOP)
    text = shell(installed, "--help", cwd=tmp_path)
    assert text.returncode == 0, text.stderr
    assert " *realm " in text.stdout
    assert "realm_table1" in text.stdout
    sweep = shell(installed, "-cn", "realm_table1", "--cfg", "job", cwd=tmp_path)
    assert sweep.returncode == 0, sweep.stderr
    assert "name: realm_table1" in sweep.stdout
    refused = shell(installed, "method=reelm", cwd=tmp_path)
    assert (refused.returncode, "did you mean 'realm'?" in refused.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []
    done = shell(installed, "dataset=digits", "trainer=smoke", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs" / "default").glob("realm-digits-*/row.json"))) == 1


def test_the_console_command_is_there(installed: Path, tmp_path: Path) -> None:
    command = installed.parent / "annorun"
    done = subprocess.run([str(command), "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
