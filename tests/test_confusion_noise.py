"""Votes drawn from confusion matrices: the rates of each row, what is planted, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from annorun.config import plain
from annorun.errors import ConfigError
from annorun.noise import confusion, none, planted_accuracy
from annorun.run import build
from annorun.seeds import rng
from annorun.votes import Pool

Compose = Callable[..., DictConfig]
CONF = Path(__file__).parents[1] / "conf" / "noise"
N = 60_000
# [annotator, true, observed]; no row is a column, no annotator errs by one shift: neither a
# transposed matrix nor a shifted one has these rates
RATES = np.array(
    [
        [[0.7, 0.2, 0.1], [0.0, 0.6, 0.4], [0.5, 0.0, 0.5]],
        [[0.1, 0.0, 0.9], [0.3, 0.3, 0.4], [0.0, 1.0, 0.0]],
    ]
)
POOL = Pool(RATES.diagonal(axis1=1, axis2=2).mean(axis=1), confusion=RATES)
TRUTH = np.random.default_rng(9).choice(3, size=N, p=[0.6, 0.3, 0.1])


@pytest.mark.parametrize("annotation", ["shared", "exclusive"])
def test_rates_are_the_rows_of_the_truth(annotation: Any) -> None:
    votes = confusion(
        truth=TRUTH, pool=POOL, n_classes=3, rng=np.random.default_rng(0), annotation=annotation
    )
    counts = np.zeros((2, 3, 3))
    np.add.at(counts, (votes.annotator, TRUTH[votes.item], votes.label), 1)
    assert counts.sum() == {"shared": 2 * N, "exclusive": N}[annotation]
    n = counts.sum(axis=2, keepdims=True)
    assert (np.abs(counts - n * RATES) <= 5 * np.sqrt(n * RATES * (1 - RATES))).all()
    assert (counts[RATES == 0] == 0).all()


def test_what_is_planted_is_the_diagonal_as_often_as_each_class_is() -> None:
    """Annotator 0: .6 x .7 + .3 x .6 + .1 x .5 = .65, and (.7 + .6 + .5) / 3 = .6 without truth.

    Annotator 1: .06 + .09 + 0 = .15, and .4 / 3.
    """
    truth = np.repeat([0, 1, 2], [6, 3, 1])
    asked: dict[str, Any] = {"pool": POOL, "n_classes": 3, "semantics": "confusion"}
    assert planted_accuracy(**asked, truth=truth) == pytest.approx([0.65, 0.15], abs=1e-12)
    assert planted_accuracy(**asked) == pytest.approx([0.6, 0.4 / 3], abs=1e-12)
    assert planted_accuracy(**asked) == pytest.approx(POOL.expertise, abs=1e-12)
    votes = confusion(truth=TRUTH, pool=POOL, n_classes=3, rng=np.random.default_rng(1))
    share = (votes.dense() == TRUTH[:, None]).mean(axis=0)
    planted = planted_accuracy(**asked, truth=TRUTH)
    assert share == pytest.approx(planted, abs=5 * 0.5 / np.sqrt(N))


def test_the_conf_file_tells_confusion_from_none() -> None:
    """Both take a pool of matrices; what is planted depends on the YAML keys alone."""
    right = {}
    for option in ("confusion", "none"):
        keys: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{option}.yaml"))
        assert keys.pop("_target_") == f"annorun.noise.{option}"
        right[option] = planted_accuracy(pool=POOL, n_classes=3, **keys)
    assert right["confusion"] == pytest.approx(POOL.expertise)
    assert right["none"].tolist() == [1, 1]
    votes = none(truth=TRUTH[:50], pool=POOL, n_classes=3, rng=np.random.default_rng(0))
    assert (votes.label == TRUTH[votes.item]).all()


def test_more_annotators_do_not_move_the_votes_of_the_first() -> None:
    one = Pool(POOL.expertise[:1], confusion=RATES[:1])
    first, both = (
        confusion(truth=TRUTH[:500], pool=p, n_classes=3, rng=np.random.default_rng(3)).dense()
        for p in (one, POOL)
    )
    assert (both[:, :1] == first).all()


@pytest.mark.parametrize(
    ("pool", "n_classes", "words"),
    [
        (Pool(np.array([0.9])), 3, "wants a pool of confusion matrices"),
        (POOL, 4, r"shape \(2, 3, 3\); allowed is \(2, 4, 4\)"),
        (Pool(np.ones(3), confusion=RATES), 3, r"allowed is \(3, 3, 3\)"),
    ],
)
def test_a_pool_without_fitting_matrices_is_refused(pool: Pool, n_classes: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        confusion(truth=TRUTH[:9], pool=pool, n_classes=n_classes, rng=np.random.default_rng(0))
    with pytest.raises(ConfigError, match=words):
        planted_accuracy(pool=pool, n_classes=n_classes, semantics="confusion")


TYPED = ["dataset=digits", "annotator_dist=expert_hammer_spammer", "noise=confusion"]


def drawn(cfg: DictConfig, truth: np.ndarray, **given: Any) -> tuple[Pool, np.ndarray]:
    """Return pool and dense votes of a config, seeded as a run does."""
    c = plain(cfg)
    seed = c["data_seed"]
    pool = build(c["annotator_dist"], n_classes=10, n_items=9, rng=rng(seed, "pool"), **given)
    votes = build(c["noise"], truth=truth, pool=pool, n_classes=10, rng=rng(seed, "noise"))
    return pool, votes.dense()


def test_the_data_seed_decides_the_votes(compose: Compose) -> None:
    truth = np.arange(200) % 10
    one, same, other = (
        drawn(compose(*TYPED, *words), truth)[1]
        for words in (["seed=0"], ["seed=1"], ["data_seed=1"])
    )
    assert (one == same).all() and (one != other).any()


def test_a_command_sets_a_share_or_all_of_them(compose: Compose) -> None:
    node = "annotator_dist"
    cfg = compose(*TYPED, f"{node}.train.hammer=0.5", f"{node}.train.pair_flip=0.2")
    assert cfg.annotator_dist.train.hammer == 0.5
    assert drawn(cfg, np.arange(10))[0].n_annotators == 5
    whole = "{expert:0,hammer:0,spammer:1,pair_flip:0,class_spammer:0}"
    pool, _ = drawn(compose(*TYPED, f"{node}.train={whole}"), np.arange(10))
    assert pool.expertise == pytest.approx(np.full(5, 0.1))
    cfg = compose(*TYPED, f"{node}.test=[{{expert:1}},{{spammer:.4,pair_flip:.6}}]")
    assert plain(cfg)[node]["test"] == [{"expert": 1}, {"spammer": 0.4, "pair_flip": 0.6}]
    # a caller's part, mixture and number of annotators go before the file's
    pool, _ = drawn(cfg, np.arange(10), part="test", mixture=0, n_annotators=7)
    assert pool.expertise == pytest.approx(np.full(7, 0.95))
    pool, _ = drawn(compose(*TYPED, f"{node}.test=[{{spammer:1}}]", f"{node}.part=test"), TRUTH)
    assert pool.expertise == pytest.approx(np.full(5, 0.1))


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["train.hamer=.5"], "unknown key 'hamer'.*did you mean 'hammer'"),
        (["+train.hamer=0"], "annotator_dist.train.hamer=0: unknown type.*did you mean 'hammer'"),
        (["test=[{hamer:1}]"], r"test\[0\].hamer=1: unknown type.*did you mean 'hammer'"),
        (["train.hammer=.5"], "annotator_dist.train=.*sum to 0.8; allowed is 1"),
        (["train.hammer=many"], "annotator_dist.train.hammer=many: allowed is a number"),
        (["train=5"], "annotator_dist.train=5"),
        (["test=5"], "annotator_dist.test=5: allowed is a list"),
        (["part=tset"], "annotator_dist.part=tset: allowed is one of train, test"),
        (["part=test", "mixture=4"], "annotator_dist.mixture=4: allowed is 0 or above and below 4"),
        (["hammer=[.6]"], r"annotator_dist.hammer=\[0.6\]: allowed is a list of 2"),
        (["hammer=[.8,.6]"], r"annotator_dist.hammer=\[0.8, 0.6\]: allowed is two numbers"),
        (["n_classes=3"], "unknown key 'n_classes'"),
        (["+n_classes=3"], "annotator_dist.n_classes=3: unknown key"),
        (["flip=2"], "annotator_dist.flip=2: allowed is a number in"),
    ],
)
def test_wrong_shares_are_refused_by_the_check(
    words: list[str], found: str, compose: Compose
) -> None:
    lines = [f"{'+' * w.startswith('+')}annotator_dist.{w.removeprefix('+')}" for w in words]
    with pytest.raises(ConfigError, match=found):
        compose(*TYPED, *lines)


@pytest.mark.parametrize("pool", ["expert_hammer_spammer", "pair_flip", "class_spammer"])
def test_matrices_go_with_confusion_or_none(pool: str, compose: Compose) -> None:
    for noise in ("confusion", "none"):
        compose("dataset=digits", f"annotator_dist={pool}", f"noise={noise}")
    for noise in ("uniform", "asymmetric", "systematic", "spam"):
        with pytest.raises(ConfigError, match=f"noise={noise}"):
            compose("dataset=digits", f"annotator_dist={pool}", f"noise={noise}")
    with pytest.raises(ConfigError, match="noise=uniform: knows no confusion matrices"):
        compose("dataset=digits", f"annotator_dist={pool}")


@pytest.mark.parametrize("pool", ["one_expert", "linspace", "subpopulations"])
def test_confusion_wants_matrices(pool: str, compose: Compose) -> None:
    with pytest.raises(ConfigError, match="has no confusion matrices; allowed is expert"):
        compose("dataset=digits", f"annotator_dist={pool}", "noise=confusion")
