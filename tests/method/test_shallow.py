from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from annorun.method.episodic import Tasks
from annorun.method.prototypical import LEAST
from annorun.method.shallow import Shallow
from annorun.votes import Floats, TaskSpec

PRIORS = {"classes": 10.0, "right": 2.0, "wrong": 1.0}
CLASSIFIERS = ("logistic_regression", "random_forest")


def method(classifier: str, k: int = 3, **own: Any) -> Shallow:
    own = {"labels": "majority", **PRIORS, "classifier": classifier, "trees": 50, **own}
    return Shallow(TaskSpec("features", k, 0, (4,)), {"family": "features"}, {}, 0, **own)


def tasks_of(votes: Tensor | None = None, n_tasks: int = 2, seed: int = 0) -> Tasks:
    """Nine examples of three classes about drawn centres."""
    g = torch.Generator().manual_seed(seed)
    truth = (torch.arange(9) % 3).expand(n_tasks, -1)
    centres = 3 * torch.randn(n_tasks, 3, 4, generator=g)
    rows = centres[torch.arange(n_tasks)[:, None], truth]
    x, q = (rows + torch.randn(rows.shape, generator=g) for _ in range(2))
    return Tasks(x, truth[..., None].clone() if votes is None else votes, q, truth, truth[:, 0])


def regression(x: Floats, y: Floats, query: Floats) -> Floats:
    """The answer of penalised multinomial regression, by an optimiser that knows no gradient."""
    d, k = x.shape[1], y.shape[1]

    def scores(flat: Floats, at: Floats) -> Floats:
        return at @ flat[: d * k].reshape(d, k) + flat[d * k :]

    def objective(flat: Floats) -> float:
        penalty = (flat[: d * k] ** 2).sum() / 2
        s = scores(flat, x)
        normaliser = np.log(np.exp(s - s.max(1, keepdims=True)).sum(1)) + s.max(1)
        return float((y.sum(1) * normaliser - (y * s).sum(1)).sum() + penalty)

    found = minimize(objective, np.zeros((d + 1) * k), tol=1e-12, options={"maxiter": 5000})
    s = scores(found.x, query)
    e = np.exp(s - s.max(1, keepdims=True))
    probs: Floats = e / e.sum(1, keepdims=True)
    return probs


def test_logistic_regression_is_the_penalised_optimum_with_ties_as_shares() -> None:
    rng = np.random.default_rng(0)
    # more numbers than examples: what is learned in their span is what is learned in all
    x, query = rng.normal(size=(5, 8)) / 2, rng.normal(size=(4, 8)) / 2
    y = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0], [0, 1, 0]])
    found = method("logistic_regression").probabilities(x, query, y)
    np.testing.assert_allclose(found, regression(x, y, query), atol=2e-3)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_it_learns_a_task_with_clear_classes(classifier: str) -> None:
    tasks = tasks_of(n_tasks=3)
    answer = method(classifier).answer(tasks)
    right = (answer.log_probs.argmax(-1) == tasks.query_truth).float().mean()
    assert right > 0.75
    torch.testing.assert_close(answer.log_probs.exp().sum(-1), torch.ones(3, 9))
    assert answer.labels is not None and answer.labels.shape == (3, 9, 3)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_absent_classes_and_a_single_one(classifier: str) -> None:
    tasks = tasks_of()
    module = method(classifier)
    two = module.answer(tasks._replace(votes=tasks.votes.clamp_min(1))).log_probs.exp()
    wanted = torch.full((2, 9), LEAST / (1 + LEAST))
    # a hundredth less where another class has as little
    torch.testing.assert_close(two[..., 0], wanted, atol=0, rtol=0.02)
    assert two.min() > 0.98 * LEAST
    right = (two.argmax(-1) == tasks.query_truth.clamp_min(1)).float().mean()
    assert right > 0.75
    one = module.answer(tasks._replace(votes=torch.full_like(tasks.votes, 2))).log_probs.exp()
    wanted = torch.tensor([LEAST, LEAST, 1.0]) / (1 + 2 * LEAST)
    torch.testing.assert_close(one, wanted.expand(2, 9, 3))


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_renamed_classes_and_tasks_one_at_a_time(classifier: str) -> None:
    tasks, new = tasks_of(), torch.tensor([2, 0, 1])
    module = method(classifier)
    plain = module.answer(tasks).log_probs
    renamed = module.answer(tasks._replace(votes=new[tasks.votes])).log_probs
    torch.testing.assert_close(renamed[..., new], plain, atol=1e-2, rtol=1e-2)
    alone = [module.answer(Tasks(*(part[[t]] for part in tasks))).log_probs for t in (1, 0)]
    torch.testing.assert_close(torch.cat(alone[::-1]), plain)


def test_a_tied_example_pulls_neither_way() -> None:
    """Of two classes that are mirror images, a tie in the middle leaves the middle at one half."""
    x = np.array([[-1.0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]])
    y = np.array([[1.0, 0], [0, 1], [0.5, 0.5]])
    found = method("logistic_regression", k=2).probabilities(x, np.array([[0.0, 3, 0, 0]]), y)
    np.testing.assert_allclose(found, [[0.5, 0.5]], atol=1e-4)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_dawid_skene_labels_reach_the_classifier(classifier: str) -> None:
    # two who know; three who always say 0 win every majority
    truth = torch.arange(9) % 3
    votes = torch.stack([truth, truth, *[0 * truth] * 3], dim=1).expand(2, -1, -1)
    tasks = tasks_of(votes)
    clean = method(classifier).answer(tasks_of()).log_probs
    flat = {"labels": "dawid_skene", "classes": 0.1, "right": 0.1, "wrong": 0.1}
    torch.testing.assert_close(method(classifier, **flat).answer(tasks).log_probs, clean)
    assert (method(classifier).answer(tasks).log_probs.argmax(-1) == 0).all()


def test_there_is_nothing_to_train() -> None:
    assert Shallow.learner({"_target_": "x", "labels": "majority"}) is None
    assert not list(method("random_forest").parameters())


def test_a_forest_has_its_trees_and_draws_them_by_its_seed() -> None:
    """Of four trees each gives a query of clear classes a quarter of its probability."""
    tasks = tasks_of(n_tasks=1)
    found = method("random_forest", trees=4).answer(tasks).log_probs.exp()
    # but for the least that a class has
    share = 4 * found / found.sum(-1, keepdim=True)
    assert (share - share.round()).abs().max() < 0.15
    assert ((share > 0.5) & (share < 3.5)).any()
    other = Shallow(
        *(TaskSpec("features", 3, 0, (4,)), {"family": "features"}, {}, 1, "majority"),
        **PRIORS,
        classifier="random_forest",
        trees=4,
    )
    assert not torch.equal(other.answer(tasks).log_probs.exp(), found)
    again = method("random_forest", trees=4).answer(tasks).log_probs.exp()
    assert torch.equal(again, found)
