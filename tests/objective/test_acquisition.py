"""Which label to ask for next: the expected entropy by hand, and who is asked."""

import math

import pytest
import torch
from torch import Tensor

from annorun.objective import prototypes
from annorun.objective.acquisition import acquire, entropy, expected_entropy, predicted_vote


def test_entropy_of_known_distributions() -> None:
    probs = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.25, 0.75]])
    by_hand = [0.0, math.log(2), -0.25 * math.log(0.25) - 0.75 * math.log(0.75)]
    torch.testing.assert_close(entropy(probs.log()), torch.tensor(by_hand))


def test_a_vote_is_predicted_through_the_annotators_own_matrix() -> None:
    # p(y = 0) = .6 * .9 + .4 * .2 = .62
    responsibilities = torch.tensor([[[0.6, 0.4]]])
    confusion = torch.tensor([[[[0.9, 0.1], [0.2, 0.8]]]])
    vote = predicted_vote(responsibilities, confusion.log())
    torch.testing.assert_close(vote[0, 0, 0], torch.tensor([0.62, 0.38]))


def by_count(support: Tensor, query: Tensor, votes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A method of two classes whose one query has p(0) = .5 + .2 (votes 0 of example 0)."""
    n_tasks, n_examples, n_annotators = votes.shape
    p = 0.5 + 0.2 * (votes[:, 0] == 0).sum(dim=-1).float()
    log_probs = torch.stack([p, 1 - p], dim=-1).log()[:, None]
    responsibilities = torch.tensor([0.25, 0.75]).expand(n_tasks, n_examples, 2)
    confusion = torch.tensor([[0.8, 0.2], [0.4, 0.6]]).expand(n_tasks, n_annotators, 2, 2)
    return log_probs, responsibilities, confusion.log()


def test_the_expected_entropy_weighs_each_possible_vote() -> None:
    votes = torch.full((2, 1), -1)
    pairs = torch.tensor([[0, 0], [1, 0]])
    found = expected_entropy(by_count, torch.zeros(2, 3), torch.zeros(1, 3), votes, pairs)
    # p(y = 0) = .25 * .8 + .75 * .4 = .5; a vote 0 on example 0 leaves (.7, .3), 1 leaves (.5, .5)
    h = -0.7 * math.log(0.7) - 0.3 * math.log(0.3)
    by_hand = [0.5 * h + 0.5 * math.log(2), math.log(2)]
    torch.testing.assert_close(found, torch.tensor(by_hand))
    said = torch.tensor([[0, -1], [0, 1]])[None]
    support, query = torch.zeros(1, 2, 3), torch.zeros(1, 1, 3)
    known = acquire(by_count, support, query, said, "entropy", 0, 1, torch.tensor([0]))
    assert known.tolist() == [[[0, -1], [-1, -1]]]


def by_em(support: Tensor, query: Tensor, votes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    found = prototypes.em(support, votes, 2, steps=3, priors=prototypes.Priors())
    return prototypes.log_posterior(query, found), found.responsibilities, found.log_confusion


def crowd() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    truth = torch.tensor([0, 0, 0, 1, 1, 1]).expand(2, -1)
    support = 2.0 * truth[..., None] + torch.randn(2, 6, 4, generator=draw)
    query = torch.randn(2, 5, 4, generator=draw) + 1
    wrong = torch.rand(2, 6, 4, generator=draw) < 0.3
    votes = torch.where(wrong, 1 - truth[..., None], truth[..., None])
    votes[0, 2, 1] = -1
    return support, query, votes


@pytest.mark.parametrize("policy", ["random", "entropy"])
def test_votes_are_those_that_can_be_had_as_many_as_asked(policy: str) -> None:
    support, query, votes = crowd()
    kept = votes.clone()
    seed = torch.tensor([1, 2])
    known = acquire(by_em, support, query, votes, policy, 1, 5, seed)  # type: ignore[arg-type]
    assert ((known >= 0).sum(dim=(1, 2)) == 6 + 5).all()
    assert (known[known >= 0] == votes[known >= 0]).all()
    assert ((known >= 0).sum(dim=2) >= 1).all()
    assert (votes == kept).all()


def test_both_policies_begin_alike_and_end_with_all_votes() -> None:
    support, query, votes = crowd()
    known = {
        (policy, budget): acquire(
            by_em, support, query, votes, policy, 1, budget, torch.tensor([1, 2])
        )
        for policy in ("random", "entropy")
        for budget in (0, 3, 100)
    }
    assert (known["random", 0] == known["entropy", 0]).all()
    assert (known["random", 100] == votes).all()
    assert (known["entropy", 100] == votes).all()
    assert (known["random", 3] != known["entropy", 3]).any()
    # what was asked for first stays
    for policy in ("random", "entropy"):
        few, none = known[policy, 3], known[policy, 0]
        assert (few[none >= 0] == none[none >= 0]).all()


def test_entropy_asks_whom_it_can_learn_from() -> None:
    """Of two annotators on an open example, one of whom guesses, the other is asked."""
    support = torch.zeros(1, 1, 2)
    query = torch.zeros(1, 1, 2)

    def adapt(s: Tensor, q: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        own = torch.tensor([[[0.5, 0.5], [0.5, 0.5]], [[0.95, 0.05], [0.05, 0.95]]])
        confusion = own.expand(len(v), 2, 2, 2)
        said = torch.nn.functional.one_hot(v + 1, 3)[..., 1:].float()
        log_probs = torch.einsum("tnrl,trkl->tnk", said, confusion.log()).log_softmax(-1)
        return log_probs, log_probs.exp(), confusion.log()

    votes = torch.tensor([[[1, 0]]])
    for seed in range(5):
        known = acquire(adapt, support, query, votes, "entropy", 0, 1, torch.tensor([seed]))
        assert known.tolist() == [[[-1, 0]]]


def test_a_task_alone_is_asked_as_in_a_batch_and_tasks_differ() -> None:
    support, query, votes = crowd()
    seed = torch.tensor([1, 2])
    both = acquire(by_em, support, query, votes, "random", 1, 3, seed)
    for t in range(2):
        part = slice(t, t + 1)
        own = acquire(by_em, support[part], query[part], votes[part], "random", 1, 3, seed[part])
        assert (own == both[part]).all()
    same = votes[1:].expand(2, -1, -1)
    twice = acquire(by_em, support, query, same, "random", 1, 3, seed)
    assert (twice[0] != twice[1]).any()
