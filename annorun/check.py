"""Every fault of a composed config at once, found without importing torch or reading any data.

Works on plain dicts. A fault is one line: config path, the value, what is allowed.
"""

import ast
import os
import string
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from annorun.check_network import network_faults, place_faults
from annorun.errors import ConfigError
from annorun.signature import Parameter, fault, nearest, parameters

GROUPS = ("method", "dataset", "noise", "annotator_dist", "model_size", "trainer", "logger")
# keys of the config that are not a person's to set
WRITTEN = ("choices", "overrides")
# what the runner hands over, by node; a YAML must not
GIVEN: dict[str, set[str]] = {
    "dataset": {"rng"},
    "annotator_dist": {"n_items", "n_classes", "rng"},
    "noise": {"truth", "pool", "n_classes", "rng"},
    "method.aggregator": {"votes", "items", "rng", "known"},
    "method.module": {"spec", "network", "optimizer", "seed"},
    "method.episodes": set(),
}
# what tells a function for this node from any other
MUST_TAKE = {
    "noise": "truth",
    "method.aggregator": "votes",
    "method.module": "spec",
    "method.episodes": "way",
}
TEXT = {"prompt": "str", "max_length": "Count"}
DECLARED = {"dataset": {"kind": "Kind", "provides": "Provides", **TEXT}}
PROVIDES = ("truth", "votes", "groups", "soft", "explanations")
KINDS = ("choice", "text", "features", "image", "explain", "votes")


@cache
def plugins() -> tuple[str, ...]:
    """Return the packages that register themselves in the entry point group annorun.plugins."""
    names = {e.value.split(":")[0].split(".")[0] for e in entry_points(group="annorun.plugins")}
    return tuple(sorted(names))


def allowed_target(name: str) -> bool:
    """Say whether a dotted name lies where a `_target_` may lie."""
    roots = ["annorun", "torch.optim", "lightning.pytorch", *plugins()]
    return any(name == root or name.startswith(root + ".") for root in roots)


def faults(config: dict[str, Any]) -> list[str]:
    """Return what is wrong with a resolved config: names and types first, then the rest."""
    found = _top({k: v for k, v in config.items() if k not in GROUPS})
    for group in GROUPS:
        if not isinstance(config.get(group), dict):
            found.append(f"{group}: has no option; a group cannot be removed, only chosen")
    if found:
        return found
    found += _values("model_size", config["model_size"], "annorun.schema.ModelSize")
    found += _values("trainer", config["trainer"], "annorun.schema.Trainer")
    found += _values("logger", config["logger"], "annorun.schema.Logger")
    found += _values("method", config["method"], "annorun.schema.Method")
    for path in GIVEN:
        group, _, part = path.partition(".")
        node = config[group].get(part) if part else config[group]
        if node is not None:
            found += _node(path, node)
    return found or [*_pairs(config), *_files(config)]


def _top(keys: dict[str, Any]) -> list[str]:
    """Hold the keys that belong to no group against the schema."""
    known = parameters("annorun.schema.Run")
    # what a person can set; the rest of the schema is written by annorun or by a sweep file
    allowed = sorted([*GROUPS, *(k for k, p in known.items() if p.required and k not in WRITTEN)])
    found = [
        f"{key}={keys[key]}: unknown key; allowed: {', '.join(allowed)}{nearest(key, allowed)}"
        for key in keys
        if key not in known
    ]
    return found + _values("", {k: v for k, v in keys.items() if k in known}, "annorun.schema.Run")


def _values(path: str, node: dict[str, Any], schema: str) -> list[str]:
    return _against(path, node, parameters(schema), given=set())


def _against(
    path: str, node: dict[str, Any], known: dict[str, Parameter], given: set[str]
) -> list[str]:
    prefix = f"{path}." if path else ""
    found = []
    for key, value in node.items():
        if key not in known or key in given:
            near = nearest(key, sorted(known.keys() - given))
            allowed = ", ".join(sorted(known.keys() - given)) or "no key"
            found.append(f"{prefix}{key}={value}: unknown key; allowed: {allowed}{near}")
        elif value != "???" and (words := fault(value, known[key].annotation)):
            found.append(f"{prefix}{key}={value}: allowed is {words}")
    for key, parameter in known.items():
        if parameter.required and key not in node and key not in given:
            found.append(f"{prefix}{key}: missing; it must be given")
    return found


def _node(path: str, node: Any) -> list[str]:
    """Hold one `_target_` node against its target's signature."""
    if not isinstance(node, dict) or "_target_" not in node:
        return [f"{path}={node}: allowed is a mapping with a _target_"]
    target = node["_target_"]
    if not isinstance(target, str) or not allowed_target(target):
        roots = ", ".join(["annorun", "torch.optim", "lightning.pytorch", *plugins()])
        return [
            f"{path}._target_={target}: allowed are names in {roots} (plugins: annorun.plugins)"
        ]
    try:
        known = dict(parameters(target))
    except ConfigError as error:
        return [f"{path}.{line}" for line in error.faults]
    if path in MUST_TAKE and MUST_TAKE[path] not in known:
        return [f"{path}._target_={target}: takes no {MUST_TAKE[path]}; allowed is one that does"]
    for key, annotation in DECLARED.get(path, {}).items():
        known[key] = Parameter(ast.Name(id=annotation), required=False)
    arguments = {k: v for k, v in node.items() if k != "_target_"}
    found = _against(path, arguments, known, GIVEN[path])
    if path == "dataset":
        found += _declarations(node)
    for key in node:
        if key.startswith("_") and key != "_target_":
            found.append(f"{path}.{key}: allowed beside _target_ are arguments only")
    return found


def _declarations(dataset: dict[str, Any]) -> list[str]:
    found = []
    if dataset.get("kind") not in KINDS:
        found.append(f"dataset.kind={dataset.get('kind')}: allowed is one of {', '.join(KINDS)}")
    provides = dataset.get("provides")
    if not isinstance(provides, list) or not set(map(str, provides)) <= set(PROVIDES):
        found.append(f"dataset.provides={provides}: allowed is a list of {', '.join(PROVIDES)}")
    prompt, words = dataset.get("prompt"), ""
    if dataset.get("kind") == "choice" and not _takes(prompt, {"question", "options"}, {"context"}):
        words = "a text with {question} and {options}, and {context} if there is one"
    elif dataset.get("kind") == "explain" and not _takes(prompt, {"text"}):
        words = "a text with {text}"
    return [*found, *([f"dataset.prompt={prompt}: allowed is {words}"] if words else [])]


def _takes(
    prompt: Any, wanted: set[str], optional: frozenset[str] | set[str] = frozenset()
) -> bool:
    """Say whether what is wanted, and perhaps what is optional, can be filled in, no more."""
    try:
        parts = [part[1:] for part in string.Formatter().parse(prompt) if part[1] is not None]
    except (TypeError, ValueError):
        return False
    plain = all(not spec and conversion is None for _, spec, conversion in parts)
    return plain and {name for name, _, _ in parts} - optional == wanted


def _pairs(config: dict[str, Any]) -> list[str]:
    method, dataset, found = config["method"], config["dataset"], []
    name = {group: config["choices"].get(group, group) for group in GROUPS}
    kind, provides = dataset["kind"], dataset["provides"]
    if kind not in method["accepts"]:
        found.append(
            f"method={name['method']}: takes data of kind {', '.join(method['accepts'])}; "
            f"dataset={name['dataset']} is of kind {kind}"
        )
    real = config["annotator_dist"]["_target_"].endswith(".real")
    quiet = config["noise"]["_target_"] == "annorun.noise.none"
    if real and "votes" not in provides:
        found.append(
            f"annotator_dist={name['annotator_dist']}: "
            f"dataset={name['dataset']} has no votes of its own; allowed is a simulated pool"
        )
    if real and not quiet:
        found.append(
            f"noise={name['noise']}: annotator_dist={name['annotator_dist']} uses the data's own "
            "votes; allowed is noise=none"
        )
    if not real and "truth" not in provides:
        found.append(
            f"annotator_dist={name['annotator_dist']}: votes are simulated over the truth, and "
            f"dataset={name['dataset']} has none; allowed is annotator_dist=real"
        )
    grouped = config["annotator_dist"]["_target_"].endswith(".subpopulations")
    spam = config["noise"]["_target_"] == "annorun.noise.spam"
    if not real and "truth" in provides and len({grouped, spam, "groups" in provides}) > 1:
        found.append(
            f"annotator_dist={name['annotator_dist']} noise={name['noise']} "
            f"dataset={name['dataset']}: simulated groups want all three of them to know groups; "
            "allowed is annotator_dist=subpopulations noise=spam dataset=subpopulation_items, or "
            "none of these"
        )
    found += _matrices(config, name)
    missing = [n for n in method["needs"] if n not in provides and not (n == "votes" and not real)]
    if missing and not (missing == ["votes"] and real):
        found.append(
            f"method={name['method']}: needs {', '.join(missing)}; "
            f"dataset={name['dataset']} provides {', '.join(provides)}"
        )
    target = (method["module"] or {}).get("target")
    if target in ("hard", "soft", "groups") and method["aggregator"] is None:
        found.append(
            f"method.module.target={target}: method={name['method']} has no aggregator to learn "
            f"from; allowed is {'annotators' if target == 'groups' else 'votes or gold'}"
        )
    return found + network_faults(config, name)


def _matrices(config: dict[str, Any], name: dict[str, str]) -> list[str]:
    """Refuse mixtures of types that are none, matrices beside another noise, and the reverse."""
    pool, noise = config["annotator_dist"]["_target_"], config["noise"]["_target_"]
    has, draws = pool == "annorun.annotator_dist.types", noise == "annorun.noise.confusion"
    others = [f"annorun.noise.{option}" for option in ("uniform", "asymmetric", "systematic")]
    found = []
    if has:
        from annorun.annotator_dist import type_faults

        known = parameters("annorun.annotator_dist.type_faults")
        found += type_faults(**{k: v for k, v in config["annotator_dist"].items() if k in known})
    if has and noise in others:
        found.append(
            f"noise={name['noise']}: knows no confusion matrices, and "
            f"annotator_dist={name['annotator_dist']} is made of them; "
            "allowed is noise=confusion or none"
        )
    # a plugin's pool may have matrices; of ours, `real` is refused with any noise
    ours = [f"annorun.annotator_dist.{o}" for o in ("fixed", "linspace", "subpopulations")]
    if draws and pool in ours:
        found.append(
            f"noise={name['noise']}: annotator_dist={name['annotator_dist']} has no confusion "
            "matrices; allowed is expert_hammer_spammer, pair_flip or class_spammer"
        )
    episodes = config["method"].get("episodes")
    if episodes and config["method"]["aggregator"]:
        found.append("method.aggregator: a method over tasks adapts to each; allowed is null")
    if episodes and not (has and draws and config["annotator_dist"]["test"]):
        found.append(
            f"method={name['method']}: draws the annotators of each task (with "
            "method.episodes.real=true of each training task); allowed is noise=confusion with "
            "annotator_dist=expert_hammer_spammer, pair_flip or class_spammer, and one mixture or "
            "more in annotator_dist.test"
        )
    if episodes and episodes.get("real") is True and "votes" not in config["dataset"]["provides"]:
        found.append(
            f"method.episodes.real=true: dataset={name['dataset']} has no votes of its own; "
            "allowed is false"
        )
    return found


def _files(config: dict[str, Any]) -> list[str]:
    found = []
    path = config["dataset"].get("path")
    # what is not there may be on the hub, unless somebody says where it is
    given = any(line.startswith("dataset.path=") for line in config["overrides"])
    elsewhere = config["dataset"].get("hub") is not None and not given
    there = not isinstance(path, str) or path == "???" or Path(path).expanduser().exists()
    if not there and not elsewhere:
        found.append(
            f"dataset.path={path}: no such file or folder (below {Path.cwd()}); "
            "allowed is a path that exists, "
            "or set ANNORUN_DATA to the folder that holds the data sets "
            "(scripts/fetch_data.py lists what it gets)"
        )
    found += place_faults(config)
    name = Path(config["name"])
    if not name.parts or name.is_absolute() or ".." in name.parts:
        found.append(f"name={config['name']}: allowed is the name of a folder below out_root")
    root = Path(config["out_root"]).expanduser()
    blocking = next((p for p in [root, *root.parents] if p.exists()), root)
    if not blocking.is_dir() or not os.access(blocking, os.W_OK):
        found.append(
            f"out_root={config['out_root']}: {blocking} is no folder that can be written to"
        )
    return found
