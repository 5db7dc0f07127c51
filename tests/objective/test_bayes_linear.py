"""The Gaussian KL against another implementation and by hand; the moments of its draws."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from annorun.objective.bayes_linear import drawn, gaussian_kl
from annorun.objective.disagreement import disagreement


def test_kl_by_hand() -> None:
    """N(1, 1) from N(0, 2^2): ln 2 + (1 + 1) / 8 - 1/2, each of two weights."""
    found = gaussian_kl(torch.ones(2), torch.ones(2), 2.0)
    assert found.item() == pytest.approx(2 * (math.log(2) - 0.25))


def test_kl_is_that_of_torch_and_0_at_the_prior_alone() -> None:
    draw = torch.Generator().manual_seed(0)
    mean = torch.randn(4, 3, generator=draw, dtype=torch.float64)
    std = torch.rand(4, 3, generator=draw, dtype=torch.float64) + 0.01
    expected = kl_divergence(Normal(mean, std), Normal(torch.zeros_like(mean), 0.7)).sum()
    torch.testing.assert_close(gaussian_kl(mean, std, 0.7), expected)
    assert gaussian_kl(torch.zeros(3), torch.full((3,), 0.7), 0.7).item() == pytest.approx(0)
    assert expected > 0


def test_draws_have_the_posteriors_moments() -> None:
    mean, std = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.1])
    noise = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
    found = drawn(mean, std, noise)
    torch.testing.assert_close(found.mean(dim=0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(found.std(dim=0), std, rtol=0.03, atol=0)


def test_disagreement_by_hand() -> None:
    """Of three classes: (1, 0, 0) 0; a third each 1; (1/2, 1/2, 0) ln 2 / ln 3."""
    rows = torch.tensor([[1.0, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]])
    expected = torch.tensor([0, 1, math.log(2) / math.log(3)])
    torch.testing.assert_close(disagreement(rows), expected)
