"""LFC, learning from crowds without features: two classes, sensitivity and specificity, by EM.

V. C. Raykar, S. Yu, L. H. Zhao, G. H. Valadez, C. Florin, L. Bogoni, L. Moy: Learning From Crowds.
JMLR 11, 2010, section 2; priors and MAP steps: sections 2.4 and 2.5. Label 1 is the positive class.

Model: truth y_i = 1 with probability p; vote z_ia = 1 with probability alpha_a if y_i = 1 (the
sensitivity), z_ia = 0 with probability beta_a if y_i = 0 (the specificity). Prior: alpha_a ~
Beta(a1, a2), beta_a ~ Beta(b1, b2), p ~ Beta(p1, p2), each number at least 1.

E-step:  mu_i = a_i p / (a_i p + b_i (1 - p)),
         a_i = prod_a alpha_a^z_ia (1 - alpha_a)^(1 - z_ia),
         b_i = prod_a beta_a^(1 - z_ia) (1 - beta_a)^z_ia
M-step:  alpha_a = (a1 - 1 + sum_i mu_i z_ia) / (a1 + a2 - 2 + sum_i mu_i),
         beta_a = (b1 - 1 + sum_i (1 - mu_i) (1 - z_ia)) / (b1 + b2 - 2 + sum_i (1 - mu_i)),
         p = (p1 - 1 + sum_i mu_i) / (p1 + p2 - 2 + items);
         the first two sum over the items of a, the third over the items with votes
Start: mu = vote shares. Each pair of steps cannot lower sum_i log(a_i p + b_i (1 - p)) + log prior;
`Posterior.trace` is its value after each iteration, less the prior's constant. With every Beta
(1 + s, 1 + s) this is Dawid-Skene with two classes and `smoothing` s.

Deviations from the paper:
    1. There is no classifier: its p_i is one p for all items, the prevalence.
    2. The Beta numbers are ours (1.1 each, as Dawid-Skene's smoothing); the paper leaves them open.
    3. An item without votes has the posterior p and no part in the M-step.
    4. Labels that are `known` are clamped in both steps (`annorun.aggregation.control`).

Example:
    >>> from annorun.votes import Votes
    >>> votes = Votes(
    ...     item=[0, 0, 0, 1, 1, 1, 2, 2, 2],
    ...     annotator=[0, 1, 2, 0, 1, 2, 0, 1, 2],
    ...     label=[0, 0, 1, 1, 1, 0, 0, 0, 0],
    ...     n_items=3, n_annotators=3, n_classes=2,
    ... )
    >>> posterior = lfc(votes)
    >>> posterior.probs.argmax(axis=1).tolist(), int(posterior.accuracy.argmin())
    ([0, 1, 0], 2)
"""

from typing import NamedTuple

import numpy as np
from scipy.special import xlogy

from annorun.aggregation import control
from annorun.aggregation.tally import by_annotator, by_item, posterior, where_voted
from annorun.errors import ConfigError
from annorun.kinds import Count, Positive
from annorun.votes import Floats, Ints, Posterior, Votes

Beta = tuple[float, float]


class Priors(NamedTuple):
    """The two numbers of each Beta prior: of the right label first, for `prevalence` of class 1."""

    sensitivity: Beta
    specificity: Beta
    prevalence: Beta


class Params(NamedTuple):
    """What the M-step estimates.

    Attributes:
        sensitivity: (n_annotators,) alpha above.
        specificity: (n_annotators,) beta above.
        prevalence: (1,) p above.
    """

    sensitivity: Floats
    specificity: Floats
    prevalence: Floats


def e_step(
    votes: Votes,
    params: Params,
    known: Ints,  # (n_items,), -1 where unknown
) -> tuple[Floats, float]:
    """Return the items' posterior, (n_items, 2), and the votes' log likelihood."""
    # log(0) is what we mean: with flat priors a label may be impossible for a class
    with np.errstate(divide="ignore"):
        log_right = np.log([params.specificity, params.sensitivity])  # (2, n_annotators) [true]
        log_wrong = np.log1p(-np.array([params.specificity, params.sensitivity]))
        log_prior = np.log(np.concatenate([1 - params.prevalence, params.prevalence]))
    log_joint = np.empty((votes.n_items, 2))
    for truth in (0, 1):
        says = np.where(votes.label == truth, log_right[truth][votes.annotator], 0.0)
        says += np.where(votes.label != truth, log_wrong[truth][votes.annotator], 0.0)
        log_joint[:, truth] = by_item(votes, says)
    log_joint = control.clamp(log_joint + log_prior, known)
    probs, log_evidence = posterior(log_joint)
    return probs, float(log_evidence.sum())


def m_step(
    votes: Votes,
    probs: Floats,  # (n_items, 2)
    priors: Priors,
    known: Ints,  # (n_items,), -1 where unknown
) -> Params:
    """Return the parameters of highest posterior density given the posterior of the items."""

    def rate(truth: int, beta: Beta) -> Floats:
        weight = probs[votes.item, truth]
        right = np.where(votes.label == truth, weight, 0.0)
        return mode(by_annotator(votes, right), by_annotator(votes, weight), beta)

    in_class = control.counted(votes, known) @ probs
    prevalence = mode(in_class[1:], in_class.sum(keepdims=True), priors.prevalence)
    return Params(rate(1, priors.sensitivity), rate(0, priors.specificity), prevalence)


def mode(hits: Floats, total: Floats, beta: Beta) -> Floats:
    """Return the share of highest posterior density; 1/2 where neither votes nor prior say any."""
    top, bottom = hits + beta[0] - 1, total + beta[0] + beta[1] - 2
    share = np.full(top.shape, 0.5)
    np.divide(top, bottom, out=share, where=bottom > 0)
    # rounding of the sums must not leave the unit interval
    return np.asarray(np.minimum(share, 1.0))


def log_density(params: Params, priors: Priors) -> float:
    """Return the log density of the priors at `params`, less its constant."""
    # xlogy: a flat prior has no density to speak of, also where a parameter is 0 or 1
    return float(
        sum(
            (xlogy(first - 1, value) + xlogy(second - 1, 1 - value)).sum()
            for value, (first, second) in zip(params, priors, strict=True)
        )
    )


def lfc(
    votes: Votes,
    *,
    max_iter: Count = 100,
    tol: Positive = 1e-6,
    sensitivity: tuple[Positive, Positive] = (1.1, 1.1),
    specificity: tuple[Positive, Positive] = (1.1, 1.1),
    prevalence: tuple[Positive, Positive] = (1.1, 1.1),
    known: Ints | None = None,
) -> Posterior:
    """Return the posterior of the items and the confusion of the annotators.

    Args:
        votes: two classes, at most one label an item and annotator.
        max_iter: iterations at most; if they end first, `converged` is False.
        tol: the iterations end when one raises the objective by less than this per vote.
        sensitivity: a1, a2 above, votes more by one than those added; (1, 1) adds none.
        specificity: b1, b2.
        prevalence: p1, p2, of class 1 and class 0.
        known: (n_items,) labels of control items, -1 elsewhere: they are taken for the truth.
    """
    given = control.checked(votes, known, "lfc")
    if votes.n_classes != 2:
        raise ConfigError(f"lfc: wants two classes, the votes have {votes.n_classes}")
    priors = Priors(sensitivity, specificity, prevalence)
    for name, beta in priors._asdict().items():
        if min(beta) < 1:
            raise ConfigError(f"lfc: {name}={list(beta)}; allowed are two numbers, 1 or more")
    probs = control.start(votes, given)
    trace: list[float] = []
    converged = False
    while not converged and len(trace) < max_iter:
        params = m_step(votes, probs, priors, given)
        probs, log_likelihood = e_step(votes, params, given)
        trace.append(log_likelihood + log_density(params, priors))
        converged = len(trace) > 1 and trace[-1] - trace[-2] <= tol * len(votes)
    right = np.stack([params.specificity, params.sensitivity], axis=1)  # [annotator, true]
    confusion = np.stack([right, 1 - right], axis=2)
    confusion[:, 1] = confusion[:, 1, ::-1]
    accuracy = where_voted(
        votes, right @ np.concatenate([1 - params.prevalence, params.prevalence])
    )
    return Posterior(probs, accuracy, confusion, tuple(trace), converged)
