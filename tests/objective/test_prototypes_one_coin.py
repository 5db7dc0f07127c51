"""One accuracy an annotator: by hand, its objective, the limit of the EM, symmetries, gradient."""

import doctest

import pytest
import torch

from annorun.objective import prototypes_one_coin as module
from annorun.objective.prototypes import Priors, e_step, em, log_posterior, m_step, tally
from annorun.objective.prototypes_one_coin import one_coin, one_coin_em, one_coin_objective
from annorun.objective.prototypes_start import start

PRIORS = Priors(classes=1.5, right=1.7, wrong=0.6, precision=0.3)
S = torch.tensor(0.4, dtype=torch.float64)


def drawn(t: int = 3, n: int = 10, r: int = 3, k: int = 3, m: int = 4):
    """Embeddings and votes, a third missing."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(n) % k
    centres = 2 * torch.randn(t, k, m, dtype=torch.float64, generator=generator)
    embedded = centres[:, truth] + torch.randn(t, n, m, dtype=torch.float64, generator=generator)
    guess = torch.randint(k, (t, n, r), generator=generator)
    hit = torch.rand(t, n, r, generator=generator) < 0.6
    votes = torch.where(hit, truth[:, None], guess)
    votes[torch.rand(t, n, r, generator=generator) < 1 / 3] = -1
    return embedded, votes


def test_accuracy_by_hand() -> None:
    """3 of 4.5 expected votes right, pseudo-counts 2 and 1: 5 / 7.5; the rest shared by two."""
    counts = torch.tensor([[[[1.0, 0.5, 0], [0, 2.0, 0], [0.5, 0.5, 0]]]])
    found = one_coin(counts, Priors(right=2.0, wrong=1.0)).exp()[0, 0]
    assert found.diagonal().tolist() == pytest.approx([5 / 7.5] * 3)
    assert found[0, 1].item() == found[2, 0].item() == pytest.approx(2.5 / 7.5 / 2)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(3))


def test_the_objective_never_falls_over_steps() -> None:
    embedded, votes = drawn()
    given = start(embedded, votes, 3, S)
    log_q, values = given.log_responsibilities, []
    for _ in range(15):
        counts = tally(given.said, log_q.exp())
        fitted = m_step(embedded, counts, log_q, PRIORS, S)
        fitted = fitted._replace(log_confusion=one_coin(counts, PRIORS))
        values.append(one_coin_objective(embedded, votes, fitted, PRIORS, S))
        log_q = e_step(embedded, given.said, fitted, S)
    rises = torch.stack(values).diff(dim=0)
    assert (rises > -1e-9).all() and rises[0].min() > 1e-3


def test_it_is_the_greatest_posterior_of_the_accuracies() -> None:
    """At the fixed point, any other accuracy is less probable."""
    embedded, votes = drawn()
    fitted = one_coin_em(embedded, votes, 3, steps=300, priors=PRIORS, log_variance=S)
    best = one_coin_objective(embedded, votes, fitted, PRIORS, S)
    a = fitted.log_confusion[..., 0, 0].exp()
    for shift in (-0.02, 0.02):
        other = (a + shift)[..., None, None]
        moved = torch.where(torch.eye(3, dtype=torch.bool), other, (1 - other) / 2).log()
        worse = one_coin_objective(embedded, votes, fitted._replace(log_confusion=moved), PRIORS, S)
        assert (worse < best).all()


def test_in_the_limit_of_large_counts_it_is_the_em() -> None:
    """Counts in the proportion .7 to .3 / 2, of one vote in a million: both have matrices .7."""
    embedded, votes = drawn()
    big = 1e9
    one = one_coin_em(embedded, votes, 3, steps=4, priors=Priors(1.5, 0.7 * big, 0.3 * big, 0.3))
    other = em(embedded, votes, 3, steps=4, priors=Priors(1.5, 0.7 * big, 0.15 * big, 0.3))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-7)


def test_permuted_annotators_examples_and_classes_permute_the_answer() -> None:
    embedded, votes = drawn()
    base = one_coin_em(embedded, votes, 3, steps=3, priors=PRIORS, log_variance=S)
    r, n, k = torch.tensor([2, 0, 1]), torch.randperm(10), torch.tensor([1, 2, 0])
    named = torch.where(votes >= 0, k[votes], -1)
    found = one_coin_em(
        embedded[:, n], named[:, n][..., r], 3, steps=3, priors=PRIORS, log_variance=S
    )
    back = found.responsibilities[..., k]
    torch.testing.assert_close(back, base.responsibilities[:, n])
    torch.testing.assert_close(found.log_confusion, base.log_confusion[:, r])


def test_gradient_against_finite_differences() -> None:
    embedded, votes = drawn(t=1, n=5, m=2)
    queries = torch.randn(1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def answer(u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        fitted = one_coin_em(u, votes, 3, steps=3, priors=PRIORS, log_variance=s)
        return log_posterior(queries, fitted, s)

    assert torch.autograd.gradcheck(answer, (embedded.requires_grad_(), S.clone().requires_grad_()))


def test_docstring_example() -> None:
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0
