"""What every aggregator of one truth an item must do, whatever its formula."""

import numpy as np
import pytest
from scipy.special import logsumexp

from annorun.aggregation.bcc import bcc
from annorun.aggregation.dawid_skene import dawid_skene
from annorun.aggregation.glad import glad
from annorun.aggregation.lfc import lfc
from annorun.aggregation.majority import majority
from annorun.aggregation.majority_by_group import majority_by_group
from annorun.aggregation.one_coin import one_coin
from annorun.aggregation.tally import posterior
from annorun.aggregation.wawa import wawa
from annorun.errors import ConfigError
from annorun.votes import Votes

ITERATIVE = [bcc, dawid_skene, glad, lfc, one_coin]
ALL = [*ITERATIVE, majority, majority_by_group, wawa]
iterative = pytest.mark.parametrize("method", ITERATIVE, ids=lambda m: m.__name__)
every = pytest.mark.parametrize("method", ALL, ids=lambda m: m.__name__)
N_ITEMS, N_ANNOTATORS = 60, 7


def make(method, item, annotator, label, n_items=N_ITEMS, n_annotators=N_ANNOTATORS, n_classes=3):
    """Make votes; lfc has two classes, whatever is asked."""
    if method is lfc:
        label, n_classes = np.minimum(label, 1), 2
    group = np.arange(n_annotators) % 2
    return Votes(item, annotator, label, n_items, n_annotators, n_classes, group=group)


def triplets(seed=0):
    """Annotators of accuracy .45 to .95, errors skewed to the next class; some votes missing."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, size=N_ITEMS, p=[0.5, 0.3, 0.2])
    item, annotator = np.nonzero(rng.random((N_ITEMS, N_ANNOTATORS)) < 0.7)
    right = rng.random(len(item)) < np.linspace(0.45, 0.95, N_ANNOTATORS)[annotator]
    label = np.where(right, truth[item], (truth[item] + rng.choice([1, 1, 2], len(item))) % 3)
    return item, annotator, label


def same(one, other, by_item=slice(None), by_annotator=slice(None), by_class=slice(None)):
    """Hold `other`, read in the new names, against `one`."""
    probs = other.probs[by_item][:, by_class]
    np.testing.assert_allclose(probs, one.probs, atol=1e-6, rtol=0)
    np.testing.assert_allclose(other.accuracy[by_annotator], one.accuracy, atol=1e-6, rtol=0)
    if one.confusion is not None:
        confusion = other.confusion[by_annotator][:, by_class][:, :, by_class]
        np.testing.assert_allclose(confusion, one.confusion, atol=1e-6, rtol=0)


@every
def test_probabilities_are_probabilities(method):
    votes = make(method, *triplets())
    got = method(votes)
    np.testing.assert_allclose(got.probs.sum(axis=1), 1, atol=1e-12)
    assert got.probs.min() >= 0
    assert ((got.accuracy >= 0) & (got.accuracy <= 1)).all()
    if got.confusion is not None:
        assert got.confusion.shape == (N_ANNOTATORS, votes.n_classes, votes.n_classes)
        np.testing.assert_allclose(got.confusion.sum(axis=2), 1, atol=1e-12)


@every
def test_shuffled_rows_are_the_same_to_the_bit(method):
    columns = triplets()
    order = np.random.default_rng(1).permutation(len(columns[0]))
    one = method(make(method, *columns))
    other = method(make(method, *(c[order] for c in columns)))
    assert one.trace == other.trace
    for name in ("probs", "accuracy", "confusion", "group_probs", "disagreement"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@every
def test_renaming_annotators_items_and_labels_renames_the_answer(method):
    item, annotator, label = triplets()
    rng = np.random.default_rng(2)
    i, a = rng.permutation(N_ITEMS), np.array([4, 1, 2, 5, 6, 3, 0])  # groups stay: 0 1 0 1 0 1 0
    k = np.array([1, 0]) if method is lfc else np.array([2, 0, 1])
    if method is lfc:
        label = np.minimum(label, 1)
    one = method(make(method, item, annotator, label))
    same(one, method(make(method, i[item], annotator, label)), by_item=i)
    if method is not majority_by_group:
        same(one, method(make(method, item, a[annotator], label)), by_annotator=a)
    same(one, method(make(method, item, annotator, k[label])), by_class=k)


@every
def test_unused_annotators_items_and_labels_change_little_else(method):
    columns = triplets()
    one = method(make(method, *columns))
    more = method(make(method, *columns, N_ITEMS + 5, N_ANNOTATORS + 1, 5))
    assert more.probs.shape == (N_ITEMS + 5, 2 if method is lfc else 5)
    assert np.isnan(more.accuracy[-1]) and not np.isnan(more.accuracy[:-1]).any()
    np.testing.assert_allclose(more.probs.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(more.probs[-5:], np.tile(more.probs[-1], (5, 1)))
    # the class prior: what the voted items are on average
    mean = more.probs[np.unique(columns[0])].mean(axis=0)
    np.testing.assert_allclose(more.probs[-1], mean, atol=0.08)
    # an unused label changes the prior of a confusion row and the share of an error
    agree = more.probs[:N_ITEMS].argmax(axis=1) == one.probs.argmax(axis=1)
    assert agree.mean() > 0.9


@every
def test_unused_annotators_and_items_change_nothing_else(method):
    columns = triplets()
    one = method(make(method, *columns))
    more = method(make(method, *columns, N_ITEMS + 5, N_ANNOTATORS + 2))
    np.testing.assert_allclose(more.probs[:N_ITEMS], one.probs, atol=1e-9)
    np.testing.assert_allclose(more.accuracy[:N_ANNOTATORS], one.accuracy, atol=1e-9)


@every
def test_no_votes_at_all_is_uniform(method):
    got = method(make(method, [], [], [], 2, 3, 2))
    assert got.converged
    np.testing.assert_allclose(got.probs, np.full((2, 2), 0.5), atol=1e-12)
    assert np.isnan(got.accuracy).all()


@every
@pytest.mark.parametrize("n_annotators", [1, 4])
def test_one_label_only(method, n_annotators):
    item, annotator = np.divmod(np.arange(10 * n_annotators), n_annotators)
    got = method(make(method, item, annotator, np.ones_like(item), 10, n_annotators))
    assert got.probs[:, 1].min() > 0.85
    assert (got.accuracy > 0.7).all()


@every
def test_one_annotator(method):
    """He is believed, but not by a free matrix, which explains as well that he errs."""
    label = np.array([0, 1, 2, 2, 1, 0, 0, 1])
    got = method(make(method, np.arange(8), np.zeros(8, dtype=int), label, 8, 1))
    np.testing.assert_allclose(got.probs.sum(axis=1), 1, atol=1e-12)
    assert 0 < got.accuracy[0] <= 1
    if method not in (dawid_skene, lfc):
        assert (got.probs.argmax(axis=1) == label).all()


@pytest.mark.parametrize("method", [*ITERATIVE, wawa], ids=lambda m: m.__name__)
def test_several_labels_an_item_and_annotator_are_refused(method):
    votes = Votes([0, 0], [0, 0], [0, 1], 1, 1, 2, multi_label=True)
    with pytest.raises(ConfigError, match=f"{method.__name__}: wants one label"):
        method(votes)


@iterative
@pytest.mark.parametrize("seed", range(4))
def test_the_objective_never_falls(method, seed):
    trace = np.array(method(make(method, *triplets(seed)), max_iter=300, tol=1e-12).trace)
    assert len(trace) > 8
    assert np.diff(trace).min() >= -1e-12 * np.abs(trace).max()
    assert trace[-1] > trace[0] + 1e-3


@iterative
def test_tolerance_is_per_vote_and_not_converging_is_said(method):
    votes = make(method, *triplets())
    done = method(votes, tol=1e-5)
    gain = np.diff(done.trace)
    assert done.converged
    assert gain[-1] <= 1e-5 * len(votes) < gain[-2]
    cut = method(votes, tol=1e-5, max_iter=len(done.trace) - 1)
    assert not cut.converged
    assert cut.trace == done.trace[:-1]


@iterative
def test_hundreds_of_votes_an_item_do_not_underflow(method):
    """With 2,000 votes an item the joint is far below the smallest double."""
    rng = np.random.default_rng(0)
    truth = np.arange(12) % 2
    item, annotator = np.divmod(np.arange(12 * 2000), 2000)
    label = np.where(rng.random(len(item)) < 0.6, truth[item], 1 - truth[item])
    got = method(make(method, item, annotator, label, 12, 2000, 2))
    assert np.isfinite(got.trace).all()
    np.testing.assert_allclose(got.probs, np.eye(2)[truth], atol=1e-9)


@pytest.mark.parametrize("n_classes", [1, 2, 16, 17, 40])
def test_shares_of_a_row_are_scipys(n_classes: int) -> None:
    """Beyond the range of exp, with an impossible class, and for narrow and wide tables."""
    log_joint = np.random.default_rng(0).normal(0, 800, (50, n_classes))
    log_joint[::2, 1:] = -np.inf
    log_sum = logsumexp(log_joint, axis=1)
    expected = np.exp(log_joint - log_sum[:, None])
    probs, found = posterior(log_joint)
    assert found == pytest.approx(log_sum, rel=1e-14)
    assert probs == pytest.approx(expected, abs=1e-13)
