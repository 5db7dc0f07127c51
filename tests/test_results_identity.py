"""A run's identity, key by key: what moves it, what does not, and that files count by content."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from annorun import config, results
from annorun.check_network import ALL, family

Compose = Callable[..., DictConfig]
# of a sweep file: what its table shows
SWEEP = {
    "also": ["another"],
    "smoke": ["seed=0"],
    "keys": ["method"],
    "metric": "test/acc",
    "figures": {"grid": "lines"},
    "compare": {"method": "nutmeg"},
    "folds": "dataset.fold",
}
SIZES = {f"model_size.{name}" for name in ALL}
# overrides of a config, its family, and the keys that a run of it does not use
CASES = {
    "image": (
        ["dataset=digits"],
        "image",
        SIZES - {"model_size.image"} | {"model_size.pooling", "model_size.lora"},
    ),
    "episodes": (
        [
            *("dataset=digits", "method=meta_em", "noise=confusion"),
            "annotator_dist=expert_hammer_spammer",
        ],
        "image",
        SIZES - {"model_size.image"} | {"model_size.pooling", "model_size.lora"},
    ),
    "seq2seq": (
        ["dataset=synthetic_qa"],
        "seq2seq",
        SIZES - {"model_size.seq2seq"} | {"model_size.pooling"},
    ),
    "encoder": (
        ["dataset=synthetic_qa", "method=mace", "model_size.family=encoder"],
        "encoder",
        # of a prompt it takes the context or leaves it
        SIZES - {"model_size.encoder"} | {"dataset.prompt"},
    ),
    "causal": (
        ["dataset=synthetic_styles", "method=capo", "model_size=tiny"],
        "causal",
        SIZES - {"model_size.causal"} | {"model_size.pooling"},
    ),
}


def leaves(node: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every value; a list is one value."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def with_value(node: dict[str, Any], path: tuple[str, ...], change: Callable[[Any], Any]) -> Any:
    """Return a copy of a config with one value changed."""
    key, *rest = path
    value = with_value(node[key], tuple(rest), change) if rest else change(node[key])
    return node | {key: value}


def another(value: Any) -> Any:
    """Return a value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return [*value, 1] if isinstance(value, list) else f"{value}x"


def same_identity(c: dict[str, Any]) -> set[str]:
    """Return the keys whose change leaves the identity."""
    base = results.identity(c)
    # what chooses the network: below
    choosing = (("model_size", "family"), ("dataset", "kind"), ("method", "module"))
    paths = [path for path in leaves(c) if path not in choosing]
    assert len(paths) > 50
    return {".".join(p) for p in paths if results.identity(with_value(c, p, another)) == base}


def of_no_result(c: dict[str, Any]) -> set[str]:
    """Return the keys that no run's result depends on."""
    names = {"name", "out_root", "mode", "overrides", "trainer.accelerator", "trainer.threads"}
    return (
        names
        | {".".join(path) for path in leaves(SWEEP)}
        | {f"{group}.{key}" for group in ("choices", "logger") for key in c[group]}
    )


@pytest.mark.parametrize("case", CASES)
def test_every_key_that_can_change_the_result_moves_the_identity(
    compose: Compose, case: str
) -> None:
    overrides, used, unused = CASES[case]
    c = config.plain(compose(*overrides)) | SWEEP
    assert family(c) == used
    assert same_identity(c) == of_no_result(c) | unused


def test_without_a_network_neither_network_nor_trainer_count(compose: Compose) -> None:
    c = config.plain(compose("dataset=digits", "method=mace", "method.module=null")) | SWEEP
    of_network = {f"{group}.{key}" for group in ("trainer", "model_size") for key in c[group]}
    assert same_identity(c) == (of_no_result(c) | of_network) - {"model_size.family"}
    assert results.identity(with_value(c, ("model_size", "family"), another)) == (
        results.identity(c)
    )


def test_the_kind_of_the_data_counts(compose: Compose) -> None:
    c = config.plain(compose("dataset=digits"))
    kinds = {
        results.identity(with_value(c, ("dataset", "kind"), lambda _, k=kind: k))
        for kind in ("image", "features", "text")
    }
    assert len(kinds) == 3


def test_a_chosen_family_is_the_one_that_auto_finds(compose: Compose) -> None:
    """Tiny names three networks of questions: auto takes the first."""
    automatic, *chosen = (
        results.identity(config.plain(compose("dataset=synthetic_qa", f"model_size.family={f}")))
        for f in ("auto", "seq2seq", "encoder", "causal")
    )
    assert chosen[0] == automatic
    assert len({*chosen}) == 3


def test_of_a_prompt_an_encoder_sees_whether_it_shows_the_context(compose: Compose) -> None:
    c = config.plain(compose(*CASES["encoder"][0]))

    def identity(prompt: str) -> str:
        return results.identity(with_value(c, ("dataset", "prompt"), lambda _: prompt))

    assert identity("{options} {question}") == identity("Q: {question} A: {options}")
    assert identity("{context} {options} {question}") != identity("{options} {question}")


def test_the_order_of_the_keys_does_not_count(compose: Compose) -> None:
    def backwards(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: backwards(node[key]) for key in reversed(node)}
        return node

    c = config.plain(compose("dataset=digits"))
    assert list(backwards(c)["trainer"]) != list(c["trainer"])
    assert results.identity(backwards(c)) == results.identity(c)


@pytest.mark.parametrize(
    "path",
    [
        ("model_size", "encoder"),
        ("method", "module", "encoder"),
        ("method", "module", "llm"),
        ("method", "module", "personas"),
    ],
    ids=".".join,
)
def test_a_network_and_personas_count_by_content_and_not_by_place(
    compose: Compose, tmp_path: Path, path: tuple[str, ...]
) -> None:
    c = config.plain(compose(*CASES["encoder"][0]))
    for key in ("encoder", "llm", "personas"):
        c["method"]["module"][key] = None
    found = []
    for folder, content in {"a": "one", "b": "one", "c": "two"}.items():
        place = tmp_path / folder
        place.mkdir()
        (place / "config.json").write_text(content)
        place = place / "config.json" if path[-1] == "personas" else place
        found.append(results.identity(with_value(c, path, lambda _, p=place: str(p))))
    assert found[0] == found[1] != found[2]
    # and one that is named is not one that is not
    assert results.identity(c) not in found


def test_only_the_source_that_is_read_counts(compose: Compose, tmp_path: Path) -> None:
    """A path that is there is read, and then the hub's name is nothing; else the hub's data are."""
    c = config.plain(compose("dataset=digits"))
    here, gone = tmp_path / "here", tmp_path / "gone"
    for folder, content in ((here, "one"), (tmp_path / "hub", "two"), (tmp_path / "hub3", "3")):
        folder.mkdir()
        (folder / "x.csv").write_text(content)

    def identity(path: Path, hub: str) -> str:
        return results.identity(c | {"dataset": c["dataset"] | {"path": str(path), "hub": hub}})

    assert identity(here, "a/b") == identity(here, "c/d")
    assert identity(gone, "a/b") == identity(tmp_path / "gone too", "a/b")
    assert identity(gone, "a/b") != identity(gone, "c/d")
    assert identity(gone, "a/b") != identity(here, "a/b")
    # a folder in the hub's place is read, and its content counts
    by_folder = identity(gone, str(tmp_path / "hub"))
    assert by_folder not in (identity(gone, str(tmp_path / "hub3")), identity(gone, "a/b"))
    (tmp_path / "hub").rename(tmp_path / "moved")
    assert identity(gone, str(tmp_path / "moved")) == by_folder
