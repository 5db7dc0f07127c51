"""Who may import whom (design.md), how long a file may be, what a cheap command leaves out."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import annorun

PACKAGE = Path(annorun.__file__).parent
TOP = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))
STDLIB = sys.stdlib_module_names
# what everybody may use: names, ranges, seeds, the one exception, the shared dataclasses
SHARED = {"annorun.votes", "annorun.errors", "annorun.kinds", "annorun.seeds", "annorun"}
ROOMS = ("aggregation", "objective", "scores", "method", "dataset")
# room -> our own modules that it may import beside SHARED
OWN = {
    "aggregation": {"annorun.aggregation"},
    "scores": {"annorun.scores"},
    "objective": {"annorun.objective"},
    "method": {"annorun.method", "annorun.objective", "annorun.aggregation", "annorun.scores"}
    | {"annorun.net", "annorun.net_text", "annorun.net_response"},
    "dataset": {"annorun.dataset", "annorun.scores"},
    "annotator_dist": set(),
    "noise": {"annorun.workload"},
    "workload": set(),
    "votes": set(),
    "net": {"annorun.net_text", "annorun.net_small"},
    "net_text": set(),
    "net_small": set(),
}
# room -> the packages that it may import
OUTSIDE = {
    "aggregation": {"numpy", "scipy"},
    "scores": {"numpy", "scipy"},
    "objective": {"torch"},
    "annotator_dist": {"numpy"},
    "noise": {"numpy"},
    "workload": {"numpy"},
    "votes": {"numpy"},
    "method": {"torch", "lightning", "numpy", "scipy", "sklearn", "peft"},
    "dataset": {"numpy", "scipy", "sklearn", "torch", "lightning", "transformers"}
    | {"datasets", "pyarrow", "PIL"},
    "net": {"torch", "transformers", "safetensors", "peft"},
    "net_text": {"torch"},
    "net_small": {"torch"},
}
# packages that are only imported inside a function, everywhere in annorun
LAZY = {"transformers", "datasets", "pyarrow", "wandb", "sklearn", "peft", "PIL"}
# package -> the only files that may import it
HOME = {
    "hydra": {"cli.py", "config.py", "run.py"},
    "omegaconf": {"cli.py", "config.py", "run.py"},
    "transformers": {"net.py"},
    "matplotlib": {"plots.py", "figures.py"},
    "rich": {"show.py"},
    # through Lightning's WandbLogger, and to finish it
    "wandb": {"run.py", "fitting.py"},
}
# files that import torch, at the top or anywhere; nobody else's top level may lead to them
TORCH = {"net.py", "net_text.py", "net_small.py", "training.py", "curves.py", "pretrain.py"}
TORCH |= {"clauses.py", "dataset/module.py", "meta_training.py", "learned.py", "fitting.py"}
TORCH |= {"net_response.py", "explaining.py", "writing.py"}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield every imported module, and whether it is imported inside a function."""

    def walk(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: a relative import"
                for alias in child.names:
                    full = f"{child.module}.{alias.name}"
                    yield (full if is_module(full) else str(child.module)), inside
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(child, inside or function)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), False)


def is_module(name: str) -> bool:
    if not name.startswith("annorun."):
        return False
    stem = PACKAGE.joinpath(*name.split(".")[1:])
    return stem.with_suffix(".py").is_file() or stem.is_dir()


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_the_files_are_seen_and_the_walk_sees_imports() -> None:
    assert len(FILES) >= 38
    assert {room(f) for f in FILES} > set(ROOMS)
    assert ("torch", False) in set(imports(PACKAGE / "net.py"))
    assert ("annorun.training", True) in set(imports(PACKAGE / "run.py"))
    assert ("annorun.seeds", False) in set(imports(PACKAGE / "net.py"))


@pytest.mark.parametrize("path", [f for f in FILES if room(f) in OWN], ids=name_of)
def test_a_room_imports_only_what_it_may(path: Path) -> None:
    allowed = OWN[room(path)]
    for module, _ in imports(path):
        top = module.split(".")[0]
        if top == "annorun":
            assert module in SHARED or any(
                module == a or module.startswith(f"{a}.") for a in allowed
            ), f"{name_of(path)} imports {module}"
        elif top not in STDLIB:
            assert top in OUTSIDE[room(path)], f"{name_of(path)} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_heavy_packages_are_imported_where_they_belong(path: Path) -> None:
    for module, inside in imports(path):
        top = module.split(".")[0]
        if top in LAZY:
            assert inside, f"{name_of(path)} imports {module} at its top"
        if top in HOME:
            assert name_of(path) in HOME[top], f"{name_of(path)} imports {module}"
        if top in ("torch", "lightning"):
            home = name_of(path) in TORCH or room(path) in ("method", "objective")
            assert home, f"{name_of(path)} imports {module}"


def test_readers_are_numpy_in_numpy_out() -> None:
    readers = [f for f in FILES if room(f) == "dataset" and f.name != "module.py"]
    assert len(readers) >= 8
    for path in readers:
        found = {module.split(".")[0] for module, _ in imports(path)}
        assert not found & {"torch", "lightning", "transformers", "hydra"}, name_of(path)


def test_the_light_half_never_leads_to_torch_at_import() -> None:
    """Follow the top-level imports from the command line and the runner."""
    graph = {name_of(f): {m for m, inside in imports(f) if not inside} for f in FILES}
    seen, front = set[str](), ["cli.py", "run.py", "results.py", "show.py", "tables.py"]
    while front:
        file = front.pop()
        if file in seen:
            continue
        seen.add(file)
        assert file not in TORCH, "torch is reached"
        for module in graph[file]:
            stem = "/".join(module.split(".")[1:])
            front += [f for f in (f"{stem}.py", f"{stem}/__init__.py") if stem and f in graph]
    assert {"config.py", "check.py", "signature.py", "votes.py"} <= seen


@pytest.mark.parametrize("path", [*FILES, *sorted((TOP / "scripts").glob("*.py"))], ids=str)
def test_no_file_is_called_utils(path: Path) -> None:
    assert path.stem not in ("utils", "helpers", "common", "misc")


def test_the_tree_is_as_designed() -> None:
    assert not list(TOP.glob("tests/**/__init__.py"))
    assert all(len(f.relative_to(PACKAGE).parts) <= 2 for f in FILES)
    for room_name in ROOMS:
        assert (PACKAGE / room_name / "__init__.py").is_file()
    stems = [p.name for p in (TOP / "tests").rglob("test_*.py")]
    assert len(stems) == len(set(stems)) >= 20


PROBE = """
import json, sys
sys.argv = ["annorun", *sys.argv[1:]]
from annorun import cli
try:
    cli.main()
except SystemExit:
    pass
heavy = ("torch", "lightning", "transformers", "datasets", "wandb", "matplotlib", "sklearn")
print("\\nHEAVY " + json.dumps([m for m in heavy if m in sys.modules]))
"""


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["--help"], id="help"),
        pytest.param(["method=reelm", "trainer.lr=-1"], id="refused names and values"),
        pytest.param(["dataset=digits", "annotator_dist=real"], id="refused pair"),
        pytest.param(["dataset=table", "dataset.path=nosuch.csv"], id="refused file"),
        pytest.param(["--cfg", "job", "dataset=digits"], id="show"),
        pytest.param(["dataset=table", "dataset.path=votes.csv"], id="aggregation"),
    ],
)
def test_a_light_command_imports_nothing_heavy(
    words: list[str], table: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    line = [text for text in done.stdout.splitlines() if text.startswith("HEAVY ")]
    assert line, done.stderr
    assert json.loads(line[0].removeprefix("HEAVY ")) == []
    assert len(list(tmp_path.rglob("row.json"))) == ("dataset.path=votes.csv" in words)
