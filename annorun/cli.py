"""The command line: help, every fault of a command before Hydra starts, then one run or a sweep.

Exit codes: 0 done, 1 a run failed, 2 the command, the config or an input file is wrong.
"""

import io
import os
import re
import sys
from argparse import Namespace
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NoReturn, cast

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from annorun import config
from annorun.check import GROUPS
from annorun.errors import ConfigError
from annorun.signature import nearest

HYDRAS_OWN = (
    "--cfg",
    "-c",
    "--info",
    "-i",
    "--hydra-help",
    "--version",
    "--shell-completion",
    "-sc",
)


def cells(name: str, overrides: list[str], node: DictConfig | None = None) -> list[list[str]]:
    """Return the overrides of every cell of a sweep: the file's parameters, then the command's.

    Args:
        name: of the sweep file.
        overrides: the command's.
        node: the file's `hydra` node, where it has been composed already, which takes a second.

    Raises:
        ConfigError: an override that does not parse, or asks for no value; an unknown sweep file.
    """
    with config.loader() as known:
        node = _hydra(known, name) if node is None else node
        params = OmegaConf.select(node, "sweeper.params") or {}
        own = config.parse([f"{key}={value}" for key, value in params.items()], known)
        parsed = {o.key_or_group: o for o in own}
        for override in config.parse(overrides, known):
            swept = override.key_or_group in parsed
            parsed[override.key_or_group if swept else str(override.input_line)] = override
        values = [list(_each(o)) for o in parsed.values()]
    if empty := [o for o, each in zip(parsed.values(), values, strict=True) if not each]:
        raise ConfigError(*(f"{o.input_line}: no value; allowed is one or more" for o in empty))
    return [list(cell) for cell in product(*values)]


def _hydra(known: Any, name: str) -> DictConfig:
    """Return the `hydra` node of a sweep file; the plain config sweeps nothing."""
    if name == "config":
        return OmegaConf.create()
    try:
        base = known.load_configuration(name, [], "RUN", validate_sweep_overrides=False)
    except config.REFUSED as error:
        raise ConfigError(config.one_line(error)) from None
    return cast(DictConfig, base.hydra)


def _each(override: Override) -> Iterator[str]:
    if not override.is_sweep_override():
        yield str(override.input_line)
        return
    key = override.get_key_element()
    for value in override.sweep_string_iterator():
        yield f"{key}={value}"


def faults_in_command(name: str, overrides: list[str], multirun: bool) -> list[str]:
    """Return every fault of a command line, over all cells of a sweep, without running anything."""
    names = ["config", *config.sweeps()]
    if name not in names:
        near = nearest(name, names)
        return [f"--config-name {name}: no such config; allowed: {', '.join(names)}{near}"]
    try:
        swept = [o for o in config.parse(overrides) if o.is_sweep_override()]
        with config.loader() as known:
            node = _hydra(known, name)
        multirun = multirun or str(node.get("mode")).endswith("MULTIRUN")
        if swept and not multirun:
            return [f"{o.input_line}: several values; add -m to run them all" for o in swept]
        grid = cells(name, overrides, node) if multirun else [overrides]
    except ConfigError as error:
        return error.faults
    found: dict[str, None] = {}
    # seeds and folds change no name, type or pair: one of them stands for all
    seen = set()
    with config.loader() as known:
        for cell in grid:
            key = tuple(
                o for o in cell if not re.fullmatch(r"(data_)?seed=\d+|dataset\.fold=\d+", o)
            )
            if key not in seen:
                seen.add(key)
                cfg, faults = config.compose_cell(known, name, cell)
                found |= dict.fromkeys(faults + (config.faults(cfg) if cfg is not None else []))
    return list(found)


def help_text() -> str:
    """Return groups, options and sweep files, a line each, from the first comment of each file."""
    lines = [
        "usage: python -m annorun [GROUP=OPTION ...] [KEY=VALUE ...]",
        "       python -m annorun -m seed=0,1,2 method=realm,noisy   every combination",
        "       python -m annorun -cn SWEEP                          a paper's table",
        "       python -m annorun --cfg job method=realm             show a config, run nothing",
    ]
    defaults = (config.conf_dir() / "config.yaml").read_text(encoding="utf-8")
    with config.loader() as known:
        folders = [Path(s.path) for s in known.get_sources() if s.scheme() == "file"]
        for group in GROUPS:
            lines += ["", group]
            for option in known.get_group_options(group):
                mark = "*" if re.search(rf"- {group}: {option}\s", defaults) else " "
                lines.append(f" {mark}{option:<23}{_about(folders, f'{group}/{option}.yaml')}")
    if config.sweeps():
        lines += ["", "sweep files (-cn)"]
        lines += [f"  {name:<38}{_about(folders, f'{name}.yaml')}" for name in config.sweeps()]
    lines += ["", "* default. Keys below a group: --cfg job shows them with their values."]
    return "\n".join(lines)


def _about(folders: list[Path], file: str) -> str:
    path = next((f / file for f in folders if (f / file).is_file()), None)
    lines = path.read_text(encoding="utf-8").splitlines() if path else []
    comments = (line[1:].strip() for line in lines if line.startswith("#"))
    return next((c for c in comments if not c.startswith("@")), "")


@hydra.main(version_base="1.3", config_path=str(config.conf_dir().absolute()), config_name="config")
def _job(cfg: DictConfig) -> None:
    """Run one cell."""
    from annorun.run import run

    job = HydraConfig.get()
    choices, overrides = dict(job.runtime.choices), list(job.overrides.task)
    if job.mode == RunMode.MULTIRUN:
        print(f"\n{job.job.num + 1}: {' '.join(overrides)}")
    plain = cast(DictConfig, OmegaConf.create(OmegaConf.to_container(cfg)))
    try:
        run(config.finish(plain, choices, overrides))
    except ConfigError as error:
        report(error)
        if job.mode != RunMode.MULTIRUN:
            sys.exit(2)
        raise
    except Exception as error:
        # a sweep goes on to its other cells, and at its end Hydra names the first failure only
        if job.mode == RunMode.MULTIRUN:
            print(f"failed: {type(error).__name__}: {error}", file=sys.stderr)
        raise


def report(error: ConfigError) -> None:
    """Print every fault on a line of its own."""
    for line in error.faults:
        print(f"annorun: {line}", file=sys.stderr)


def main() -> None:
    """Check the whole command, then run it; stop in silence where nobody reads the output."""
    try:
        _main()
        sys.stdout.flush()
    except BrokenPipeError:
        # `... --help | head`: Python would report the same again when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _main() -> None:
    # a terminal that lacks a letter shows its code, and the run is not lost
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:]
    if "--help" in arguments or "-h" in arguments:
        print(help_text())
        return
    config.register()
    parser = get_args_parser()
    parser.error = _refuse_flag  # type: ignore[method-assign]
    flags = parser.parse_intermixed_args(arguments)
    shows = any(a.split("=")[0] in HYDRAS_OWN for a in arguments)
    found = _flag_faults(flags, shows) or faults_in_command(
        flags.config_name or "config", flags.overrides, flags.multirun
    )
    if found and not (shows and _only_missing(found)):
        report(ConfigError(*found))
        sys.exit(2)
    # a failed run raises here, instead of ending in Hydra's shortened traceback
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # Hydra's own parser wants the overrides together
    for override in flags.overrides:
        arguments.remove(override)
    sys.argv[1:] = [*arguments, *flags.overrides]
    try:
        _job()
    except ConfigError:
        sys.exit(2)


def _flag_faults(flags: Namespace, shows: bool) -> list[str]:
    """Return which of Hydra's flags annorun has no use for."""
    found = []
    if flags.config_path or flags.config_dir:
        found.append(
            "--config-path, --config-dir: not used here; "
            "allowed is 'hydra.searchpath=[file:///FOLDER]', "
            "or a package that registers itself under annorun.plugins"
        )
    if shows and flags.multirun:
        found.append("--multirun: shows nothing; allowed is one config to show, without -m")
    return found


def _refuse_flag(message: str) -> NoReturn:
    report(ConfigError(f"{message}; allowed: --help shows the command's form"))
    sys.exit(2)


def _only_missing(found: list[str]) -> bool:
    """Say whether a config can still be shown: what is not given yet does not hinder that."""
    return all("must be given" in line for line in found)
