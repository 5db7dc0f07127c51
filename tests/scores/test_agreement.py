"""Agreement against published examples, a derivation by hand, slow references and symmetries."""

import doctest
from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from annorun import noise
from annorun.scores import agreement as module
from annorun.scores.agreement import (
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    mean_cohen_kappa,
)
from annorun.votes import Pool, Votes

# Krippendorff 2011, section C: 4 observers, 12 units, missing values
OBSERVERS = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""
# the worked example after Fleiss: 14 raters, 10 subjects, 5 categories
SUBJECTS = """
0 0 0 0 14
0 2 6 4 2
0 0 3 5 6
0 3 9 2 0
2 2 8 1 1
7 7 0 0 0
3 2 6 3 0
2 5 3 2 2
6 5 2 1 0
0 2 2 3 7
"""
FLEISS = np.array([line.split() for line in SUBJECTS.split("\n") if line], dtype=np.float64)


def rng():
    return np.random.default_rng(0)


def krippendorff():
    cells = np.array([line.split() for line in OBSERVERS.split("\n") if line])
    annotator, item = np.nonzero(cells != ".")
    return Votes(item, annotator, cells[annotator, item].astype(int) - 1, 12, 4, 5)


def crowd(n_items=300, n_annotators=6, share=0.6, n_classes=3, seed=0):
    generator = np.random.default_rng(seed)
    truth = generator.choice(n_classes, size=n_items, p=[0.5, 0.3, 0.2])
    pool = Pool(np.linspace(0.4, 0.95, n_annotators))
    full = noise.uniform(truth=truth, pool=pool, n_classes=n_classes, rng=generator)
    keep = generator.random(len(full)) < share
    columns = (full.item[keep], full.annotator[keep], full.label[keep])
    return Votes(*columns, n_items, n_annotators, n_classes)


def test_krippendorffs_example():
    """Nominal .743, interval .849, as published.

    Unit 12 has one value and no part. Of the other 40 values 9, 13, 10, 5, 3 are of the classes,
    and 7 + 10 + 8 + 4 + 3 = 32 coincidences are of equal values (unit 2: values 2 2 3 2 make
    3 * 2 / 3 = 2 pairs of 2). 1 - (n - 1) (n - sum o_cc) / (n^2 - sum n_c^2) = 1 - 39 * 8 /
    (1600 - 384) = 904 / 1216.
    """
    counts = krippendorff().counts()
    assert krippendorff_alpha(counts, rng=rng()).value == pytest.approx(904 / 1216, abs=1e-12)
    value = np.arange(1.0, 6.0)
    interval = krippendorff_alpha(counts, rng=rng(), distance=(value[:, None] - value) ** 2)
    assert round(interval.value, 3) == 0.849


def test_alpha_equals_the_coincidence_matrix_in_loops():
    votes = crowd(n_items=40)
    values = {}
    for i, z in zip(votes.item.tolist(), votes.label.tolist(), strict=True):
        values.setdefault(i, []).append(z)
    distance = np.array([[0, 1, 5], [1, 0, 2], [5, 2, 0]])
    o = np.zeros((3, 3))
    for said in values.values():
        for a, b in combinations(range(len(said)), 2):
            o[said[a], said[b]] += 1 / (len(said) - 1)
            o[said[b], said[a]] += 1 / (len(said) - 1)
    n_c = o.sum(axis=1)
    expected = np.outer(n_c, n_c) / (n_c.sum() - 1)
    for delta, given in ((1 - np.eye(3), None), (distance, distance.astype(float))):
        got = krippendorff_alpha(votes.counts(), rng=rng(), distance=given).value
        assert got == pytest.approx(1 - (o * delta).sum() / (expected * delta).sum(), abs=1e-12)


def test_fleiss_example():
    """.210: P = .378, sum p_k^2 = (20^2 + 28^2 + 39^2 + 21^2 + 32^2) / 140^2 = 4170 / 19600.

    Subject 1 has P_1 = 1, subject 2 (0 + 2 + 30 + 12 + 2) / 182 = .253, ...
    """
    assert round(fleiss_kappa(FLEISS, rng=rng()).value, 3) == 0.210
    equal = ((FLEISS**2).sum() - 140) / (10 * 14 * 13)
    chance = 4170 / 19600
    assert fleiss_kappa(FLEISS, rng=rng()).value == pytest.approx((equal - chance) / (1 - chance))


def test_each_item_counts_once_for_fleiss():
    """Items (2, 0), (2, 2): P = (1 + 1/3) / 2 = 2/3, p = (3/4, 1/4), E = 5/8; kappa = 1/9."""
    counts = np.array([[2.0, 0.0], [2.0, 2.0], [1.0, 0.0]])
    assert fleiss_kappa(counts, rng=rng()).value == pytest.approx(1 / 9)


def test_alpha_is_fleiss_but_for_the_correction_of_small_samples():
    """With equal n_i: 1 - alpha = (1 - kappa) (n - 1) / n, n the number of votes."""
    alpha, kappa = (f(FLEISS, rng=rng()).value for f in (krippendorff_alpha, fleiss_kappa))
    assert 1 - alpha == pytest.approx((1 - kappa) * 139 / 140, abs=1e-12)


def pair(table):
    a, b = (np.repeat(x.ravel(), np.ravel(table)) for x in np.indices(np.shape(table)))
    n = len(a)
    item = np.tile(np.arange(n), 2)
    return Votes(item, np.repeat([0, 1], n), np.concatenate([a, b]), n, 2, len(table))


def test_cohen_by_hand():
    """P = 35/50 = .7, E = (25 * 30 + 25 * 20) / 2500 = .5, kappa = .2 / .5; nothing symmetric."""
    votes = pair([[20, 5], [10, 15]])
    assert cohen_kappa(votes, 0, 1, rng=rng()).value == pytest.approx(0.4)
    assert cohen_kappa(votes, 1, 0, rng=rng()).value == pytest.approx(0.4)
    assert mean_cohen_kappa(votes, rng=rng()).value == pytest.approx(0.4)


def mean_in_loops(votes, times):
    """Return the weighted mean of kappas where item i is there times[i] times; 10 items or more."""
    dense = votes.dense()
    over = under = 0.0
    for a, b in combinations(range(votes.n_annotators), 2):
        table = np.zeros((votes.n_classes, votes.n_classes))
        shared = np.flatnonzero((dense[:, a] >= 0) & (dense[:, b] >= 0))
        if len(shared) < 10:
            continue
        for i in shared:
            table[dense[i, a], dense[i, b]] += times[i]
        n = table.sum()
        chance = (table.sum(axis=0) * table.sum(axis=1)).sum() / n**2
        over += n * (np.trace(table) / n - chance) / (1 - chance)
        under += n
    return over / under


def test_mean_cohen_and_its_influences_equal_loops():
    """The influence of an item is the derivative of the mean in the item's weight."""
    votes = crowd(n_items=50, share=0.5)
    ones = np.ones(50)
    mean = mean_cohen_kappa(votes, rng=rng()).value
    assert mean == pytest.approx(mean_in_loops(votes, ones), abs=1e-12)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            module, "_bootstrap", lambda parts, *_: seen.append(parts) or module.UNDEFINED
        )
        mean_cohen_kappa(votes, rng=rng())
    shared = np.flatnonzero(np.bincount(votes.item, minlength=50) >= 2)
    slope = [
        (mean_in_loops(votes, ones + step) - mean_in_loops(votes, ones - step)) / 2e-5
        for step in 1e-5 * np.eye(50)[shared]
    ]
    np.testing.assert_allclose(seen[0][:, 0], slope, atol=1e-8)


@pytest.mark.parametrize("name", ["alpha", "fleiss", "cohen", "mean"])
def test_the_interval_is_that_of_resampled_items(name):
    """Against 400 resamples one by one; the ends of both have a Monte Carlo error of about .01."""
    votes = crowd(n_items=150)
    score = {
        "alpha": lambda v: krippendorff_alpha(v.counts(), rng=rng()),
        "fleiss": lambda v: fleiss_kappa(v.counts(), rng=rng()),
        "cohen": lambda v: cohen_kappa(v, 4, 5, rng=rng()),
        "mean": lambda v: mean_cohen_kappa(v, rng=rng()),
    }[name]
    got = score(votes)
    dense, generator, drawn = votes.dense(), np.random.default_rng(1), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "DRAWS", 1)
        for _ in range(400):
            table = dense[generator.integers(150, size=150)]
            item, annotator = np.nonzero(table >= 0)
            drawn.append(score(Votes(item, annotator, table[item, annotator], 150, 6, 3)).value)
    low, high = np.quantile(drawn, [0.025, 0.975])
    # the mean's interval is of its linear part; one pair of two has twice the width
    near = 0.025 if name == "cohen" else 0.015
    assert got.low == pytest.approx(low, abs=near) and got.high == pytest.approx(high, abs=near)
    assert got.low < got.value < got.high


def test_groups_of_items_give_as_wide_an_interval(monkeypatch):
    counts = crowd(n_items=4000).counts()
    all_items = krippendorff_alpha(counts, rng=rng())
    monkeypatch.setattr(module, "GROUPS", 1000)
    groups = krippendorff_alpha(counts, rng=rng())
    assert groups.value == pytest.approx(all_items.value, abs=1e-12)
    width = all_items.high - all_items.low
    assert groups.high - groups.low == pytest.approx(width, rel=0.12)


def test_the_interval_holds_the_limit_19_times_in_20():
    """Three annotators of accuracy a on two equal classes: alpha -> (2a - 1)^2 = .36 at a = .8.

    Of 200 crowds about 190 should hold it; 3 standard errors are 9.2.
    """
    pool, inside = Pool(np.full(3, 0.8)), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "DRAWS", 300)
        for seed in range(200):
            generator = np.random.default_rng(seed)
            truth = generator.integers(2, size=200)
            votes = noise.uniform(truth=truth, pool=pool, n_classes=2, rng=generator)
            got = krippendorff_alpha(votes.counts(), rng=generator)
            inside += got.low <= 0.36 <= got.high
    assert 180 <= inside <= 199


def all_of(votes):
    found = [f(votes.counts(), rng=rng()) for f in (krippendorff_alpha, fleiss_kappa)]
    return np.array([*found, mean_cohen_kappa(votes, rng=rng())])


def test_symmetries():
    votes = crowd()
    base = all_of(votes)
    order = rng().permutation(len(votes))
    shuffled = Votes(votes.item[order], votes.annotator[order], votes.label[order], 300, 6, 3)
    assert (all_of(shuffled) == base).all()
    moved = Votes(votes.item, np.array([3, 0, 5, 1, 4, 2])[votes.annotator], votes.label, 300, 6, 3)
    np.testing.assert_allclose(all_of(moved), base, atol=1e-12)
    renamed = Votes(votes.item, votes.annotator, np.array([2, 0, 1])[votes.label], 300, 6, 3)
    np.testing.assert_allclose(all_of(renamed), base, atol=1e-12)
    more = Votes(votes.item, votes.annotator, votes.label, 350, 9, 4)
    np.testing.assert_allclose(all_of(more), base, atol=1e-12)


def test_full_agreement_is_one_and_chance_is_zero():
    votes = pair([[30, 0, 0], [0, 50, 0], [0, 0, 20]])
    np.testing.assert_allclose(all_of(votes), 1, atol=1e-12)
    generator = np.random.default_rng(0)
    guesses = generator.integers(3, size=(4000, 3))
    item, who = np.divmod(np.arange(12_000), 3)
    spam = all_of(Votes(item, who, guesses.ravel(), 4000, 3, 3))
    assert (np.abs(spam[:, 0]) < 0.03).all()
    assert (spam[:, 1] < 0.01).all() and (spam[:, 2] > -0.01).all()


def test_what_is_not_defined_is_nan():
    none = Votes([], [], [], 3, 2, 2)
    alone = Votes([0, 1], [0, 1], [0, 1], 2, 2, 2)
    one_class = Votes([0, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 1], 2, 2, 2)
    for votes in (none, alone, one_class):
        assert np.isnan(all_of(votes)).all()
        assert np.isnan(cohen_kappa(votes, 0, 1, rng=rng())).all()
    # one item has a value and no interval, and is too little for a pair
    item = Votes([0, 0, 0], [0, 1, 2], [0, 0, 1], 1, 3, 2)
    assert np.isnan(all_of(item)).tolist() == [[False, True, True]] * 2 + [[True] * 3]


def test_pairs_with_few_shared_items_or_one_class_have_no_part():
    """Annotators 0 and 1 share 10 items, P = .6, E = .5: kappa .2; annotator 2 shares 9."""
    item = np.concatenate([np.arange(10), np.arange(10), np.arange(9)])
    annotator = np.repeat([0, 1, 2], [10, 10, 9])
    label = np.concatenate([np.arange(10) % 2, [0, 1, 0, 1, 0, 0, 1, 0, 1, 1], np.arange(9) % 2])
    votes = Votes(item, annotator, label, 10, 3, 2)
    assert cohen_kappa(votes, 0, 2, rng=rng()).value == pytest.approx(1)
    assert mean_cohen_kappa(votes, rng=rng()).value == pytest.approx(0.2, abs=1e-12)
    same = Votes(item, annotator, np.zeros(29, dtype=int), 10, 3, 2)
    assert np.isnan(mean_cohen_kappa(same, rng=rng()).value)


def test_too_many_pairs_are_not_counted(monkeypatch):
    votes = crowd()
    monkeypatch.setattr(module, "MOST_PAIRS", 100)
    assert np.isnan(mean_cohen_kappa(votes, rng=rng())).all()


def test_docstring_example():
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0


def several() -> Votes:
    """Annotators 0, 1, 2 on 12 items; who selects what is drawn, at least one label each."""
    draw = np.random.default_rng(5)
    chosen = draw.random((12, 3, 4)) < 0.4
    chosen[..., 0] |= ~chosen.any(axis=2)
    return Votes(*np.nonzero(chosen), 12, 3, 4, multi_label=True)


def test_multi_select_kappa_is_cohens_of_each_label_averaged():
    """By scikit-learn on the table of who selected what; all pairs share all items."""
    votes = several()
    chosen = np.zeros((12, 3, 4), dtype=int)
    chosen[votes.item, votes.annotator, votes.label] = 1
    each = [
        np.mean([cohen_kappa_score(*chosen[:, pair, k].T) for pair in ([0, 1], [0, 2], [1, 2])])
        for k in range(4)
    ]
    mean, found = module.multi_select_kappa(votes, rng=np.random.default_rng(0))
    np.testing.assert_allclose(found, each)
    assert mean.value == pytest.approx(np.mean(each))
    assert mean.low < mean.value < mean.high


def test_multi_select_of_one_label_each_is_single_select_by_label():
    votes = crowd()
    found = module.by_label(votes)
    assert len(found) == 3
    for k, own in enumerate(found):
        assert np.array_equal(own.label, votes.label == k)
        assert np.array_equal(own.item, votes.item)
