"""MetaEM: each of its models is the pure function, and queries of target tasks see asked votes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from annorun.errors import ConfigError
from annorun.method.episodic import Tasks
from annorun.method.meta_em import OPEN, MetaEM
from annorun.objective import prototypes, prototypes_gated, prototypes_variational
from annorun.objective.prototypes import Priors
from annorun.votes import TaskSpec

SPEC = TaskSpec(kind="features", n_classes=3, n_annotators=0, input_shape=(5,))
OPTIMIZER = {
    "lr": 1e-3,
    "betas": (0.9, 0.999),
    "weight_decay": 0.0,
    "clip": 10.0,
    "schedule": "constant",
    "max_steps": 10,
}
PRIORS = Priors(classes=10.0, right=2.0, wrong=1.0, precision=1.0)


def method(**changed: Any) -> MetaEM:
    keys = {
        "model": "em",
        "steps": 3,
        "covariance": "scalar",
        "scale": False,
        **PRIORS._asdict(),
        **changed,
    }
    return MetaEM(SPEC, {"family": "features"}, dict(OPTIMIZER), 0, **keys).eval()


def tasks() -> Tasks:
    draw = torch.Generator().manual_seed(0)
    truth = torch.arange(3).repeat_interleave(2).expand(2, -1)
    centre = torch.randn(2, 3, 5, generator=draw)
    pick = torch.arange(2)[:, None]
    support = centre[pick, truth] + 0.3 * torch.randn(2, 6, 5, generator=draw)
    query = torch.randn(2, 7, 5, generator=draw)
    votes = torch.where(
        torch.rand(2, 6, 4, generator=draw) < 0.3,
        torch.randint(3, (2, 6, 4), generator=draw),
        truth[..., None],
    )
    votes[0, 1, 2] = -1
    return Tasks(support, votes, query, torch.full((2, 7), -1), torch.tensor([5, 6]))


def places(made: MetaEM, given: Tasks) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return made.net(given.support), made.net(given.query)


def test_em_is_the_em_of_the_objective_with_its_learned_variance() -> None:
    made, given = method(), tasks()
    made.log_variance.data.fill_(0.4)
    u, q = places(made, given)
    fitted = prototypes.em(u, given.votes, 3, steps=3, priors=PRIORS, log_variance=0.4)
    with torch.no_grad():
        found = made.answer(given)
    torch.testing.assert_close(found.log_probs, prototypes.log_posterior(q, fitted, 0.4))
    torch.testing.assert_close(found.labels, fitted.responsibilities)
    torch.testing.assert_close(found.accuracy, prototypes.accuracy(fitted))


def test_scaled_embeddings_are_divided_by_the_root_of_their_size() -> None:
    made, given = method(scale=True, covariance="identity"), tasks()
    assert not made.log_variance.requires_grad
    u, q = (part / 8 for part in places(made, given))  # 64 numbers
    fitted = prototypes.em(u, given.votes, 3, steps=3, priors=PRIORS)
    with torch.no_grad():
        found = made.answer(given).log_probs
    torch.testing.assert_close(found, prototypes.log_posterior(q, fitted))


def test_the_variational_model_answers_by_its_predictive_density() -> None:
    made, given = method(model="variational"), tasks()
    u, q = places(made, given)
    posterior = prototypes_variational.variational_em(u, given.votes, 3, steps=3, priors=PRIORS)
    with torch.no_grad():
        found = made.answer(given).log_probs
    torch.testing.assert_close(found, prototypes_variational.log_predictive(q, posterior))


def test_the_gate_starts_open_and_alike_and_depends_on_the_input_once_learned() -> None:
    made, given = method(model="gated"), tasks()
    u, q = places(made, given)
    for weight in (0.0, 0.5):
        made.gate.weight.data.fill_(weight)
        gate = OPEN + weight * u.sum(dim=-1)
        fitted = prototypes_gated.gated_em(u, given.votes, 3, gate, steps=3, priors=PRIORS)
        with torch.no_grad():
            found = made.answer(given).log_probs
        torch.testing.assert_close(found, prototypes.log_posterior(q, fitted), atol=1e-5, rtol=0)


@pytest.mark.parametrize("policy", ["random", "entropy"])
def test_answers_are_those_of_the_votes_that_were_asked_for(policy: str) -> None:
    given = tasks()
    made = method(acquire=policy, first=1, budget=3)
    with torch.no_grad():
        found = made.answer(given)
        assert found.votes is not None
        assert ((found.votes >= 0).sum(dim=(1, 2)) == 6 + 3).all()
        plain = method().answer(given._replace(votes=found.votes))
        torch.testing.assert_close(found.log_probs, plain.log_probs)
        # training has all votes
        torch.testing.assert_close(made.practise(given), method().answer(given).log_probs)
        # and a task does not hang on its batch
        alone = made.answer(Tasks(*(part[1:] for part in given)))
        torch.testing.assert_close(alone.log_probs, found.log_probs[1:], atol=1e-5, rtol=0)


def test_keys_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"precision=0: prototypes without a prior"):
        method(model="variational", precision=0.0)
    with pytest.raises(ConfigError, match=r"acquire=entropy: a vote is predicted"):
        method(model="gated", acquire="entropy")
    with pytest.raises(ConfigError, match=r"budget=2: nothing is asked for"):
        method(budget=2)


def test_a_scalar_covariance_is_learned_and_the_identity_is_not() -> None:
    given = tasks()._replace(query_truth=torch.zeros(2, 7, dtype=torch.int64))
    made = method(covariance="scalar").train()
    made.loss(given).backward()
    assert made.log_variance.grad is not None
    assert made.log_variance.grad.abs() > 1e-4
    assert not method(covariance="identity").log_variance.requires_grad


def test_the_picture_has_the_prototypes_of_the_votes_that_were_asked_for() -> None:
    given = tasks()
    made = method(acquire="random", first=1, budget=2, scale=True)
    with torch.no_grad():
        support, query, found = made.places(given)
        votes = made.answer(given).votes
        assert votes is not None
        u, q = (part / 8 for part in places(made, given))
    fitted = prototypes.em(u, votes, 3, steps=3, priors=PRIORS)
    torch.testing.assert_close(found, fitted.prototypes[0])
    torch.testing.assert_close((support, query), (u[0], q[0]))
    every = prototypes.em(u, given.votes, 3, steps=3, priors=PRIORS)
    assert (found - every.prototypes[0]).abs().max() > 1e-3


def test_what_is_asked_for_changes_no_network_and_all_else_does() -> None:
    node = {"model": "em", "steps": 3, "classes": 10.0, "acquire": None, "first": 1, "budget": 0}
    learner = MetaEM.learner(node)
    assert learner == {"model": "em", "steps": 3, "classes": 10.0}
