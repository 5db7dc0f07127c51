"""EM of `annorun.objective.prototypes` with one number for each annotator: how often he is right.

alpha[r, k, l] = a_r if l = k, else (1 - a_r) / (K - 1); prior a_r ~ Beta(c + 1, d + 1), c and d the
pseudo-counts of right and of wrong votes (`Priors.right`; `Priors.wrong`, here of all wrong labels
together). Ours: a dozen votes are not enough to fill a K x K matrix, of which K^2 - K numbers are
errors' preferences.

M-step: a_r = (c + sum of q_n,y_nr over his votes) / (c + d + number of his votes); all else, the
start and the E-step are those of the EM. The limit in which both are one: pseudo-counts that go to
infinity in the proportion a : 1 - a here, a : (1 - a) / (K - 1) there; nothing is learned of
annotators then.

Example:
    >>> import torch
    >>> embedded = torch.tensor([[[0.0], [0.2], [2.0], [2.2]]])
    >>> votes = torch.tensor([[[0, 0, -1], [0, 1, 1], [1, 1, 1], [1, -1, 1]]])
    >>> fitted = one_coin_em(embedded, votes, 2, steps=5, priors=Priors())
    >>> [round(a, 2) for a in fitted.log_confusion[0, :, 0, 0].exp().tolist()]
    [0.78, 0.74, 0.75]
"""

import math

import torch
from torch import Tensor

from annorun.objective.prototypes import (
    Fitted,
    Priors,
    check,
    e_step,
    log_joint,
    m_step,
    tally,
)
from annorun.objective.prototypes_start import full_precision, start


def one_coin(
    counts: Tensor,  # (n_tasks, n_annotators, n_classes, n_classes) [annotator, true, observed]
    priors: Priors,
) -> Tensor:  # as counts
    """Return the log confusion matrices of the most probable accuracies."""
    n_classes = counts.shape[-1]
    right = counts.diagonal(dim1=-2, dim2=-1).sum(dim=-1) + priors.right
    wrong = counts.sum(dim=(-2, -1)) - right + priors.right + priors.wrong
    total = (right + wrong).log()
    hit, miss = right.log() - total, wrong.log() - total - math.log(n_classes - 1)
    eye = torch.eye(n_classes, dtype=torch.bool, device=counts.device)
    return torch.where(eye, hit[..., None, None], miss[..., None, None])


def one_coin_em(
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
    check("one_coin_em", steps, priors)
    with full_precision(embedded):
        embedded, said, log_q, s = start(embedded, votes, n_classes, log_variance)
        for _ in range(steps):
            counts = tally(said, log_q.exp())
            fitted = m_step(embedded, counts, log_q, priors, s)
            fitted = fitted._replace(log_confusion=one_coin(counts, priors))
            log_q = e_step(embedded, said, fitted, s)
        return fitted._replace(responsibilities=log_q.exp())


def one_coin_objective(
    embedded: Tensor,  # (n_tasks, n_examples, size)
    votes: Tensor,  # (n_tasks, n_examples, n_annotators), -1 where there is none
    fitted: Fitted,
    priors: Priors,
    log_variance: Tensor | float = 0.0,  # ()
) -> Tensor:  # (n_tasks,)
    """Return the log posterior density of the parameters, but for constants: no step lowers it."""
    n_classes = fitted.log_prior.shape[-1]
    with full_precision(embedded):
        given = start(embedded, votes, n_classes, log_variance)
        joint = log_joint(given.embedded, given.said, fitted, given.log_variance)
        hit = fitted.log_confusion[..., 0, 0]
        miss = fitted.log_confusion[..., 0, 1] + math.log(n_classes - 1)
        annotators = (priors.right * hit + priors.wrong * miss).sum(dim=1)
        held = priors.precision / 2 * fitted.prototypes.square().sum((1, 2))
        classes = priors.classes * fitted.log_prior.sum(dim=1)
        return joint.logsumexp(dim=-1).sum(dim=1) + classes + annotators - held
