"""One distribution over an item's vector of truths: enumeration, limits, bounds."""

import math
from functools import partial
from itertools import product

import numpy as np
import pytest

from annorun.aggregation import joint, spam
from annorun.aggregation.joint import Tables
from annorun.aggregation.mace import m_step
from annorun.aggregation.nutmeg import nutmeg
from annorun.aggregation.restarts import Prior, expected_log, iterate
from annorun.votes import Votes

ADDED = Prior(0.5, 0.5, 10.0)
both = pytest.mark.parametrize("inference", ["vb", "em"])
forms = pytest.mark.parametrize("most_vectors", [125, 0], ids=["each vector", "mixture"])


def crowd(seed=0, n_items=10, n_annotators=9, n_classes=2, n_groups=3, share=0.4):
    """Groups' truths are one label on two items of three; items 0 and 4 have no votes."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(n_classes, size=(n_items, n_groups))
    truth = np.where(rng.random((n_items, 1)) < 2 / 3, truth[:, :1], truth)
    item, annotator = np.nonzero(rng.random((n_items, n_annotators)) < share)
    item, annotator = (c[~np.isin(item, [0, 4])] for c in (item, annotator))
    group = np.arange(n_annotators) % n_groups
    right = rng.random(len(item)) < np.linspace(0.3, 0.95, n_annotators)[annotator]
    guess = rng.integers(n_classes, size=len(item))
    label = np.where(right, truth[item, group[annotator]], guess)
    return Votes(item, annotator, label, n_items, n_annotators, n_classes, group=group)


def even(votes, known=()):
    """Return the prior: the same for all labels but where (item, group, label) is known."""
    n_groups = int(votes.group.max()) + 1
    prior = np.full((votes.n_items, n_groups, votes.n_classes), 1 / votes.n_classes)
    for i, k, t in known:
        prior[i, k] = np.eye(votes.n_classes)[t]
    return prior


def draw(seed, model, n_restarts=2, total=0.9):
    """Random tables that sum to `total`; phi too where it is not fixed."""
    rng = np.random.default_rng(seed)
    n_annotators, n_classes = model.given.shape
    know = rng.uniform(0.1, 0.8, size=(n_annotators, n_restarts))
    strategy = rng.dirichlet(np.ones(n_classes), size=(n_annotators, n_restarts))
    plain = spam.Tables(know, total - know, total * strategy.transpose(0, 2, 1))
    start = joint.start(model, plain, rng.spawn(n_restarts))
    weight = total * rng.dirichlet(np.ones(len(start.weight)), size=n_restarts).T
    truth = start.truth if model.vectors is not None else total * start.truth
    return start._replace(weight=weight, truth=truth)


def enumerate_all(votes, prior, tables, r):
    """Loop over items, components and label vectors."""
    theta, sigma, xi, weight, truth = (table[..., r] for table in tables)
    n_items, n_groups, n_classes = prior.shape
    known, spammed = np.zeros((2, votes.n_annotators, n_classes))
    components, cells, evidence = np.zeros(len(weight)), np.zeros(truth.shape), 0.0
    probs, differ = np.zeros(prior.shape), np.zeros(n_items)
    certain = prior.max(axis=2) == 1
    for i in range(n_items):
        said = [(a, y) for j, a, y in zip(votes.item, votes.annotator, votes.label, strict=True)
                if j == i]  # fmt: skip
        p = {}
        for c, v in product(range(len(weight)), product(range(n_classes), repeat=n_groups)):
            value = weight[c]
            for k, t in enumerate(v):
                value *= truth[c, k, t] * prior[i, k, t] * n_classes
            for a, y in said:
                t = v[votes.group[a]]
                value *= sigma[a] * xi[a, y] + theta[a] * (y == t)
            p[c, v] = value
        z = sum(p.values())
        used = bool(said) or certain[i].any()
        evidence += math.log(z) if used else 0
        for (c, v), value in p.items():
            share = value / z
            differ[i] += share * (len(set(v)) > 1)
            components[c] += share * used
            for k, t in enumerate(v):
                probs[i, k, t] += share
                cells[c, k, t] += share * used
            for a, y in said:
                hit = theta[a] / (theta[a] + sigma[a] * xi[a, y]) * (v[votes.group[a]] == y)
                known[a, y] += share * hit
                spammed[a, y] += share * (1 - hit)
    return known, spammed, components, cells, evidence, probs, differ


@forms
@pytest.mark.parametrize("block", [1, 2**20])
@pytest.mark.parametrize(("n_classes", "n_groups"), [(2, 1), (2, 3), (3, 2)])
def test_steps_equal_enumeration(monkeypatch, block, most_vectors, n_classes, n_groups):
    monkeypatch.setattr(joint, "BLOCK", block)
    monkeypatch.setattr(joint, "MOST_VECTORS", most_vectors)
    votes = crowd(n_classes + n_groups, 7, n_classes=n_classes, n_groups=n_groups)
    for known in ((), [(1, 0, 1), (4, 0, 0), (2, n_groups - 1, 1)]):
        prior = even(votes, known)
        model = joint.model(votes, prior, "vb", 0.1)
        tables = draw(3, model)
        counts, evidence = joint.e_step(model, tables)
        for r in range(2):
            *expected, log_z, probs, differ = enumerate_all(votes, prior, tables, r)
            for name, table in zip(("known", "spammed", "weight"), expected, strict=False):
                got = getattr(counts, name)[..., r]
                np.testing.assert_allclose(got, table, atol=1e-11, err_msg=name)
            if model.vectors is None:
                np.testing.assert_allclose(counts.truth[..., r], expected[3], atol=1e-11)
            assert evidence[r] == pytest.approx(log_z, abs=1e-10)
            got, disagreement = joint.truths(model, spam.pick(tables, r))
            np.testing.assert_allclose(got, probs, atol=1e-12)
            np.testing.assert_allclose(disagreement, differ, atol=1e-12)


@both
@forms
@pytest.mark.parametrize("seed", range(4))
def test_the_objective_never_falls(monkeypatch, seed, most_vectors, inference):
    monkeypatch.setattr(joint, "MOST_VECTORS", most_vectors)
    votes = crowd(seed, 40, n_classes=2 + seed % 2, n_groups=2 + seed // 2)
    known = np.full((40, 2 + seed // 2), -1)
    known[:6] = np.random.default_rng(seed).integers(2, size=known[:6].shape)
    for control in (None, known):
        rng = np.random.default_rng(seed)
        keys = {"inference": inference, "n_restarts": 1, "n_iter": 80, "known": control}
        trace = np.array(nutmeg(votes, rng=rng, imputation="joint", **keys).trace)
        assert len(trace) == 80 and trace[-1] > trace[0] + 0.1
        assert np.diff(trace).min() >= -1e-12 * np.abs(trace).max()


def with_weights(model, weight_of, n_restarts=2):
    tables = draw(1, model, n_restarts, total=1.0)
    each = product(range(model.prior.shape[2]), repeat=model.prior.shape[1])
    weight = np.array([max(weight_of(v), 1e-300) for v in each])
    return tables._replace(weight=np.repeat(weight[:, None], n_restarts, axis=1))


def test_all_groups_of_one_mind_are_mace():
    """All of pi on vectors of one label: the unit is the item, whatever the voter's group."""
    votes = crowd(1, n_classes=3, n_groups=2)
    model = joint.model(votes, even(votes), "vb", 0.1)
    tables = with_weights(model, lambda v: (len(set(v)) == 1) / 3)
    one_truth = spam.cells(
        votes.item, votes.annotator, votes.label, np.full((10, 3), 1 / 3), votes.n_annotators
    )
    plain = spam.Tables(*tables[:3])
    counts, evidence = joint.e_step(model, tables)
    expected, log_z = spam.e_step(one_truth, plain)
    np.testing.assert_allclose(counts.known, expected.known, atol=1e-12)
    np.testing.assert_allclose(counts.spammed, expected.spammed, atol=1e-12)
    np.testing.assert_allclose(evidence, log_z, atol=1e-11)
    probs, differ = joint.truths(model, spam.pick(tables, 0))
    one = spam.probabilities(one_truth, spam.pick(plain, 0))
    np.testing.assert_allclose(probs, np.repeat(one[:, None], 2, axis=1), atol=1e-12)
    np.testing.assert_allclose(differ, 0, atol=1e-12)


def test_vectors_all_alike_are_independent_groups():
    votes = crowd(2, n_classes=3, n_groups=2)
    prior = even(votes)
    model = joint.model(votes, prior, "vb", 0.1)
    tables = with_weights(model, lambda v: 1 / 9)
    pair = votes.item * 2 + votes.group[votes.annotator]
    cells = spam.cells(pair, votes.annotator, votes.label, prior.reshape(-1, 3), 9)
    plain = spam.Tables(*tables[:3])
    counts, evidence = joint.e_step(model, tables)
    expected, log_z = spam.e_step(cells, plain)
    np.testing.assert_allclose(counts.known, expected.known, atol=1e-12)
    np.testing.assert_allclose(evidence, log_z, atol=1e-11)
    probs, differ = joint.truths(model, spam.pick(tables, 0))
    alone = spam.probabilities(cells, spam.pick(plain, 0)).reshape(prior.shape)
    np.testing.assert_allclose(probs, alone, atol=1e-12)
    np.testing.assert_allclose(differ, 1 - alone.prod(axis=1).sum(axis=1), atol=1e-12)


def test_m_step_by_hand():
    """Four vectors with 3, 1, 0, 4 items; two classes, so 1/2 more in each: shares of 10."""
    votes = Votes([0, 0], [0, 1], [0, 1], 1, 2, 2, group=np.array([0, 1]))
    _, improve = m_step(2, "em", 0.5, ADDED)
    counts = joint.Counts(
        np.zeros((2, 2, 1)), np.zeros((2, 2, 1)), np.array([[3.0], [1], [0], [4]]), np.zeros(1)
    )
    em = joint.model(votes, even(votes), "em", 0.5)
    tables, density = joint.m_step(em, improve, counts)
    np.testing.assert_allclose(tables.weight[:, 0], [0.35, 0.15, 0.05, 0.45], atol=1e-15)
    # both annotators are even: 1/2 log (1/2)^4 each
    expected = 0.5 * math.log(0.35 * 0.15 * 0.05 * 0.45) + 4 * math.log(1 / 2)
    assert density[0] == pytest.approx(expected, abs=1e-13)
    vb = joint.model(votes, even(votes), "vb", 0.5)
    _, improve = m_step(2, "vb", None, ADDED)
    tables, gain = joint.m_step(vb, improve, counts)
    log_w, far = expected_log(
        np.array([3.5, 1.5, 0.5, 4.5])[None, :, None], np.full((1, 1, 1), 0.5)
    )
    np.testing.assert_allclose(tables.weight[:, 0], np.exp(log_w[0, :, 0]), atol=1e-15)
    assert gain[0] == pytest.approx(-far[0, 0], abs=1e-12)


def test_mixture_m_step_by_hand():
    """phi has one vote of its prior in each label under VB: digamma(c + 1)."""
    votes = Votes([0, 0], [0, 1], [0, 1], 1, 2, 2, group=np.array([0, 1]))
    model = joint.model(votes, even(votes), "vb", 0.5)._replace(vectors=None)
    _, improve = m_step(2, "vb", None, ADDED)
    cells = np.random.default_rng(0).uniform(0, 5, size=(3, 2, 2, 1))
    zero = np.zeros((2, 2, 1))
    counts = joint.Counts(zero, zero, np.array([[3.0], [1], [0]]), cells)
    tables, gain = joint.m_step(model, improve, counts)
    total = 0.0
    for c, k in np.ndindex(3, 2):
        log_p, far = expected_log(cells[c, k][None] + 1, np.ones((1, 1, 1)))
        np.testing.assert_allclose(tables.truth[c, k], np.exp(log_p[0]), atol=1e-14)
        total += far[0, 0]
    prior = np.full((1, 1, 1), 2 / 3)
    total += expected_log(np.array([3, 1, 0])[None, :, None] + prior, prior)[1][0, 0]
    assert gain[0] == pytest.approx(-total, abs=1e-12)


def test_restarts_side_by_side_equal_restarts_alone():
    votes = crowd(5, 40)
    for vectors in (True, False):
        model = joint.model(votes, even(votes), "vb", 0.1)
        model = model if vectors else model._replace(vectors=None)
        _, improve = m_step(2, "vb", None, ADDED)
        start = joint.start(
            model, spam.start(9, 2, 0.5, np.random.default_rng(0).spawn(3)),
            np.random.default_rng(1).spawn(3),
        )  # fmt: skip
        steps = partial(joint.e_step, model), partial(joint.m_step, model, improve)
        fit = iterate(*steps, start, 15, 1e-3)
        for r in range(3):
            alone = iterate(*steps, spam.pick(start, r), 15, 1e-3)
            np.testing.assert_allclose(alone.trace[:, 0], fit.trace[:, r], rtol=1e-11)
            np.testing.assert_allclose(alone.tables.weight[:, 0], fit.tables.weight[:, r])


def test_both_forms_hold_correlated_truths():
    """Groups that always differ: an absent one is inferred from the other in both forms."""
    item, annotator = np.divmod(np.arange(200 * 6), 6)
    group = np.arange(6) % 2
    truth = np.random.default_rng(0).integers(2, size=200)
    votes = Votes(item, annotator, truth[item] ^ group[annotator], 200, 6, 2, group=group)
    kept = (votes.item >= 50) | (group[votes.annotator] == 0)
    columns = (votes.item[kept], votes.annotator[kept], votes.label[kept])
    votes = Votes(*columns, 200, 6, 2, group=group)
    got = nutmeg(votes, rng=np.random.default_rng(0), imputation="joint")
    assert (got.group_probs.argmax(axis=2) == np.stack([truth, 1 - truth], axis=1)).all()
    assert got.disagreement.min() > 0.95
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joint, "MOST_VECTORS", 0)
        other = nutmeg(votes, rng=np.random.default_rng(0), imputation="joint")
    assert (other.group_probs.argmax(axis=2) == got.group_probs.argmax(axis=2)).all()
    assert other.disagreement.min() > 0.9


def test_thousands_of_votes_and_a_truth_against_them_stay_finite():
    n = 4000
    label = (np.random.default_rng(0).random(n) < 0.7).astype(int)
    group = np.arange(n) % 2
    votes = Votes(np.ones(n, int), np.arange(n), label, 3, n, 2, group=group)
    for known in ((), [(1, 0, 0)], [(1, 0, 0), (1, 1, 1)]):
        model = joint.model(votes, even(votes, known), "vb", 0.1)
        plain = spam.Tables(np.full((n, 1), 0.9), np.full((n, 1), 0.1), np.full((n, 2, 1), 0.5))
        tables = joint.start(model, plain, [np.random.default_rng(0)])
        counts, evidence = joint.e_step(model, tables)
        assert np.isfinite(evidence).all() and np.isfinite(counts.known).all()
        probs, _ = joint.truths(model, tables)
        first = [1, 0] if known else [0, 1]
        np.testing.assert_allclose(probs[1], [first, [0, 1]], atol=1e-12)
    assert isinstance(tables, Tables)
