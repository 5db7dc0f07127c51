"""What a function or class takes, read from its source: a refused config imports no torch.

An annotation is both documentation and rule: plain types, `Literal`, `X | None`, `list[X]`,
`tuple[X, Y]` and the names of `annorun.kinds`. Whatever else stands there (a tensor, a callable)
comes from the runner, not from a YAML.
"""

import ast
import importlib.util
import math
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from annorun.errors import ConfigError
from annorun.kinds import RULES


@dataclass(frozen=True)
class Parameter:
    """One argument: its annotation as a syntax tree, and whether it may be left out."""

    annotation: ast.expr | None
    required: bool


def nearest(word: str, allowed: list[str]) -> str:
    """Return "; did you mean 'x'?" for the nearest allowed word, or "" when none is near."""
    match = get_close_matches(word, allowed, n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else ""


def _source(module: str) -> Path | None:
    """Return the file of a dotted module; the top package is located, nothing is executed."""
    head, *rest = module.split(".")
    spec = importlib.util.find_spec(head)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin)
    if rest:
        stem = path.parent.joinpath(*rest)
        path = (
            stem.with_suffix(".py") if stem.with_suffix(".py").is_file() else stem / "__init__.py"
        )
    return path if path.is_file() else None


@cache
def parameters(target: str) -> dict[str, Parameter]:
    """Return the parameters of a dotted function or class, by name.

    Raises:
        ConfigError: there is no such module, or it defines no such name.
    """
    module, _, name = target.rpartition(".")
    path = _source(module) if module else None
    if path is None:
        raise ConfigError(f"_target_={target}: there is no module {module!r}{_near_module(module)}")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    found = {n.name: n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    if name not in found:
        words = [n for n in found if not n.startswith("_")]
        allowed = ", ".join(words) or "nothing in it"
        raise ConfigError(
            f"_target_={target}: {module} has no {name!r}; allowed: {allowed}{nearest(name, words)}"
        )
    node = found[name]
    if isinstance(node, ast.FunctionDef):
        return _of_function(node)
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            return {k: v for k, v in _of_function(part).items() if k != "self"}
    return _of_bases(node, module, body) | {
        part.target.id: Parameter(part.annotation, required=part.value is None)
        for part in node.body
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
    }


def _of_bases(node: ast.ClassDef, module: str, body: list[ast.stmt]) -> dict[str, Parameter]:
    """Return what a class without an `__init__` takes from its bases, where these can be read."""
    imported = {
        alias.asname or alias.name: f"{part.module}.{alias.name}"
        for part in body
        if isinstance(part, ast.ImportFrom) and part.module and not part.level
        for alias in part.names
    }
    result: dict[str, Parameter] = {}
    for base in reversed(node.bases):
        if isinstance(base, ast.Name):
            try:
                result |= parameters(imported.get(base.id, f"{module}.{base.id}"))
            except ConfigError:
                continue
    return result


def _near_module(module: str) -> str:
    """Return "; did you mean 'x'?" for the nearest module beside one that does not exist."""
    parent, _, name = module.rpartition(".")
    package = _source(parent) if parent else None
    if package is None or package.name != "__init__.py":
        return ""
    beside = [p.stem for p in package.parent.iterdir() if p.suffix == ".py" or p.is_dir()]
    return nearest(name, sorted(w for w in beside if not w.startswith("_")))


def _of_function(node: ast.FunctionDef) -> dict[str, Parameter]:
    arguments = node.args.posonlyargs + node.args.args
    first_default = len(arguments) - len(node.args.defaults)
    result = {a.arg: Parameter(a.annotation, i < first_default) for i, a in enumerate(arguments)}
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        result[argument.arg] = Parameter(argument.annotation, default is None)
    return result


def fault(value: Any, annotation: ast.expr | None) -> str | None:
    """Return what would be allowed instead of `value`, or None when it is allowed."""
    match annotation:
        case None:
            return None
        case ast.Constant(value=None):
            return None if value is None else "null"
        case ast.BinOp(left=left, right=right):
            faults = [fault(value, left), fault(value, right)]
            if None in faults:
                return None
            # the nearest name goes to the end
            words = [str(f).split("; did you mean") for f in faults]
            near = "".join(f"; did you mean{hint}" for w in words for hint in w[1:])
            return " or ".join(w[0] for w in words) + near
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            choices = [
                ast.literal_eval(e)
                for e in (inner.elts if isinstance(inner, ast.Tuple) else [inner])
            ]
            if value in choices and type(value) in {type(c) for c in choices}:
                return None
            near = nearest(value, [str(c) for c in choices]) if isinstance(value, str) else ""
            return "one of " + ", ".join(str(c) for c in choices) + near
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            if not isinstance(value, list):
                return "a list"
            return next((f"a list of {f}" for v in value if (f := fault(v, inner))), None)
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=elements)):
            if not isinstance(value, list | tuple) or len(value) != len(elements):
                return f"a list of {len(elements)}"
            return next(
                (f for v, e in zip(value, elements, strict=True) if (f := fault(v, e))), None
            )
        case ast.Name(id=name):
            return _plain(value, name)
    return None


def _plain(value: Any, name: str) -> str | None:
    if name in RULES:
        kind, holds, words = RULES[name]
        ok = _is(value, kind) and not math.isnan(value) and holds(value)
        return None if ok else words
    named = {
        "int": "an integer",
        "float": "a number",
        "str": "a text",
        "bool": "true or false",
        "dict": "a mapping",
    }
    types: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool, "dict": dict}
    if name not in types:
        return None
    if not _is(value, types[name]) or (name == "float" and math.isnan(value)):
        return named[name]
    return None


def _is(value: Any, kind: type) -> bool:
    """Say whether value is of the kind: an int is a number, a bool is not."""
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)
