"""The pools: the values that were asked for, one an annotator."""

from pathlib import Path

import numpy as np
import pytest

from annorun.annotator_dist import TYPES, fixed, linspace, real, types
from annorun.errors import ConfigError
from annorun.noise import planted_accuracy

CONF = Path(__file__).parents[1] / "conf" / "annotator_dist"
# option -> whose share grows over its test mixtures
ODD = {"expert_hammer_spammer": "spammer", "pair_flip": "pair_flip"}
ODD |= {"class_spammer": "class_spammer"}


def test_fixed_keeps_values_and_order():
    pool = fixed([0.9, 0.1, 0.5])
    assert pool.expertise.tolist() == [0.9, 0.1, 0.5]
    assert pool.expertise.dtype == "float64"
    assert pool.n_annotators == 3


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, [0.9]), (2, [0.9, 0.1]), (3, [0.9, 0.5, 0.1]), (5, [0.9, 0.7, 0.5, 0.3, 0.1])],
)
def test_linspace_spaces_evenly_from_the_top(n, expected):
    assert linspace(n, 0.9, 0.1).expertise.tolist() == pytest.approx(expected, abs=1e-15)


def test_linspace_may_be_flat_at_the_ends_of_the_range():
    assert linspace(7, 1.0, 1.0).expertise.tolist() == [1.0] * 7
    assert linspace(7, 0.0, 0.0).expertise.tolist() == [0.0] * 7


def test_every_fault_is_named_at_once():
    with pytest.raises(ConfigError) as caught:
        fixed([0.9, 1.5, -0.1, float("nan")])
    assert [fault.split(":")[0] for fault in caught.value.faults] == [
        f"annotator_dist.expertise[{m}]" for m in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    "wrong", [lambda: fixed([]), lambda: linspace(0, 0.9, 0.1), lambda: linspace(3, 1.1, 0.1)]
)
def test_impossible_pools_are_refused(wrong):
    with pytest.raises(ConfigError):
        wrong()


def test_real_plants_nothing():
    assert real() is None


def test_conf_files_hold_the_distributions_of_the_paper():
    omegaconf = pytest.importorskip("omegaconf")
    expected = {
        "one_expert": [0.9, 0.1, 0.1],
        "two_experts": [0.9, 0.9, 0.1],
        "spread": [0.9, 0.5, 0.1],
        "linspace": [0.9, 0.5, 0.1],
        "one_label": [1.0],
        "real": None,
    }
    files = {file.stem: file for file in CONF.glob("*.yaml")}
    # random: tests/test_spam_noise.py, and below
    for name in ("subpopulations", *ODD):
        del files[name]
    assert files.keys() == expected.keys()
    for name, values in expected.items():
        keys = omegaconf.OmegaConf.to_container(omegaconf.OmegaConf.load(files[name]))
        target = {"fixed": fixed, "linspace": linspace, "real": real}
        pool = target[keys.pop("_target_").removeprefix("annorun.annotator_dist.")](**keys)
        assert (pool and pytest.approx(values) == pool.expertise.tolist()) or values is None
        assert files[name].read_text().startswith("# ")


def test_planted_accuracy_takes_a_pool():
    right = planted_accuracy(pool=fixed([0.9, 0.1]), n_classes=4, semantics="mixture")
    assert right.tolist() == pytest.approx([0.925, 0.325])


def crowd(train, n=1, n_classes=4, seed=0, test=(), **keys):
    """Return a pool; `train` is a mixture, or the one type that all are of."""
    return types(
        n_classes=n_classes,
        rng=np.random.default_rng(seed),
        n_annotators=n,
        train={train: 1.0} if isinstance(train, str) else train,
        test=list(test),
        **keys,
    )


# [true, observed], worked out by hand for K = 4: what is not right falls on the other three alike;
# a pair flipper's .4 on the next class, of the last class on the first
MATRICES = {
    "expert": [
        [0.94, 0.02, 0.02, 0.02],
        [0.02, 0.94, 0.02, 0.02],
        [0.02, 0.02, 0.94, 0.02],
        [0.02, 0.02, 0.02, 0.94],
    ],
    "spammer": [[0.25] * 4] * 4,
    "pair_flip": [[0.6, 0.4, 0, 0], [0, 0.6, 0.4, 0], [0, 0, 0.6, 0.4], [0.4, 0, 0, 0.6]],
    "hammer": [
        [0.7, 0.1, 0.1, 0.1],
        [0.1, 0.7, 0.1, 0.1],
        [0.1, 0.1, 0.7, 0.1],
        [0.1, 0.1, 0.1, 0.7],
    ],
}


@pytest.mark.parametrize("name", MATRICES)
def test_the_matrix_of_each_type(name):
    pool = crowd(name, 3, expert=0.94, hammer=(0.7, 0.7))
    assert pool.confusion.shape == (3, 4, 4)
    for matrix in pool.confusion:
        assert matrix == pytest.approx(np.array(MATRICES[name]), abs=1e-12)
    assert pool.expertise == pytest.approx(np.full(3, MATRICES[name][0][0]), abs=1e-12)


def test_a_hammers_diagonal_is_uniform_in_its_range_and_the_same_for_all_classes():
    """U(.6, .8) has the mean .7 and the variance .04 / 12; 5 standard errors of each."""
    n = 40_000
    confusion = crowd("hammer", n, 3, hammer=(0.6, 0.8)).confusion
    right = confusion[:, 0, 0]
    assert (confusion.diagonal(axis1=1, axis2=2) == right[:, None]).all()
    wrong = confusion[:, ~np.eye(3, dtype=bool)]
    assert wrong == pytest.approx(np.repeat((1 - right)[:, None] / 2, 6, axis=1), abs=1e-12)
    assert 0.6 <= right.min() < 0.601 and 0.799 < right.max() <= 0.8
    assert right.mean() == pytest.approx(0.7, abs=5 * np.sqrt(0.04 / 12 / n))
    # fourth central moment of a uniform of width w: w^4 / 80
    assert right.var() == pytest.approx(0.04 / 12, abs=5 * 0.04 * np.sqrt((1 / 80 - 1 / 144) / n))


@pytest.mark.parametrize(
    ("n_classes", "spammed", "n_unknown"), [(4, 0.5, 2), (5, 0.2, 1), (4, 0.1, 1), (3, 1.0, 3)]
)
def test_a_class_spammer_knows_all_but_some_classes(n_classes, spammed, n_unknown):
    confusion = crowd("class_spammer", 200, n_classes, spammed=spammed).confusion
    clean = (confusion == np.eye(n_classes)).all(axis=2)
    anything = (np.abs(confusion - 1 / n_classes) < 1e-12).all(axis=2)
    assert (clean ^ anything).all()
    assert (anything.sum(axis=1) == n_unknown).all()


def test_a_class_spammers_classes_are_any_pair_alike():
    n = 12_000
    unknown = crowd("class_spammer", n).confusion.diagonal(axis1=1, axis2=2) < 1
    pairs = np.bincount(unknown @ (2 ** np.arange(4)), minlength=16)
    # 6 pairs of 4 classes
    assert np.flatnonzero(pairs).tolist() == [3, 5, 6, 9, 10, 12]
    assert np.abs(pairs[pairs > 0] - n / 6).max() < 5 * np.sqrt(n * 5 / 36)


def test_with_two_classes():
    """Next and any other class are one; of a class spammer's two classes he knows one."""
    expert = crowd("expert", 1, 2).confusion[0]
    assert expert == pytest.approx(np.array([[0.95, 0.05], [0.05, 0.95]]), abs=1e-12)
    flip = crowd("pair_flip", 1, 2, flip=0.3).confusion[0]
    assert flip == pytest.approx(np.array([[0.7, 0.3], [0.3, 0.7]]), abs=1e-12)
    halves = crowd("class_spammer", 50, 2).confusion
    assert {tuple(map(tuple, m)) for m in halves.tolist()} == {
        ((0.5, 0.5), (0.0, 1.0)),
        ((1.0, 0.0), (0.5, 0.5)),
    }


@pytest.mark.parametrize("n_classes", [2, 4, 10])
def test_the_shares_of_the_types_are_those_asked_and_rows_sum_to_one(n_classes):
    """An expert is right in .95, a hammer below .8, a pair flipper never says the class before."""
    n, asked = 20_000, [0.1, 0.3, 0.15, 0.25, 0.2]
    shares = dict(zip(TYPES, asked, strict=True))
    confusion = crowd(shares, n, n_classes, flip=0.45).confusion
    assert (confusion >= 0).all()
    assert confusion.sum(axis=2) == pytest.approx(np.ones((n, n_classes)), abs=1e-12)
    diagonal = confusion.diagonal(axis1=1, axis2=2)
    found = [
        np.isclose(diagonal, 0.95).all(axis=1),
        ((diagonal >= 0.6) & (diagonal <= 0.8)).all(axis=1),
        np.isclose(diagonal, 1 / n_classes).all(axis=1),
        np.isclose(diagonal, 0.55).all(axis=1),
        (diagonal == 1).any(axis=1),
    ]
    assert (np.sum(found, axis=0) == 1).all()
    counts, expected = np.sum(found, axis=1), n * np.array(asked)
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected * (1 - np.array(asked)))).all()


def test_part_and_mixture_choose_the_shares():
    test = [{"expert": 1}, {"spammer": 1.0}, {"pair_flip": 1.0}]
    drawn = [crowd("hammer", 5, test=test, part="test", mixture=i).expertise for i in range(3)]
    drawn.append(crowd("hammer", 5, test=test).expertise)
    assert np.array(drawn[:3]) == pytest.approx(np.repeat([[0.95], [0.25], [0.6]], 5, axis=1))
    assert ((drawn[3] > 0.6) & (drawn[3] < 0.8)).all()
    assert len(set(drawn[3])) == 5


def test_the_generator_decides_the_crowd():
    mixed = {"expert": 0.2, "hammer": 0.4, "class_spammer": 0.4}
    one, same, other = (crowd(mixed, 30, seed=seed).confusion for seed in (0, 0, 1))
    assert (one == same).all() and (one != other).any()


def test_every_fault_of_the_types_is_named_at_once():
    with pytest.raises(ConfigError) as caught:
        types(
            n_classes=1,
            rng=np.random.default_rng(0),
            n_annotators=3,
            train={"expert": 0.1, "hamer": 0.9},
            test=[{"expert": 0.5}, {"hammer": 1.5}, 7, {"spammer": None}],
            hammer=(0.8, 0.6),
            part="test",
            mixture=4,
        )
    faults = caught.value.faults
    assert [fault.split("=")[0].removeprefix("annotator_dist") for fault in faults[:-1]] == [
        *(".train.hamer", ".test[0]", ".test[1].hammer", ".test[2]", ".test[3].spammer"),
        *(".mixture", ".hammer"),
    ]
    assert faults[0].endswith("did you mean 'hammer'?")
    assert "sum to 0.5" in faults[1]
    assert "below 4" in faults[5]
    assert "1 classes" in faults[7]
    with pytest.raises(ConfigError, match="below 1, the number of mixtures"):
        crowd("expert", mixture=1)


def test_conf_files_hold_the_mixtures_of_the_paper():
    omegaconf = pytest.importorskip("omegaconf")
    for name, odd in ODD.items():
        keys = omegaconf.OmegaConf.to_container(omegaconf.OmegaConf.load(CONF / f"{name}.yaml"))
        assert keys.pop("_target_") == "annorun.annotator_dist.types"
        train = {k: share for k, share in keys["train"].items() if share}
        assert train == {"expert": 0.1, "hammer": 0.7, "spammer": 0.2}
        assert list(keys["train"]) == list(TYPES)
        assert keys["test"] == [
            {"expert": 0.1, "hammer": h, odd: s}
            for h, s in [(0.8, 0.1), (0.7, 0.2), (0.6, 0.3), (0.5, 0.4)]
        ]
        for i in range(4):
            rng = np.random.default_rng(i)
            pool = types(n_classes=4, rng=rng, **keys | {"part": "test", "mixture": i})
            assert pool.confusion.shape == (5, 4, 4)
