"""Reproduce one row of every file in experiments/measured/ and compare it with what is stored.

    python scripts/check_measured.py                  rows of up to 60 s, 8 minutes in all
    python scripts/check_measured.py --all            the more expensive rows too, 40 minutes in all
    python scripts/check_measured.py digits labelme   these files alone
    python scripts/check_measured.py --minutes 20     on a slower or busier machine

Of every file: its header names command, commit and machine; its columns are those that the script
writes; no two rows have equal settings. A file of times (aggregation.csv, benchmark_*.csv) is
checked no further. Of a file of results, the sweep file and the overrides of the header's command
give the configs, and each row must match exactly one of them. The cheapest row is run anew, in an
empty folder, and every stored metric is compared as it is printed, to 4 decimals. Rows are run
cheapest first, two at a time, each in a process of its own with one thread; all share one cache,
which is empty at the beginning.

The cost of a row is its stored seconds. Where the run may have taken a stage from a cache (the
network of a method over tasks, the first stage of a method that writes explanations, the encodings
of a frozen encoder), it is that of the most expensive row, of all files, whose stage is trained
alike; seeds, folds and shots aside. A row that has no such stage costs what is stored.
The half minute in which the tiny T5 is pretrained, once a cache, is not counted. A file all of
whose rows cost more than the limit is left out, and named.

Lines in a file's header that this script reads (COLUMN is a column of that file):

    # waiting: COLUMN=VALUE|VALUE COLUMN=VALUE -- reason     these rows are not checked
    # waiting: all -- reason                                 no row is checked
    # tolerance: METRIC_PATTERN=0.0005 -- reason             where hardware decides the last digits

Exit codes: 0 every checked row is reproduced, 1 a row is not or a file has a fault, 2 unusable
arguments.
"""

import argparse
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import redirect_stdout
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import reproduce_table
from omegaconf import DictConfig, OmegaConf

from annorun import cli, config, results, tables
from annorun.errors import ConfigError

# seconds of the most expensive row, minutes of all of them: by default, and with --all
LIMIT, MINUTES = 60.0, 8.0
LIMIT_ALL, MINUTES_ALL = 2400.0, 40.0
PROCESSES = 2
# script and columns that name a row, of the files of times
TIMES = {"aggregation": ("tool", "votes"), "benchmark_": ("figure",)}
SEED = re.compile(r"(seed|data_seed)=(\d+)")
# a value that follows a seed, such as `seed: ${data_seed}`
FROM_SEED = re.compile(r"\$\{(data_)?seed\}")

Settings = tuple[str, ...]


class Fault(Exception):
    """What is wrong with a file or a row."""


@dataclass(frozen=True)
class Stored:
    """A file of measured rows.

    Attributes:
        name: of the file, without its suffix.
        comments: the lines of its header, without the `# `.
        columns: their names.
        rows: of text.
    """

    name: str
    comments: list[str]
    columns: list[str]
    rows: list[dict[str, str]]

    def values(self, word: str) -> list[str]:
        """Return what stands after `WORD: ` in the header's lines."""
        return [c.removeprefix(f"{word}: ") for c in self.comments if c.startswith(f"{word}: ")]

    @property
    def metrics(self) -> list[str]:
        """Names of the columns that are metrics."""
        return [c for c in self.columns if "/" in c]


@dataclass
class Cell:
    """A run that a sweep asks for: its sweep file, its overrides, its plain config."""

    part: str
    overrides: list[str]
    plain: dict[str, Any]


@dataclass
class Job:
    """The row of a file that is to be run anew.

    Attributes:
        stored: the file.
        number: of the row, from 1.
        cfg: its config, which writes to an empty folder.
        cost: seconds from an empty cache.
        waiting: how many rows of the file are marked as waiting.
    """

    stored: Stored
    number: int
    cfg: DictConfig
    cost: float
    waiting: int

    @property
    def row(self) -> dict[str, str]:
        """The stored row."""
        return self.stored.rows[self.number - 1]

    @property
    def words(self) -> str:
        """The settings that not all rows of the file have in common."""
        rows, names = self.stored.rows, setting_names(self.stored)
        differ = [n for n in names if len({row[n] for row in rows}) > 1]
        return f"row {self.number} ({' '.join(f'{n}={self.row[n]}' for n in differ)})"


@dataclass
class Outcome:
    """What has come out for one file: `ok`, `stale`, `fault`, `waiting`, `skipped`, `left out`."""

    name: str
    state: str
    words: str = ""
    waiting: int = 0

    def show(self) -> None:
        """Print it on one line."""
        print(f"{self.name}: {self.state}{self.words and f': {self.words}'}", flush=True)


def read(path: Path) -> Stored:
    """Read a file of measured rows."""
    lines = path.read_text("utf-8").splitlines()
    comments = [line[1:].strip() for line in lines if line.startswith("#")]
    header = next((line for line in lines if not line.startswith("#")), "")
    return Stored(path.stem, comments, header.split(","), results.read_csv(path))


def setting_names(stored: Stored) -> list[str]:
    """Return the columns that are settings: neither metrics nor what a run cost."""
    return [c for c in stored.columns if "/" not in c and c not in reproduce_table.COSTS]


def check_header(stored: Stored) -> None:
    """Refuse a file without rows, command, commit or machine, and rows of equal settings."""
    if lacking := [w for w in ("command", "commit", "machine") if not stored.values(w)]:
        raise Fault(f"its header has no {', no '.join(lacking)}")
    if not stored.rows:
        raise Fault("it has no row")
    names = setting_names(stored)
    for start, columns in TIMES.items():
        if stored.name.startswith(start):
            check_times(stored, start)
            names = list(columns)
    counts = Counter(tuple(row[n] for n in names) for row in stored.rows)
    if equal := [key for key, n in counts.items() if n > 1]:
        words = " ".join(f"{n}={v}" for n, v in zip(names, equal[0], strict=True))
        raise Fault(f"{counts[equal[0]]} rows are {words}")


def check_times(stored: Stored, start: str) -> None:
    """Refuse a file of times whose command or columns are not those of scripts/benchmark.py."""
    what = "aggregation" if start == "aggregation" else stored.name.removeprefix(start)
    script = "benchmark" if start == "aggregation" else stored.name.removesuffix("_cuda")
    command = f"python scripts/benchmark.py {what.removesuffix('_cuda')} "
    if not stored.values("command")[0].startswith(command):
        raise Fault(f"its command is not {command}...")
    columns = list(importlib.import_module(script).HEADER)
    if stored.columns != columns:
        raise Fault(f"its columns are {','.join(stored.columns)}; the script writes {columns}")


def is_of_times(stored: Stored) -> bool:
    """Return whether a file holds times, which no machine reproduces."""
    return stored.name.startswith(tuple(TIMES))


def command_of(stored: Stored) -> list[str]:
    """Return the overrides of the header's command."""
    words = shlex.split(stored.values("command")[0])
    if words[:3] != ["python", "scripts/reproduce_table.py", stored.name]:
        raise Fault(f"its command is not python scripts/reproduce_table.py {stored.name} ...")
    if stored.name not in config.sweeps():
        raise Fault(f"there is no experiments/{stored.name}.yaml")
    return [word for word in words[3:] if "=" in word]


def cells_of(name: str, overrides: list[str]) -> list[Cell]:
    """Return the runs of a sweep file and of those in `also`; seeds alone need no composing."""
    cells = []
    for part, lines in reproduce_table.cells(name, False, overrides):
        rest = [tuple(line for line in own if not SEED.fullmatch(line)) for own in lines]
        first = dict(zip(reversed(rest), reversed(lines), strict=True))
        composed = config.compose_all(part, list(first.values()))
        if any(FROM_SEED.search(OmegaConf.to_yaml(cfg)) for cfg in composed):
            composed = config.compose_all(part, lines)
            cells += [
                Cell(part, own, config.plain(c)) for own, c in zip(lines, composed, strict=True)
            ]
            continue
        plain = dict(zip(first, map(config.plain, composed), strict=True))
        for own, key in zip(lines, rest, strict=True):
            seeds = {m[1]: int(m[2]) for line in own if (m := SEED.fullmatch(line))}
            cells.append(Cell(part, own, plain[key] | seeds))
    return cells


def match(stored: Stored) -> list[Cell]:
    """Return the config of each row.

    Raises:
        Fault: a row without a config, or with several; columns that the script does not write.
    """
    names = setting_names(stored)
    cells: dict[Settings, list[Cell]] = {}
    for cell in cells_of(stored.name, command_of(stored)):
        cells.setdefault(tables.key_of(cell.plain, names), []).append(cell)
    matched = []
    for number, row in enumerate(stored.rows, 1):
        equal = cells.get(tuple(row[n] for n in names), [])
        ids = {results.identity(cell.plain) for cell in equal} if len(equal) > 1 else {""}
        if not equal or len(ids) > 1:
            words = " ".join(f"{n}={row[n]}" for n in names)
            raise Fault(f"row {number} ({words}) matches {len(equal)} configs of the sweep")
        matched.append(equal[0])
    plains = [cell.plain for cell in matched]
    wanted = reproduce_table.setting_columns(
        plains, reproduce_table.swept(cell.overrides for cell in matched)
    )
    metric = plains[0]["metric"]
    wanted += stored.metrics if isinstance(metric, str) else metric
    wanted += reproduce_table.COSTS
    if stored.columns != wanted:
        raise Fault(f"its columns are {','.join(stored.columns)}; the script writes {wanted}")
    return matched


def waiting_rows(stored: Stored) -> set[int]:
    """Return the numbers of the rows that the header marks as waiting.

    Raises:
        Fault: a mark without a reason, of no column, or that is true of no row.
    """
    numbers = set()
    for line in stored.values("waiting"):
        mark, reason = _with_reason("waiting", line)
        wanted: dict[str, list[str]] = {}
        for word in [] if mark == "all" else shlex.split(mark):
            column, sign, value = word.partition("=")
            if not sign or column not in setting_names(stored):
                raise Fault(f"waiting: {line}: {word} is no COLUMN=VALUE of a setting")
            wanted[column] = value.split("|")
        marked = {
            n
            for n, row in enumerate(stored.rows, 1)
            if all(row[column] in values for column, values in wanted.items())
        }
        if not marked or not (wanted or mark == "all"):
            raise Fault(f"waiting: {line}: no row is so ({reason})")
        numbers |= marked
    return numbers


def tolerances(stored: Stored) -> list[tuple[str, float]]:
    """Return the patterns of metrics and how far each may lie from what is stored."""
    found = []
    for line in stored.values("tolerance"):
        mark, _ = _with_reason("tolerance", line)
        pattern, _, value = mark.partition("=")
        if not re.fullmatch(r"\d*\.\d+", value) or not any(
            fnmatchcase(m, pattern) for m in stored.metrics
        ):
            raise Fault(f"tolerance: {line}: is no METRIC_PATTERN=NUMBER of a metric here")
        found.append((pattern, float(value)))
    return found


def _with_reason(word: str, line: str) -> tuple[str, str]:
    mark, sign, reason = line.partition(" -- ")
    if not sign or not reason.strip():
        raise Fault(f"{word}: {line}: has no reason; allowed is `# {word}: MARK -- reason`")
    return mark.strip(), reason.strip()


def shared_stage(c: dict[str, Any]) -> str | None:
    """Return what a run may have taken from a cache, by a name that is equal for equal trainings.

    Seeds, folds and shots are left out: they hardly change what a training costs, and so a row
    that has paid for one is the more surely among those of equal name.
    """
    module = c["method"]["module"] or {}
    data = {k: v for k, v in c["dataset"].items() if k != "fold"}
    if c["method"].get("episodes"):
        # torch
        home, _, name = module["_target_"].rpartition(".")
        learner = getattr(importlib.import_module(home), name).learner(module)
        return learner and repr(["network", learner, data, c["model_size"], c["trainer"]])
    if "who" in module and c["trainer"]["max_steps"]:
        return repr(["first stage", module["who"], data, c["model_size"], c["trainer"]])
    if c["model_size"]["start"] == "frozen":
        return repr(["encodings", data, c["model_size"]])
    return None


def costs(
    matched: dict[str, list[Cell]], stored: dict[str, Stored]
) -> tuple[dict[str, list[float]], bool]:
    """Return the seconds of every row as if nothing were cached, and whether stages are shared."""
    stages: dict[str, float] = {}
    own: dict[str, list[tuple[float, str | None]]] = {}
    for name, cells in matched.items():
        seconds = [float(row["seconds"]) for row in stored[name].rows]
        own[name] = [(s, shared_stage(c.plain)) for s, c in zip(seconds, cells, strict=True)]
        for value, stage in own[name]:
            if stage is not None:
                stages[stage] = max(value, stages.get(stage, 0.0))
    found = {
        name: [value if stage is None else stages[stage] for value, stage in rows]
        for name, rows in own.items()
    }
    return found, bool(stages)


def plan(
    asked: Sequence[str], files: dict[str, Path], limit: float, folder: Path
) -> tuple[list[Outcome], list[Job]]:
    """Check headers and configs; return what needs no run, and the cheapest row of each file."""
    outcomes, waiting, matched = [], {}, {}
    stored = {name: read(path) for name, path in files.items()}
    for name in asked:
        try:
            check_header(stored[name])
            if is_of_times(stored[name]):
                outcomes.append(Outcome(name, "ok", "times: header and keys"))
                continue
            waiting[name] = waiting_rows(stored[name])
            tolerances(stored[name])
            matched[name] = match(stored[name])
        except (Fault, ConfigError) as error:
            outcomes.append(refused(name, error))
    seconds, shares = costs(matched, stored)
    if shares:
        # rows of other files may have paid for a stage
        more = {n: m for n in files if n not in asked and (m := _match_or_none(stored[n]))}
        seconds, _ = costs(matched | more, stored)
    jobs = []
    for name, cells in matched.items():
        marked = len(waiting[name])
        if marked == len(cells):
            outcomes.append(Outcome(name, "waiting", f"all {marked} rows", marked))
            continue
        free = [n for n in range(1, len(cells) + 1) if n not in waiting[name]]
        free = [n for n in free if any(stored[name].rows[n - 1][m] for m in stored[name].metrics)]
        if not free:
            outcomes.append(Outcome(name, "fault", "no row has a metric", marked))
            continue
        number = min(free, key=lambda n: seconds[name][n - 1])
        cost = seconds[name][number - 1]
        if cost > limit:
            words = f"its cheapest row costs {cost:.0f} s, over {limit:.0f} s"
            outcomes.append(Outcome(name, "left out", words, marked))
        else:
            cell = cells[number - 1]
            place = f"out_root='{folder / name}'"
            cfg = config.compose(cell.part, [*cell.overrides, place])
            jobs.append(Job(stored[name], number, cfg, cost, marked))
    return outcomes, sorted(jobs, key=lambda job: job.cost)


def _match_or_none(stored: Stored) -> list[Cell] | None:
    """Return the config of each row of a file that is not asked for, where that is easy."""
    try:
        return None if is_of_times(stored) else match(stored)
    except (Fault, ConfigError):
        return None


def refused(name: str, error: Exception) -> Outcome:
    """Return a fault, or that the data are not there where nobody has said that they are."""
    lines = error.faults if isinstance(error, ConfigError) else [str(error)]
    data = os.environ.get("ANNORUN_DATA")
    absent = all("no such file or folder" in line for line in lines)
    if absent and not (data and Path(data).is_dir()):
        return Outcome(name, "skipped", f"no data: {lines[0]}")
    return Outcome(name, "fault", "; ".join(lines))


def run_row(job: Job, folder: Path, end: float) -> Outcome:
    """Run a row anew in a process of its own, and compare it with what is stored."""
    name, start = job.stored.name, time.monotonic()
    if start >= end:
        return Outcome(name, "fault", f"{job.words}: not begun in time", job.waiting)
    try:
        row = execute(OmegaConf.to_yaml(job.cfg), folder / "cache", end - start)
    except subprocess.TimeoutExpired:
        return Outcome(name, "fault", f"{job.words}: not done in time", job.waiting)
    except subprocess.CalledProcessError as error:
        words = f"{job.words}: {' '.join(error.stderr.split()[-40:])}"
        return Outcome(name, "fault", words, job.waiting)
    seconds = f"{time.monotonic() - start:.1f} s"
    if "faults" in row:
        return refused(name, ConfigError(*row["faults"]))
    if found := list(differences(job, row)):
        of = f"{len(found)} of {len(job.stored.metrics)} metrics and steps differ"
        words = "; ".join([job.words, *found, of, seconds])
        return Outcome(name, "stale", words, job.waiting)
    first = next(m for m in job.stored.metrics if job.row[m])
    words = (
        f"{job.words}; stored {first} {job.row[first]}, obtained {printed(row, first)}; {seconds}"
    )
    return Outcome(name, "ok", words, job.waiting)


def differences(job: Job, row: dict[str, Any]) -> Iterator[str]:
    """Yield every stored metric that is not obtained, to 4 decimals or within its tolerance."""
    allowed = tolerances(job.stored)
    for name in job.stored.metrics:
        stored, obtained = job.row[name], printed(row, name)
        if stored == obtained:
            continue
        most = max((value for pattern, value in allowed if fnmatchcase(name, pattern)), default=0.0)
        both = bool(stored and obtained)
        # as printed, so that a tolerance of .0005 is five units of the last digit
        if not both or abs(float(stored) - float(obtained)) > most + 1e-9:
            yield f"{name} stored {stored or 'none'}, obtained {obtained or 'none'}"
    if job.row["steps"] != str(row["steps"]):
        yield f"steps stored {job.row['steps']}, obtained {row['steps']}"


def printed(row: dict[str, Any], name: str) -> str:
    """Return a metric as measured rows have it."""
    return f"{row['metrics'][name]:.4f}" if name in row["metrics"] else ""


def execute(text: str, cache: Path, seconds: float) -> dict[str, Any]:
    """Run a config, in YAML, in a process of its own; return what `one` does.

    Raises:
        subprocess.TimeoutExpired: it was not done in time.
        subprocess.CalledProcessError: it failed.
    """
    done = subprocess.run(
        [sys.executable, __file__, "--one"],
        input=text,
        capture_output=True,
        text=True,
        env=os.environ | {"ANNORUN_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        timeout=seconds,
        check=True,
    )
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def one(text: str) -> dict[str, Any]:
    """Run a config, in YAML, in this process; return metrics and steps, or why it is refused."""
    from annorun.run import run

    try:
        with redirect_stdout(sys.stderr):
            row = run(_locked(text))
    except ConfigError as error:
        return {"faults": error.faults}
    return {"metrics": row["metrics"], "steps": row["steps"]}


def _locked(text: str) -> DictConfig:
    cfg = OmegaConf.create(text)
    assert isinstance(cfg, DictConfig)
    OmegaConf.set_readonly(cfg, True)
    return cfg


def main() -> int:
    """Parse, plan, run, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="files in experiments/measured/, without .csv")
    parser.add_argument("--all", action="store_true", help="rows of more than 60 s, too")
    parser.add_argument("--minutes", type=float, help="of all rows together")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(one(sys.stdin.read())))
        return 0
    paths = sorted((config.experiments_dir() / "measured").glob("*.csv"))
    files = {path.stem: path for path in paths}
    wrong = [f"{n}: no such measured file; allowed: {', '.join(files)}" for n in asked.names]
    wrong = [line for n, line in zip(asked.names, wrong, strict=True) if n not in files]
    if asked.minutes is not None and not asked.minutes > 0:
        wrong.append(f"--minutes {asked.minutes}: allowed is a number above 0")
    if wrong:
        cli.report(ConfigError(*wrong))
        return 2
    limit, minutes = (LIMIT_ALL, MINUTES_ALL) if asked.all else (LIMIT, MINUTES)
    end = time.monotonic() + 60 * (asked.minutes or minutes)
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(PROCESSES) as pool:
        folder = Path(temporary)
        outcomes, jobs = plan(asked.names or list(files), files, limit, folder)
        for outcome in outcomes:
            outcome.show()
        for future in as_completed([pool.submit(run_row, job, folder, end) for job in jobs]):
            outcomes.append(future.result())
            outcomes[-1].show()
    counts = Counter(outcome.state for outcome in outcomes)
    rows = sum(outcome.waiting for outcome in outcomes)
    summary = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    print(f"{len(outcomes)} files: {summary}; {rows} rows wait by their mark")
    return 1 if counts["stale"] or counts["fault"] else 0


if __name__ == "__main__":
    sys.exit(main())
