"""NUTMEG's released E-step against its formulas, transcribed in probabilities."""

import numpy as np
import pytest

from annorun.aggregation import released, spam
from annorun.aggregation.nutmeg import nutmeg
from annorun.aggregation.restarts import Prior, vary
from annorun.votes import Votes

IMPROVE = Prior(0.5, 0.5, 10.0)


def crowd(seed=0, n_items=12, n_annotators=7, n_classes=3, n_groups=3, share=0.4):
    """Items 0 and 5 have no votes; group 1 has none on item 3."""
    rng = np.random.default_rng(seed)
    item, annotator = np.nonzero(rng.random((n_items, n_annotators)) < share)
    group = np.arange(n_annotators) % n_groups
    kept = ~np.isin(item, [0, 5]) & ~((item == 3) & (group[annotator] == 1))
    item, annotator = item[kept], annotator[kept]
    label = rng.integers(n_classes, size=len(item))
    return Votes(item, annotator, label, n_items, n_annotators, n_classes, group=group)


def draw(seed, votes, n_restarts=2):
    rng = np.random.default_rng(seed)
    know = rng.uniform(0.1, 0.85, size=(votes.n_annotators, n_restarts))
    shape = (votes.n_annotators, n_restarts)
    strategy = rng.dirichlet(np.ones(votes.n_classes), size=shape).transpose(0, 2, 1)
    return spam.Tables(know, 0.95 - know, 0.9 * strategy)


def prepared(votes, prior=None):
    """Return the cells of the (item, group) pairs and the number of votes of each."""
    n_groups = int(votes.group.max()) + 1
    pair = votes.item * n_groups + votes.group[votes.annotator]
    n_pairs = votes.n_items * n_groups
    prior = np.full((n_pairs, votes.n_classes), 1 / votes.n_classes) if prior is None else prior
    cells = spam.cells(pair, votes.annotator, votes.label, prior, votes.n_annotators)
    return cells, np.bincount(pair, minlength=n_pairs).reshape(-1, n_groups)


def literal(votes, tables, restart):
    """G, rho, Z and the counts as the code has them: products, one vote at a time."""
    theta, sigma, xi = (table[..., restart] for table in tables)
    n_groups, n_classes = int(votes.group.max()) + 1, votes.n_classes
    rows = list(zip(votes.item, votes.annotator, votes.label, strict=True))
    known, spammed = np.zeros((2, votes.n_annotators, n_classes))
    objective = 0.0
    for i in range(votes.n_items):
        said = [(a, y, votes.group[a]) for j, a, y in rows if j == i]
        if not said:
            continue

        def lik(a, y, t):
            return sigma[a] * xi[a, y] + theta[a] * (y == t)

        g = np.full((n_groups, n_classes), 1e-8 / n_classes)
        for k in range(n_groups):
            own = [(a, y) for a, y, group in said if group == k]
            if own:
                for t in range(n_classes):
                    g[k, t] = np.prod([lik(a, y, t) for a, y in own]) / n_classes
        rho = np.array([sum(group == k for *_, group in said) / len(said) for k in range(n_groups)])
        z = (rho * g.sum(axis=1)).sum()
        objective += np.log(z + 1e-8)
        for a, y, k in said:
            known[a, y] += g[k, y] * theta[a] / lik(a, y, y) / z
            backed = sum(g[k, t] / lik(a, y, t) for t in range(n_classes))
            spammed[a, y] += backed * sigma[a] * xi[a, y] / z
    return known, spammed, objective


@pytest.mark.parametrize("largest", [0.0, 600.0])
@pytest.mark.parametrize("block", [1, 5, 16384])
@pytest.mark.parametrize("seed", range(4))
def test_e_step_equals_the_formulas_in_probabilities(monkeypatch, seed, block, largest):
    monkeypatch.setattr(spam, "BLOCK", block)
    monkeypatch.setattr(spam, "LARGEST", largest)
    votes = crowd(seed)
    tables = draw(seed, votes)
    expect, _ = released.steps(*prepared(votes), lambda counts: (tables, 0.0))
    counts, objective = expect(tables)
    for r in range(2):
        known, spammed, expected = literal(votes, tables, r)
        np.testing.assert_allclose(counts.known[..., r], known, atol=1e-11)
        np.testing.assert_allclose(counts.spammed[..., r], spammed, atol=1e-11)
        assert objective[r] == pytest.approx(expected, abs=1e-10)


def test_e_step_by_hand():
    """One item, groups 0 and 1 with one vote each, both for 0; even spam s = (1/4, 3/8).

    G_0 = (3/4, 1/4) / 2 with theta = 1/2 and G_1 = (5/8, 3/8) / 2 with theta = 1/4: Z_0 = Z_1 =
    1/2, so the weights are 1 and known 3/4 * 2/3 = 1/2, 5/8 * 2/5 = 1/4.
    A second annotator of group 0 with theta = 1/2 who agrees: Z_0 = (9/16 + 1/16) / 2 = 5/16, rho =
    (2/3, 1/3), Z = 2/3 * 5/16 + 1/3 * 1/2 = 3/8: group 0 has the weight 5/6, group 1 4/3.
    """
    two = Votes([0, 0], [0, 1], [0, 0], 1, 2, 2, group=np.array([0, 1]))
    three = Votes([0, 0, 0], [0, 1, 2], [0, 0, 0], 1, 3, 2, group=np.array([0, 1, 0]))
    know = np.array([[1 / 2], [1 / 4], [1 / 2]])
    for votes, z, known, total in (
        (two, 1 / 2, [1 / 2, 1 / 4], [1, 1]),
        (three, 3 / 8, [9 / 10 * 2 / 3 * 5 / 6, 1 / 3, 1 / 2], [5 / 6, 4 / 3, 5 / 6]),
    ):
        n = votes.n_annotators
        tables = spam.Tables(know[:n], 1 - know[:n], np.full((n, 2, 1), 1 / 2))
        expect, _ = released.steps(*prepared(votes), lambda counts: (None, 0.0))
        counts, objective = expect(tables)
        np.testing.assert_allclose(counts.known[:, 0, 0], known, atol=1e-15)
        np.testing.assert_allclose((counts.known + counts.spammed)[:, 0, 0], total, atol=1e-15)
        assert objective[0] == pytest.approx(np.log(z + 1e-8), abs=1e-14)


def test_one_group_has_the_models_own_counts():
    votes = crowd(2, n_groups=1)
    cells, count = prepared(votes)
    tables = draw(2, votes)
    expect, _ = released.steps(cells, count, lambda counts: (tables, 0.0))
    exact, _ = spam.e_step(cells, tables)
    got, _ = expect(tables)
    np.testing.assert_allclose(got.known, exact.known, atol=1e-12)
    np.testing.assert_allclose(got.spammed, exact.spammed, atol=1e-12)


def test_the_votes_of_an_item_keep_their_number():
    """sum_k rho_k Z_k / Z = 1: weights differ between groups, their mean over votes is 1."""
    votes = crowd(3, n_items=40, n_annotators=9)
    expect, _ = released.steps(*prepared(votes), lambda counts: (None, 0.0))
    counts, _ = expect(draw(3, votes))
    np.testing.assert_allclose((counts.known + counts.spammed).sum(axis=(0, 1)), len(votes))
    given = np.bincount(votes.annotator, minlength=9)
    assert np.abs((counts.known + counts.spammed).sum(axis=1)[:, 0] - given).max() > 0.1


def test_no_prior_takes_part_in_the_objective():
    votes = crowd(1)
    tables = draw(1, votes)
    expect, improve = released.steps(*prepared(votes), lambda c: vary(c, IMPROVE))
    counts, _ = expect(tables)
    got, gain = improve(counts)
    assert gain == 0
    for one, other in zip(got, vary(counts, IMPROVE)[0], strict=True):
        np.testing.assert_array_equal(one, other)


def test_products_that_would_underflow_do_not():
    """4,000 votes a group: G is about e^-2000; one group agrees, the other is split."""
    n = 4000
    group = np.arange(2 * n) // n
    label = np.where(group == 0, 0, np.arange(2 * n) % 2)
    columns = (np.full(2 * n, 1), np.arange(2 * n), label)
    votes = Votes(*columns, 3, 2 * n, 2, group=group)
    tables = spam.Tables(
        np.full((2 * n, 1), 0.5), np.full((2 * n, 1), 0.5), np.full((2 * n, 2, 1), 0.5)
    )
    expect, _ = released.steps(*prepared(votes), lambda counts: (None, 0.0))
    counts, objective = expect(tables)
    assert objective[0] == pytest.approx(np.log(1e-8))  # the floor: Z is far below it
    total = (counts.known + counts.spammed).sum(axis=1)[:, 0]
    np.testing.assert_allclose(total, np.where(group == 0, 2, 0), atol=1e-12)
    got = nutmeg(votes, rng=np.random.default_rng(0), estep="released", n_restarts=1, n_iter=5)
    assert np.isfinite(got.probs).all() and np.isfinite(got.trace).all()


def test_without_votes():
    votes = Votes([], [], [], 2, 3, 2, group=np.array([0, 1, 1]))
    expect, _ = released.steps(*prepared(votes), lambda counts: (None, 0.0))
    counts, objective = expect(draw(0, votes))
    assert not counts.known.any() and not objective.any()
