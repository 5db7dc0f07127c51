"""Crowds of subpopulations: who is drawn, who labels what, and what they say."""

import numpy as np
import pytest

from annorun.annotator_dist import subpopulations
from annorun.dataset.subpopulation_items import subpopulation_items
from annorun.errors import ConfigError
from annorun.noise import planted_accuracy, spam
from annorun.votes import Pool
from annorun.workload import assign


def crowd(
    n_items: int = 500,
    shares: tuple[float, ...] = (0.8, 0.2),
    rate: float = 0.1,
    variability: float = 0.0,
    per_item: int = 5,
    most_items: int = 20,
    seed: int = 0,
) -> Pool:
    return subpopulations(
        n_items=n_items,
        rng=np.random.default_rng(seed),
        shares=list(shares),
        spam=[rate] * len(shares),
        variability=[variability] * len(shares),
        per_item=per_item,
        most_items=most_items,
    )


@pytest.mark.parametrize(
    ("n_items", "shares", "size"),
    [
        # J = 500 * 6 // 20 = 150; .8 and .2 of it are whole
        (500, (0.8, 0.2), [120, 30]),
        # J = 25 * 6 // 20 = 7; ceil of 5.6 and 1.4 is 6 and 2, one too many: the largest gives
        (25, (0.8, 0.2), [5, 2]),
        # J = 30 * 6 // 20 = 9; ceil is 5, 3, 3, two too many: both of the first
        (30, (0.5, 0.25, 0.25), [3, 3, 3]),
    ],
)
def test_group_sizes_are_the_generators(
    n_items: int, shares: tuple[float, ...], size: list[int]
) -> None:
    group = crowd(n_items, shares).group
    assert group is not None
    assert np.bincount(group).tolist() == size


def test_spam_rates_are_beta_of_the_mean_asked() -> None:
    """Beta(s, 1 - s) has the mean s and the variance s (1 - s) / 2."""
    rate = 1 - crowd(200_000, rate=0.2, most_items=20).expertise
    assert rate.mean() == pytest.approx(0.2, abs=5e-3)
    assert rate.var() == pytest.approx(0.08, abs=3e-3)
    assert (1 - crowd(rate=0.0).expertise).max() < 1e-6


def test_expertise_is_to_neither_spam_nor_vary() -> None:
    steady, varied = crowd(), crowd(variability=0.3)
    assert varied.expertise == pytest.approx(0.7 * steady.expertise)


def test_bad_pools_name_every_fault() -> None:
    with pytest.raises(ConfigError) as caught:
        subpopulations(
            n_items=10,
            rng=np.random.default_rng(0),
            shares=[0.7, 0.2],
            spam=[0.1],
            variability=[0.0, 0.0],
            per_item=9,
            most_items=20,
        )
    assert [fault.split("=")[0] for fault in caught.value.faults] == [
        "annotator_dist: shares, spam and variability have 2, 1 and 2 values; allowed is one of "
        "each a group",
        "annotator_dist.shares",
        "annotator_dist.per_item",
    ]


@pytest.mark.parametrize(
    ("n_items", "n_annotators", "per_item", "most_items"),
    [(500, 150, 5, 20), (40, 5, 5, 40), (10, 6, 3, 5), (7, 3, 1, 3), (2000, 11, 10, 1819)],
)
def test_everyone_is_drawn_once_an_item_and_within_his_limit(
    n_items: int, n_annotators: int, per_item: int, most_items: int
) -> None:
    """The last three leave (almost) no slack: the released generator runs out of annotators."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        place = np.sort(assign(n_items, n_annotators, per_item, most_items, rng=rng), axis=1)
        assert (np.diff(place, axis=1) > 0).all()
        assert np.bincount(place.ravel(), minlength=n_annotators).max() <= most_items


def test_annotators_are_drawn_uniformly() -> None:
    """Without a limit that binds, each pair of annotators is as likely as any other."""
    place = np.sort(assign(60_000, 5, 2, 60_000, rng=np.random.default_rng(1)), axis=1)
    counts = np.bincount(place[:, 0] * 5 + place[:, 1], minlength=25)
    assert counts[counts > 0] == pytest.approx(np.full(10, 6000), rel=0.06)


def test_too_much_work_is_refused() -> None:
    with pytest.raises(ConfigError, match="too much"):
        assign(10, 4, 3, 7, rng=np.random.default_rng(0))


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_votes_are_the_own_groups_truth_or_uniform(rate: float) -> None:
    """P(right) = (1 - s) + s / L, and the wrong labels are equally likely."""
    rng = np.random.default_rng(2)
    items, _ = subpopulation_items(rng=rng, n_items=40_000, n_classes=4, divisiveness=1.0)
    assert items.truth is not None
    pool = Pool(np.full(60, 1 - rate), group=np.arange(60) % 2, per_item=3, most_items=4000)
    votes = spam(truth=items.truth, pool=pool, n_classes=4, rng=rng)
    assert votes.group is not None
    own = items.truth[votes.item, votes.group[votes.annotator]]
    shift = np.bincount((votes.label - own) % 4, minlength=4) / len(votes)
    expected = np.full(4, rate / 4) + np.array([1 - rate, 0, 0, 0])
    assert shift == pytest.approx(expected, abs=5e-3)
    assert planted_accuracy(pool=pool, n_classes=4, semantics="mixture") == pytest.approx(
        np.full(60, expected[0])
    )


def test_each_annotator_knows_as_often_as_they_can() -> None:
    """Of 12,000 votes each, within 5 standard errors of rho + (1 - rho) / 3; groups lie mixed."""
    rng = np.random.default_rng(3)
    items, _ = subpopulation_items(rng=rng, n_items=16_000, n_classes=3, divisiveness=1.0)
    assert items.truth is not None
    rho = np.array([0.9, 0.0, 0.4, 0.7])
    pool = Pool(rho, group=np.array([1, 0, 0, 1]), per_item=3, most_items=12_000)
    votes = spam(truth=items.truth, pool=pool, n_classes=3, rng=rng)
    assert votes.group is not None
    right = votes.label == items.truth[votes.item, votes.group[votes.annotator]]
    share = np.bincount(votes.annotator, weights=right) / np.bincount(votes.annotator)
    assert share == pytest.approx(rho + (1 - rho) / 3, abs=5 * 0.5 / np.sqrt(12_000))


def test_each_group_has_its_own_rates() -> None:
    """Of 6000: mean expertise (1 - s) (1 - v) a group, Beta's deviation at most .5 an annotator."""
    pool = subpopulations(
        n_items=20_000,
        rng=np.random.default_rng(4),
        shares=[0.5, 0.3, 0.2],
        spam=[0.1, 0.6, 0.3],
        variability=[0.0, 0.5, 0.2],
        per_item=5,
        most_items=20,
    )
    assert pool.group is not None and (np.diff(pool.group) < 0).sum() > 1000
    size = np.bincount(pool.group)
    assert size.tolist() == [3000, 1800, 1200]
    mean = np.bincount(pool.group, weights=pool.expertise) / size
    assert mean == pytest.approx([0.9, 0.2, 0.56], abs=4 * 0.5 / np.sqrt(1200))
    # nobody of a group is better than its variability lets them
    most = [pool.expertise[pool.group == g].max() for g in range(3)]
    assert most == pytest.approx([1, 0.5, 0.8], abs=1e-4)


def test_spam_wants_groups_that_fit() -> None:
    pool, rng = crowd(10, per_item=2, most_items=10), np.random.default_rng(0)
    with pytest.raises(ConfigError, match="2 groups, truths of shape"):
        spam(truth=np.zeros((10, 3), dtype=np.int64), pool=pool, n_classes=2, rng=rng)
    with pytest.raises(ConfigError, match="wants a pool of groups"):
        spam(truth=np.zeros((10, 2), np.int64), pool=Pool(np.ones(3)), n_classes=2, rng=rng)


@pytest.mark.parametrize(("n_classes", "n_groups"), [(2, 2), (5, 3), (2, 3)])
def test_divisive_items_are_as_many_as_asked(n_classes: int, n_groups: int) -> None:
    """Labels without replacement differ in all groups; with it, all are alike L^(1 - K) often."""
    rng = np.random.default_rng(3)
    items, votes = subpopulation_items(
        rng=rng, n_items=50_000, n_classes=n_classes, n_groups=n_groups, divisiveness=0.3
    )
    truth = items.truth
    assert votes is None
    assert truth is not None
    assert truth.shape == (50_000, n_groups)
    differ = (truth != truth[:, :1]).any(axis=1)
    alike = n_classes ** (1.0 - n_groups) if n_groups > n_classes else 0.0
    assert differ.mean() == pytest.approx(0.3 * (1 - alike), abs=0.01)
    if n_groups <= n_classes:
        assert all(len(set(row)) == n_groups for row in truth[differ][:200].tolist())
    for g in range(n_groups):
        shares = np.bincount(truth[:, g], minlength=n_classes) / 50_000
        assert shares == pytest.approx(np.full(n_classes, 1 / n_classes), abs=0.01)


def test_one_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="n_classes=1"):
        subpopulation_items(rng=np.random.default_rng(0), n_classes=1)
