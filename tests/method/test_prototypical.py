from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from annorun.method.episodic import Tasks
from annorun.method.prototypical import LEAST, Prototypical, log_posterior
from annorun.objective import prototypes, votes_em
from annorun.votes import TaskSpec

SPEC = TaskSpec("features", 3, 0, (2,))
PRIORS = {"classes": 10.0, "right": 2.0, "wrong": 1.0}
OPTIMIZER = {"lr": 0.01, "betas": [0.9, 0.999], "weight_decay": 0.0, "clip": 10.0}


def method(**own: Any) -> Prototypical:
    own = {"labels": "majority", **PRIORS, **own}
    return Prototypical(SPEC, {"family": "features"}, OPTIMIZER, 0, **own)


def drawn_votes(n_tasks: int = 5, n: int = 9, r: int = 5, k: int = 3, seed: int = 0) -> Tensor:
    """Votes that are right half of the time; the first annotator is silent on some."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % k
    said = np.where(
        rng.random((n_tasks, n, r)) < 0.5, truth[:, None], rng.integers(k, size=(n_tasks, n, r))
    )
    said[:, ::4, 0] = -1
    return torch.from_numpy(said)


def tasks_of(votes: Tensor, seed: int = 0, n_queries: int = 6) -> Tasks:
    g = torch.Generator().manual_seed(seed)
    t, n, _ = votes.shape
    truth = (torch.arange(n) % 3).expand(t, -1)
    asked = (torch.arange(n_queries) % 3).expand(t, -1)
    centres = 3 * torch.randn(t, 3, 2, generator=g)
    index = torch.arange(t)[:, None]
    x = centres[index, truth] + torch.randn(t, n, 2, generator=g)
    q = centres[index, asked] + torch.randn(t, n_queries, 2, generator=g)
    return Tasks(x, votes, q, asked, truth[:, 0])


def test_class_means_and_distances_by_hand() -> None:
    # class 0 at 0 and 2: mean 1; class 1 at 4, and half of 7: (4 + 3.5) / 1.5 = 5; class 2 has
    # half of 7: 7. The query at 3 is 2, 2 and 4 away: logits -2, -2, -8
    support = torch.tensor([[[0.0], [2.0], [4.0], [7.0]]])
    labels = torch.tensor([[[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0.5, 0.5]]])
    found = log_posterior(support, torch.tensor([[[3.0]]]), labels)
    wanted = torch.tensor([[[-2.0, -2.0, -8.0]]]).log_softmax(-1)
    torch.testing.assert_close(found, wanted)


def test_a_class_without_labels_is_not_answered_and_leaves_the_others_as_they_are() -> None:
    support = torch.tensor([[[0.0], [3.0], [6.0]]], requires_grad=True)
    labels = torch.tensor([[[1.0, 0, 0], [1, 0, 0], [0, 0, 1]]])
    found = log_posterior(support, torch.tensor([[[3.0]]]), labels)
    # class 0 at 1.5, class 2 at 6: 1.5 and 3 away
    others = torch.tensor([-1.125, -4.5]).softmax(-1)
    wanted = torch.stack([others[0], torch.tensor(LEAST), others[1]]) / (1 + LEAST)
    torch.testing.assert_close(found.detach().exp(), wanted[None, None])
    (lost,) = torch.autograd.grad(found[..., 1].sum(), support, retain_graph=True)
    (kept,) = torch.autograd.grad(found[..., 0].sum(), support)
    assert lost.abs().max() < 1e-6 and kept.isfinite().all() and kept.abs().min() > 0.01


def test_it_is_the_paper_s_answer_with_hard_responsibilities_and_a_flat_class_prior() -> None:
    votes = drawn_votes(seed=1)
    labels = votes_em.hard(votes_em.majority(votes, 3).probs)
    g = torch.Generator().manual_seed(0)
    u, q = (torch.randn(5, n, 7, generator=g, dtype=torch.float64) for n in (9, 4))
    weights = labels.clamp_min(1e-300).log()
    fitted = prototypes.m_step(
        u, u.new_zeros(5, 1, 3, 3), weights, prototypes.Priors(1e12, 1, 1), u.new_zeros(())
    )
    wanted = prototypes.log_posterior(q, fitted)
    torch.testing.assert_close(log_posterior(u, q, labels), wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("labels", ["majority", "dawid_skene"])
def test_renamed_classes_and_annotators_and_reordered_examples(labels: str) -> None:
    module, votes = method(labels=labels), drawn_votes(seed=2)
    tasks = tasks_of(votes)
    plain = module.answer(tasks)
    new = torch.tensor([2, 0, 1])
    renamed = module.answer(tasks._replace(votes=torch.where(votes < 0, votes, new[votes])))
    torch.testing.assert_close(renamed.log_probs[..., new], plain.log_probs)
    order, who = torch.randperm(9), torch.randperm(5)
    moved = tasks._replace(support=tasks.support[:, order], votes=votes[:, order][..., who])
    torch.testing.assert_close(module.answer(moved).log_probs, plain.log_probs)
    assert plain.labels is not None and plain.accuracy is not None
    torch.testing.assert_close(module.answer(moved).accuracy, plain.accuracy[:, who])


@pytest.mark.parametrize("labels", ["majority", "dawid_skene"])
def test_a_batch_is_its_tasks_one_at_a_time(labels: str) -> None:
    module = method(labels=labels)
    tasks = tasks_of(drawn_votes(seed=3))
    alone = [module.answer(Tasks(*(part[[t]] for part in tasks))).log_probs for t in range(5)]
    torch.testing.assert_close(module.answer(tasks).log_probs, torch.cat(alone))


def test_training_and_validation_know_nothing_of_the_labels_of_target_tasks() -> None:
    tasks = tasks_of(drawn_votes(seed=4))
    one, other = method(), method(labels="dawid_skene")
    assert not torch.equal(one.labels_of(tasks.votes), other.labels_of(tasks.votes))
    assert torch.equal(one.loss(tasks), other.loss(tasks))
    for module in (one, other):
        module.validation_step(tasks)
    torch.testing.assert_close(one._validation, other._validation)
    node = {"_target_": "annorun.method.prototypical.Prototypical", "labels": "majority"}
    assert Prototypical.learner(node) == Prototypical.learner({**node, "labels": "dawid_skene"})


def test_it_learns_where_classes_differ_in_one_of_many_directions() -> None:
    """Of 20 numbers one tells the class; an embedding that was never trained cannot know which."""
    g = torch.Generator().manual_seed(0)

    def batch(n_tasks: int) -> Tasks:
        truth = (torch.arange(9) % 3).expand(n_tasks, -1)
        where = 3.0 * torch.randn(n_tasks, 3, generator=g).argsort(-1)
        x = 3 * torch.randn(n_tasks, 2, 9, 20, generator=g)
        x[..., 0] = where.gather(-1, truth)[:, None] + torch.randn(n_tasks, 2, 9, generator=g) / 3
        return Tasks(x[:, 0], truth[..., None], x[:, 1], truth, truth[:, 0])

    module = Prototypical(
        replace(SPEC, input_shape=(20,)), {"family": "features"}, OPTIMIZER, 0, "majority", **PRIORS
    )
    test, adam = batch(50), torch.optim.Adam(module.parameters(), lr=0.003)

    def accuracy() -> float:
        with torch.no_grad():
            guess = module.answer(test).log_probs.argmax(-1)
        return float((guess == test.query_truth).float().mean())

    before = accuracy()
    for _ in range(200):
        adam.zero_grad()
        module.loss(batch(16)).backward()
        adam.step()
    assert before < 0.6
    assert accuracy() > 0.85
