"""Groups inferred from votes: the formulas by enumeration, and planted groups found."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from annorun.aggregation.nutmeg_inferred import (
    _evidence,
    _vectors,
    agreement_axis,
    log_prior,
    nutmeg_inferred,
)
from annorun.annotator_dist import subpopulations
from annorun.dataset.subpopulation_items import subpopulation_items
from annorun.errors import ConfigError
from annorun.noise import spam
from annorun.scores.recovery import adjusted_rand
from annorun.votes import Ints, Votes


def planted(divisiveness: float, rate: float, seed: int) -> tuple[Votes, Ints]:
    rng = np.random.default_rng(seed)
    items, _ = subpopulation_items(rng=rng, n_items=300, divisiveness=divisiveness)
    pool = subpopulations(
        n_items=300, rng=rng, shares=[0.7, 0.3], spam=[rate] * 2, variability=[0.0] * 2,
        per_item=6, most_items=30,
    )  # fmt: skip
    assert items.truth is not None
    return spam(truth=items.truth, pool=pool, n_classes=2, rng=rng), items.truth


def test_evidence_leaves_the_own_vote_out() -> None:
    """By enumeration: P(j's vote | j in k, others) from the vectors' posterior without j's vote."""
    rng = np.random.default_rng(0)
    n_classes, n_groups, n_annotators = 2, 2, 4
    votes = Votes(
        item=np.array([0, 0, 0, 1, 1, 2]), annotator=np.array([0, 1, 2, 1, 3, 0]),
        label=np.array([0, 1, 1, 0, 0, 1]), n_items=3, n_annotators=4, n_classes=2,
    )  # fmt: skip
    theta = rng.uniform(0.2, 0.9, n_annotators)
    s = (1 - theta)[:, None] * rng.dirichlet(np.ones(n_classes), n_annotators)
    weight = np.log1p(theta[:, None] / s)
    member = rng.dirichlet(np.ones(n_groups), n_annotators)
    vectors = np.array(list(product(range(n_classes), repeat=n_groups)))
    shares = rng.dirichlet(np.ones(len(vectors)))
    posterior = _vectors(votes, member, weight, vectors, shares)
    hit = vectors[None] == votes.label[:, None, None]
    found = _evidence(votes, member, s, weight, posterior[votes.item], hit)
    expected = np.zeros((n_annotators, n_groups))
    triples = list(
        zip(votes.item.tolist(), votes.annotator.tolist(), votes.label.tolist(), strict=True)
    )
    for n, (i, j, y) in enumerate(triples):
        others = np.log(shares).copy()
        for m, (i2, j2, y2) in enumerate(triples):
            if m != n and i2 == i:
                for v, vector in enumerate(vectors):
                    others[v] += sum(
                        member[j2, k] * weight[j2, y2] * (vector[k] == y2) for k in range(n_groups)
                    )
        p = np.exp(others - others.max())
        p /= p.sum()
        for k in range(n_groups):
            expected[j, k] += np.log(s[j, y] + theta[j] * p[vectors[:, k] == y].sum())
    assert found == pytest.approx(expected, abs=1e-12)


def test_prior_of_partitions_sums_to_one() -> None:
    """Over all g in {0,1}^4, less the factor 2! by which the order of the groups does not count."""
    total = sum(np.exp(log_prior(np.array(g), 2)) for g in product(range(2), repeat=4))
    assert total == pytest.approx(2)


def test_axis_parts_two_camps() -> None:
    """Two camps that answer each other's opposite on every second item; all equally competent."""
    item, annotator = np.divmod(np.arange(40 * 10), 10)
    label = np.where((annotator < 4) & (item % 2 == 0), 1 - item % 3 // 2, item % 3 // 2)
    votes = Votes(item, annotator, label, n_items=40, n_annotators=10, n_classes=2)
    axis = agreement_axis(votes, np.full(10, 0.5), np.arange(10))
    assert len(set(np.sign(axis[:4]))) == len(set(np.sign(axis[4:]))) == 1
    assert axis[0] * axis[9] < 0


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_groups_are_found(seed: int) -> None:
    votes, truth = planted(divisiveness=0.6, rate=0.0, seed=seed)
    found = nutmeg_inferred(replace(votes, group=None), rng=np.random.default_rng(0), n_iter=30)
    assert found.group is not None
    assert found.group_probs is not None
    assert votes.group is not None
    assert adjusted_rand(found.group, votes.group) > 0.9
    # the largest group is the first
    assert np.bincount(found.group).tolist() == sorted(np.bincount(found.group), reverse=True)
    right = found.group_probs.argmax(axis=2) == truth
    assert right.mean(axis=0) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_one_truth_is_one_group(rate: float) -> None:
    votes, _ = planted(divisiveness=0.0, rate=rate, seed=2)
    found = nutmeg_inferred(votes, rng=np.random.default_rng(0), n_iter=30)
    assert found.group is not None
    assert not found.group.any()


def test_renamed_annotators_are_grouped_alike() -> None:
    votes, _ = planted(divisiveness=0.7, rate=0.0, seed=3)
    new = np.random.default_rng(5).permutation(votes.n_annotators)
    renamed = Votes(
        votes.item, new[votes.annotator], votes.label, votes.n_items, votes.n_annotators, 2
    )
    one = nutmeg_inferred(votes, rng=np.random.default_rng(0), n_iter=30).group
    two = nutmeg_inferred(renamed, rng=np.random.default_rng(0), n_iter=30).group
    assert one is not None
    assert two is not None
    assert (two[new] == one).all()


@pytest.mark.parametrize("n_annotators", [0, 1, 2])
def test_hardly_anything_to_group(n_annotators: int) -> None:
    n = np.arange(3 * n_annotators)
    votes = Votes(
        n // max(n_annotators, 1), n % max(n_annotators, 1), n % 2, 3, n_annotators + 1, 2
    )
    found = nutmeg_inferred(votes, rng=np.random.default_rng(0), n_iter=5)
    assert found.probs.shape == (3, 2)
    assert np.isfinite(found.probs).all()


def test_several_labels_are_refused() -> None:
    votes = Votes(*np.zeros((3, 0), dtype=np.int64), 1, 1, 2, multi_label=True)
    with pytest.raises(ConfigError, match="one label an item"):
        nutmeg_inferred(votes, rng=np.random.default_rng(0))
