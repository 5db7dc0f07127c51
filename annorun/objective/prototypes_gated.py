"""EM for prototypes whose annotators may guess on an example: confusion that depends on the input.

The model of `annorun.objective.prototypes` (Kumagai et al., arXiv 2506.10259) with a gate in [0, 1]
for each example, g_n = sigmoid(`gate`_n), which the embedding gives:
    p(y_nr = l | t_n = k) = g_n alpha[r, k, l] + (1 - g_n) / K
A vote is drawn from the annotator's row of alpha, or is a guess where the example is hard. The
paper leaves input-dependent confusion open; this is ours, the mixture of REALM (arXiv 2604.17289,
Eq. 1) with the share of guesses an example's and not an annotator's.

With w_nrk = g_n alpha[r, k, y] / (g_n alpha[r, k, y] + (1 - g_n) / K), y = y_nr, the probability
that the vote came from alpha if the class is k:
M-step: mu and pi as in EM; alpha[r, k, l] = (c_kl + sum_{n: y_nr = l} q_nk w_nrk) / (sum over l).
E-step: q as in EM, with the mixture in place of alpha[r, k, y_nr]; then w.
Before the first step alpha is 1 / K, so w_nrk = g_n. The answer for a query is that of EM. No step
lowers `gated_objective`.

g = 1 is EM. With g = 0 votes only start the responsibilities and alpha stays at its prior.

Example:
    >>> import torch
    >>> embedded = torch.tensor([[[0.0], [0.2], [2.0], [2.2]]])
    >>> votes = torch.tensor([[[0, 0, -1], [0, 1, 1], [1, 1, 1], [1, -1, 1]]])
    >>> gate = torch.tensor([[3.0, -3.0, 3.0, 3.0]])
    >>> fitted = gated_em(embedded, votes, 2, gate, steps=5, priors=Priors())
    >>> [[round(p, 2) for p in row] for row in fitted.responsibilities[0].tolist()]
    [[0.98, 0.02], [0.8, 0.2], [0.01, 0.99], [0.02, 0.98]]
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from annorun.objective.prototypes import (
    Fitted,
    Priors,
    check,
    log_density,
    log_prior_density,
    m_step,
)
from annorun.objective.prototypes_start import full_precision, start


def log_said(
    said: Tensor,  # (n_tasks, n_examples, n_annotators, n_classes)
    log_confusion: Tensor,  # (n_tasks, n_annotators, n_classes, n_classes)
) -> Tensor:  # (n_tasks, n_examples, n_annotators, n_classes)
    """Return log alpha[r, k, y_nr] of each vote under each class, 0 where there is none."""
    return torch.einsum("tnrl,trkl->tnrk", said, log_confusion)


def gated_tally(
    said: Tensor,  # (n_tasks, n_examples, n_annotators, n_classes)
    log_alpha: Tensor,  # (n_tasks, n_examples, n_annotators, n_classes), of `log_said`
    gate: Tensor,  # (n_tasks, n_examples), log-odds
    responsibilities: Tensor,  # (n_tasks, n_examples, n_classes)
) -> Tensor:  # (n_tasks, n_annotators, n_classes, n_classes) [annotator, true, observed]
    """Return how many votes of each annotator each class is expected to have had from alpha."""
    # w: the log-odds of alpha against a guess
    genuine = torch.sigmoid(gate[..., None, None] + log_alpha + math.log(said.shape[-1]))
    return torch.einsum("tnrl,tnrk->trkl", said, genuine * responsibilities.unsqueeze(2))


def gated_log_joint(
    embedded: Tensor,  # (n_tasks, n_examples, size)
    said: Tensor,  # (n_tasks, n_examples, n_annotators, n_classes)
    log_alpha: Tensor,  # (n_tasks, n_examples, n_annotators, n_classes), of `log_said`
    gate: Tensor,  # (n_tasks, n_examples), log-odds
    fitted: Fitted,
    log_variance: Tensor,  # ()
) -> Tensor:  # (n_tasks, n_examples, n_classes)
    """Return log p(u_n, y_n, t_n = k) of each class, but for log(2 pi)."""
    odds = gate[..., None, None]
    # log(1 - sigmoid(gate)) = logsigmoid(-gate): exact where sigmoid(gate) rounds to 1
    guess = logsigmoid(-odds) - math.log(said.shape[-1])
    votes = torch.logaddexp(logsigmoid(odds) + log_alpha, guess) * said.sum(-1, keepdim=True)
    return log_density(embedded, fitted, log_variance) + votes.sum(dim=2)


def gated_em(
    embedded: Tensor,  # (n_tasks, n_examples, size)
    votes: Tensor,  # (n_tasks, n_examples, n_annotators) int64, -1 where there is none
    n_classes: int,
    gate: Tensor,  # (n_tasks, n_examples), log-odds
    *,
    steps: int,
    priors: Priors,
    log_variance: Tensor | float = 0.0,  # ()
) -> Fitted:
    """Return what `steps` steps make of each task; queries go to `log_posterior`.

    Raises:
        ConfigError: `steps` below 1, or a pseudo-count that is not above 0.
    """
    check("gated_em", steps, priors)
    with full_precision(embedded):
        embedded, said, log_q, s = start(embedded, votes, n_classes, log_variance)
        gate = gate.to(embedded.dtype)
        log_alpha = torch.full_like(said, -math.log(n_classes))
        for _ in range(steps):
            counts = gated_tally(said, log_alpha, gate, log_q.exp())
            fitted = m_step(embedded, counts, log_q, priors, s)
            log_alpha = log_said(said, fitted.log_confusion)
            log_q = gated_log_joint(embedded, said, log_alpha, gate, fitted, s).log_softmax(-1)
        return fitted._replace(responsibilities=log_q.exp())


def gated_objective(
    embedded: Tensor,  # (n_tasks, n_examples, size)
    votes: Tensor,  # (n_tasks, n_examples, n_annotators), -1 where there is none
    gate: Tensor,  # (n_tasks, n_examples), log-odds
    fitted: Fitted,
    priors: Priors,
    log_variance: Tensor | float = 0.0,  # ()
) -> Tensor:  # (n_tasks,)
    """Return the log posterior density of the parameters, but for constants: no step lowers it."""
    with full_precision(embedded):
        given = start(embedded, votes, fitted.log_prior.shape[-1], log_variance)
        log_alpha = log_said(given.said, fitted.log_confusion)
        odds = gate.to(given.embedded.dtype)
        joint = gated_log_joint(
            given.embedded, given.said, log_alpha, odds, fitted, given.log_variance
        )
        return joint.logsumexp(dim=-1).sum(dim=1) + log_prior_density(fitted, priors)
