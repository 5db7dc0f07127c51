"""Dawid-Skene against derivations by hand, a slow reference, limits and symmetries."""

import doctest
import math

import numpy as np
import pytest

from annorun import noise
from annorun.aggregation import dawid_skene as module
from annorun.aggregation.dawid_skene import Params, dawid_skene, e_step, incidence, m_step
from annorun.aggregation.majority import majority
from annorun.errors import ConfigError
from annorun.votes import Pool, Votes

PRIOR = np.array([0.5, 0.3, 0.2])
SKEWED = np.array([[0.7, 0.25, 0.05], [0.1, 0.6, 0.3], [0.35, 0.05, 0.6]])  # [true, observed]


def make(item, annotator, label, n_items, n_annotators, n_classes):
    return Votes(
        np.array(item), np.array(annotator), np.array(label), n_items, n_annotators, n_classes
    )


def crowd(seed=0, n_items=200, n_annotators=6, share=0.7):
    """Annotators with skewed, different confusions; some votes are missing."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, size=n_items, p=PRIOR)
    mix = np.linspace(0.2, 1, n_annotators)[:, None, None]
    confusion = mix * SKEWED + (1 - mix) * np.eye(3)
    item, annotator = np.nonzero(rng.random((n_items, n_annotators)) < share)
    draw = rng.random(len(item))[:, None]
    label = (draw > confusion[annotator, truth[item]].cumsum(axis=1)).sum(axis=1)
    return make(item, annotator, label, n_items, n_annotators, 3), truth, confusion


@pytest.fixture
def by_hand():
    """Three items, two annotators, three classes; annotator 1 has not labelled item 1."""
    votes = make([0, 1, 2, 0, 2], [0, 0, 0, 1, 1], [1, 2, 2, 0, 1], 3, 2, 3)
    return votes, np.array([[1 / 2, 1 / 2, 0], [0, 1, 0], [0, 1 / 4, 3 / 4]])


# Annotator 0 said 1, 2, 2. Row true = 0: item 0 alone (1/2), all on label 1. Row true = 1: 1/2 on
# label 1, 1 + 1/4 on label 2. Row true = 2: 3/4 on label 2. Annotator 1 said 0, -, 1: row 1 is 1/2
# on label 0 and 1/4 on label 1.
CONFUSION = [
    [[0, 1, 0], [0, 2 / 7, 5 / 7], [0, 0, 1]],
    [[1, 0, 0], [2 / 3, 1 / 3, 0], [0, 1, 0]],
]


def test_m_step_by_hand(by_hand):
    votes, probs = by_hand
    params = m_step(incidence(votes), probs, 0.0)
    np.testing.assert_allclose(params.confusion, CONFUSION, atol=1e-15)
    np.testing.assert_allclose(params.prior, [1 / 6, 7 / 12, 1 / 4], atol=1e-15)


def test_m_step_smoothing_by_hand(by_hand):
    """One vote more in each cell.

    Row true = 0 of annotator 0 is (1, 3/2, 1) / (7/2), the prior (1.5, 2.75, 1.75) / 6.
    """
    votes, probs = by_hand
    params = m_step(incidence(votes), probs, 1.0)
    np.testing.assert_allclose(params.confusion[0, 0], [2 / 7, 3 / 7, 2 / 7], atol=1e-15)
    np.testing.assert_allclose(params.confusion[1, 1], [1.5 / 3.75, 1.25 / 3.75, 1 / 3.75])
    np.testing.assert_allclose(params.prior, [1.5 / 6, 2.75 / 6, 1.75 / 6], atol=1e-15)


def test_e_step_by_hand(by_hand):
    """With the parameters above.

    Item 0 (labels 1, 0): 1/6, 7/12 * 2/7 * 2/3 = 1/9, 0; sum 5/18. Item 1 (label 2, annotator 0
    alone): 0, 7/12 * 5/7 = 5/12, 1/4; sum 2/3. Item 2 (labels 2, 1): 0, 5/12 * 1/3 = 5/36, 1/4; sum
    7/18.
    """
    votes, _ = by_hand
    params = Params(np.array([1 / 6, 7 / 12, 1 / 4]), np.array(CONFUSION))
    probs, log_likelihood = e_step(incidence(votes), params)
    expected = [[3 / 5, 2 / 5, 0], [0, 5 / 8, 3 / 8], [0, 5 / 14, 9 / 14]]
    np.testing.assert_allclose(probs, expected, atol=1e-14)
    assert log_likelihood == pytest.approx(math.log(5 / 18 * 2 / 3 * 7 / 18), abs=1e-13)


def reference(votes, n_iter, smoothing):
    """The model as loops over dictionaries, in probabilities; nothing is shared with the code."""
    by_item = {}
    for i, a, z in zip(votes.item, votes.annotator, votes.label, strict=True):
        by_item.setdefault(int(i), []).append((int(a), int(z)))
    classes = range(votes.n_classes)
    q = {
        i: [sum(z == k for _, z in said) / len(said) for k in classes]
        for i, said in by_item.items()
    }
    trace = []
    for _ in range(n_iter):
        total = [smoothing + sum(q[i][k] for i in q) for k in classes]
        p = [total[k] / sum(total) for k in classes]
        table = {}
        for a in range(votes.n_annotators):
            for k in classes:
                row = [smoothing] * votes.n_classes
                for i, said in by_item.items():
                    for b, z in said:
                        if a == b:
                            row[z] += q[i][k]
                for z in classes:
                    table[a, k, z] = row[z] / sum(row)
        objective = smoothing * sum(map(math.log, [*p, *table.values()]))
        for i, said in by_item.items():
            joint = [p[k] * math.prod(table[a, k, z] for a, z in said) for k in classes]
            objective += math.log(sum(joint))
            q[i] = [value / sum(joint) for value in joint]
        trace.append(objective)
    shape = (votes.n_annotators, votes.n_classes, votes.n_classes)
    confusion = np.array([table[key] for key in np.ndindex(shape)]).reshape(shape)
    return np.array([q[i] for i in sorted(q)]), confusion, np.array(p), trace


@pytest.mark.parametrize("smoothing", [0.01, 0.1, 1.0])
def test_equals_the_slow_reference(smoothing):
    votes, _, _ = crowd(n_items=60)
    got = dawid_skene(votes, max_iter=8, tol=1e-300, smoothing=smoothing)
    probs, confusion, prior, trace = reference(votes, 8, smoothing)
    voted = np.unique(votes.item)
    np.testing.assert_allclose(got.probs[voted], probs, atol=1e-10, rtol=0)
    np.testing.assert_allclose(got.confusion, confusion, atol=1e-10, rtol=0)
    np.testing.assert_allclose(got.trace, trace, rtol=1e-12)
    weighted = [sum(prior[k] * confusion[a, k, k] for k in range(3)) for a in range(6)]
    np.testing.assert_allclose(got.accuracy, weighted, atol=1e-10, rtol=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.001, 0.1, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_objective_never_falls(seed, smoothing):
    votes, _, _ = crowd(seed, n_items=80, n_annotators=8, share=0.4)
    trace = np.array(dawid_skene(votes, max_iter=200, tol=1e-12, smoothing=smoothing).trace)
    assert len(trace) > 10
    assert np.diff(trace).min() >= -1e-12 * np.abs(trace).max()
    assert trace[-1] > trace[0] + 1e-3


@pytest.mark.parametrize("smoothing", [0.0, 1e-9])
def test_perfect_annotators_give_the_truth_exactly(smoothing):
    truth = np.arange(30) % 3
    item, annotator = np.divmod(np.arange(90), 3)
    got = dawid_skene(make(item, annotator, truth[item], 30, 3, 3), smoothing=smoothing)
    np.testing.assert_allclose(got.probs, np.eye(3)[truth], atol=1e-12)
    np.testing.assert_allclose(got.confusion, np.broadcast_to(np.eye(3), (3, 3, 3)), atol=1e-9)
    np.testing.assert_allclose(got.accuracy, 1, atol=1e-9)
    assert got.converged


def test_planted_confusion_is_found_and_beats_the_majority():
    """A confusion row from .9 * 4,000 items has a standard error of at most .5 / 60 = .008."""
    votes, truth, confusion = crowd(n_items=20_000, share=0.9)
    got = dawid_skene(votes, tol=1e-9, max_iter=500)
    assert got.converged
    assert np.abs(got.confusion - confusion).max() < 0.04
    wrong = (got.probs.argmax(axis=1) != truth).mean()
    assert wrong < (majority(votes).probs.argmax(axis=1) != truth).mean() - 0.01
    np.testing.assert_allclose(got.accuracy, np.einsum("k,akk->a", PRIOR, confusion), atol=0.02)


def test_a_spammer_has_a_flat_confusion_and_no_say():
    rng = np.random.default_rng(0)
    truth = rng.integers(4, size=8000)
    pool = Pool(np.array([0.8, 0.8, 0.8, 0.8, 0.25]))
    votes = noise.uniform(truth=truth, pool=pool, n_classes=4, rng=rng)
    got = dawid_skene(votes)
    assert np.abs(got.confusion[4] - 0.25).max() < 0.04
    np.testing.assert_allclose(got.accuracy, pool.expertise, atol=0.02)
    keep = votes.annotator < 4
    four = make(votes.item[keep], votes.annotator[keep], votes.label[keep], 8000, 4, 4)
    assert np.abs(dawid_skene(four).probs - got.probs).mean() < 0.01


def test_tolerance_is_per_vote_and_not_converging_is_said():
    votes, _, _ = crowd()
    done = dawid_skene(votes, tol=1e-5)
    gain = np.diff(done.trace)
    assert done.converged
    assert gain[-1] <= 1e-5 * len(votes) < gain[-2]
    cut = dawid_skene(votes, tol=1e-5, max_iter=len(done.trace) - 1)
    assert not cut.converged
    assert cut.trace == done.trace[:-1]


def test_permuting_annotators_permutes():
    votes, _, _ = crowd()
    order = np.array([3, 0, 5, 1, 4, 2])  # annotator a is called order[a]
    moved = make(votes.item, order[votes.annotator], votes.label, 200, 6, 3)
    one, other = dawid_skene(votes), dawid_skene(moved)
    np.testing.assert_allclose(other.probs, one.probs, atol=1e-6)
    np.testing.assert_allclose(other.confusion[order], one.confusion, atol=1e-6)
    np.testing.assert_allclose(other.accuracy[order], one.accuracy, atol=1e-6)


def test_renaming_labels_permutes_the_classes():
    votes, _, _ = crowd()
    name = np.array([2, 0, 1])  # class k is called name[k]
    one = dawid_skene(votes)
    other = dawid_skene(make(votes.item, votes.annotator, name[votes.label], 200, 6, 3))
    np.testing.assert_allclose(other.probs[:, name], one.probs, atol=1e-6)
    np.testing.assert_allclose(
        other.confusion[:, name[:, None], name[None, :]], one.confusion, atol=1e-6
    )
    np.testing.assert_allclose(other.accuracy, one.accuracy, atol=1e-6)


def test_shuffled_rows_are_the_same_to_the_bit():
    votes, _, _ = crowd()
    order = np.random.default_rng(1).permutation(len(votes))
    shuffled = make(votes.item[order], votes.annotator[order], votes.label[order], 200, 6, 3)
    one, other = dawid_skene(votes), dawid_skene(shuffled)
    assert one.trace == other.trace
    assert (one.probs == other.probs).all() and (one.confusion == other.confusion).all()


def test_every_annotator_twice_is_every_vote_twice():
    votes, _, _ = crowd()
    twice = make(
        np.tile(votes.item, 2),
        np.concatenate([votes.annotator, votes.annotator + 6]),
        np.tile(votes.label, 2),
        *(200, 12, 3),
    )
    got = dawid_skene(twice, smoothing=0.2)
    np.testing.assert_allclose(got.confusion[:6], got.confusion[6:], atol=1e-14)
    params = m_step(incidence(votes), majority(votes).probs, 0.2)
    probs, _ = e_step(incidence(votes), params)
    clones = Params(params.prior, np.tile(params.confusion, (2, 1, 1)))
    doubled, _ = e_step(incidence(twice), clones)
    expected = probs**2 / params.prior  # p (prod)^2, from q prop. to p prod
    np.testing.assert_allclose(doubled, expected / expected.sum(axis=1, keepdims=True), atol=1e-12)


def test_items_and_annotators_without_votes_change_nothing_else():
    votes, _, _ = crowd(share=0.9)
    more = make(votes.item, votes.annotator, votes.label, 250, 8, 3)
    one, other = dawid_skene(votes), dawid_skene(more)
    np.testing.assert_allclose(other.probs[:200], one.probs, atol=1e-9)
    np.testing.assert_allclose(other.accuracy[:6], one.accuracy, atol=1e-9)
    assert np.isnan(other.accuracy[6:]).all()
    voted = np.unique(votes.item)
    # the class prior: the mean posterior of the voted items, 0.1 in each class added
    mean = (other.probs[voted].sum(axis=0) + 0.1) / (len(voted) + 0.3)
    np.testing.assert_allclose(other.probs[200:], np.tile(mean, (50, 1)), atol=1e-3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_nothing_voted_is_uniform(smoothing):
    got = dawid_skene(make([], [], [], 2, 3, 4), smoothing=smoothing)
    assert got.converged and got.probs == pytest.approx(np.full((2, 4), 0.25))
    assert np.isnan(got.accuracy).all()


def test_hundreds_of_votes_an_item_do_not_underflow():
    """With 2,000 votes an item the joint is about e^-3000, far below the smallest double."""
    rng = np.random.default_rng(0)
    truth = np.array([0, 1, 2, 3, 4] * 4)
    votes = noise.uniform(truth=truth, pool=Pool(np.full(2000, 0.25)), n_classes=5, rng=rng)
    got = dawid_skene(votes)
    assert np.isfinite(got.trace).all()
    np.testing.assert_allclose(got.probs, np.eye(5)[truth], atol=1e-9)


def test_several_labels_an_item_and_annotator_are_refused():
    votes = Votes(np.array([0, 0]), np.array([0, 0]), np.array([0, 1]), 1, 1, 2, multi_label=True)
    with pytest.raises(ConfigError, match="one label"):
        dawid_skene(votes)


def test_memory_is_one_entry_a_vote():
    votes, _, _ = crowd()
    assert incidence(votes).nnz == len(votes)


def test_matrices_too_large_to_hold_are_refused():
    """3e8 numbers are allowed, one annotator more is not."""
    module.refuse_many(make([0], [0], [0], 1, 30_000, 100), "dawid_skene")
    with pytest.raises(ConfigError, match=r"dawid_skene: .* 300010000 numbers.* one_coin, mace"):
        dawid_skene(make([0], [0], [0], 1, 30_001, 100))


def test_docstring_example():
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0
