"""BCC: Dawid-Skene with priors instead of point estimates, by variational Bayes.

H.-C. Kim, Z. Ghahramani: Bayesian Classifier Combination. AISTATS 2012, section 3 (the independent
model). Steps as in E. Simpson, S. Roberts, I. Psorakis, A. Smith: Dynamic Bayesian Combination of
Multiple Imperfect Classifiers. 2013, section 3.

Model: truth y_i ~ Categorical(p); vote z_ia | y_i = k ~ Categorical(C[a, k, :]), votes independent
given the truth; p ~ Dirichlet(1, ..., 1), C[a, k, :] ~ Dirichlet(g_k), g_kl = 1 off the diagonal
and g_kk = (K - 1) b / (1 - b) on it, so that b = `belief` is the prior mean of a right label.
Posterior: prod_i q_i(y_i) Dirichlet(p; e) prod_{a,k} Dirichlet(C[a, k, :]; h[a, k, :]).

M-step:  e_k = 1 + sum_i q_ik,   h[a, k, l] = g_kl + sum_{i: z_ia = l} q_ik
E-step:  q_ik  prop. to  exp(E log p_k + sum_a E log C[a, k, z_ia]),
         E log C[a, k, l] = digamma(h[a, k, l]) - digamma(sum over l of the same); p likewise
Start: q = vote shares. `Posterior.trace` is the bound on the log evidence after each iteration,
         sum_i log sum_k exp(E log p_k + sum_a E log C[a, k, z_ia])
         - KL(Dirichlet(e) | Dirichlet(1)) - sum_{a,k} KL(Dirichlet(h[a, k]) | Dirichlet(g_k)),
which no step can lower. `confusion` and `accuracy` are posterior means.

Deviations from the paper:
    1. Variational Bayes in place of Gibbs sampling: a bound to stop by, and no random numbers.
    2. g is fixed; the paper draws it from an exponential prior. These values are those of Zheng et
       al. (Truth Inference in Crowdsourcing, PVLDB 2017; their code runs M. Venanzi's BCC).
    3. An item without votes has the posterior mean of p and no part in the bound.
    4. Labels that are `known` are clamped in both steps (`annorun.aggregation.control`).

Example:
    >>> from annorun.votes import Votes
    >>> votes = Votes(
    ...     item=[0, 0, 0, 1, 1, 1, 2, 2, 2],
    ...     annotator=[0, 1, 2, 0, 1, 2, 0, 1, 2],
    ...     label=[0, 0, 1, 1, 1, 0, 0, 0, 0],
    ...     n_items=3, n_annotators=3, n_classes=2,
    ... )
    >>> posterior = bcc(votes)
    >>> posterior.probs.argmax(axis=1).tolist(), posterior.converged
    ([0, 1, 0], True)
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import digamma, gammaln

from annorun.aggregation import control
from annorun.aggregation.dawid_skene import incidence, refuse_many
from annorun.aggregation.tally import posterior, where_voted
from annorun.errors import ConfigError
from annorun.kinds import Count, Positive, Share
from annorun.votes import Floats, Ints, Posterior, Votes


class Params(NamedTuple):
    """Parameters of the Dirichlet distributions, prior or posterior.

    Attributes:
        prior: (n_classes,) of the class prior, e above.
        confusion: (n_annotators, n_classes, n_classes) `[annotator, true, observed]`, h above; as a
            prior (n_classes, n_classes), g above.
    """

    prior: Floats
    confusion: Floats


def priors(n_classes: int, belief: float) -> Params:
    """Return the Dirichlet parameters before any vote."""
    confusion = np.ones((n_classes, n_classes))
    # with one class nothing is off the diagonal; any positive number will do
    np.fill_diagonal(confusion, max(n_classes - 1, 1) * belief / (1 - belief))
    return Params(np.ones(n_classes), confusion)


def expected_log(counts: Floats) -> Floats:
    """Return E log x for x ~ Dirichlet(counts), along the last axis."""
    return np.asarray(digamma(counts) - digamma(counts.sum(axis=-1, keepdims=True)))


def divergence(
    counts: Floats,  # (..., n)
    prior: Floats,  # (..., n), broadcast
) -> float:
    """Return the sum of KL(Dirichlet(counts) | Dirichlet(prior)), along the last axis."""
    norm = gammaln(counts.sum(axis=-1)) - gammaln(counts).sum(axis=-1)
    prior_norm = gammaln(prior.sum(axis=-1)) - gammaln(prior).sum(axis=-1)
    cross = ((counts - prior) * expected_log(counts)).sum(axis=-1)
    return float((norm - prior_norm + cross).sum())


def e_step(
    said: Any,  # (n_items, n_annotators * n_classes), sparse
    params: Params,
    known: Ints,  # (n_items,), -1 where unknown
    counted: Floats,  # (n_items,), 0 for an item without a vote and a known label
) -> tuple[Floats, float]:
    """Return the items' posterior, (n_items, n_classes), and their part of the bound."""
    n_classes = len(params.prior)
    weight = expected_log(params.confusion).transpose(0, 2, 1).reshape(-1, n_classes)
    log_joint = control.clamp(said @ weight + expected_log(params.prior), known)
    probs, log_evidence = posterior(log_joint)
    probs[counted == 0] = params.prior / params.prior.sum()
    return probs, float(counted @ log_evidence)


def m_step(
    said: Any,  # (n_items, n_annotators * n_classes), sparse
    probs: Floats,  # (n_items, n_classes)
    prior: Params,
    counted: Floats,  # (n_items,)
) -> Params:
    """Return the posterior of the parameters given the posterior of the items."""
    n_classes = probs.shape[1]
    observed = (said.T @ probs).reshape(-1, n_classes, n_classes)  # [annotator, observed, true]
    return Params(prior.prior + counted @ probs, prior.confusion + observed.transpose(0, 2, 1))


def bcc(
    votes: Votes,
    *,
    max_iter: Count = 100,
    tol: Positive = 1e-6,
    belief: Share = 0.7,
    known: Ints | None = None,
) -> Posterior:
    """Return the posterior of the items and the mean confusion of the annotators.

    Args:
        votes: at most one label an item and annotator.
        max_iter: iterations at most; if they end first, `converged` is False.
        tol: the iterations end when one raises the bound by less than this per vote.
        belief: b above, the prior mean of a right label, above 0; 1 / n_classes leans nowhere.
        known: (n_items,) labels of control items, -1 elsewhere: they are taken for the truth.
    """
    refuse_many(votes, "bcc")
    given = control.checked(votes, known, "bcc")
    if not 0 < belief < 1:
        raise ConfigError(f"bcc: belief={belief}; allowed is a number between 0 and 1")
    said, counted = incidence(votes), control.counted(votes, given)
    prior = priors(votes.n_classes, belief)
    probs = control.start(votes, given)
    trace: list[float] = []
    converged = False
    while not converged and len(trace) < max_iter:
        params = m_step(said, probs, prior, counted)
        probs, bound = e_step(said, params, given, counted)
        bound -= divergence(params.prior, prior.prior)
        trace.append(bound - divergence(params.confusion, prior.confusion))
        converged = len(trace) > 1 and trace[-1] - trace[-2] <= tol * len(votes)
    confusion = params.confusion / params.confusion.sum(axis=-1, keepdims=True)
    accuracy = np.einsum("k,akk->a", params.prior / params.prior.sum(), confusion)
    accuracy = where_voted(votes, accuracy)
    return Posterior(probs, accuracy, confusion, tuple(trace), converged)
