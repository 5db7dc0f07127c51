"""How fast we are: the aggregators beside crowd-kit, the learners' steps beside plain ones.

    python scripts/benchmark.py aggregation                     1e4, 1e5 and 1e6 votes
    python scripts/benchmark.py aggregation --sizes 1e7 --tools mace,dawid_skene
    python scripts/benchmark.py aggregation --crowd VOTES.csv   task,worker,label; VOTES.csv.truth
    python scripts/benchmark.py realm --device cuda             see benchmark_realm.py
    python scripts/benchmark.py meta_em                         see benchmark_meta_em.py
    python scripts/benchmark.py seedbert                        see benchmark_seedbert.py
    python scripts/benchmark.py capo                            see benchmark_capo.py
    python scripts/benchmark.py realm --measured                also a file, to be committed

An aggregator's figure, one process each: seconds of the fit alone on one thread, peak memory of
its process, share of right labels (ties drawn), iterations. Tools of ours are names of
`annorun.aggregation`; crowdkit_* are crowd-kit (`pip install "annorun[peers]"`), left out where
that is not installed, and run only at sizes where they end: at 1e6 votes its MACE gets one restart,
ours always ten. `bincount` is one weighted numpy.bincount over the votes; the last column is a time
in such passes, an iteration of a restart.

The crowd: five distinct annotators of 200 an item; 60 % good (accuracy .65 to .95, errors by a
confusion matrix of their own), 20 % mediocre (.4 to .6), 10 % guess, 10 % have one answer for all.
"""

import argparse
import importlib.util
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from annorun import config, results, tables
from annorun.errors import ConfigError
from annorun.votes import Ints, Votes, hard_labels

# a file benchmark_NAME.py each
STEPS = ("realm", "meta_em", "seedbert", "capo")
OURS = ("majority", "wawa", "one_coin", "dawid_skene", "bcc", "glad", "mace", "nutmeg")
# votes beyond which a tool is not run
PEERS = {"crowdkit_majority": 1e7, "crowdkit_one_coin": 1e6, "crowdkit_dawid_skene": 1e6}
PEERS |= {"crowdkit_mace": 1e6, "crowdkit_glad": 1e4}
SLOW = {"glad": 1e6, "bcc": 1e6, "nutmeg": 1e6}
HEADER = ("tool", "votes", "seconds", "peak_mib", "accuracy", "iterations", "passes")
PER_ITEM, N_CLASSES, N_ANNOTATORS = 5, 4, 200
MACE = {"n_restarts": 10, "n_iter": 50}


def crowd(n_votes: int, rng: np.random.Generator) -> tuple[Votes, Ints]:
    """Return the votes of the crowd above, two groups of annotators at random, and the truth."""
    n_items = n_votes // PER_ITEM
    truth = rng.choice(N_CLASSES, size=n_items, p=[0.4, 0.3, 0.2, 0.1])
    kind = np.repeat(["good", "fair", "guess", "one"], np.array([6, 2, 1, 1]) * N_ANNOTATORS // 10)
    right = np.where(kind == "good", rng.uniform(0.65, 0.95, 200), rng.uniform(0.4, 0.6, 200))
    confusion = np.empty((N_ANNOTATORS, N_CLASSES, N_CLASSES))
    for true in range(N_CLASSES):
        wrong = rng.dirichlet(np.full(N_CLASSES - 1, 0.7), N_ANNOTATORS) * (1 - right[:, None])
        confusion[:, true] = np.insert(wrong, true, 0, axis=1)
        confusion[:, true, true] = right
    confusion[kind == "guess"] = 1 / N_CLASSES
    favourite = np.eye(N_CLASSES)[rng.integers(N_CLASSES, size=(kind == "one").sum())]
    confusion[kind == "one"] = (0.92 * favourite + 0.02)[:, None]
    # a random first annotator and four distinct steps from him
    steps = np.sort(rng.integers(N_ANNOTATORS - PER_ITEM, size=(n_items, PER_ITEM - 1)), axis=1)
    steps = np.insert(steps + np.arange(1, PER_ITEM), 0, 0, axis=1)
    annotator = (rng.integers(N_ANNOTATORS, size=(n_items, 1)) + steps) % N_ANNOTATORS
    item, annotator = np.repeat(np.arange(n_items), PER_ITEM), annotator.ravel()
    cumulative = confusion.cumsum(axis=2)
    draw, label = rng.random(len(item)), np.zeros(len(item), dtype=np.int64)
    for k in range(N_CLASSES - 1):
        label += draw > cumulative[annotator, truth[item], k]
    group = rng.integers(2, size=N_ANNOTATORS)
    return Votes(item, annotator, label, n_items, N_ANNOTATORS, N_CLASSES, group=group), truth


def read(path: Path) -> tuple[Votes, Ints]:
    """Return the votes of a CSV, and the truth of FILE.truth (task,label) beside it."""
    from annorun.dataset.table import table

    rng = np.random.default_rng(0)
    items, votes = table(rng=rng, path=str(path))
    known = {row["task"]: row["label"] for row in results.read_csv(Path(f"{path}.truth"))}
    place = {name: k for k, name in enumerate(items.classes())}
    truth = np.array([place[known[items.name(i)]] for i in range(len(items))])
    group = rng.integers(2, size=votes.n_annotators)
    return replace(votes, group=group), truth


def one(tool: str, file: Path) -> dict[str, Any]:
    """Fit one tool to the votes of a file, in this process, and return its figures."""
    stored = np.load(file)
    n_items, n_annotators, n_classes = stored["sizes"].tolist()
    item, annotator, label = (stored[k] for k in ("item", "annotator", "label"))
    votes = Votes(item, annotator, label, n_items, n_annotators, n_classes, group=stored["group"])
    fit = _crowdkit if tool.startswith("crowdkit_") else _ours
    seconds, labels, iterations = fit(tool, votes)
    found = {
        "seconds": seconds,
        "peak_mib": _peak(),
        "accuracy": float((labels == stored["truth"]).mean()),
        "iterations": iterations,
    }
    key = votes.annotator * votes.n_classes + votes.label
    weight = np.ones(len(votes))
    passes = [_clock(lambda: np.bincount(key, weight))[0] for _ in range(5)]
    return found | {"bincount": min(passes)}


def _peak() -> float:
    """Return the most memory of this process, MiB; ru_maxrss may be its parent's."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _clock(call: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    answer = call()
    return time.perf_counter() - start, answer


def _ours(tool: str, votes: Votes) -> tuple[float, Ints, int]:
    module = importlib.import_module(f"annorun.aggregation.{tool}")
    rng = np.random.default_rng(0)
    keys: dict[str, Any] = {"rng": rng} | MACE if tool in ("mace", "nutmeg") else {}
    seconds, posterior = _clock(lambda: getattr(module, tool)(votes, **keys))
    n = len(posterior.trace) * max(len(posterior.restarts), 1)
    return seconds, hard_labels(posterior.probs, rng=rng), n


def _crowdkit(tool: str, votes: Votes) -> tuple[float, Ints, int]:
    import crowdkit.aggregation as ck
    import pandas as pd

    rng = np.random.default_rng(0)
    shuffled = rng.permutation(len(votes))
    columns = {"task": votes.item, "worker": votes.annotator, "label": votes.label}
    frame = pd.DataFrame({k: v[shuffled] for k, v in columns.items()})
    restarts = 10 if len(votes) < 1e6 else 1
    tools: dict[str, Any] = {
        "crowdkit_majority": ck.MajorityVote,
        "crowdkit_one_coin": ck.OneCoinDawidSkene,
        "crowdkit_dawid_skene": ck.DawidSkene,
        "crowdkit_glad": ck.GLAD,
        "crowdkit_mace": lambda: ck.MACE(n_restarts=restarts, random_state=0),
    }
    made = tools[tool]()
    seconds, labels = _clock(lambda: made.fit_predict(frame))
    n = 50 * restarts if tool == "crowdkit_mace" else len(getattr(made, "loss_history_", []))
    return seconds, labels.sort_index().to_numpy(), n


def figures(tools: list[str], votes: Votes, truth: Ints) -> list[list[Any]]:
    """Return a row a tool, each measured in a process of its own with one thread."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "votes.npz"
        np.savez(
            file,
            item=votes.item,
            annotator=votes.annotator,
            label=votes.label,
            sizes=[votes.n_items, votes.n_annotators, votes.n_classes],
            group=np.asarray(votes.group),
            truth=truth,
        )
        for tool in tools:
            if len(votes) > (PEERS | SLOW).get(tool, np.inf):
                continue
            command = [sys.executable, __file__, "aggregation", "--one", tool, str(file)]
            threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
            done = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True)
            if done.returncode:
                print(f"{tool} failed: {done.stderr[-500:]}", file=sys.stderr)
                continue
            f = json.loads(done.stdout)
            passes = f["seconds"] / f["iterations"] / f["bincount"] if f["iterations"] else None
            rows.append(
                [
                    tool,
                    len(votes),
                    f"{f['seconds']:.3f}",
                    f"{f['peak_mib']:.0f}",
                    f"{f['accuracy']:.4f}",
                    f["iterations"],
                    passes and f"{passes:.2f}",
                ]
            )
            print("  ".join(str(cell) for cell in rows[-1]), flush=True)
    return rows


def main() -> int:
    """Parse, measure, print, write."""
    asked = _asked()
    if asked.what in STEPS:
        # torch, which the aggregators do without
        step = importlib.import_module(f"benchmark_{asked.what}")
        print("  ".join(step.HEADER))
        try:
            rows = step.figures(step.Shape(), asked.device)
        except ConfigError as error:
            print(error, file=sys.stderr)
            return 2
        name = f"benchmark_{asked.what}" + "_cuda" * (asked.device == "cuda")
        _show(name, step.HEADER, rows, asked)
        return 0
    if asked.one:
        print(json.dumps(one(asked.one[0], Path(asked.one[1]))))
        return 0
    print("  ".join(HEADER))
    measured = []
    for file in asked.crowd or []:
        measured += figures(asked.tools, *read(file))
    for size in [] if asked.crowd else asked.sizes.split(","):
        measured += figures(asked.tools, *crowd(int(float(size)), np.random.default_rng(0)))
    _show("aggregation", HEADER, measured, asked)
    return 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    kinds = parser.add_subparsers(dest="what", required=True)
    aggregation, *steps = (kinds.add_parser(kind) for kind in ("aggregation", *STEPS))
    for kind in (aggregation, *steps):
        kind.add_argument("--measured", action="store_true", help="write experiments/measured/")
    aggregation.add_argument("--sizes", default="1e4,1e5,1e6", help="numbers of votes")
    aggregation.add_argument("--tools", help="some of them, separated by commas")
    aggregation.add_argument("--crowd", type=Path, nargs="+", help="CSVs of votes instead")
    aggregation.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    for kind in steps:
        kind.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    asked = parser.parse_args()
    if asked.what == "aggregation" and not asked.one:
        peers = list(PEERS) if importlib.util.find_spec("crowdkit") else []
        if not peers:
            print('crowd-kit is not installed: pip install "annorun[peers]"', file=sys.stderr)
        asked.tools = asked.tools.split(",") if asked.tools else [*OURS, *peers]
        if wrong := sorted(set(asked.tools) - {*OURS, *PEERS}):
            parser.error(f"--tools {', '.join(wrong)}: allowed are {', '.join([*OURS, *PEERS])}")
    return asked


def _show(
    name: str, header: tuple[str, ...], rows: list[list[Any]], asked: argparse.Namespace
) -> None:
    print(tables.markdown(header, [[str(c or "") for c in row] for row in rows]))
    if asked.measured:
        path = config.experiments_dir() / "measured" / f"{name}.csv"
        # before the file is another one than the commit's
        first = _header(asked)
        results.write_csv(path, header, rows)
        path.write_text(first + path.read_text("utf-8"), encoding="utf-8")
        print(path)


def _header(asked: argparse.Namespace) -> str:
    peers = ("numpy", "scipy", "crowd-kit", "pandas")
    used = ("torch", "transformers") if asked.what in STEPS else peers
    packages = []
    for name in used:
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            packages.append(f"no {name}")
    commit, dirty = results.revision()
    return (
        f"# command: python scripts/benchmark.py {shlex.join(sys.argv[1:])}\n"
        f"# commit: {commit}{' (changed)' * bool(dirty)}; seed 0, one thread\n"
        f"# machine: {_machine(asked)}; {', '.join(packages)}\n"
    )


def _machine(asked: argparse.Namespace) -> str:
    if asked.what in STEPS and asked.device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    sys.exit(main())
