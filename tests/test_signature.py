"""Signatures read from source: the rules that a value is held against."""

import ast
import math
import sys
from pathlib import Path

import pytest

from annorun.errors import ConfigError
from annorun.signature import fault, nearest, parameters


def rule(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        ("int", [0, -3], [True, 1.0, "1", None, [1]]),
        ("float", [0, 1.5, math.inf], [True, math.nan, "1", None]),
        ("str", ["", "x"], [1, None, True, ["x"]]),
        ("bool", [True, False], [0, 1, "true", None]),
        ("Positive", [1, 1e-300], [0, -1, math.inf, math.nan, "1", True]),
        ("NonNegative", [0, 2.5], [-1e-9, math.inf, math.nan]),
        ("Probability", [0, 1, 0.5], [1.0001, -0.1, math.nan, True]),
        ("Share", [0, 0.999], [1, -0.1, math.nan]),
        ("Count", [1, 10**30], [0, 1.0, True, "1"]),
        ("Natural", [0, 5], [-1, 0.0, False]),
        ("int | None", [1, None], ["x", 1.5]),
        ("Literal['a', 'b']", ["a", "b"], ["c", 1, None, ["a"], {"a": 1}]),
        ("Literal[1, 2]", [1, 2], [True, 1.0, "1"]),
        ("Literal['tiny'] | None", ["tiny", None], ["small"]),
        ("list[int]", [[], [1, 2]], [1, [1, "x"], "12", None]),
        ("tuple[Share, Share]", [[0.9, 0.999]], [[0.9], [0.9, 0.9, 0.9], 0.9, [0.9, 1]]),
        ("Tensor", [object(), 1], []),
        ("np.ndarray", [3], []),
    ],
)
def test_rules(annotation: str, good: list[object], bad: list[object]) -> None:
    for value in good:
        assert fault(value, rule(annotation)) is None, value
    for value in bad:
        assert fault(value, rule(annotation)), value


def test_no_annotation_allows_anything() -> None:
    assert fault(object(), None) is None


def test_the_nearest_word_stands_at_the_end() -> None:
    assert fault("tinny", rule("Literal['tiny', 'large'] | None")) == (
        "one of tiny, large or null; did you mean 'tiny'?"
    )


def test_nearest() -> None:
    assert nearest("reelm", ["realm", "oracle"]) == "; did you mean 'realm'?"
    assert nearest("zzz", ["realm", "oracle"]) == ""


SOURCE = '''
from json import decoder
from dataclasses import dataclass
from pathlib import Path


def function(first, second: int, *rest, third: str = "x", fourth: float, **more):
    """Takes things."""


class Base:
    def __init__(self, spec: dict, rate: float = 0.5):
        pass


class Heir(Base):
    pass


class Grown(Heir):
    extra: int = 3


class Other(Base):
    def __init__(self, only: int):
        pass


@dataclass
class Data:
    size: int
    name: str = "x"


@dataclass
class More(Data):
    last: bool = True


class Foreign(decoder.JSONDecoder, Unknown):
    pass


alias = Path
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of an importable package that breaks when it is executed."""
    name = f"annorun_signature_{tmp_path.name.replace('-', '_')}"
    folder = tmp_path / name
    (folder / "part").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('executed')")
    (folder / "part" / "__init__.py").write_text("raise RuntimeError('executed')")
    (folder / "part" / "code.py").write_text(SOURCE)
    (folder / "user.py").write_text(
        f"from {name}.part.code import Base as Renamed\nclass Far(Renamed):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    assert name not in sys.modules, "reading a signature has imported the package"


@pytest.mark.parametrize(
    ("target", "required", "optional"),
    [
        ("part.code.function", ["first", "second", "fourth"], ["third"]),
        ("part.code.Base", ["spec"], ["rate"]),
        ("part.code.Heir", ["spec"], ["rate"]),
        ("part.code.Grown", ["spec"], ["rate", "extra"]),
        ("part.code.Other", ["only"], []),
        ("part.code.Data", ["size"], ["name"]),
        ("part.code.More", ["size"], ["name", "last"]),
        ("part.code.Foreign", [], []),
        ("user.Far", ["spec"], ["rate"]),
    ],
)
def test_parameters(package: str, target: str, required: list[str], optional: list[str]) -> None:
    known = parameters(f"{package}.{target}")
    assert {k for k, p in known.items() if p.required} == set(required)
    assert {k for k, p in known.items() if not p.required} == set(optional)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("part.code.functoin", "has no 'functoin'; allowed: function, Base, "),
        ("part.code.functoin", "did you mean 'function'?"),
        ("part.code.alias", "has no 'alias'"),
        ("part.code.decoder", "has no 'decoder'"),
        ("part.cod.function", "there is no module"),
        ("part.cod.function", "did you mean 'code'?"),
        ("part.code.Base.__init__", "there is no module"),
        ("nosuch.x", "there is no module"),
    ],
)
def test_what_is_not_defined_there(package: str, target: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"_target_={package}.{target}: ") as error:
        parameters(f"{package}.{target}")
    assert words in str(error.value)


@pytest.mark.parametrize("target", ["", "annorun", "annorun.", ".x", "annorun..x", "no_such_top.x"])
def test_names_that_lead_nowhere(target: str) -> None:
    with pytest.raises(ConfigError):
        parameters(target)
