"""Labels out of votes: Dawid-Skene with its prior by hand, in its limits, and against two EMs."""

import numpy as np
import pytest
import torch
from torch import Tensor

from annorun.aggregation import dawid_skene as aggregator
from annorun.aggregation.majority import majority as aggregator_majority
from annorun.errors import ConfigError
from annorun.objective import prototypes, votes_em
from annorun.objective.prototypes import Priors
from annorun.votes import Floats, Votes

# no two equal, none a neutral 1
PRIORS = Priors(classes=5.0, right=3.0, wrong=0.4)


def drawn_votes(n_tasks: int = 5, n: int = 9, r: int = 4, k: int = 3, seed: int = 0) -> Tensor:
    """Votes that are right half of the time; the first annotator is silent on some examples."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % k
    drawn = rng.integers(k, size=(n_tasks, n, r))
    votes = np.where(rng.random((n_tasks, n, r)) < 0.5, truth[:, None], drawn)
    votes[:, ::4, 0] = -1
    return torch.from_numpy(votes)


def as_votes(votes: Tensor, k: int) -> Votes:
    """One task's votes as the aggregators take them."""
    item, annotator = np.nonzero(votes.numpy() >= 0)
    label = votes.numpy()[item, annotator]
    return Votes(item, annotator, label, votes.shape[0], votes.shape[1], k)


def em_by_counting(votes: Tensor, k: int, priors: Priors, steps: int) -> tuple[Floats, Floats]:
    """One task's posterior and accuracies, vote after vote and in probabilities, not their logs."""
    y = votes.numpy()
    n, r = y.shape
    q = np.array([np.bincount(row[row >= 0], minlength=k) for row in y]) / 1.0
    q = np.where(q.sum(1, keepdims=True), q, 1.0)
    q /= q.sum(1, keepdims=True)
    for _ in range(steps):
        pi = (priors.classes + q.sum(0)) / (k * priors.classes + n)
        alpha = np.full((r, k, k), priors.wrong)
        alpha[:, range(k), range(k)] = priors.right
        for i, a in np.argwhere(y >= 0):
            alpha[a, :, y[i, a]] += q[i]
        alpha /= alpha.sum(2, keepdims=True)
        q = np.tile(pi, (n, 1))
        for i, a in np.argwhere(y >= 0):
            q[i] *= alpha[a, :, y[i, a]]
        q /= q.sum(1, keepdims=True)
    return q, np.einsum("k,rkk->r", pi, alpha)


def test_one_step_by_hand() -> None:
    """Two examples, two classes; one says 0, 1, the other 0, 0. b = 1, c = 2 right, 1 wrong.

    q = (1, 0), (1/2, 1/2), so N = (3/2, 1/2) and pi = (5/2, 3/2) / 4. Of the first annotator
    alpha = (3, 3/2) / (9/2) and (1, 5/2) / (7/2), of the second (7/2, 1) / (9/2) and
    (3/2, 2) / (7/2). Example 0 has 5/2 * 3 * 7/2 / (9/2)^2 = 35/27 against
    3/2 * 1 * 3/2 / (7/2)^2 = 9/49, example 1 has 35/54 against 45/98.
    """
    votes = torch.tensor([[[0, 0, -1], [1, 0, -1]]])
    found = votes_em.dawid_skene(votes, 2, Priors(1.0, 2.0, 1.0), steps=1)
    first = [1715 / 1958, 343 / 586]
    np.testing.assert_allclose(found.probs[0, :, 0], first, atol=1e-12)
    np.testing.assert_allclose(found.probs[0, :, 1], [1 - p for p in first], atol=1e-12)
    # 5/8 * 2/3 + 3/8 * 5/7 and 5/8 * 7/9 + 3/8 * 4/7; the third has no vote
    np.testing.assert_allclose(found.accuracy[0], [115 / 168, 353 / 504, np.nan], atol=1e-12)


@pytest.mark.parametrize("steps", [1, 4, None])
def test_every_task_has_the_em_that_counts_votes_one_by_one(steps: int | None) -> None:
    votes = drawn_votes()
    votes[1, 5] = -1
    given = {} if steps is None else {"steps": steps}
    found = votes_em.dawid_skene(votes, 3, PRIORS, **given)
    for t, task in enumerate(votes):
        probs, accuracy = em_by_counting(task, 3, PRIORS, steps or 20)
        np.testing.assert_allclose(found.probs[t], probs, atol=1e-10)
        np.testing.assert_allclose(found.accuracy[t], accuracy, atol=1e-10)


@pytest.mark.parametrize("smoothing", [0.1, 1.7])
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_equal_pseudo_counts_are_the_aggregator_s_smoothing(steps: int, smoothing: float) -> None:
    votes = drawn_votes()
    found = votes_em.dawid_skene(votes, 3, Priors(smoothing, smoothing, smoothing), steps)
    # a tolerance that no iteration can meet: both take all steps
    end = {"max_iter": steps, "tol": 1e-300, "smoothing": smoothing}
    for t, task in enumerate(votes):
        wanted = aggregator.dawid_skene(as_votes(task, 3), **end)
        np.testing.assert_allclose(found.probs[t], wanted.probs, atol=1e-9)
        np.testing.assert_allclose(found.accuracy[t], wanted.accuracy, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 6])
def test_it_is_meta_em_s_em_over_embeddings_of_no_dimension(steps: int) -> None:
    votes = drawn_votes(seed=1)
    nowhere = torch.zeros(5, 9, 0, dtype=torch.float64)
    fitted = prototypes.em(nowhere, votes, 3, steps=steps, priors=PRIORS)
    found = votes_em.dawid_skene(votes, 3, PRIORS, steps)
    torch.testing.assert_close(found.probs, fitted.responsibilities, atol=1e-12, rtol=0)
    torch.testing.assert_close(found.accuracy, prototypes.accuracy(fitted), atol=1e-12, rtol=0)


def test_a_vanishing_prior_is_maximum_likelihood() -> None:
    votes = drawn_votes(n_tasks=2, n=30, seed=2)
    found = votes_em.dawid_skene(votes, 3, Priors(1e-9, 1e-9, 1e-9), steps=7)
    for t, task in enumerate(votes):
        probs, accuracy = em_by_counting(task, 3, Priors(0.0, 0.0, 0.0), 7)
        np.testing.assert_allclose(found.probs[t], probs, atol=1e-6)
        np.testing.assert_allclose(found.accuracy[t], accuracy, atol=1e-6)


def test_a_strong_diagonal_makes_all_annotators_alike_and_the_label_the_majority() -> None:
    """Nothing is learned of anybody: a vote multiplies the odds of its class by right / wrong."""
    votes = drawn_votes(seed=3)
    found = votes_em.dawid_skene(votes, 3, Priors(1e12, 6e12, 2e12))
    counts = torch.stack([(votes == k).sum(dim=-1) for k in range(3)], dim=-1).double()
    torch.testing.assert_close(found.probs, (counts * np.log(3)).softmax(-1), atol=1e-9, rtol=0)
    majority = votes_em.majority(votes, 3)
    assert torch.equal(votes_em.hard(found.probs), votes_em.hard(majority.probs))
    torch.testing.assert_close(found.accuracy, torch.full((5, 4), 0.6, dtype=torch.float64))


def test_a_strong_class_prior_makes_classes_alike() -> None:
    """Where pi is learned, a class that is named more often is more likely without any vote."""
    votes = torch.tensor([[[0, 0], [0, 0], [0, 0], [1, 1], [-1, -1]]])
    even = votes_em.dawid_skene(votes, 2, Priors(1e9, 2.0, 1.0)).probs[0, 4]
    np.testing.assert_allclose(even, [0.5, 0.5], atol=1e-6)
    learned = votes_em.dawid_skene(votes, 2, Priors(0.5, 2.0, 1.0)).probs[0, 4]
    assert 0.65 < learned[0] < 0.75


@pytest.mark.parametrize("method", ["majority", "dawid_skene"])
def test_the_order_of_annotators_examples_and_classes_is_free(method: str) -> None:
    def labelled(votes: Tensor) -> votes_em.Believed:
        if method == "majority":
            return votes_em.majority(votes, 3)
        return votes_em.dawid_skene(votes, 3, PRIORS)

    votes = drawn_votes(seed=4)
    plain = labelled(votes)
    who, new = torch.tensor([2, 0, 3, 1]), torch.tensor([2, 0, 1])
    order = torch.tensor([8, 2, 5, 0, 7, 1, 4, 6, 3])
    found = labelled(votes[..., who])
    torch.testing.assert_close(found.probs, plain.probs)
    torch.testing.assert_close(found.accuracy, plain.accuracy[:, who])
    found = labelled(votes[:, order])
    torch.testing.assert_close(found.probs, plain.probs[:, order])
    torch.testing.assert_close(found.accuracy, plain.accuracy)
    found = labelled(torch.where(votes < 0, votes, new[votes]))
    torch.testing.assert_close(found.probs[..., new], plain.probs)
    torch.testing.assert_close(found.accuracy, plain.accuracy)


@pytest.mark.parametrize("method", ["majority", "dawid_skene"])
def test_a_task_does_not_depend_on_the_others_of_its_batch(method: str) -> None:
    votes = drawn_votes(seed=5)
    # one that is settled after a step, and one where nobody votes
    votes[3], votes[4] = (torch.arange(9) % 3)[:, None], -1
    call = {
        "majority": lambda v: votes_em.majority(v, 3),
        "dawid_skene": lambda v: votes_em.dawid_skene(v, 3, PRIORS),
    }[method]
    both = call(votes)
    for t in range(5):
        alone = call(votes[[t]])
        torch.testing.assert_close(alone.probs[0], both.probs[t])
        torch.testing.assert_close(alone.accuracy[0], both.accuracy[t], equal_nan=True)


def test_majority_is_the_aggregator_in_each_task() -> None:
    votes = drawn_votes()
    votes[2, :, 3] = -1
    found = votes_em.majority(votes, 3)
    assert found.accuracy.isnan().nonzero().tolist() == [[2, 3]]
    for t, task in enumerate(votes):
        wanted = aggregator_majority(as_votes(task, 3))
        np.testing.assert_allclose(found.probs[t], wanted.probs, atol=1e-12)
        np.testing.assert_allclose(found.accuracy[t], wanted.accuracy, atol=1e-12)


def test_dawid_skene_outvotes_spammers_and_a_silent_annotator_has_no_accuracy() -> None:
    # two who know all; three who always say 0, and outvote them on every example but those of 0
    truth = torch.arange(12) % 3
    votes = torch.stack([truth, truth, *[0 * truth] * 3, 0 * truth - 1], dim=1)[None]
    found = votes_em.dawid_skene(votes, 3, Priors(0.1, 0.1, 0.1))
    assert (votes_em.majority(votes, 3).probs.argmax(-1) == 0).all()
    assert (found.probs.argmax(-1) == truth).all()
    assert found.accuracy[0, :2].min() > 0.9 > 0.5 > found.accuracy[0, 2:5].max()
    assert found.accuracy[0].isnan().tolist() == [False] * 5 + [True]


def test_the_default_prior_keeps_to_the_majority_where_annotators_have_two_votes() -> None:
    """Nine annotators have two votes each; two of the three votes on an example are for its class.

    A nearly flat prior fits each annotator a matrix that says what they said, and gives that up.
    """
    votes = torch.full((1, 6, 9), -1)
    for example, annotator, label in [
        *((0, 0, 0), (0, 1, 0), (0, 2, 1)),
        *((1, 3, 0), (1, 4, 0), (1, 5, 2)),
        *((2, 6, 1), (2, 7, 1), (2, 0, 0)),
        *((3, 8, 1), (3, 1, 1), (3, 3, 2)),
        *((4, 2, 2), (4, 5, 2), (4, 6, 0)),
        *((5, 4, 2), (5, 7, 2), (5, 8, 1)),
    ]:
        votes[0, example, annotator] = label
    wanted = torch.tensor([0, 0, 1, 1, 2, 2])
    assert votes_em.majority(votes, 3).probs[0].argmax(-1).tolist() == wanted.tolist()
    found = votes_em.dawid_skene(votes, 3, Priors()).probs[0]
    assert found.argmax(-1).tolist() == wanted.tolist()
    flat = votes_em.dawid_skene(votes, 3, Priors(0.1, 0.1, 0.1)).probs[0]
    assert flat.argmax(-1).tolist() == [0, 0, 0, 2, 2, 2]


def test_ties_are_split_evenly_within_rounding() -> None:
    rows = [[0.3, 0.3, 0.4], [0.5, 0.5 - 1e-12, 1e-12], [1 / 3] * 3, [0.4, 0.399, 0.201]]
    wanted = [[0.0, 0.0, 1.0], [0.5, 0.5, 0.0], [1 / 3] * 3, [1.0, 0.0, 0.0]]
    np.testing.assert_allclose(votes_em.hard(torch.tensor(rows, dtype=torch.float64)), wanted)


@pytest.mark.parametrize("priors", [Priors(), PRIORS, Priors(0.1, 0.1, 0.1)])
def test_votes_that_tie_stay_tied_after_any_number_of_steps(priors: Priors) -> None:
    # two say 0 and two say 1 of both examples: nothing prefers a class
    votes = torch.tensor([[[0, 0, 1, 1], [1, 1, 0, 0], [2, 2, 2, 2]]])
    found = votes_em.hard(votes_em.dawid_skene(votes, 3, priors).probs)[0]
    assert found.tolist() == [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]]
    # not by anybody: 1 / K
    assert votes_em.hard(votes_em.dawid_skene(votes * 0 - 1, 3, priors).probs).unique() == 1 / 3


def test_no_steps_and_a_prior_of_nothing_are_refused() -> None:
    votes = drawn_votes(1)
    with pytest.raises(ConfigError, match="dawid_skene: steps=0; allowed is 1 or more"):
        votes_em.dawid_skene(votes, 3, Priors(), steps=0)
    with pytest.raises(ConfigError, match=r"priors\.wrong=0\.0; allowed is a number above 0"):
        votes_em.dawid_skene(votes, 3, Priors(1.0, 1.0, 0.0))
