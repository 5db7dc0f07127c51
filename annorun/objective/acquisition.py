"""Which label to ask for next: the (example, annotator) pair that leaves the queries least open.

An open question of Kumagai et al., arXiv 2506.10259; the criterion is expected error reduction (Roy
and McCallum, ICML 2001) with entropy for error. For a pair (n, r) without a vote,

    p(y_nr = l) = sum_k q_nk alpha[r, k, l]
    score(n, r) = sum_l p(y_nr = l) mean_x H(p(t | x, votes and y_nr = l))

over the queries x: every possible vote is added and the method adapts anew. The pair with the
lowest score is asked. All pairs, labels and tasks are one batch of tasks.

Queries are seen without their labels, as they are when the method answers them.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

# (support, query, votes) -> log probabilities of queries (T, Q, K), responsibilities (T, N, K),
# log confusion matrices (T, R, K, K)
Adapt = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
# so many numbers of embedded support and queries at once
MOST = 2**24


def entropy(
    log_probs: Tensor,  # (..., n_classes)
) -> Tensor:  # (...)
    """Return the entropy in nats; a probability of 0 adds nothing."""
    each: Tensor = torch.special.entr(log_probs.exp())
    return each.sum(dim=-1)


def predicted_vote(
    responsibilities: Tensor,  # (n_tasks, n_examples, n_classes)
    log_confusion: Tensor,  # (n_tasks, n_annotators, n_classes, n_classes)
) -> Tensor:  # (n_tasks, n_examples, n_annotators, n_classes)
    """Return the probability of each label, were the annotator asked for the example."""
    return torch.einsum("tnk,trkl->tnrl", responsibilities, log_confusion.exp())


def expected_entropy(
    adapt: Adapt,
    support: Tensor,  # (n_examples, size), of one task
    query: Tensor,  # (n_queries, size)
    votes: Tensor,  # (n_examples, n_annotators), -1 where there is none
    pairs: Tensor,  # (n_pairs, 2) example and annotator without a vote
) -> Tensor:  # (n_pairs,)
    """Return the mean entropy of the queries that is expected after each pair's vote."""
    _, responsibilities, log_confusion = adapt(support[None], query[None], votes[None])
    vote = predicted_vote(responsibilities, log_confusion)[0]
    n_classes, n_pairs = vote.shape[-1], len(pairs)
    weight = vote[pairs[:, 0], pairs[:, 1]]
    one_more = votes.expand(n_pairs, n_classes, *votes.shape).clone()
    each = torch.arange(n_pairs, device=votes.device)[:, None]
    label = torch.arange(n_classes, device=votes.device).expand(n_pairs, -1)
    one_more[each, label, pairs[:, :1], pairs[:, 1:]] = label
    one_more = one_more.flatten(0, 1)
    at_once = max(1, MOST // (support.numel() + query.numel()))
    left = []
    for first in range(0, len(one_more), at_once):
        part = one_more[first : first + at_once]
        same, asked = (x.expand(len(part), *x.shape) for x in (support, query))
        left.append(entropy(adapt(same, asked, part)[0]).mean(dim=1))
    return (torch.cat(left).view(n_pairs, n_classes) * weight).sum(dim=1)


def acquire(
    adapt: Adapt,
    support: Tensor,  # (n_tasks, n_examples, size)
    query: Tensor,  # (n_tasks, n_queries, size)
    votes: Tensor,  # (n_tasks, n_examples, n_annotators) what each would say; -1: not to be had
    policy: Literal["random", "entropy"],
    first: int,
    budget: int,
    seed: Tensor,  # (n_tasks,) of what is drawn for a task
) -> Tensor:  # (n_tasks, n_examples, n_annotators)
    """Return the votes that were asked for, -1 elsewhere.

    Each example has `first` votes of random annotators to begin with; then `budget` are asked for,
    one after another. Both policies begin with the same votes.
    """
    generators = [torch.Generator().manual_seed(int(s)) for s in seed]
    rank = torch.stack([torch.rand(votes[0].shape, generator=g) for g in generators])
    rank = rank.to(votes.device)
    rank = torch.where(votes >= 0, rank, torch.inf)
    begun = rank.argsort(dim=-1).argsort(dim=-1) < first
    order = [torch.randperm(votes[0].numel(), generator=g) for g in generators]
    known = torch.where(begun, votes, -1)
    for t in range(len(votes)):
        for _ in range(budget):
            is_open = ((known[t] < 0) & (votes[t] >= 0)).flatten().cpu()
            # in a random order: it is the random policy, and settles ties of the other
            places = order[t][is_open[order[t]]].to(votes.device)
            if not len(places):
                break
            pairs = torch.stack([places // votes.shape[2], places % votes.shape[2]], dim=1)
            best = 0
            if policy == "entropy":
                best = int(expected_entropy(adapt, support[t], query[t], known[t], pairs).argmin())
            n, r = pairs[best]
            known[t, n, r] = votes[t, n, r]
    return known
