"""Labels out of votes for a batch of tasks at once: majority vote and Dawid-Skene.

A. P. Dawid, A. M. Skene: Maximum likelihood estimation of observer error-rates using the EM
algorithm, J. R. Stat. Soc. C 28(1), 1979. It is the EM of `annorun.objective.prototypes` over
embeddings of no dimension: what is left of its two steps are the class prior and the confusion
matrices. With every task a data set of its own, and every example voted for, `Priors(s, s, s)` give
`annorun.aggregation.dawid_skene` with `smoothing` s.

Readings, where a task has few votes:
    1. Start: q = vote shares; an example without votes has 1 / K.
    2. `STEPS` steps, for every task alike: an answer does not depend on the other tasks of a batch.
    3. Ties of a hard label are split evenly, within rounding.
    4. The pseudo-counts are those of the method of Kumagai et al., so that a comparison with it is
       one of methods. Nearly flat ones (.1 each) fit an annotator of one or two votes a matrix that
       follows them.

Example:
    >>> import torch
    >>> votes = torch.tensor([[[0, 0, 1], [1, 1, 1], [0, 1, -1], [-1, -1, -1]]])
    >>> hard(majority(votes, 2).probs)[0].tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.5, 0.5]]
    >>> [round(a, 2) for a in majority(votes, 2).accuracy[0].tolist()]
    [0.72, 0.72, 0.67]
"""

from typing import NamedTuple

import torch
from torch import Tensor

from annorun.objective.prototypes import Priors, accuracy, check, e_step, m_step, tally
from annorun.objective.prototypes_start import spoken, vote_shares

# enough that hardly a label changes after; too few to blow rounding up to a decision in a tie
STEPS = 20
# shares this close to the greatest tie with it
TIE = 1e-6


class Believed(NamedTuple):
    """What votes say of the examples, and of who gave them.

    Attributes:
        probs: (n_tasks, n_examples, n_classes).
        accuracy: (n_tasks, n_annotators) how often each is right, NaN for one without votes.
    """

    probs: Tensor
    accuracy: Tensor


def majority(
    votes: Tensor,  # (n_tasks, n_examples, n_annotators) int64, -1 where there is none
    n_classes: int,
) -> Believed:
    """Return vote shares; an annotator's accuracy is the mean share of the labels that he gave."""
    said, shares = _float64(votes, n_classes)
    agreed = torch.einsum("tnrl,tnl->tr", said, shares)
    # 0 / 0 is NaN: an annotator without votes
    return Believed(shares, agreed / said.sum(dim=(1, 3)))


def dawid_skene(
    votes: Tensor,  # (n_tasks, n_examples, n_annotators) int64, -1 where there is none
    n_classes: int,
    priors: Priors,
    steps: int = STEPS,
) -> Believed:
    """Return the posterior of Dawid-Skene in each task, after `steps` iterations, float64.

    Raises:
        ConfigError: `steps` below 1, or a pseudo-count that is not above 0.
    """
    check("dawid_skene", steps, priors)
    said, q = _float64(votes, n_classes)
    nowhere, unit = said.new_zeros(*votes.shape[:2], 0), said.new_zeros(())
    for _ in range(steps):
        fitted = m_step(nowhere, tally(said, q), q.log(), priors, unit)
        q = e_step(nowhere, said, fitted, unit).exp()
    silent = (votes < 0).all(dim=1)
    return Believed(q, accuracy(fitted).masked_fill(silent, torch.nan))


def _float64(votes: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Return who said what, (T, N, R, K), and the vote shares, (T, N, K)."""
    kind = torch.float64
    return spoken(votes, n_classes, kind), vote_shares(votes, n_classes, kind)


def hard(
    probs: Tensor,  # (..., n_classes)
) -> Tensor:  # (..., n_classes)
    """Return 1 for the most probable class; m classes that tie have 1 / m each."""
    top = (probs >= probs.amax(dim=-1, keepdim=True) * (1 - TIE)).to(probs.dtype)
    return top / top.sum(dim=-1, keepdim=True)
