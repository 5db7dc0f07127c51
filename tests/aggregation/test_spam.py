"""Know or spam: the E-step against loops over units and labels, and beyond the range of exp."""

import math
from itertools import product

import numpy as np
import pytest

from annorun.aggregation import spam
from annorun.aggregation.spam import Tables


def crowd(seed, n_units=9, n_annotators=6, n_classes=3, share=0.5):
    """Random votes, uneven; units 0, 4 and the last have none, one label is rare."""
    rng = np.random.default_rng(seed)
    unit, annotator = np.nonzero(rng.random((n_units, n_annotators)) < share)
    kept = ~np.isin(unit, [0, 4, n_units - 1])
    unit, annotator = unit[kept], annotator[kept]
    p = np.arange(1, n_classes + 1) / np.arange(1, n_classes + 1).sum()
    label = rng.choice(n_classes, size=len(unit), p=p)
    return unit, annotator, label, rng.dirichlet(np.ones(n_classes), size=n_units), n_annotators


def draw(seed, n_annotators=6, n_classes=3, n_restarts=2, total=0.9):
    """Tables that do not sum to one, as under VB."""
    rng = np.random.default_rng(seed)
    know = rng.uniform(0.05, 0.85, size=(n_annotators, n_restarts))
    strategy = rng.dirichlet(np.ones(n_classes), size=(n_annotators, n_restarts))
    return Tables(know, total - know, total * strategy.transpose(0, 2, 1))


def log_sum(logs):
    top = max(logs)
    return top + math.log(sum(math.exp(v - top) for v in logs))


def brute(votes, tables, restart):
    """Loop over units and labels, in log space: known, spammed, evidence and posteriors."""
    unit, annotator, label, prior, n_annotators = votes
    n_units, n_classes = prior.shape
    theta, sigma, xi = (table[..., restart] for table in tables)
    known, spammed = np.zeros((2, n_annotators, n_classes))
    evidence, probs = 0.0, prior.copy()
    for u in range(n_units):
        said = [(a, y) for v, a, y in zip(unit, annotator, label, strict=True) if v == u]
        logs = []
        for t in range(n_classes):
            log = math.log(prior[u, t]) if prior[u, t] else -math.inf
            for a, y in said:
                log += math.log(sigma[a] * xi[a, y] + (theta[a] if y == t else 0))
            logs.append(log)
        log_z = log_sum(logs)
        probs[u] = [math.exp(log - log_z) for log in logs]
        evidence += log_z if said else 0
        for a, y in said:
            right = probs[u, y] * theta[a] / (theta[a] + sigma[a] * xi[a, y])
            known[a, y] += right
            spammed[a, y] += 1 - right
    return known, spammed, evidence, probs


def compare(votes, tables):
    cells = spam.cells(*votes)
    counts, evidence = spam.e_step(cells, tables)
    for r in range(tables.know.shape[1]):
        known, spammed, log_z, probs = brute(votes, tables, r)
        np.testing.assert_allclose(counts.known[..., r], known, atol=1e-11)
        np.testing.assert_allclose(counts.spammed[..., r], spammed, atol=1e-11)
        assert evidence[r] == pytest.approx(log_z, rel=1e-12, abs=1e-10)
        got = spam.probabilities(cells, spam.pick(tables, r))
        np.testing.assert_allclose(got, probs, atol=1e-12)


@pytest.mark.parametrize("largest", [0.0, 600.0])
@pytest.mark.parametrize("block", [1, 4, 16384])
@pytest.mark.parametrize("seed", range(3))
def test_e_step_equals_loops_over_units_and_labels(monkeypatch, seed, block, largest):
    monkeypatch.setattr(spam, "BLOCK", block)
    monkeypatch.setattr(spam, "LARGEST", largest)
    compare(crowd(seed), draw(seed))
    compare(crowd(seed, 14, 4, 2, 0.8), draw(seed, 4, 2, 3, total=1.0))
    compare(crowd(seed, 7, 12, 5, 0.9), draw(seed, 12, 5, 1))


@pytest.mark.parametrize("largest", [0.0, 600.0])
def test_e_step_with_certain_truths(monkeypatch, largest):
    """Control units: one label has all of the prior, voted for or not."""
    monkeypatch.setattr(spam, "LARGEST", largest)
    for seed in range(5):
        unit, annotator, label, prior, n_annotators = crowd(seed)
        prior[[1, 2, 3, 4]] = np.eye(3)[[0, 1, 2, 0]]
        compare((unit, annotator, label, prior, n_annotators), draw(seed))


def test_evidence_is_the_sum_over_all_that_is_hidden():
    """Two units, three votes: over the truths, and over who spams: 2^2 2^3 terms."""
    unit, annotator, label = np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([0, 1, 1])
    prior = np.array([[0.3, 0.7], [0.6, 0.4]])
    tables = draw(1, 2, 2, 1, total=1.0)
    theta, sigma, xi = (table[..., 0] for table in tables)
    total, known = 0.0, np.zeros((2, 2))
    for truth, knows in product(product(range(2), repeat=2), product((0, 1), repeat=3)):
        p = prior[0, truth[0]] * prior[1, truth[1]]
        for u, a, y, k in zip(unit, annotator, label, knows, strict=True):
            p *= theta[a] * (truth[u] == y) if k else sigma[a] * xi[a, y]
        total += p
        for a, y, k in zip(annotator, label, knows, strict=True):
            known[a, y] += p * k
    counts, evidence = spam.e_step(spam.cells(unit, annotator, label, prior, 2), tables)
    assert evidence[0] == pytest.approx(math.log(total), abs=1e-13)
    np.testing.assert_allclose(counts.known[..., 0], known / total, atol=1e-14)


def test_e_step_by_hand():
    """Annotators know with 1/2, 4/5; they spam both labels alike. Votes 0 and 1, even prior.

    s is 1/4 and 1/10. Label 0: 1/2 * (1/4 + 1/2) * 1/10 = 3/80. Label 1: 1/2 * 1/4 * 9/10 = 9/80.
    So q is (1/4, 3/4), the evidence log 12/80. The first vote was known with 1/4 * (1/2) / (3/4) =
    1/6, the second with 3/4 * (4/5) / (9/10) = 2/3.
    """
    tables = Tables(np.array([[0.5], [0.8]]), np.array([[0.5], [0.2]]), np.full((2, 2, 1), 0.5))
    cells = spam.cells(np.zeros(2, int), np.arange(2), np.arange(2), np.full((1, 2), 0.5), 2)
    counts, evidence = spam.e_step(cells, tables)
    np.testing.assert_allclose(counts.known[..., 0], [[1 / 6, 0], [0, 2 / 3]], atol=1e-15)
    np.testing.assert_allclose(counts.spammed[..., 0], [[5 / 6, 0], [0, 1 / 3]], atol=1e-15)
    assert evidence[0] == pytest.approx(math.log(12 / 80), abs=1e-14)
    np.testing.assert_allclose(spam.probabilities(cells, tables), [[1 / 4, 3 / 4]], atol=1e-15)


def crowded(known=None):
    """Unit 1 of 3 has 5,000 votes, three in ten for label 0; the others have none or one."""
    rng = np.random.default_rng(0)
    n = 5000
    unit = np.append(np.ones(n, int), 2)
    label = np.append((rng.random(n) < 0.7).astype(int), 1)
    prior = np.full((4, 2), 0.5)
    if known is not None:
        prior[1] = np.eye(2)[known]
    return unit, np.append(np.arange(n), 0), label, prior, n


@pytest.mark.parametrize("known", [None, 0, 1])
def test_thousands_of_votes_on_a_unit_stay_finite(known):
    """x is about 3500 log(1 + .9 / .05) = 10,000, or a control unit is against most of them."""
    votes = crowded(known)
    tables = Tables(np.full((5000, 1), 0.9), np.full((5000, 1), 0.1), np.full((5000, 2, 1), 0.5))
    compare(votes, tables)
    probs = spam.probabilities(spam.cells(*votes), tables)
    expected = [[1 / 2, 1 / 2], np.eye(2)[1 if known is None else known], [1 / 20, 19 / 20]]
    np.testing.assert_allclose(probs[:3], expected, atol=1e-12)


def test_a_label_without_votes_can_be_the_truth_of_a_crowded_unit():
    """Everybody says 0, of a unit whose truth is known to be 1: all of them spam."""
    n = 2000
    prior = np.array([[0.0, 1.0]])
    votes = (np.zeros(n, int), np.arange(n), np.zeros(n, int), prior, n)
    tables = Tables(np.full((n, 1), 0.9), np.full((n, 1), 0.1), np.full((n, 2, 1), 0.5))
    counts, evidence = spam.e_step(spam.cells(*votes), tables)
    assert counts.known.max() == 0
    assert evidence[0] == pytest.approx(n * math.log(0.05))


def test_an_annotator_who_never_spams_stays_finite():
    """exp of an expected log can be 0: of a prior of 1e-4 it is e^-10000."""
    tables = Tables(np.ones((2, 1)), np.zeros((2, 1)), np.full((2, 2, 1), 0.5))
    votes = (np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([0, 0, 1]), np.full((2, 2), 0.5), 2)
    counts, evidence = spam.e_step(spam.cells(*votes), tables)
    np.testing.assert_allclose(counts.known[..., 0], [[1, 1], [1, 0]], atol=1e-12)
    assert evidence[0] == pytest.approx(2 * math.log(0.5))


@pytest.mark.parametrize("block", [1, 3, 100])
def test_blocks_part_no_unit_and_miss_no_cell(monkeypatch, block):
    monkeypatch.setattr(spam, "BLOCK", block)
    cells = spam.cells(*crowd(0, n_units=30))
    units = []
    for b in cells.blocks:
        assert b.first_cell == len(units)
        units += (b.unit + b.first_unit).tolist()
        assert b.members.shape[1] == b.said.shape[0] == len(b.unit)
    assert units == cells.unit.tolist() == sorted(units)
    ends = [set(b.unit + b.first_unit) for b in cells.blocks]
    assert sum(map(len, ends)) == len(set().union(*ends))
    assert len(cells.blocks) > 1 or block == 100


def test_votes_of_a_cell_and_of_a_label_are_counted():
    unit, annotator, label, prior, n_annotators = crowd(3)
    cells = spam.cells(unit, annotator, label, prior, n_annotators)
    expected = np.zeros((n_annotators, 3))
    np.add.at(expected, (annotator, label), 1)
    np.testing.assert_array_equal(cells.given, expected)
    voted = sorted(set(zip(unit.tolist(), label.tolist(), strict=True)))
    assert list(zip(cells.unit.tolist(), cells.label.tolist(), strict=True)) == voted


def test_the_order_of_the_votes_does_not_matter():
    unit, annotator, label, prior, n_annotators = crowd(4, n_units=40)
    order = np.random.default_rng(0).permutation(len(unit))
    tables = draw(4)
    one = spam.e_step(spam.cells(unit, annotator, label, prior, n_annotators), tables)
    shuffled = (unit[order], annotator[order], label[order], prior, n_annotators)
    other = spam.e_step(spam.cells(*shuffled), tables)
    np.testing.assert_allclose(other[0].known, one[0].known, atol=1e-12)
    np.testing.assert_allclose(other[1], one[1], atol=1e-11)


def test_no_votes_have_the_prior_and_no_evidence():
    none = np.zeros(0, int)
    prior = np.array([[0.2, 0.8], [0.5, 0.5]])
    cells = spam.cells(none, none, none, prior, 3)
    tables = draw(0, 3, 2, 2)
    counts, evidence = spam.e_step(cells, tables)
    assert not counts.known.any() and not counts.spammed.any() and not evidence.any()
    np.testing.assert_array_equal(spam.probabilities(cells, spam.pick(tables, 0)), prior)


def test_starts_are_shares_of_numbers_between_one_and_one_and_a_half():
    """know = u / (u + v) with both in [1, 1.5] lies in [.4, .6]; xi of 4 labels in [1/5.5, 1/3]."""
    children = np.random.default_rng(0).spawn(50)
    tables = spam.start(40, 4, 0.5, children)
    np.testing.assert_allclose(tables.know + tables.spam, 1, atol=1e-15)
    np.testing.assert_allclose(tables.strategy.sum(axis=1), 1, atol=1e-14)
    assert 0.4 <= tables.know.min() < 0.41 and 0.59 < tables.know.max() <= 0.6
    assert 1 / 5.5 <= tables.strategy.min() < 0.2 and 0.3 < tables.strategy.max() <= 1 / 3
    assert tables.know.mean() == pytest.approx(0.5, abs=0.003)
    assert len(np.unique(tables.know)) == 2000
    alone = spam.start(40, 4, 0.5, [np.random.default_rng(0).spawn(50)[7]])
    for one, all_ in zip(alone, tables, strict=True):
        np.testing.assert_array_equal(one[..., 0], all_[..., 7])
