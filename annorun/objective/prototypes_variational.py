"""Variational EM for prototypes from several annotators: posteriors in place of point estimates.

The model and the priors of `annorun.objective.prototypes` (Kumagai et al., arXiv 2506.10259), under
variational Bayes, as C. M. Bishop, Pattern Recognition and Machine Learning, 2006, section 10.2,
has it for mixtures. The paper leaves it open.

Posterior of one task: prod_n q_n(t_n) Dirichlet(pi; e) prod_{r,k} Dirichlet(alpha[r, k]; h[r, k])
prod_k N(mu_k; m_k, v_k I).
M-step, N_k = sum_n q_nk:
    e_k = b + 1 + N_k,   h[r, k, l] = c_kl + 1 + sum_{n: y_nr = l} q_nk
    v_k = 1 / (tau + N_k e^-s) = e^s / (tau e^s + N_k),   m_k = sum_n q_nk u_n / (tau e^s + N_k)
E-step, as E |u - mu_k|^2 = |u - m_k|^2 + M v_k for embeddings of size M:
    q_nk  prop. to  exp(E log pi_k + sum_r E log alpha[r, k, y_nr]
                        - (|u_n - m_k|^2 + M v_k) / (2 e^s)),
    E log pi_k = digamma(e_k) - digamma(sum over k of the same); alpha likewise
Answer for a query, mu_k integrated out and the confusion matrices dropped:
    p(t = k | x)  prop. to  e_k N(u | m_k, (e^s + v_k) I)

Where counts grow v_k falls to 0, digamma to the log, and both steps are those of EM. The bound on
the log evidence (`elbo`), which no step lowers, is
    sum_n log sum_k (what q_nk is prop. to) - KL(e | b + 1) - KL(h | c + 1) - KL(m, v | 0, 1 / tau),
with (2 pi e^s)^(-M / 2) in each term of the first.

Readings:
    1. tau is above 0: with a flat prior a class without examples has no posterior.
    2. -M v_k / (2 e^s) is a price on classes with few examples. With M large it outweighs the votes
       unless tau e^s is not small against N_k: choose tau with it.

Example:
    >>> import torch
    >>> embedded = torch.tensor([[[0.0], [0.2], [2.0], [2.2]]])
    >>> votes = torch.tensor([[[0, 0, -1], [0, 1, 1], [1, 1, 1], [1, -1, 1]]])
    >>> fitted = variational_em(embedded, votes, 2, steps=5, priors=Priors(precision=0.1))
    >>> [[round(p, 2) for p in row] for row in fitted.responsibilities[0].tolist()]
    [[0.95, 0.05], [0.69, 0.31], [0.02, 0.98], [0.03, 0.97]]
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from annorun.errors import ConfigError
from annorun.objective.prototypes import (
    Fitted,
    Priors,
    check,
    confusion_counts,
    log_density,
    log_joint,
    prototype_means,
    tally,
)
from annorun.objective.prototypes_start import full_precision, start


class Variational(NamedTuple):
    """The posterior of one batch of tasks; the responsibilities are those of the last E-step.

    Attributes:
        responsibilities: (n_tasks, n_examples, n_classes).
        prototypes: (n_tasks, n_classes, size), m above.
        variance: (n_tasks, n_classes), v above.
        classes: (n_tasks, n_classes), e above.
        confusion: (n_tasks, n_annotators, n_classes, n_classes) `[annotator, true, observed]`, h
            above.
    """

    responsibilities: Tensor
    prototypes: Tensor
    variance: Tensor
    classes: Tensor
    confusion: Tensor


def expected_log(counts: Tensor) -> Tensor:
    """Return E log x for x ~ Dirichlet(counts), along the last axis."""
    return counts.digamma() - counts.sum(-1, keepdim=True).digamma()


def divergence(
    counts: Tensor,  # (..., n)
    prior: Tensor,  # (..., n), broadcast
) -> Tensor:  # (...)
    """Return KL(Dirichlet(counts) | Dirichlet(prior)), along the last axis."""
    norm = counts.sum(-1).lgamma() - counts.lgamma().sum(-1)
    prior_norm = prior.sum(-1).lgamma() - prior.lgamma().sum(-1)
    return norm - prior_norm + ((counts - prior) * expected_log(counts)).sum(-1)


def m_step(
    embedded: Tensor,  # (n_tasks, n_examples, size)
    said: Tensor,  # (n_tasks, n_examples, n_annotators, n_classes)
    log_responsibilities: Tensor,  # (n_tasks, n_examples, n_classes)
    priors: Priors,
    log_variance: Tensor,  # ()
) -> Variational:
    """Return the posterior of the parameters, given the responsibilities."""
    responsibilities, scale = log_responsibilities.exp(), log_variance.exp()
    total, counts = responsibilities.sum(dim=1), tally(said, responsibilities)
    return Variational(
        responsibilities,
        prototype_means(embedded, log_responsibilities, priors.precision, log_variance),
        scale / (priors.precision * scale + total),
        priors.classes + 1 + total,
        confusion_counts(priors, counts) + 1 + counts,
    )


def expected_log_joint(
    embedded: Tensor,  # (n_tasks, n_examples, size)
    said: Tensor,  # (n_tasks, n_examples, n_annotators, n_classes)
    fitted: Variational,
    log_variance: Tensor,  # ()
) -> Tensor:  # (n_tasks, n_examples, n_classes)
    """Return E log p(u_n, y_n, t_n = k) of each class, but for log(2 pi)."""
    log_prior, log_confusion = expected_log(fitted.classes), expected_log(fitted.confusion)
    centres = Fitted(fitted.responsibilities, fitted.prototypes, log_prior, log_confusion)
    spread = embedded.shape[-1] / 2 * torch.exp(-log_variance) * fitted.variance
    return log_joint(embedded, said, centres, log_variance) - spread.unsqueeze(1)


def variational_em(
    embedded: Tensor,  # (n_tasks, n_examples, size)
    votes: Tensor,  # (n_tasks, n_examples, n_annotators) int64, -1 where there is none
    n_classes: int,
    *,
    steps: int,
    priors: Priors,
    log_variance: Tensor | float = 0.0,  # ()
) -> Variational:
    """Return the posterior of each task after `steps` steps.

    Raises:
        ConfigError: `steps` below 1, or a pseudo-count or `priors.precision` that is not above 0.
    """
    check("variational_em", steps, priors)
    if not priors.precision:
        raise ConfigError("variational_em: priors.precision=0; allowed is a number above 0")
    with full_precision(embedded):
        embedded, said, log_q, s = start(embedded, votes, n_classes, log_variance)
        for _ in range(steps):
            fitted = m_step(embedded, said, log_q, priors, s)
            log_q = expected_log_joint(embedded, said, fitted, s).log_softmax(dim=-1)
        return fitted._replace(responsibilities=log_q.exp())


def means(fitted: Variational) -> Fitted:
    """Return the posterior means, in the form that EM gives its estimates."""
    classes, confusion = fitted.classes, fitted.confusion
    return Fitted(
        fitted.responsibilities,
        fitted.prototypes,
        classes.log() - classes.sum(-1, keepdim=True).log(),
        confusion.log() - confusion.sum(-1, keepdim=True).log(),
    )


def log_predictive(
    queries: Tensor,  # (n_tasks, n_queries, size)
    fitted: Variational,
    log_variance: Tensor | float = 0.0,  # ()
) -> Tensor:  # (n_tasks, n_queries, n_classes)
    """Return log p(t = k | x) of each query under the posterior."""
    kind = fitted.prototypes.dtype
    with full_precision(queries):
        scale = torch.as_tensor(log_variance, dtype=kind, device=queries.device).exp()
        wider = (scale + fitted.variance).log().unsqueeze(1)
        return log_density(queries.to(kind), means(fitted), wider).log_softmax(dim=-1)


def elbo(
    embedded: Tensor,  # (n_tasks, n_examples, size)
    votes: Tensor,  # (n_tasks, n_examples, n_annotators), -1 where there is none
    fitted: Variational,
    priors: Priors,
    log_variance: Tensor | float = 0.0,  # ()
) -> Tensor:  # (n_tasks,)
    """Return the bound on the log evidence, at the responsibilities that suit the posterior."""
    with full_precision(embedded):
        given = start(embedded, votes, fitted.classes.shape[-1], log_variance)
        joint = expected_log_joint(given.embedded, given.said, fitted, given.log_variance)
        n_examples, size = embedded.shape[1:]
        fit = joint.logsumexp(-1).sum(1) - n_examples * size / 2 * math.log(2 * math.pi)
        confusion_prior = confusion_counts(priors, fitted.confusion) + 1
        classes_prior = torch.full_like(fitted.classes, priors.classes + 1)
        ratio = priors.precision * fitted.variance
        moved = priors.precision * fitted.prototypes.square().sum(-1)
        return (
            fit
            - divergence(fitted.classes, classes_prior)
            - divergence(fitted.confusion, confusion_prior).sum((1, 2))
            - 0.5 * (size * (ratio - 1 - ratio.log()) + moved).sum(-1)
        )
