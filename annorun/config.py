"""Where conf/ and experiments/ lie, composing, and `check`.

`compose` gives the same config as the command line, for scripts and tests:
`run(compose("config", ["method=noisy"]))`.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from itertools import compress
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from annorun import check as rules
from annorun.check import GROUPS, WRITTEN
from annorun.errors import ConfigError
from annorun.signature import nearest

HYDRA_KEYS = ("hydra/", "hydra.")
# Hydra raises the last two, too, for commands that it did not foresee
REFUSED = (HydraException, OmegaConfBaseException, ValueError, AssertionError)


def _shipped(folder: str) -> Path:
    """Return conf/ or experiments/: at the top of a checkout, in the package of a wheel."""
    package = Path(__file__).parent
    installed = package / f"_{folder}"
    return installed if installed.is_dir() else package.parent / folder


def conf_dir() -> Path:
    """Return the folder of the config groups."""
    return _shipped("conf")


def experiments_dir() -> Path:
    """Return the folder of the sweep files, `expected/` and `measured/`."""
    return _shipped("experiments")


class Searchpath(SearchPathPlugin):
    """Adds experiments/ and the conf/ folder of each plugin package to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """See Hydra."""
        search_path.append("annorun", f"file://{experiments_dir()}")
        for package in rules.plugins():
            spec = importlib.util.find_spec(package)
            if spec and spec.origin:
                search_path.append(package, f"file://{Path(spec.origin).parent / 'conf'}")


def register() -> None:
    """Tell Hydra of the search path; once is enough, more does no harm."""
    Plugins.instance().register(Searchpath)


@contextmanager
def loader() -> Iterator[Any]:
    """Yield Hydra's config loader, and leave no global state behind."""
    register()
    GlobalHydra.instance().clear()
    _base.cache_clear()
    with initialize_config_dir(str(conf_dir().absolute()), version_base="1.3", job_name="annorun"):
        yield GlobalHydra.instance().config_loader()


def sweeps() -> list[str]:
    """Return the names of the sweep files."""
    return sorted(p.stem for p in experiments_dir().glob("*.yaml"))


def compose(name: str = "config", overrides: list[str] | None = None) -> DictConfig:
    """Compose a config as the command line does, for one cell.

    Raises:
        ConfigError: every fault of the overrides and of the composed config.
    """
    return compose_all(name, [overrides or []])[0]


def compose_all(name: str, cells: Sequence[list[str]]) -> list[DictConfig]:
    """Compose the cells of a sweep.

    Raises:
        ConfigError: every fault of all of them.
    """
    composed, found = [], []
    with loader() as known:
        for overrides in cells:
            cfg, words = compose_cell(known, name, overrides)
            composed += [] if cfg is None else [cfg]
            found += words + (faults(cfg) if cfg is not None else [])
    if found or len(composed) < len(cells):
        raise ConfigError(*dict.fromkeys(found))
    return composed


def check(cfg: DictConfig) -> None:
    """Raise ConfigError with every fault of a composed config."""
    if found := faults(cfg):
        raise ConfigError(*found)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return the resolved config as plain dicts and lists."""
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def finish(cfg: DictConfig, choices: dict[str, str], overrides: list[str]) -> DictConfig:
    """Write the groups' options and the command's overrides into the config; lock it."""
    with open_dict(cfg):
        cfg.choices = {g: choices[g] for g in GROUPS if g in choices}
        cfg.overrides = list(overrides)
    OmegaConf.set_readonly(cfg, True)
    return cfg


def faults(cfg: DictConfig) -> list[str]:
    """Return every fault of a composed config."""
    missing, unresolved = [], []
    for key, value, error in _open(cfg):
        if error is None:
            missing.append(f"{key}: must be given ({key}=...)")
        elif not key.startswith(WRITTEN):
            allowed = "allowed is ${KEY} of a key or ${oc.env:NAME} of a variable that is set"
            unresolved.append(f"{key}={value}: {str(error).splitlines()[0]}; {allowed}")
    return missing + (unresolved or rules.faults(plain(cfg)))


def _open(node: DictConfig | ListConfig, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield key, value, error of every ${...} that leads nowhere; None for a value not given."""
    values = OmegaConf.to_container(node, resolve=False)
    for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
        raw = values[key]  # type: ignore[index]
        if raw == "???":
            yield f"{prefix}{key}", raw, None
            continue
        try:
            value = node[key]
        except OmegaConfBaseException as error:
            yield f"{prefix}{key}", raw, error
        else:
            if isinstance(value, DictConfig | ListConfig):
                yield from _open(value, f"{prefix}{key}.")


def parse(overrides: list[str], known: Any = None) -> list[Override]:
    """Parse overrides; every one that is not in Hydra's grammar is a fault."""
    parsed, found = [], []
    for line in overrides:
        try:
            parsed += OverridesParser.create(known).parse_overrides([line])
        except HydraException as error:
            reason = one_line(error).split(" See https://")[0]
            found.append(
                f"{line}: not an override; allowed is GROUP=OPTION or KEY=VALUE ({reason})"
            )
    if found:
        raise ConfigError(*found)
    return parsed


def compose_cell(
    known: Any, name: str, overrides: list[str]
) -> tuple[DictConfig | None, list[str]]:
    """Compose one cell; where Hydra refuses, name every override at fault, compose the rest."""
    parsed = parse(overrides, known)
    try:
        cfg = _load(name, parsed)
        each = (_form_fault(known, o) or _element_fault(o, parsed) for o in parsed)
        return cfg, [line for line in each if line]
    except REFUSED as error:
        first = one_line(error)
    good, found = [], []
    for override in parsed:
        if words := _form_fault(known, override) or _group_fault(known, override):
            found.append(words)
        elif _is_group(known, override):
            good.append(override)
    try:
        base = _load(name, good)
    except REFUSED as error:
        return None, found or [one_line(error)]
    for override in parsed:
        if override.key_or_group in GROUPS or _form_fault(known, override):
            continue
        if words := _element_fault(override, parsed) or _key_fault(base, override):
            found.append(words)
        else:
            good.append(override)
    try:
        return _load(name, good), found or [first]
    except REFUSED as error:
        return None, [*found, one_line(error)]


def _load(name: str, overrides: list[Override]) -> DictConfig:
    """Compose; overrides that only set a value are set in a copy of what the others give."""
    lines = [str(o.input_line) for o in overrides]
    plain = [_sets_a_value(o) for o in overrides]
    cfg, choices = deepcopy(_base(name, tuple(compress(lines, (not p for p in plain)))))
    try:
        for override in compress(overrides, plain):
            OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True)
    except OmegaConfBaseException:
        # refused: Hydra has the words for it
        cfg, choices = deepcopy(_base(name, tuple(lines)))
    return finish(cfg, choices, lines)


@cache
def _base(name: str, overrides: tuple[str, ...]) -> tuple[DictConfig, dict[str, str]]:
    """Compose once for the many cells of a sweep; a `loader` begins with none."""
    cfg = hydra_compose(name, list(overrides), return_hydra_config=True)
    choices = dict(cfg.hydra.runtime.choices)
    OmegaConf.set_readonly(cfg, False)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, choices


def _sets_a_value(o: Override) -> bool:
    """Say whether an override is KEY=VALUE of one key that exists, not of a group or of Hydra."""
    key = str(o.key_or_group)
    more = o.is_delete() or o.is_add() or o.is_force_add() or o.is_sweep_override() or o.package
    return not (more or key in GROUPS or key.startswith(HYDRA_KEYS) or "/" in key)


def _is_group(known: Any, override: Override) -> bool:
    key = str(override.key_or_group)
    return (
        key in GROUPS
        and isinstance(override.value(), str)
        and override.value() in known.get_group_options(key)
    )


def _form_fault(known: Any, override: Override) -> str | None:
    """Refuse what Hydra would take, and annorun would not use."""
    key = str(override.key_or_group)
    if key.split(".")[0] in WRITTEN:
        return f"{override.input_line}: annorun writes {key.split('.')[0]}; allowed is no value"
    if key in GROUPS and not (override.is_delete() or isinstance(override.value(), str | dict)):
        options = ", ".join(known.get_group_options(key))
        return f"{override.input_line}: one option is wanted; allowed: {options}"
    return None


def _element_fault(override: Override, parsed: list[Override]) -> str | None:
    """Refuse to set an element of a list that another override sets as a whole, before or after."""
    key = str(override.key_or_group)
    for other in parsed:
        whole = str(other.key_or_group)
        if key.startswith(f"{whole}.") and isinstance(other.value(), list):
            return (
                f"{override.input_line}: {other.input_line} sets the whole list; allowed is one "
                f"of the two, such as '{whole}=[...]'"
            )
    return None


def _group_fault(known: Any, override: Override) -> str | None:
    key = str(override.key_or_group)
    if key.startswith(HYDRA_KEYS) or "." in key or _is_group(known, override):
        return None
    if key in GROUPS:
        options = known.get_group_options(key)
        value = override.value()
        if override.is_delete():
            return (
                f"{override.input_line}: a group cannot be removed; allowed: {', '.join(options)}"
            )
        return (
            f"{override.input_line}: no such option; allowed: "
            f"{', '.join(options)}{nearest(str(value), options)}"
        )
    return None


def _key_fault(base: DictConfig, override: Override) -> str | None:
    """Say which key of a plain `key=value` does not exist, and which is nearest."""
    key = str(override.key_or_group)
    if key.startswith(HYDRA_KEYS) or override.is_add() or override.is_force_add():
        return None
    node: Any = base
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            names = [str(k) for k in node] if isinstance(node, DictConfig) else []
            allowed = ", ".join(n for n in names if n not in WRITTEN) or "none below it"
            return (
                f"{override.input_line}: unknown key {part!r}; allowed: "
                f"{allowed}{nearest(part, names)}"
            )
        node = node._get_node(part)
    return None


def one_line(error: Exception) -> str:
    """Return an exception's text on one line."""
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())
