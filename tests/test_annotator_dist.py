"""The pools: the values that were asked for, one an annotator."""

from pathlib import Path

import pytest

from annorun.annotator_dist import fixed, linspace, real
from annorun.errors import ConfigError
from annorun.noise import planted_accuracy

CONF = Path(__file__).parents[1] / "conf" / "annotator_dist"


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
        "real": None,
    }
    files = {file.stem: file for file in CONF.glob("*.yaml")}
    # random: tests/test_spam_noise.py
    del files["subpopulations"]
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
