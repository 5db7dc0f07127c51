"""Dawid-Skene: one confusion matrix an annotator, by expectation-maximisation.

A. P. Dawid, A. M. Skene: Maximum likelihood estimation of observer error-rates using the EM
algorithm. Journal of the Royal Statistical Society C 28(1), 1979, 20-28.

Model: truth y_i ~ Categorical(p); vote z_ia | y_i = k ~ Categorical(C[a, k, :]), votes independent
given the truth. Prior: p and each row C[a, k, :] ~ Dirichlet(1 + s, ..., 1 + s), s = `smoothing`;
s = 0 is the paper's model.

E-step:  q_ik  prop. to  p_k prod_a C[a, k, z_ia]                               (paper: 2.5)
M-step:  C[a, k, l] = (s + sum_{i: z_ia = l} q_ik) / (sum over l of the same)   (paper: 2.3)
         p_k = (s + sum_i q_ik) / (sum over k of the same)                      (paper: 2.4)
Start: q = vote shares. Each pair of steps cannot lower the objective
         sum_i log sum_k p_k prod_a C[a, k, z_ia] + s (sum_k log p_k + sum_{a,k,l} log C[a, k, l]),
the log posterior but for a constant; `Posterior.trace` is its value after each iteration.

Deviations from the paper:
    1. The Dirichlet prior: with s = 0 a label that an annotator was not seen to give for a class
       is impossible for good, and annotators with a handful of votes decide items with probability
       1. s = 0.1 is ours: with 1e4 synthetic votes, Sentiment Polarity and LabelMe, a hundredth of
       a vote is too sure of itself and a whole vote costs LabelMe 7 points of accuracy.
    2. An item without votes has the posterior p and no part in the M-step: it says nothing of p.
    3. Labels that are `known` are clamped in both steps (`annorun.aggregation.control`).

Example:
    >>> from annorun.votes import Votes
    >>> votes = Votes(
    ...     item=[0, 0, 0, 1, 1, 1, 2, 2, 2],
    ...     annotator=[0, 1, 2, 0, 1, 2, 0, 1, 2],
    ...     label=[0, 0, 1, 1, 1, 0, 0, 0, 0],
    ...     n_items=3, n_annotators=3, n_classes=2,
    ... )
    >>> posterior = dawid_skene(votes)
    >>> posterior.probs.argmax(axis=1).tolist(), posterior.converged
    ([0, 1, 0], True)
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.special import xlogy

from annorun.aggregation import control
from annorun.aggregation.tally import posterior
from annorun.errors import ConfigError
from annorun.kinds import Count, NonNegative, Positive
from annorun.votes import Floats, Ints, Posterior, Votes

# numbers in the confusion matrices: 2.4 GB, and a few times that in an iteration
MOST = 3 * 10**8


class Params(NamedTuple):
    """What the M-step estimates.

    Attributes:
        prior: (n_classes,) probability of each class.
        confusion: (n_annotators, n_classes, n_classes) `[annotator, true, observed]`.
    """

    prior: Floats
    confusion: Floats


def refuse_many(votes: Votes, name: str) -> None:
    """Raise ConfigError where the confusion matrices are too large to hold."""
    size = votes.n_annotators * votes.n_classes**2
    if size > MOST:
        raise ConfigError(
            f"{name}: {votes.n_annotators} annotators x {votes.n_classes}^2 classes are {size} "
            f"numbers; allowed are {MOST}: take one_coin, mace or glad, a few numbers an annotator"
        )


def incidence(votes: Votes) -> Any:
    """Return who said what, a sparse (n_items, n_annotators * n_classes) matrix of ones.

    Column `annotator * n_classes + label`: both steps are then one product with a dense matrix.
    """
    # int32 halves what a product reads; scipy wants both index arrays of one type
    kind = np.int32 if max(len(votes), votes.n_annotators * votes.n_classes) < 2**31 else np.int64
    column = (votes.annotator * votes.n_classes + votes.label).astype(kind)
    start = np.zeros(votes.n_items + 1, dtype=kind)
    np.cumsum(np.bincount(votes.item, minlength=votes.n_items), out=start[1:])
    shape = (votes.n_items, votes.n_annotators * votes.n_classes)
    return csr_array((np.ones(len(votes)), column, start), shape=shape)


def e_step(
    said: Any,  # (n_items, n_annotators * n_classes), sparse
    params: Params,
    known: Ints | None = None,  # (n_items,), -1 where unknown
) -> tuple[Floats, float]:
    """Return the items' posterior, (n_items, n_classes), and the votes' log likelihood."""
    n_classes = len(params.prior)
    # log(0) is what we mean: with smoothing 0 a label may be impossible for a class
    with np.errstate(divide="ignore"):
        log_prior, log_confusion = np.log(params.prior), np.log(params.confusion)
    log_joint = said @ log_confusion.transpose(0, 2, 1).reshape(-1, n_classes)
    log_joint += log_prior
    if known is not None:
        log_joint = control.clamp(log_joint, known)
    probs, log_evidence = posterior(log_joint)
    return probs, float(log_evidence.sum())


def m_step(
    said: Any,  # (n_items, n_annotators * n_classes), sparse
    probs: Floats,  # (n_items, n_classes)
    smoothing: float,
    known: Ints | None = None,  # (n_items,), -1 where unknown
) -> Params:
    """Return the parameters of highest posterior density given the posterior of the items."""
    n_classes = probs.shape[1]
    counted = np.diff(said.indptr) > 0
    if known is not None:
        counted |= known >= 0
    observed = (said.T @ probs).reshape(-1, n_classes, n_classes)  # [annotator, observed, true]
    return Params(
        prior=normalised(counted.astype(np.float64) @ probs + smoothing),
        confusion=normalised(observed.transpose(0, 2, 1) + smoothing),
    )


def normalised(counts: Floats) -> Floats:
    """Return the shares along the last axis, uniform where nothing is counted."""
    total = counts.sum(axis=-1, keepdims=True)
    # nothing counted: any row maximises the objective; uniform is the limit of smoothing -> 0
    share: Floats = np.full(counts.shape, 1 / counts.shape[-1])
    np.divide(counts, total, out=share, where=total > 0)
    return share


def log_density(params: Params, smoothing: float) -> float:
    """Return the log density of the Dirichlet prior at `params`, less its constant."""
    # xlogy: with smoothing 0 there is no prior, also where a parameter is 0
    return float(xlogy(smoothing, params.prior).sum() + xlogy(smoothing, params.confusion).sum())


def dawid_skene(
    votes: Votes,
    *,
    max_iter: Count = 1000,
    tol: Positive = 1e-6,
    smoothing: NonNegative = 0.1,
    known: Ints | None = None,
) -> Posterior:
    """Return the posterior of the items and the confusion of the annotators.

    Args:
        votes: at most one label an item and annotator.
        max_iter: iterations at most; if they end first, `converged` is False.
        tol: the iterations end when one raises the objective by less than this per vote.
        smoothing: s above, the votes added to each cell of each confusion matrix and to each class.
        known: (n_items,) labels of control items, -1 elsewhere: they are taken for the truth.
    """
    refuse_many(votes, "dawid_skene")
    given = control.checked(votes, known, "dawid_skene")
    said = incidence(votes)
    probs = control.start(votes, given)
    trace: list[float] = []
    converged = False
    while not converged and len(trace) < max_iter:
        params = m_step(said, probs, smoothing, given)
        probs, log_likelihood = e_step(said, params, given)
        trace.append(log_likelihood + log_density(params, smoothing))
        converged = len(trace) > 1 and trace[-1] - trace[-2] <= tol * len(votes)
    accuracy = np.einsum("k,akk->a", params.prior, params.confusion)
    accuracy[np.bincount(votes.annotator, minlength=votes.n_annotators) == 0] = np.nan
    return Posterior(probs, accuracy, params.confusion, tuple(trace), converged)
