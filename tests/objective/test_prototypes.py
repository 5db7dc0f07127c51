"""The EM of prototypes: by hand, against loops, its limits, its symmetries and its gradient."""

import doctest
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from annorun.errors import ConfigError
from annorun.objective import prototypes as module
from annorun.objective import prototypes_start
from annorun.objective.prototypes import Priors, accuracy, em, log_posterior, map_objective
from annorun.objective.prototypes_start import squared_distances, vote_shares

PRIORS = Priors()
# not one of them as in the defaults: a swap of two would show
ODD = Priors(classes=1.5, right=1.7, wrong=0.6, precision=0.3)


@dataclass
class Task:
    embedded: torch.Tensor
    votes: torch.Tensor
    queries: torch.Tensor
    truth: torch.Tensor


def drawn(
    t: int = 3,
    n: int = 12,
    r: int = 3,
    k: int = 4,
    m: int = 4,
    *,
    seed: int = 0,
    right: float = 0.6,
) -> Task:
    """Clusters with noisy, sparse votes: each is right with `right`, and a third are missing."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.stack([torch.randperm(n, generator=generator) % k for _ in range(t)])
    centres = 2 * torch.randn(t, k, m, dtype=torch.float64, generator=generator)
    chosen = centres.gather(1, truth[..., None].expand(-1, -1, m))
    embedded = chosen + torch.randn(t, n, m, dtype=torch.float64, generator=generator)
    guess = torch.randint(k, (t, n, r), generator=generator)
    hit = torch.rand(t, n, r, generator=generator) < right
    votes = torch.where(hit, truth[..., None], guess)
    votes[torch.rand(t, n, r, generator=generator) < 1 / 3] = -1
    queries = centres.repeat(1, 2, 1) + torch.randn(
        t, 2 * k, m, dtype=torch.float64, generator=generator
    )
    return Task(embedded, votes, queries, truth)


def clean(task: Task, r: int = 3) -> torch.Tensor:
    return task.truth[..., None].expand(-1, -1, r)


def test_by_hand():
    """u = 0 and 2, one vote each, of one annotator: 0 and 1. tau = 0, c = 2 and 1.

    Step 1: mu = (0, 2), pi = (1/2, 1/2), alpha_00 = (2 + 1) / (2 + 1 + 1) = 3/4, alpha_01 = 1/4.
    E-step at u = 0: the log odds of class 0 are (2^2 - 0) / (2 v) + log(3/4 : 1/4), v the variance;
    q_00 = p = 1 / (1 + e^(-2 / v) / 3), and by symmetry q_11 = p.
    Step 2: mu = (2 (1 - p), 2 p), pi = (1/2, 1/2), alpha_00 = (2 + p) / 4 = accuracy.
    A query at x: log odds of class 0 = ((x - mu_1)^2 - (x - mu_0)^2) / (2 v)
        = (mu_1 - mu_0)(mu_0 + mu_1 - 2 x) / (2 v) = 2 (2 p - 1)(1 - x) / v; p = 1 after step 1.
    """
    u, votes = torch.tensor([[[0.0], [2.0]]]).double(), torch.tensor([[[0], [1]]])
    for v in (1.0, 2.5):
        p, s = 1 / (1 + math.exp(-2 / v) / 3), math.log(v)
        queries = torch.tensor([[[0.5], [-1.0]]]).double()
        one, two = (em(u, votes, 2, steps=j, priors=PRIORS, log_variance=s) for j in (1, 2))
        assert one.responsibilities[0].diagonal().tolist() == pytest.approx([p, p], abs=1e-14)
        assert one.prototypes.flatten().tolist() == pytest.approx([0, 2], abs=1e-14)
        assert one.log_confusion[0, 0].exp().tolist() == [
            pytest.approx([0.75, 0.25]),
            pytest.approx([0.25, 0.75]),
        ]
        assert two.prototypes.flatten().tolist() == pytest.approx([2 - 2 * p, 2 * p], abs=1e-14)
        assert accuracy(two).item() == pytest.approx((2 + p) / 4, abs=1e-14)
        for fitted, sure in ((one, 1.0), (two, p)):
            answer = log_posterior(queries, fitted, s)[0]
            odds = (answer[:, 0] - answer[:, 1]).tolist()
            expected = [2 * (2 * sure - 1) * (1 - x) / v for x in (0.5, -1.0)]
            assert odds == pytest.approx(expected, abs=1e-13)


def by_loops(task: Task, k: int, steps: int, priors: Priors, s: float) -> list[np.ndarray]:
    """Return q, mu, pi, alpha and the answers of each task from the formulas, one at a time."""
    found = []
    for u, y, x in zip(
        task.embedded.numpy(), task.votes.numpy(), task.queries.numpy(), strict=True
    ):
        (n, m), r, v = u.shape, y.shape[1], math.exp(s)
        q = np.full((n, k), 1 / k)
        for i in range(n):
            said = [label for label in y[i] if label >= 0]
            if said:
                q[i] = [said.count(c) / len(said) for c in range(k)]
        for _ in range(steps):
            mu, pi, alpha = np.zeros((k, m)), np.zeros(k), np.zeros((r, k, k))
            for c in range(k):
                top = sum(q[i, c] * u[i] for i in range(n))
                mu[c] = top / (priors.precision * v + q[:, c].sum())
                pi[c] = (priors.classes + q[:, c].sum()) / (k * priors.classes + n)
                for a in range(r):
                    for o in range(k):
                        alpha[a, c, o] = priors.right if o == c else priors.wrong
                        alpha[a, c, o] += sum(q[i, c] for i in range(n) if y[i, a] == o)
                    alpha[a, c] /= alpha[a, c].sum()
            for i in range(n):
                for c in range(k):
                    q[i, c] = pi[c] * math.exp(-((u[i] - mu[c]) ** 2).sum() / (2 * v))
                    for a in range(r):
                        if y[i, a] >= 0:
                            q[i, c] *= alpha[a, c, y[i, a]]
                q[i] /= q[i].sum()
        near = np.array([[math.exp(-((z - c) ** 2).sum() / (2 * v)) for c in mu] for z in x]) * pi
        found.append([q, mu, pi, alpha, near / near.sum(1, keepdims=True)])
    return [np.stack(part) for part in zip(*found, strict=True)]


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("priors", [PRIORS, ODD])
def test_it_is_the_formulas_in_loops(steps: int, priors: Priors):
    task, s = drawn(n=14, k=3, m=5), 0.4
    fitted = em(task.embedded, task.votes, 3, steps=steps, priors=priors, log_variance=s)
    answers = log_posterior(task.queries, fitted, s).exp()
    q, mu, log_pi, log_alpha = fitted
    expected = by_loops(task, 3, steps, priors, s)
    for ours, theirs in zip((q, mu, log_pi.exp(), log_alpha.exp(), answers), expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-10)


def test_vote_shares_split_ties_and_are_uniform_without_votes():
    votes = torch.tensor([[[0, 1, -1], [2, 2, 0], [-1, -1, -1]]])
    expected = [[1 / 2, 1 / 2, 0], [1 / 3, 0, 2 / 3], [1 / 3] * 3]
    torch.testing.assert_close(vote_shares(votes, 3)[0], torch.tensor(expected))
    with pytest.raises(RuntimeError):  # a label that is no class is not "no vote"
        vote_shares(votes, 2)


@pytest.mark.parametrize(("kind", "steps"), [("double", 1), ("double", 3), ("float", 3)])
def test_clean_labels_and_a_flat_prior_give_a_prototypical_network(kind: str, steps: int):
    """Class means, and softmax of -d^2 / 2. Far clusters, so that no example changes its class.

    At 3 steps only if c leaves alpha off 0 and 1, and only if pi is flat: classes of 6, 3, 3.
    """
    task = drawn(n=12, k=3)
    truth = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2]).expand(3, -1)
    corner = torch.eye(3, 4).double()[truth] * 12
    noise = drawn(seed=5).embedded / 10
    u = (corner + noise).to(getattr(torch, kind))
    task = Task(u, task.votes, task.queries.to(u.dtype), truth)
    priors = Priors(classes=1e12)
    fitted = em(task.embedded, clean(task), 3, steps=steps, priors=priors)
    means = torch.stack([u[:, truth[0] == c].mean(1) for c in range(3)], dim=1)
    torch.testing.assert_close(
        fitted.prototypes, means, rtol=0, atol=2e-6 if kind == "float" else 1e-6
    )
    plain = (-torch.cdist(task.queries.double(), means.double()).square() / 2).softmax(-1)
    answers = log_posterior(task.queries, fitted).exp()
    torch.testing.assert_close(
        answers.double(), plain, rtol=0, atol=1e-5 if kind == "float" else 1e-6
    )
    # the class prior counts: with b small the larger class gains
    small = em(u, clean(task), 3, steps=steps, priors=Priors(classes=0.1))
    assert small.log_prior[:, 0].exp().tolist() == pytest.approx([6.1 / 12.3] * 3, abs=1e-6)


@pytest.mark.parametrize("size", [4, 64, 1600])
@pytest.mark.parametrize("priors", [PRIORS, ODD])
@pytest.mark.parametrize("s", [0.0, None])
def test_no_step_lowers_the_objective(size: int, priors: Priors, s: float | None):
    """At unit variance, and with the variance of the scale at which q is not one-hot."""
    s = math.log(size) if s is None else s
    gained = 0.0
    for seed in range(3):
        task = drawn(n=10, m=size, seed=seed)
        values = []
        for j in range(1, 8):
            fitted = em(task.embedded, task.votes, 4, steps=j, priors=priors, log_variance=s)
            values.append(map_objective(task.embedded, task.votes, fitted, priors, s))
        rise = torch.stack(values).diff(dim=0)
        assert (rise >= -1e-9 * values[0].abs()).all()
        gained += rise.sum().item()
    assert gained > 0.1


def test_the_objective_is_greatest_where_em_ends():
    """Its gradient in mu, and in pi and alpha on the simplex, is 0 at the fixed point."""
    task = drawn(n=14, k=3, m=2)
    fitted = em(task.embedded, task.votes, 3, steps=400, priors=ODD, log_variance=0.7)
    free = [part.clone().requires_grad_() for part in fitted[1:]]
    on_simplex = fitted._replace(
        prototypes=free[0],
        log_prior=free[1].log_softmax(-1),
        log_confusion=free[2].log_softmax(-1),
    )
    value = map_objective(task.embedded, task.votes, on_simplex, ODD, 0.7).sum()
    for grad in torch.autograd.grad(value, free):
        assert grad.abs().max() < 1e-7


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("priors", [PRIORS, ODD])
def test_the_gradient_runs_through_the_steps(tied: bool, priors: Priors):
    task = drawn(t=2, n=6, k=3, m=2)
    votes = torch.full_like(task.votes, -1) if tied else task.votes
    goal = torch.tensor([[0, 1, 2, 0, 1, 2]]).expand(2, -1)

    def loss(u: torch.Tensor, x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        fitted = em(u, votes, 3, steps=3, priors=priors, log_variance=s)
        likely = log_posterior(x, fitted, s).gather(-1, goal[..., None])
        return likely.mean() + accuracy(fitted).square().sum()

    s = torch.tensor(0.3, dtype=torch.float64)
    inputs = [value.clone().requires_grad_() for value in (task.embedded, task.queries, s)]
    assert torch.autograd.gradcheck(loss, inputs)


def test_permuting_annotators_examples_or_classes_permutes_the_answer():
    task, k = drawn(n=12, r=5), 4
    args = {"steps": 3, "priors": ODD, "log_variance": 0.5}
    base = em(task.embedded, task.votes, k, **args)
    answers = log_posterior(task.queries, base, 0.5)
    generator = torch.Generator().manual_seed(1)
    who, which, name = (torch.randperm(size, generator=generator) for size in (5, 12, k))
    moved = em(task.embedded, task.votes[..., who], k, **args)
    torch.testing.assert_close(moved, base._replace(log_confusion=base.log_confusion[:, who]))
    moved = em(task.embedded[:, which], task.votes[:, which], k, **args)
    torch.testing.assert_close(
        moved, base._replace(responsibilities=base.responsibilities[:, which])
    )
    # class c is called name[c]
    renamed = torch.where(task.votes >= 0, name[task.votes], -1)
    moved = em(task.embedded, renamed, k, **args)
    torch.testing.assert_close(moved.responsibilities[..., name], base.responsibilities)
    torch.testing.assert_close(moved.prototypes[:, name], base.prototypes)
    torch.testing.assert_close(moved.log_prior[:, name], base.log_prior)
    torch.testing.assert_close(moved.log_confusion[:, :, name][..., name], base.log_confusion)
    torch.testing.assert_close(log_posterior(task.queries, moved, 0.5)[..., name], answers)


def test_an_annotator_without_votes_changes_nothing_and_their_number_is_free():
    task = drawn()
    base = em(task.embedded, task.votes, 4, steps=3, priors=PRIORS)
    more = torch.cat([task.votes, torch.full((3, 12, 2), -1)], dim=-1)
    fitted = em(task.embedded, more, 4, steps=3, priors=PRIORS)
    torch.testing.assert_close(fitted._replace(log_confusion=fitted.log_confusion[:, :3]), base)
    # what is left for them is the prior: 2 / 5 right
    torch.testing.assert_close(accuracy(fitted)[:, 3:], torch.full((3, 2), 0.4).double())
    for r in (0, 1, 9):
        other = em(task.embedded, drawn(r=max(r, 1)).votes[..., :r], 4, steps=3, priors=PRIORS)
        assert other.log_confusion.shape == (3, r, 4, 4)
        torch.testing.assert_close(other.responsibilities.sum(-1), torch.ones(3, 12).double())


def test_a_task_alone_is_the_task_in_the_batch():
    """One of them without votes: its start does not reach the others."""
    task = drawn(t=4)
    task.votes[2] = -1
    batch = em(task.embedded, task.votes, 4, steps=4, priors=ODD)
    for t in range(4):
        one = slice(t, t + 1)
        alone = em(task.embedded[one], task.votes[one], 4, steps=4, priors=ODD)
        for ours, theirs in zip(alone, batch, strict=True):
            torch.testing.assert_close(ours, theirs[one], rtol=0, atol=1e-6)


def corners(n: int = 12, k: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Clusters at the corners of a square, of side 5, and whose each example is."""
    where = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0], [5.0, 5.0]]).double()
    truth = torch.arange(n) % k
    noise = torch.randn(n, 2, generator=torch.Generator().manual_seed(3)).double() / 4
    return (where[truth] + noise)[None], truth


@pytest.mark.parametrize("missing", [False, True])
def test_votes_that_all_tie_do_not_collapse_the_prototypes(missing: bool):
    """Each class once an example, or no votes: the clusters are found, their names are free."""
    u, truth = corners()
    votes = torch.full((1, 12, 4), -1) if missing else torch.arange(4).expand(1, 12, 4)
    fitted = em(u, votes, 4, steps=10, priors=PRIORS)
    found = fitted.responsibilities[0].argmax(-1)
    assert len({(int(a), int(b)) for a, b in zip(truth, found, strict=True)}) == 4
    assert len(set(found.tolist())) == 4
    means = torch.stack([u[0, truth == c].mean(0) for c in range(4)])
    assert torch.cdist(means, fitted.prototypes[0]).amin(1).max() < 0.05
    order = torch.randperm(12, generator=torch.Generator().manual_seed(4))
    moved = em(u[:, order], votes[:, order], 4, steps=10, priors=PRIORS)
    torch.testing.assert_close(moved.prototypes, fitted.prototypes)


def test_one_example_that_does_not_tie_is_enough_and_nothing_is_moved():
    u, _ = corners()
    votes = torch.arange(4).repeat(1, 12, 1)
    votes[0, 0, 1:] = -1
    expected = vote_shares(votes, 4, torch.float64)
    start = prototypes_start.start(u, votes, 4, 0.0)
    torch.testing.assert_close(start.log_responsibilities.exp(), expected, rtol=0, atol=1e-300)
    tied = prototypes_start.start(u, torch.full_like(votes, -1), 4, 0.0)
    # (1 - .001) / 4, and .001 more for the nearest seed
    values = tied.log_responsibilities.exp().sort(-1).values[0]
    expected = torch.tensor([0.24975, 0.24975, 0.24975, 0.25075]).double().expand(12, -1)
    torch.testing.assert_close(values, expected)


def test_a_class_without_votes_starts_at_the_mean_of_the_support_or_at_the_priors():
    """An example without votes would give its share to every class, so each has one."""
    task = drawn()
    votes = torch.where((task.votes == -1).all(-1, keepdim=True), 0, task.votes)
    flat, held = (
        em(task.embedded, votes, 5, steps=1, priors=Priors(precision=tau)) for tau in (0.0, 0.1)
    )
    torch.testing.assert_close(flat.prototypes[:, 4], task.embedded.mean(1))
    assert held.prototypes[:, 4].abs().max() < 1e-100


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_saturated_responsibilities_have_finite_values_and_gradients(scale: float):
    """float32, distances of 1e5 and more, classes that nobody names and classes that empty."""
    task = drawn(n=6, k=4, m=1600)
    u = (task.embedded * scale).float().requires_grad_()
    s = torch.zeros((), requires_grad=True)
    fitted = em(u, task.votes.clamp_max(1), 4, steps=6, priors=PRIORS, log_variance=s)
    loss = log_posterior(task.queries.float() * scale, fitted, s).clamp_min(-1e6).sum()
    loss += fitted.responsibilities.square().sum() + accuracy(fitted).sum()
    for value in (*fitted, *torch.autograd.grad(loss, (u, s))):
        assert value.isfinite().all()


def test_clusters_far_from_zero_are_told_apart_in_float32():
    """A shift of 1000 is exact for multiples of 1/64; |u|^2 is then 6e7, a step of 4 in float32."""
    task = drawn(m=64)
    u, x = ((value * 64).round().float() / 64 for value in (task.embedded / 4, task.queries / 4))
    near = em(u, task.votes, 4, steps=3, priors=PRIORS)
    far = em(u + 1000, task.votes, 4, steps=3, priors=PRIORS)
    torch.testing.assert_close(far.responsibilities, near.responsibilities, rtol=0, atol=5e-3)
    torch.testing.assert_close(
        log_posterior(x + 1000, far).exp(), log_posterior(x, near).exp(), rtol=0, atol=5e-3
    )
    exact = torch.cdist(x.double(), u.double()).square()
    ours = squared_distances(x + 1000, u + 1000).double()
    torch.testing.assert_close(ours, exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_it_is_in_float32_under_autocast_and_for_half_types(half: torch.dtype):
    task = drawn()
    u, x = task.embedded.to(half), task.queries.to(half)
    s = torch.tensor(0.2)
    expected = em(u.float(), task.votes, 4, steps=3, priors=PRIORS, log_variance=s)
    answers = log_posterior(x.float(), expected, s)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for given in (u, u.float()):
            fitted = em(given, task.votes, 4, steps=3, priors=PRIORS, log_variance=s)
            torch.testing.assert_close(fitted, expected, rtol=0, atol=0)
        torch.testing.assert_close(log_posterior(x, fitted, s), answers, rtol=0, atol=0)
        value = map_objective(u, task.votes, fitted, PRIORS, s)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, map_objective(u.float(), task.votes, fitted, PRIORS, s))


def test_several_noisy_annotators_are_worth_more_than_their_majority():
    """Clusters tell who errs: one of five is right nine times in ten, the others guess."""
    generator = torch.Generator().manual_seed(7)
    u, truth = corners(40)
    noise = torch.randn(1, 40, 2, dtype=torch.float64, generator=generator)
    votes = torch.randint(4, (1, 40, 5), generator=generator)
    right = torch.rand(40, generator=generator) < 0.9
    votes[0, right, 0] = truth[right]
    fitted = em(u + noise, votes, 4, steps=20, priors=PRIORS)
    first = em(u + noise, votes, 4, steps=1, priors=PRIORS)
    hits = [(f.responsibilities[0].argmax(-1) == truth).double().mean() for f in (fitted, first)]
    assert accuracy(fitted)[0].argmax() == 0 and accuracy(fitted)[0, 0] > 0.6
    assert hits[0] > hits[1] and hits[0] > 0.9


@pytest.mark.parametrize(
    ("steps", "priors", "words"),
    [
        (0, PRIORS, "em: steps=0; allowed is 1 or more"),
        (1, Priors(wrong=0.0), "em: priors.wrong=0.0; allowed is a number above 0"),
        (1, Priors(classes=math.nan), "em: priors.classes=nan; allowed is a number above 0"),
        (1, Priors(precision=-1.0), "em: priors.precision=-1.0; allowed is 0 or more"),
    ],
)
def test_steps_and_priors_that_make_no_sense_are_refused(steps: int, priors: Priors, words: str):
    task = drawn()
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        em(task.embedded, task.votes, 4, steps=steps, priors=priors)


@pytest.mark.parametrize("file", [module, prototypes_start])
def test_docstring_examples(file):
    result = doctest.testmod(file)
    assert result.attempted and result.failed == 0
