"""The rates drawn are the rates asked for, per annotator, true class and observed class."""

from pathlib import Path

import numpy as np
import pytest

from annorun import noise
from annorun.errors import ConfigError
from annorun.votes import Pool

CONF = Path(__file__).parents[1] / "conf" / "noise"
N = 300_000


def pool(*expertise):
    return Pool(np.array(expertise))


def draw(option, rho, n_classes, seed=0, n_items=N, **keys):
    truth = np.random.default_rng(99).integers(n_classes, size=n_items)
    rng = np.random.default_rng(seed)
    votes = getattr(noise, option)(
        truth=truth, pool=pool(*rho), n_classes=n_classes, rng=rng, **keys
    )
    return truth, votes


def confusion_counts(truth, votes):
    counts = np.zeros((votes.n_annotators, votes.n_classes, votes.n_classes))
    np.add.at(counts, (votes.annotator, truth[votes.item], votes.label), 1)
    return counts


# law of (label - truth) mod K, one row an annotator, worked out by hand:
# - uniform K = 4, rho = .7: .3 / 3 = .1 each; mixture: .7 + .3/4 = .775, errors .3/4 = .075 each
# - asymmetric, lambda 5, K = 4: the next class has 5/7 of the errors, the other two 1/7 each
# - systematic, distinct, K = 4: offsets 1 + 1%3, 1 + 2%3, 1 + 3%3 = 2, 3, 1
# - systematic, naive, K = 3: offsets 1, 2, 3 = 0: the third is always right
LAWS = [
    ("none", [0.9, 0.1], 3, {}, [[1, 0, 0], [1, 0, 0]]),
    ("uniform", [0.7, 0.1], 4, {}, [[0.7, 0.1, 0.1, 0.1], [0.1, 0.3, 0.3, 0.3]]),
    (
        "uniform",
        [0.7, 0.0],
        4,
        {"semantics": "mixture"},
        [[0.775, 0.075, 0.075, 0.075], [0.25] * 4],
    ),
    ("uniform", [0.9, 0.1], 2, {}, [[0.9, 0.1], [0.1, 0.9]]),
    (
        "asymmetric",
        [0.3, 0.0],
        4,
        {},
        [[0.3, 0.5, 0.1, 0.1], [0, 5 / 7, 1 / 7, 1 / 7]],
    ),
    (
        "asymmetric",
        [0.2],
        5,
        {"weight": 0.5, "semantics": "mixture"},
        # .2 + .8/5 = .36; the errors .64 in the shares .5 : 1 : 1 : 1
        [[0.36, 0.64 / 7, 1.28 / 7, 1.28 / 7, 1.28 / 7]],
    ),
    (
        "systematic",
        [0.9, 0.5, 0.1],
        4,
        {},
        [[0.9, 0, 0.1, 0], [0.5, 0, 0, 0.5], [0.1, 0.9, 0, 0]],
    ),
    (
        "systematic",
        [0.9, 0.5, 0.1],
        3,
        {"offset": "naive"},
        [[0.9, 0.1, 0], [0.5, 0, 0.5], [1, 0, 0]],
    ),
    ("systematic", [0.4], 4, {"semantics": "mixture"}, [[0.55, 0, 0.45, 0]]),
    ("systematic", [0.9, 0.1, 0.2], 2, {}, [[0.9, 0.1], [0.1, 0.9], [0.2, 0.8]]),
]


@pytest.mark.parametrize("annotation", ["shared", "exclusive"])
@pytest.mark.parametrize(("option", "rho", "n_classes", "keys", "law"), LAWS)
def test_drawn_rates_are_the_rates_asked(option, rho, n_classes, keys, law, annotation):
    truth, votes = draw(option, rho, n_classes, annotation=annotation, **keys)
    law = np.array(law)
    shift = (np.arange(n_classes) - np.arange(n_classes)[:, None]) % n_classes  # [true, observed]
    expected = law[:, shift]
    counts = confusion_counts(truth, votes)
    n = counts.sum(axis=2, keepdims=True)
    sigma = np.sqrt(n * expected * (1 - expected))
    assert (np.abs(counts - n * expected) <= 5 * sigma).all()
    assert (counts[expected == 0] == 0).all()
    # as a YAML states them: every key of the option, also those left at their default
    stated = {"none": {}, "systematic": {"semantics": "accuracy", "offset": "distinct"}}
    planted = noise.planted_accuracy(
        pool=pool(*rho),
        n_classes=n_classes,
        **stated.get(option, {"semantics": "accuracy"}) | keys,
    )
    assert planted == pytest.approx(law[:, 0], abs=1e-12)


def test_asymmetric_errors_are_71_to_29_with_four_classes():
    truth, votes = draw("asymmetric", [0.0], 4)
    share = np.mean(votes.label == (truth[votes.item] + 1) % 4)
    assert share == pytest.approx(0.714, abs=5 * np.sqrt(0.714 * 0.286 / N))


def test_asymmetric_is_uniform_with_two_classes():
    for one, other in zip(
        draw("asymmetric", [0.9, 0.1], 2)[1].dense().T,
        draw("uniform", [0.9, 0.1], 2)[1].dense().T,
        strict=True,
    ):
        assert (one == other).all()


def test_annotators_err_independently_of_each_other():
    truth, votes = draw("uniform", [0.5, 0.5, 0.5], 4)
    right = votes.dense() == truth[:, None]
    off_diagonal = np.corrcoef(right.T)[np.triu_indices(3, 1)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(N)


def test_shared_everyone_labels_everything():
    _, votes = draw("uniform", [0.9, 0.1, 0.1], 4, n_items=100)
    assert len(votes) == 300
    assert (votes.dense() >= 0).all()


@pytest.mark.parametrize("option", ["none", "uniform", "asymmetric", "systematic"])
def test_exclusive_is_a_balanced_random_partition(option):
    _, votes = draw(option, [0.9, 0.1, 0.1], 4, n_items=10_000, annotation="exclusive")
    assert votes.item.tolist() == list(range(10_000))
    assert sorted(np.bincount(votes.annotator).tolist()) == [3333, 3333, 3334]
    # at random: the runs of equal annotators along the items are as long as chance makes them
    same = np.mean(np.diff(votes.annotator) == 0)
    assert same == pytest.approx(1 / 3, abs=5 * np.sqrt(2 / 9 / 10_000))
    _, again = draw(option, [0.9, 0.1, 0.1], 4, seed=1, n_items=10_000, annotation="exclusive")
    assert (again.annotator != votes.annotator).any()


@pytest.mark.parametrize("annotation", ["shared", "exclusive"])
def test_the_seed_decides_the_votes(annotation):
    one, same, other = (
        draw("uniform", [0.5, 0.5], 3, seed=seed, n_items=1000, annotation=annotation)[1]
        for seed in (0, 0, 1)
    )
    assert (one.label == same.label).all() and (one.annotator == same.annotator).all()
    assert (one.label != other.label).any()


def test_more_annotators_do_not_move_the_votes_of_the_first():
    few = draw("asymmetric", [0.5, 0.4], 4, n_items=1000)[1].dense()
    many = draw("asymmetric", [0.5, 0.4, 0.3, 0.2], 4, n_items=1000)[1].dense()
    assert (many[:, :2] == few).all()


@pytest.mark.parametrize(
    ("truth", "n_classes", "words"),
    [
        (np.array([0, 1, -1]), 2, "item 2 is unknown"),
        (np.array([0, 3, 1]), 3, "item 1 is 3"),
        (np.zeros((4, 2), dtype=np.int64), 3, "shape"),
        (np.array([0, 0]), 1, "at least 2"),
    ],
)
def test_what_cannot_be_simulated_is_refused(truth, n_classes, words):
    with pytest.raises(ConfigError, match=words):
        noise.uniform(
            truth=truth, pool=pool(0.9), n_classes=n_classes, rng=np.random.default_rng(0)
        )


def test_conf_files_give_what_their_function_plants():
    omegaconf = pytest.importorskip("omegaconf")
    planted = {
        "none": [1, 1, 1],
        "uniform": [0.9, 0.5, 0.1],
        "asymmetric": [0.9, 0.5, 0.1],
        "systematic": [0.9, 0.5, 0.1],
    }
    files = {file.stem: file for file in CONF.glob("*.yaml")}
    # truth by group: tests/test_spam_noise.py; by class: tests/test_confusion_noise.py
    del files["spam"], files["confusion"]
    assert files.keys() == planted.keys()
    for option, file in files.items():
        keys = omegaconf.OmegaConf.to_container(omegaconf.OmegaConf.load(file))
        assert keys.pop("_target_") == f"annorun.noise.{option}"
        right = noise.planted_accuracy(pool=pool(0.9, 0.5, 0.1), n_classes=3, **keys)
        assert right == pytest.approx(planted[option])
        truth, votes = draw(option, [0.9, 0.5, 0.1], 3, n_items=20_000, **keys)
        share = (votes.dense() == truth[:, None]).mean(axis=0)
        assert share == pytest.approx(right, abs=5 * 0.5 / np.sqrt(20_000))
        assert file.read_text().startswith("# ")
