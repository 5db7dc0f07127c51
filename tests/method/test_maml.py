from typing import Any

import pytest
import torch
from torch import Tensor, nn

from annorun.method.episodic import Tasks
from annorun.method.maml import Maml
from annorun.votes import TaskSpec

OPTIMIZER = {"lr": 0.01, "betas": [0.9, 0.999], "weight_decay": 0.0, "clip": 10.0}


def method(kind: str = "features", k: int = 2, shape: tuple[int, ...] = (3,), **own: Any) -> Maml:
    own = {
        "labels": "majority",
        "classes": 10.0,
        "right": 2.0,
        "wrong": 1.0,
        "inner_steps": 1,
        "inner_lr": 0.4,
        "first_order": True,
        "test_steps": 1,
        **own,
    }
    return Maml(TaskSpec(kind, k, 0, shape), {"family": kind}, OPTIMIZER, 0, **own)


def linear(**own: Any) -> Maml:
    """Two classes, two numbers, logits (w x, 0): all can be done by hand."""
    module = method(shape=(2,), **own).double()
    module.net = nn.Sequential(nn.Linear(2, 2, bias=False)).double()
    with torch.no_grad():
        module.net[0].weight.copy_(torch.tensor([[0.3, -0.2], [0.0, 0.0]]))
    return module


def tasks_of(n_tasks: int, k: int, shape: tuple[int, ...], seed: int = 0) -> Tasks:
    """Each class is a drawn input and a little of another."""
    g = torch.Generator().manual_seed(seed)
    truth = (torch.arange(3 * k) % k).expand(n_tasks, -1)
    centres = torch.randn(n_tasks, k, *shape, generator=g)
    rows = centres[torch.arange(n_tasks)[:, None], truth]
    x, q = (rows + 0.3 * torch.randn(rows.shape, generator=g) for _ in range(2))
    return Tasks(x, truth[..., None].clone(), q, truth, truth[:, 0])


def double(tasks: Tasks) -> Tasks:
    return tasks._replace(support=tasks.support.double(), query=tasks.query.double())


def by_hand(weight: Tensor, tasks: Tasks, steps: int, lr: float) -> Tensor:
    """One task's weights after descent; the gradient of the mean cross-entropy is (p - y) x."""
    x, y = tasks.support[0], nn.functional.one_hot(tasks.votes[0, :, 0], 2).to(weight)
    for _ in range(steps):
        p = (x @ weight.T).softmax(-1)
        weight = weight - lr * (p - y).T @ x / len(x)
    return weight


def query_loss(weight: Tensor, tasks: Tasks) -> Tensor:
    return nn.functional.cross_entropy(tasks.query[0] @ weight.T, tasks.query_truth[0])


@pytest.mark.parametrize("steps", [1, 3])
def test_the_inner_steps_by_hand(steps: int) -> None:
    tasks = double(tasks_of(1, 2, (2,)))
    module = linear(test_steps=steps)
    wanted = by_hand(module.net[0].weight.detach(), tasks, steps, 0.4)
    found = module.answer(tasks).log_probs
    torch.testing.assert_close(found[0], (tasks.query[0] @ wanted.T).log_softmax(-1))


def test_the_second_order_gradient_against_finite_differences() -> None:
    tasks = double(tasks_of(1, 2, (2,)))
    module = linear(inner_steps=2, inner_lr=2.0, first_order=False)
    start = module.net[0].weight
    (found,) = torch.autograd.grad(module.loss(tasks), start)
    numeric = torch.zeros_like(start)
    for i, j in torch.cartesian_prod(torch.arange(2), torch.arange(2)).tolist():
        moved = torch.zeros_like(start)
        moved[i, j] = 1e-5
        up, down = (
            query_loss(by_hand(start.detach() + sign * moved, tasks, 2, 2.0), tasks)
            for sign in (1, -1)
        )
        numeric[i, j] = (up - down) / 2e-5
    torch.testing.assert_close(found, numeric, atol=1e-8, rtol=1e-6)


def test_the_first_order_gradient_is_that_at_the_adapted_weights() -> None:
    tasks = double(tasks_of(1, 2, (2,)))
    first, second = (linear(inner_lr=2.0, first_order=order) for order in (True, False))
    start = first.net[0].weight
    adapted = by_hand(start.detach(), tasks, 1, 2.0).requires_grad_()
    (wanted,) = torch.autograd.grad(query_loss(adapted, tasks), adapted)
    (found,) = torch.autograd.grad(first.loss(tasks), start)
    (other,) = torch.autograd.grad(second.loss(tasks), second.net[0].weight)
    torch.testing.assert_close(found, wanted)
    assert float((other - found).abs().max()) > 1e-2
    torch.testing.assert_close(first.loss(tasks), second.loss(tasks))


@pytest.mark.parametrize("first_order", [True, False])
def test_it_adapts_where_gradients_are_off(first_order: bool) -> None:
    tasks = tasks_of(2, 2, (3,))
    module = method(first_order=first_order, test_steps=3)
    with torch.no_grad():
        found = module.answer(tasks).log_probs
        module.validation_step(tasks)
    assert not found.requires_grad
    torch.testing.assert_close(found, module.answer(tasks).log_probs.detach())


def test_a_batch_of_images_is_its_tasks_one_at_a_time_in_any_mode() -> None:
    tasks = tasks_of(3, 2, (1, 8, 8))
    module = method("image", shape=(1, 8, 8)).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    whole = module.answer(tasks).log_probs
    alone = [module.answer(Tasks(*(part[[t]] for part in tasks))).log_probs for t in range(3)]
    torch.testing.assert_close(torch.cat(alone), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(module.eval().answer(tasks).log_probs, whole)
    # nothing is left behind, running statistics least of all
    assert not [name for name in before if "running" in name]
    torch.testing.assert_close(module.state_dict(), before)


def test_support_and_queries_are_normalised_apart() -> None:
    """Queries that are all brighter change nothing: their own mean is taken out."""
    tasks = tasks_of(2, 2, (1, 12, 12))
    module = method("image", shape=(1, 12, 12))
    # the first layer sees zeros around the image: a constant is a constant only without them
    module.net[0][0].padding = (0, 0)
    plain = module.answer(tasks).log_probs
    brighter = module.answer(tasks._replace(query=tasks.query + 5)).log_probs
    torch.testing.assert_close(brighter, plain, atol=1e-3, rtol=1e-3)


def test_renaming_classes_and_rows_of_the_head_renames_the_answer() -> None:
    tasks, new = tasks_of(3, 3, (3,)), torch.tensor([2, 0, 1])
    module = method(k=3, test_steps=3)
    plain = module.answer(tasks).log_probs
    head = module.net[1]
    with torch.no_grad():
        for part in (head.weight, head.bias):
            part[new] = part.clone()
    renamed = module.answer(tasks._replace(votes=new[tasks.votes])).log_probs
    torch.testing.assert_close(renamed[..., new], plain)


def test_a_tie_shares_the_loss_and_test_steps_are_those_of_target_tasks() -> None:
    tasks = double(tasks_of(1, 2, (2,)))
    votes = torch.cat([tasks.votes, tasks.votes], dim=-1)
    votes[0, 0, 1] = 1 - votes[0, 0, 0]
    module = linear(test_steps=2)
    soft = nn.functional.one_hot(tasks.votes[0, :, 0], 2).double()
    soft[0] = 0.5
    weight, x = module.net[0].weight.detach(), tasks.support[0]
    for _ in range(2):
        weight = weight - 0.4 * ((x @ weight.T).softmax(-1) - soft).T @ x / len(x)
    found = module.answer(tasks._replace(votes=votes)).log_probs[0]
    wanted = (tasks.query[0] @ weight.T).log_softmax(-1)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)
    node = {"_target_": "annorun.method.maml.Maml", "labels": "majority", "test_steps": 2}
    assert Maml.learner(node) == Maml.learner({**node, "labels": "dawid_skene", "test_steps": 5})
    assert torch.equal(module.loss(tasks), linear(labels="dawid_skene", test_steps=5).loss(tasks))


def test_it_learns_to_learn_small_images() -> None:
    """A class is a column that is bright: one step from a drawn start does not find it."""
    g = torch.Generator().manual_seed(0)

    def batch(n_tasks: int) -> Tasks:
        truth = (torch.arange(6) % 2).expand(n_tasks, -1)
        column = torch.rand(n_tasks, 4, generator=g).argsort(-1)[:, :2].gather(-1, truth)
        x = torch.randn(n_tasks, 2, 6, 1, 4, 4, generator=g)
        x += 2 * nn.functional.one_hot(column, 4)[:, None, :, None, None].float()
        return Tasks(x[:, 0], truth[..., None], x[:, 1], truth, truth[:, 0])

    module = method("image", shape=(1, 4, 4), inner_lr=0.1)
    test, adam = batch(25), torch.optim.Adam(module.parameters(), lr=0.002)

    def accuracy() -> float:
        with torch.no_grad():
            guess = module.answer(test).log_probs.argmax(-1)
        return float((guess == test.query_truth).float().mean())

    before = accuracy()
    for _ in range(30):
        adam.zero_grad()
        module.loss(batch(4)).backward()
        adam.step()
    assert accuracy() > max(0.85, before + 0.1)
