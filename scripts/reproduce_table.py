"""A paper's table from our runs: ours (mean, std, seeds), the paper's, the difference.

    python scripts/reproduce_table.py realm_table1            from what has been run so far
    python scripts/reproduce_table.py realm_table1 --run      run what is missing first
    python scripts/reproduce_table.py realm_table1 --run --smoke
    python scripts/reproduce_table.py realm_table1 --run seed=0,1 out_root=elsewhere
    python scripts/reproduce_table.py realm_table1 --measured   also a line a run, to be committed

Prints Markdown, and writes it beside a CSV: <out_root>/<name>/table.md and table.csv. --measured
writes experiments/measured/<name>.csv, with command, commit and machine in its header.
"""

import argparse
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf

from annorun import cli, config, results, tables
from annorun.errors import ConfigError


def sweep(name: str, smoke: bool, overrides: list[str]) -> list[DictConfig]:
    """Return the config of every run of a sweep file and of those that it lists in `also`."""
    found = []
    for part in [name, *(_file(name).get("also") or [])]:
        own = list(_file(part).smoke) if smoke else []
        asked = {o.split("=")[0]: o for o in [*own, *overrides]}
        if faults := cli.faults_in_command(part, list(asked.values()), multirun=True):
            raise ConfigError(*faults)
        found += [config.compose(part, cell) for cell in cli.cells(part, list(asked.values()))]
    return found


def _file(name: str) -> DictConfig:
    return cast(DictConfig, OmegaConf.load(config.experiments_dir() / f"{name}.yaml"))


def execute(configs: list[DictConfig]) -> int:
    """Run what is not finished, one after the other; return how many failed."""
    from annorun.run import run

    failed = 0
    for number, cfg in enumerate(configs, 1):
        print(f"\n{number}/{len(configs)}: {' '.join(cfg.overrides)}", flush=True)
        try:
            run(cfg)
        except ConfigError as error:
            failed += 1
            cli.report(error)
        # one failed cell must not stop the others; it has left its error.txt
        except Exception as error:
            failed += 1
            print(f"failed: {type(error).__name__}: {error}", file=sys.stderr)
    return failed


def place_of(cfg: DictConfig) -> Path:
    """Return the folder of a run."""
    plain = config.plain(cfg)
    return results.folder(plain, results.identity(plain))


def report(name: str, configs: list[DictConfig]) -> str:
    """Write table.md and table.csv from the rows there are, and return the Markdown."""
    keys, metric = list(configs[0]["keys"]), configs[0]["metric"]
    runs = []
    for cfg in configs:
        runs.append((tables.key_of(cfg.choices, keys), place_of(cfg)))
    expected = tables.published(config.experiments_dir() / "expected" / f"{name}.csv", keys)
    cells = tables.lines(tables.collect(runs, metric, expected))
    header = [*keys, *tables.HEADER]
    text = f"{name}: {metric}\n\n{tables.markdown(header, cells)}\n"
    place = Path(configs[0].out_root).expanduser() / configs[0].name
    place.mkdir(parents=True, exist_ok=True)
    (place / "table.md").write_text(text, encoding="utf-8")
    results.write_csv(place / "table.csv", header, cells)
    return f"{text}\n{place / 'table.md'}, {place / 'table.csv'}"


def measured(name: str, configs: list[DictConfig]) -> str:
    """Write a line a finished run to experiments/measured/, and return where."""
    choices = ("method", "dataset", "noise", "annotator_dist", "model_size")
    rows = []
    for cfg in configs:
        folder = place_of(cfg)
        if results.state(folder) == "done":
            rows.append(results.read_row(folder))
    metrics = list(dict.fromkeys(m for row in rows for m in row["metrics"]))
    path = config.experiments_dir() / "measured" / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    results.write_csv(
        path,
        [*choices, "seed", "data_seed", *metrics, "steps", "seconds", "device"],
        [
            [
                *(row["choices"][c] for c in choices),
                row["seed"],
                row["data_seed"],
                *(f"{row['metrics'][m]:.4f}" if m in row["metrics"] else None for m in metrics),
                row["steps"],
                row["seconds"],
                row["device"],
            ]
            for row in rows
        ],
    )
    commits = sorted({f"{row['commit']}{' (changed)' * bool(row['dirty'])}" for row in rows})
    versions = ", ".join(f"{k} {v}" for k, v in rows[0]["versions"].items()) if rows else ""
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
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE, as on annorun's command line")
    asked = parser.parse_intermixed_args()
    try:
        if asked.name not in config.sweeps():
            raise ConfigError(
                f"{asked.name}: no such sweep file; allowed: {', '.join(config.sweeps())}"
            )
        extra = [f"name={asked.name}_smoke"] if asked.smoke else []
        configs = sweep(asked.name, asked.smoke, [*extra, *asked.overrides])
        failed = execute(configs) if asked.run else 0
        print(report(asked.name, configs))
        if asked.measured:
            print(measured(asked.name, configs))
    except ConfigError as error:
        cli.report(error)
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
