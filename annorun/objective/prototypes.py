"""Prototypes from several annotators: EM over the support sets of a batch of tasks, differentiable.

Kumagai, Iwata, Nishiyama, Ida, Fujiwara: Meta-learning Representations for Learning from Multiple
Annotators, arXiv 2506.10259, Eqs. 5-8 and Algorithm 1.

Model of one task: class t_n ~ Categorical(pi), embedding u_n | t_n = k ~ N(mu_k, e^s I), s =
`log_variance`; vote y_nr | t_n = k ~ Categorical(alpha[r, k, :]), independent given the class.
Prior: pi ~ Dirichlet(b + 1), alpha[r, k, :] ~ Dirichlet(c_k + 1), mu_k ~ N(0, I / tau). tau = 0 is
flat. The maximum of the posterior then adds b and c to the counts.

M-step, N_k = sum_n q_nk:
    mu_k = sum_n q_nk u_n / (tau e^s + N_k),   pi_k = (b + N_k) / (K b + N)
    alpha[r, k, l] = (c_kl + sum_{n: y_nr = l} q_nk) / (sum over l of the same)
E-step:
    q_nk  prop. to  pi_k exp(-|u_n - mu_k|^2 / (2 e^s)) prod_r alpha[r, k, y_nr]
Answer for a query (Eq. 8), the confusion matrices dropped:
    p(t = k | x)  prop. to  pi_k exp(-|u - mu_k|^2 / (2 e^s))
With clean labels, tau = 0 and pi uniform, that is a prototypical network. Gradients run through all
steps, and through the responsibilities q. The embedding size times s is in `log_joint`, log(2 pi)
is not. All of it is in float32 at least, also under autocast.

Readings, where the paper's text (known to us through its public reviews) leaves room:
    1. Start: q = vote shares, 1 / K where nobody voted, so that ties split.
    2. A step is an M-step, then an E-step. The answer is that of the last M-step, so one step
       answers with the prototypes of the majority vote; `responsibilities` are the last E-step's.
    3. b and c are added to counts, so that every value above 0 is valid. c is larger on the
       diagonal: without that nothing says which cluster is which class.
    4. s, ours: 0 is the paper's unit covariance.
    5. A class without votes starts, with tau = 0, at the mean of the support: any place is as
       likely.
    6. A task whose votes all tie starts with its prototypes apart
       (`annorun.objective.prototypes_start`).

Example:
    >>> import torch
    >>> embedded = torch.tensor([[[0.0], [0.2], [2.0], [2.2]]])
    >>> votes = torch.tensor([[[0, 0, -1], [0, 1, 1], [1, 1, 1], [1, -1, 1]]])
    >>> fitted = em(embedded, votes, 2, steps=5, priors=Priors())
    >>> [[round(p, 2) for p in row] for row in fitted.responsibilities[0].tolist()]
    [[0.98, 0.02], [0.79, 0.21], [0.01, 0.99], [0.02, 0.98]]
    >>> [round(a, 2) for a in accuracy(fitted)[0].tolist()]
    [0.77, 0.69, 0.67]
"""

from typing import NamedTuple

import torch
from torch import Tensor

from annorun.errors import ConfigError
from annorun.objective.prototypes_start import full_precision, squared_distances, start


class Priors(NamedTuple):
    """Pseudo-counts of the Dirichlet priors and the precision of the prototypes' prior.

    Attributes:
        classes: b above, for each class.
        right: c_kk above, for a vote that is the class.
        wrong: c_kl above, for each of the other labels.
        precision: tau above, 0 for a flat prior.
    """

    classes: float = 10.0
    right: float = 2.0
    wrong: float = 1.0
    precision: float = 0.0


class Fitted(NamedTuple):
    """What the M-step estimates, and the responsibilities: `em` gives those of the E-step after it.

    Attributes:
        responsibilities: (n_tasks, n_examples, n_classes).
        prototypes: (n_tasks, n_classes, size).
        log_prior: (n_tasks, n_classes).
        log_confusion: (n_tasks, n_annotators, n_classes, n_classes) `[annotator, true, observed]`.
    """

    responsibilities: Tensor
    prototypes: Tensor
    log_prior: Tensor
    log_confusion: Tensor


def check(name: str, steps: int, priors: Priors) -> None:
    """Raise ConfigError where the steps or the priors make no sense."""
    if steps < 1:
        raise ConfigError(f"{name}: steps={steps}; allowed is 1 or more")
    for key, value in priors._asdict().items():
        if not (value > 0 or (key == "precision" and value == 0)):
            allowed = "0 or more" if key == "precision" else "a number above 0"
            raise ConfigError(f"{name}: priors.{key}={value}; allowed is {allowed}")


def tally(
    said: Tensor,  # (n_tasks, n_examples, n_annotators, n_classes)
    responsibilities: Tensor,  # (n_tasks, n_examples, n_classes)
) -> Tensor:  # (n_tasks, n_annotators, n_classes, n_classes) [annotator, true, observed]
    """Return how many votes of each annotator each class is expected to have had."""
    return torch.einsum("tnrl,tnk->trkl", said, responsibilities)


def confusion_counts(
    priors: Priors,
    like: Tensor,  # (..., n_classes)
) -> Tensor:  # (n_classes, n_classes)
    """Return c above."""
    n_classes = like.shape[-1]
    eye = torch.eye(n_classes, dtype=like.dtype, device=like.device)
    return priors.wrong + (priors.right - priors.wrong) * eye


def prototype_means(
    embedded: Tensor,  # (n_tasks, n_examples, size)
    log_responsibilities: Tensor,  # (n_tasks, n_examples, n_classes)
    precision: float,
    log_variance: Tensor,  # ()
) -> Tensor:  # (n_tasks, n_classes, size)
    """Return sum_n q_nk u_n / (tau e^s + N_k)."""
    # q_nk / N_k in log space: where a class's q underflow, 0 / 0 has a value
    weights = log_responsibilities.softmax(dim=1)
    if precision:
        total = log_responsibilities.exp().sum(dim=1, keepdim=True)
        weights = weights * (total / (total + precision * log_variance.exp()))
    return weights.transpose(1, 2) @ embedded


def m_step(
    embedded: Tensor,  # (n_tasks, n_examples, size)
    counts: Tensor,  # (n_tasks, n_annotators, n_classes, n_classes) [annotator, true, observed]
    log_responsibilities: Tensor,  # (n_tasks, n_examples, n_classes)
    priors: Priors,
    log_variance: Tensor,  # ()
) -> Fitted:
    """Return the parameters of highest posterior density, given responsibilities and counts."""
    responsibilities = log_responsibilities.exp()
    classes = responsibilities.sum(dim=1) + priors.classes
    confusion = counts + confusion_counts(priors, counts)
    return Fitted(
        responsibilities,
        prototype_means(embedded, log_responsibilities, priors.precision, log_variance),
        classes.log() - classes.sum(-1, keepdim=True).log(),
        confusion.log() - confusion.sum(-1, keepdim=True).log(),
    )


def log_density(
    points: Tensor,  # (n_tasks, n_points, size)
    fitted: Fitted,
    log_variance: Tensor,  # (), or (n_tasks, 1, n_classes)
) -> Tensor:  # (n_tasks, n_points, n_classes)
    """Return log pi_k N(u | mu_k, e^s I), but for log(2 pi)."""
    near = squared_distances(points, fitted.prototypes) * (-0.5 * torch.exp(-log_variance))
    return fitted.log_prior.unsqueeze(1) + near - 0.5 * points.shape[-1] * log_variance


def log_joint(
    embedded: Tensor,  # (n_tasks, n_examples, size)
    said: Tensor,  # (n_tasks, n_examples, n_annotators, n_classes)
    fitted: Fitted,
    log_variance: Tensor,  # ()
) -> Tensor:  # (n_tasks, n_examples, n_classes)
    """Return log p(u_n, y_n, t_n = k) of each class, but for log(2 pi)."""
    said_if = torch.einsum("tnrl,trkl->tnk", said, fitted.log_confusion)
    return log_density(embedded, fitted, log_variance) + said_if


def e_step(
    embedded: Tensor,  # (n_tasks, n_examples, size)
    said: Tensor,  # (n_tasks, n_examples, n_annotators, n_classes)
    fitted: Fitted,
    log_variance: Tensor,  # ()
) -> Tensor:  # (n_tasks, n_examples, n_classes)
    """Return the log of the responsibilities."""
    return log_joint(embedded, said, fitted, log_variance).log_softmax(dim=-1)


def em(
    embedded: Tensor,  # (n_tasks, n_examples, size)
    votes: Tensor,  # (n_tasks, n_examples, n_annotators) int64, -1 where there is none
    n_classes: int,
    *,
    steps: int,
    priors: Priors,
    log_variance: Tensor | float = 0.0,  # ()
) -> Fitted:
    """Return what `steps` steps of EM make of each task.

    Raises:
        ConfigError: `steps` below 1, or a pseudo-count that is not above 0.
    """
    check("em", steps, priors)
    with full_precision(embedded):
        embedded, said, log_q, s = start(embedded, votes, n_classes, log_variance)
        for _ in range(steps):
            fitted = m_step(embedded, tally(said, log_q.exp()), log_q, priors, s)
            log_q = e_step(embedded, said, fitted, s)
        return fitted._replace(responsibilities=log_q.exp())


def log_posterior(
    queries: Tensor,  # (n_tasks, n_queries, size)
    fitted: Fitted,
    log_variance: Tensor | float = 0.0,  # ()
) -> Tensor:  # (n_tasks, n_queries, n_classes)
    """Return log p(t = k | x) of each query (Eq. 8)."""
    kind = fitted.prototypes.dtype
    scale = torch.as_tensor(log_variance, dtype=kind, device=queries.device)
    with full_precision(queries):
        return log_density(queries.to(kind), fitted, scale).log_softmax(dim=-1)


def log_prior_density(fitted: Fitted, priors: Priors) -> Tensor:  # (n_tasks,)
    """Return the log density of the priors, but for their constants."""
    held = priors.precision / 2 * fitted.prototypes.square().sum((1, 2))
    confusion = confusion_counts(priors, fitted.log_confusion) * fitted.log_confusion
    return priors.classes * fitted.log_prior.sum(1) + confusion.sum((1, 2, 3)) - held


def map_objective(
    embedded: Tensor,  # (n_tasks, n_examples, size)
    votes: Tensor,  # (n_tasks, n_examples, n_annotators), -1 where there is none
    fitted: Fitted,
    priors: Priors,
    log_variance: Tensor | float = 0.0,  # ()
) -> Tensor:  # (n_tasks,)
    """Return the log posterior density of the parameters, but for constants: no step lowers it."""
    with full_precision(embedded):
        given = start(embedded, votes, fitted.log_prior.shape[-1], log_variance)
        joint = log_joint(given.embedded, given.said, fitted, given.log_variance)
        return joint.logsumexp(dim=-1).sum(dim=1) + log_prior_density(fitted, priors)


def accuracy(fitted: Fitted) -> Tensor:  # (n_tasks, n_annotators)
    """Return sum_k pi_k alpha[r, k, k]: how often each annotator is right."""
    right = fitted.log_confusion.diagonal(dim1=-2, dim2=-1).exp()
    return (right * fitted.log_prior.exp().unsqueeze(1)).sum(dim=-1)
