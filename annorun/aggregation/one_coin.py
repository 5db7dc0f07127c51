"""One-coin Dawid-Skene: one accuracy an annotator, by expectation-maximisation.

Y. Zhang, X. Chen, D. Zhou, M. I. Jordan: Spectral Methods Meet EM: A Provably Optimal Algorithm for
Crowdsourcing. JMLR 17(102), 2016, section 4 (the one-coin model).

Model: truth y_i ~ Categorical(p); vote z_ia = y_i with probability r_a, else one of the K - 1 other
labels, all alike. Prior: p ~ Dirichlet(1 + s, ..., 1 + s); r_a ~ Beta(1 + s, 1 + (K - 1) s): as if
each annotator had given every label s times more, s = `smoothing`.

E-step:  q_ik  prop. to  p_k prod_{a: z_ia = k} r_a prod_{a: z_ia != k} (1 - r_a) / (K - 1)
M-step:  r_a = (s + sum_i q_{i, z_ia}) / (K s + votes of a),
         p_k = (s + sum_i q_ik) / (sum over k of the same)
Start: q = vote shares. Only log r_a - log((1 - r_a) / (K - 1)) tells the classes apart, and a vote
adds it to the one class that it names: a step costs O(votes + items K). Each pair of steps cannot
lower sum_i log sum_k p_k prod_a P(z_ia | k) + s (sum_k log p_k + sum_a log r_a
+ (K - 1) sum_a log((1 - r_a) / (K - 1))); `Posterior.trace` is its value after each iteration.

Deviations from the paper:
    1. The prior: with s = 0 an annotator who always agreed decides its items with probability 1.
       s = 0.1 is ours, as for Dawid-Skene.
    2. The class prior p is estimated; the paper takes it to be uniform.
    3. The start is the vote shares, not the paper's spectral estimate.
    4. An item without votes has the posterior p and no part in the M-step.
    5. r_a is kept CLOSE away from 0 and 1, and p_k above 0, whatever s: their logs are taken.
    6. Labels that are `known` are clamped in both steps (`annorun.aggregation.control`).

Example:
    >>> from annorun.votes import Votes
    >>> votes = Votes(
    ...     item=[0, 0, 0, 1, 1, 1, 2, 2, 2],
    ...     annotator=[0, 1, 2, 0, 1, 2, 0, 1, 2],
    ...     label=[0, 0, 1, 1, 1, 0, 0, 0, 0],
    ...     n_items=3, n_annotators=3, n_classes=2,
    ... )
    >>> posterior = one_coin(votes)
    >>> posterior.probs.argmax(axis=1).tolist(), int(posterior.accuracy.argmin())
    ([0, 1, 0], 2)
"""

from typing import NamedTuple

import numpy as np

from annorun.aggregation import control
from annorun.aggregation.dawid_skene import normalised
from annorun.aggregation.tally import by_annotator, by_item, by_label, posterior, where_voted
from annorun.kinds import Count, Positive
from annorun.votes import Floats, Ints, Posterior, Votes

# of an accuracy to 0 and 1
CLOSE = 1e-12
# less than any share of a class that matters, more than 0
TINY = 1e-300


class Params(NamedTuple):
    """What the M-step estimates.

    Attributes:
        prior: (n_classes,) probability of each class.
        accuracy: (n_annotators,) probability of a right label.
    """

    prior: Floats
    accuracy: Floats


def e_step(
    votes: Votes,
    params: Params,
    known: Ints,  # (n_items,), -1 where unknown
) -> tuple[Floats, float]:
    """Return the items' posterior, (n_items, n_classes), and the votes' log likelihood."""
    log_right, log_wrong = log_rates(params.accuracy, votes.n_classes)
    gain = by_label(votes, (log_right - log_wrong)[votes.annotator])
    all_wrong = by_item(votes, log_wrong[votes.annotator])
    log_joint = gain + all_wrong[:, None] + np.log(params.prior)
    probs, log_evidence = posterior(control.clamp(log_joint, known))
    return probs, float(log_evidence.sum())


def log_rates(accuracy: Floats, n_classes: int) -> tuple[Floats, Floats]:
    """Return the log probability of the right label and of one wrong label, (n_annotators,)."""
    return np.log(accuracy), np.log1p(-accuracy) - np.log(max(n_classes - 1, 1))


def m_step(
    votes: Votes,
    probs: Floats,  # (n_items, n_classes)
    smoothing: float,
    known: Ints,  # (n_items,), -1 where unknown
) -> Params:
    """Return the parameters of highest posterior density given the posterior of the items."""
    right = by_annotator(votes, probs[votes.item, votes.label])
    given = np.bincount(votes.annotator, minlength=votes.n_annotators)
    # with one class there is no wrong label: any share below 1 keeps its log finite
    n_labels = max(votes.n_classes, 2)
    accuracy = (smoothing + right) / (n_labels * smoothing + given)
    return Params(
        prior=np.maximum(normalised(control.counted(votes, known) @ probs + smoothing), TINY),
        accuracy=np.clip(accuracy, CLOSE, 1 - CLOSE),
    )


def log_density(params: Params, smoothing: float) -> float:
    """Return the log density of the priors at `params`, less its constant."""
    n_classes = len(params.prior)
    log_right, log_wrong = log_rates(params.accuracy, n_classes)
    annotators = log_right + max(n_classes - 1, 1) * log_wrong
    return float(smoothing * (np.log(params.prior).sum() + annotators.sum()))


def one_coin(
    votes: Votes,
    *,
    max_iter: Count = 100,
    tol: Positive = 1e-6,
    smoothing: Positive = 0.1,
    known: Ints | None = None,
) -> Posterior:
    """Return the posterior of the items and the accuracy of the annotators.

    Args:
        votes: at most one label an item and annotator.
        max_iter: iterations at most; if they end first, `converged` is False.
        tol: the iterations end when one raises the objective by less than this per vote.
        smoothing: s above, the votes added to each label of each annotator and to each class.
        known: (n_items,) labels of control items, -1 elsewhere: they are taken for the truth.
    """
    given = control.checked(votes, known, "one_coin")
    probs = control.start(votes, given)
    trace: list[float] = []
    converged = False
    while not converged and len(trace) < max_iter:
        params = m_step(votes, probs, smoothing, given)
        probs, log_likelihood = e_step(votes, params, given)
        trace.append(log_likelihood + log_density(params, smoothing))
        converged = len(trace) > 1 and trace[-1] - trace[-2] <= tol * len(votes)
    accuracy = where_voted(votes, params.accuracy)
    return Posterior(probs, accuracy, trace=tuple(trace), converged=converged)
