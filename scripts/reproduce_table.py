"""A paper's table from our runs: ours (mean, std, seeds), the paper's, the difference.

    python scripts/reproduce_table.py realm_table1            from what has been run so far
    python scripts/reproduce_table.py realm_table1 --run      run what is missing first
    python scripts/reproduce_table.py realm_table1 --run --smoke
    python scripts/reproduce_table.py realm_table1 --run seed=0,1 out_root=elsewhere
    python scripts/reproduce_table.py realm_table1 --measured   also a line a run, to be committed
    python scripts/reproduce_table.py nutmeg_baselines --run --jobs 2 --figure
    python scripts/reproduce_table.py nutmeg_baselines keys=[method]   means over all other keys

Prints Markdown, and writes it beside a CSV: <out_root>/<name>/table.md and table.csv. --measured
writes experiments/measured/<name>.csv, with command, commit and machine in its header. --figure
draws the pictures that the sweep file names: <out_root>/<name>/*.png.
"""

import argparse
import io
import os
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from annorun import cli, config, results, tables
from annorun.errors import ConfigError

# the groups that every measured row names
CHOICES = ("method", "dataset", "noise", "annotator_dist", "model_size")
# the columns of a measured row after its metrics
COSTS = ("steps", "seconds", "device")


def sweep(name: str, smoke: bool, overrides: list[str]) -> list[DictConfig]:
    """Return the config of every run of a sweep file and of those that it lists in `also`."""
    parts = cells(name, smoke, overrides)
    return [cfg for part, own in parts for cfg in config.compose_all(part, own)]


def cells(name: str, smoke: bool, overrides: list[str]) -> list[tuple[str, list[list[str]]]]:
    """Return the overrides of every run, by sweep file: NAME itself and those in `also`."""
    found = []
    for part in [name, *(_file(name).get("also") or [])]:
        own = list(_file(part).smoke) if smoke else []
        asked = {o.split("=")[0]: o for o in [*own, *overrides]}
        found.append((part, cli.cells(part, list(asked.values()))))
    return found


def swept(overrides: Iterable[list[str]]) -> list[str]:
    """Return the keys and groups that the overrides of any run set, in their order."""
    lines = (line for own in overrides for line in own)
    return list(dict.fromkeys(line.split("=")[0].lstrip("+~") for line in lines))


def setting_columns(configs: Sequence[dict[str, Any]], swept_keys: Sequence[str]) -> list[str]:
    """Return the settings that tell measured rows apart.

    These are the groups, the table's keys, the fold of a table with folds, both seeds, and every
    swept key that these do not determine.

    Args:
        configs: plain, of every row.
        swept_keys: from `swept`.
    """
    keys, folds = configs[0]["keys"], configs[0].get("folds")
    names = list(dict.fromkeys([*CHOICES, *keys, *([folds] if folds else [])]))
    seeds = ["seed", "data_seed"]
    for name in swept_keys:
        values: dict[tables.Key, tables.Key] = {}
        # of the rows that are equal so far, one value stands for all, or the key is needed
        pairs = ((tables.key_of(c, [*names, *seeds]), tables.key_of(c, [name])) for c in configs)
        if any(values.setdefault(row, value) != value for row, value in pairs):
            names.append(name)
    return [*(n for n in names if n not in seeds), *seeds]


def _file(name: str) -> DictConfig:
    return cast(DictConfig, OmegaConf.load(config.experiments_dir() / f"{name}.yaml"))


def execute(configs: list[DictConfig], jobs: int) -> int:
    """Run what is not finished, in several processes if asked; return how many failed."""
    titles = [f"\n{n}/{len(configs)}: {' '.join(c.overrides)}" for n, c in enumerate(configs, 1)]
    failed = 0
    if jobs == 1:
        for title, cfg in zip(titles, configs, strict=True):
            print(title, flush=True)
            failed += not one(cfg)
        return failed
    # the processes share the cores among them already
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for title, (done, text) in zip(titles, pool.map(quietly, configs), strict=True):
            # what a finished run has to say is in its folder
            print(title, "" if done else f"\n{text}", end="", flush=True)
            failed += not done
    return failed


def one(cfg: DictConfig) -> bool:
    """Run one cell, and say whether it is done."""
    from annorun.run import run

    try:
        run(cfg)
    except ConfigError as error:
        cli.report(error)
    # one failed cell must not stop the others; it has left its error.txt
    except Exception as error:
        print(f"failed: {type(error).__name__}: {error}", file=sys.stderr)
    else:
        return True
    return False


def quietly(cfg: DictConfig) -> tuple[bool, str]:
    """Run one cell; return whether it is done, and what it had to say."""
    with redirect_stdout(io.StringIO()) as text, redirect_stderr(text):
        done = one(cfg)
    return done, text.getvalue()


def place_of(cfg: DictConfig) -> Path:
    """Return the folder of a run."""
    plain = config.plain(cfg)
    return results.folder(plain, results.identity(plain))


def metrics_of(cfg: DictConfig) -> list[str]:
    """Return the metrics of a table."""
    return [cfg.metric] if isinstance(cfg.metric, str) else list(cfg.metric)


def report(name: str, configs: list[DictConfig], figure: bool = False) -> str:
    """Write table.md, table.csv and pictures from the rows there are, and return the Markdown."""
    keys, metrics = list(configs[0]["keys"]), metrics_of(configs[0])
    runs = [(tables.key_of(config.plain(cfg), keys), place_of(cfg)) for cfg in configs]
    path = config.experiments_dir() / "expected" / f"{name}.csv"
    settings = settings_of(configs)
    cells = {m: tables.collect(runs, m, tables.published(path, keys, m), settings) for m in metrics}
    # several tables may share the folder of their runs
    shared = configs[0].name == _file(name).name
    place = Path(configs[0].out_root).expanduser() / (name if shared else configs[0].name)
    place.mkdir(parents=True, exist_ok=True)
    header = [*keys, *tables.HEADER]
    rows = {m: tables.lines(cells[m]) for m in metrics}
    text = "\n".join(f"{name}: {m}\n\n{tables.markdown(header, rows[m])}\n" for m in metrics)
    text += differences(configs, keys, metrics)
    (place / "table.md").write_text(text, encoding="utf-8")
    if len(metrics) == 1:
        results.write_csv(place / "table.csv", header, rows[metrics[0]])
    else:
        lines = [[m, *row] for m in metrics for row in rows[m]]
        results.write_csv(place / "table.csv", ["metric", *header], lines)
    written = [place / "table.md", place / "table.csv"]
    if figure:
        from annorun import figures

        for stem, spec in (config.plain(configs[0]).get("figures") or {}).items():
            written.append(place / f"{stem}.png")
            if spec["kind"] == "bars":
                figures.save(bars(spec, configs), written[-1])
            else:
                over_bags = spec["x"] == "bag"
                names, shown = tables.by_bag(keys, cells) if over_bags else (keys, cells)
                figures.draw(figures.Spec(**spec), names, shown, written[-1])
    return f"{text}\n{', '.join(map(str, written))}"


def settings_of(configs: list[DictConfig]) -> dict[Path, dict[str, str]]:
    """Return, for the folder of each run, the settings that runs of one cell may differ in."""
    names = list(dict.fromkeys(["data_seed", "seed", *swept(cfg.overrides for cfg in configs)]))
    return {
        place_of(cfg): dict(zip(names, tables.key_of(config.plain(cfg), names), strict=True))
        for cfg in configs
    }


def bars(spec: dict[str, Any], configs: list[DictConfig]) -> Any:
    """Return the picture of what the first runs of each series predict: of one seed and fold."""
    from annorun import figures

    lines: dict[str, list[dict[str, str]]] = {}
    for cfg in configs:
        plain = config.plain(cfg)
        name = ", ".join(filter(None, tables.key_of(plain, spec["series"]))).replace("_", " ")
        # in the order of the sweep: the first seed and fold come first
        if name not in lines and results.state(place_of(cfg)) == "done":
            lines[name] = results.read_csv(place_of(cfg) / "predictions.csv")
    return figures.bars(lines, spec.get("items", 6))


def differences(configs: list[DictConfig], keys: list[str], metrics: list[str]) -> str:
    """Return the tests that the sweep file asks for in `compare`, as Markdown."""
    named, folds = configs[0].get("compare") or {}, configs[0].get("folds")
    base = {key: tables.word(value) for key, value in named.items() if key in keys}
    if not base:
        return ""
    # a fold is paired with the same fold, and no row of the table
    names = [*keys, folds] if folds else keys
    runs = [(tables.key_of(config.plain(cfg), names), place_of(cfg)) for cfg in configs]
    share = 0.0
    if folds:
        c = config.plain(configs[0])
        # n_test / n_train of a fold, of which validation takes its share
        share = 1 / ((c["dataset"]["folds"] - 1) * (1 - c["trainer"]["val_share"]))
    tested = [tables.compare(runs, names, m, base, folds, share) for m in metrics]
    found = [line for lines in tested for line in lines]
    words = "paired sign-flip tests (annorun.scores.significance), over tasks, items or runs"
    words += "; intervals by the paired bootstrap"
    if folds:
        words = "corrected resampled t-tests (annorun.scores.significance), over folds"
    return f"\n{words}\n\n{tables.markdown(tables.COMPARED, found)}\n" if found else ""


def measured(name: str, configs: list[DictConfig]) -> str:
    """Write a line a finished run to experiments/measured/, and return where.

    It has all metrics, or those of the table where that lists several.
    """
    done = {f: cfg for cfg in configs if results.state(f := place_of(cfg)) == "done"}
    rows = [(results.read_row(f), config.plain(cfg)) for f, cfg in done.items()]
    plains = [config.plain(configs[0])] if not rows else [plain for _, plain in rows]
    columns = setting_columns(plains, swept(cfg.overrides for cfg in done.values()))
    settings = [tables.key_of(plain, columns) for _, plain in rows]
    if equal := [key for key, n in Counter(settings).items() if n > 1]:
        words = ", ".join(f"{c}={v}" for c, v in zip(columns, equal[0], strict=True))
        raise ConfigError(
            f"{name}: several rows of {words}; allowed is a key that tells them apart"
        )
    metrics = metrics_of(configs[0])
    if isinstance(configs[0].metric, str):
        metrics = list(dict.fromkeys(m for row, _ in rows for m in row["metrics"]))
    path = config.experiments_dir() / "measured" / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    results.write_csv(
        path,
        [*columns, *metrics, *COSTS],
        [
            [
                *key,
                *(f"{row['metrics'][m]:.4f}" if m in row["metrics"] else None for m in metrics),
                *(row[name] for name in COSTS),
            ]
            for key, (row, _) in zip(settings, rows, strict=True)
        ],
    )
    found = [row for row, _ in rows]
    commits = sorted({f"{row['commit']}{' (changed)' * bool(row['dirty'])}" for row in found})
    versions = ", ".join(f"{k} {v}" for k, v in found[0]["versions"].items()) if found else ""
    arguments = [a for a in sys.argv[1:] if not a.startswith("out_root=")]
    header = [
        f"# command: python scripts/reproduce_table.py {shlex.join(arguments)}",
        f"# commit: {', '.join(commits)}",
        f"# machine: {platform.machine()}, {os.cpu_count()} cores; {versions}",
    ]
    path.write_text("\n".join([*header, path.read_text("utf-8")]), encoding="utf-8")
    return str(path)


def main() -> int:
    """Parse, check, run if asked, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name", help="a sweep file in experiments/")
    parser.add_argument("--run", action="store_true", help="run what is not finished")
    parser.add_argument(
        "--smoke", action="store_true", help="the file's smoke cells: seconds, no meaning"
    )
    parser.add_argument(
        "--measured", action="store_true", help="also write experiments/measured/NAME.csv"
    )
    parser.add_argument("--figure", action="store_true", help="also draw the sweep file's pictures")
    parser.add_argument("--jobs", type=int, default=1, help="processes that run the cells")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE, as on annorun's command line")
    asked = parser.parse_intermixed_args()
    try:
        if asked.name not in config.sweeps():
            raise ConfigError(
                f"{asked.name}: no such sweep file; allowed: {', '.join(config.sweeps())}"
            )
        extra = [f"name={asked.name}_smoke"] if asked.smoke else []
        configs = sweep(asked.name, asked.smoke, [*extra, *asked.overrides])
        failed = execute(configs, max(asked.jobs, 1)) if asked.run else 0
        print(report(asked.name, configs, asked.figure))
        if asked.measured:
            print(measured(asked.name, configs))
    except ConfigError as error:
        cli.report(error)
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
