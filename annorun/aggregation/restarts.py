"""The iterations of MACE and NUTMEG: their M-steps, and restarts that run side by side.

E-steps are in `annorun.aggregation.spam`, `joint` and `released`. D. Hovy et al., NAACL 2013, 3.2.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import digamma, gammaln

from annorun.aggregation.spam import Counts, Tables
from annorun.votes import Bools, Floats


class Prior(NamedTuple):
    """Votes added to the counts: Beta(alpha, beta) of (spam, know), symmetric Dirichlet of xi."""

    alpha: float
    beta: float
    strategy: float


def maximise(counts: Counts, smoothing: float) -> tuple[Tables, Floats]:
    """M-step of EM: `smoothing` more votes in each count.

    Returns:
        The tables, and the log density there of their priors Beta(1 + smoothing, 1 + smoothing) and
        Dirichlet(1 + smoothing), less a constant: with the log evidence it never falls.
    """
    known, spammed = counts.known.sum(axis=1), counts.spammed.sum(axis=1)
    votes = known + spammed + 2 * smoothing
    know, spam = (known + smoothing) / votes, (spammed + smoothing) / votes
    strategy = counts.spammed + smoothing
    strategy /= strategy.sum(axis=1, keepdims=True)
    density = np.log(know) + np.log(spam) + np.log(strategy).sum(axis=1)
    return Tables(know, spam, strategy), smoothing * density.sum(axis=0)


def vary(counts: Counts, prior: Prior) -> tuple[Tables, Floats]:
    """M-step of variational Bayes, mean field.

    Returns:
        exp of the expected logs, and minus the divergence of the annotators' posteriors from their
        priors: with the log evidence under these tables it is the bound, which never falls.
    """
    choice = np.stack(
        [counts.spammed.sum(axis=1) + prior.alpha, counts.known.sum(axis=1) + prior.beta], axis=1
    )
    log_choice, far = expected_log(choice, np.array([prior.alpha, prior.beta])[None, :, None])
    strategy = counts.spammed + prior.strategy
    log_strategy, farther = expected_log(strategy, np.full((1, 1, 1), prior.strategy))
    spam, know = np.exp(log_choice).transpose(1, 0, 2)
    return Tables(know, spam, np.exp(log_strategy)), -(far + farther).sum(axis=0)


def expected_log(posterior: Floats, prior: Floats) -> tuple[Floats, Floats]:
    """Return E log p under Dirichlet(posterior), axis 1, and its divergence from the prior."""
    # no further than its sum needs: most rows and restarts share one
    prior = np.broadcast_to(prior, np.broadcast_shapes(prior.shape, (1, posterior.shape[1], 1)))
    log_p = digamma(posterior) - digamma(posterior.sum(axis=1, keepdims=True))
    far = gammaln(posterior.sum(axis=1)) - gammaln(prior.sum(axis=1))
    far += (gammaln(prior) - gammaln(posterior) + (posterior - prior) * log_p).sum(axis=1)
    return log_p, far


class Fit(NamedTuple):
    """Where the iterations ended.

    Attributes:
        tables, counts: of the last M-step, and what it was made of; named tuples.
        trace: (n_iter, n_restarts) the objective after each pair of steps; NaN after the end.
        converged: (n_restarts,) whether it was the tolerance that ended a restart.
    """

    tables: Any
    counts: Any
    trace: Floats
    converged: Bools

    def best(self) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
        """Return the restart of the highest objective, its trace, and all final objectives."""
        length = np.isfinite(self.trace).sum(axis=0)
        final = self.trace[length - 1, np.arange(len(length))]
        best = int(final.argmax())
        return best, tuple(self.trace[: length[best], best].tolist()), tuple(final.tolist())


def iterate(
    expect: Callable[[Any], tuple[Any, Floats]],
    improve: Callable[[Any], tuple[Any, Floats]],
    tables: Any,
    n_iter: int,
    tol: float | None,
) -> Fit:
    """Alternate M-step and E-step from the E-step of `tables`.

    Args:
        expect: E-step, tables -> counts and log evidence, of any number of restarts.
        improve: M-step, counts -> tables and log prior (or minus divergence).
        tables: the start.
        n_iter: pairs of steps at most.
        tol: a restart ends when its objective rises by less than this share of it; None: never.
    """
    n_restarts = tables.know.shape[-1]
    trace = np.full((n_iter, n_restarts), np.nan)
    running = np.arange(n_restarts)
    counts, _ = expect(tables)
    last, made = tables, counts
    for k in range(n_iter):
        tables, density = improve(counts)
        if len(running) == n_restarts:
            last, made = tables, counts
        else:
            for whole, part in zip((*last, *made), (*tables, *counts), strict=True):
                whole[..., running] = part
        counts, evidence = expect(tables)
        trace[k, running] = evidence + density
        if tol is not None and k:
            rise = np.abs(trace[k, running] - trace[k - 1, running])
            going = rise > tol * np.abs(trace[k, running])
            if not going.all():
                if len(running) == n_restarts:
                    # the steps own what they returned; from here on it is written to
                    last, made = _copy(last), _copy(made)
                running, counts = running[going], type(counts)(*(c[..., going] for c in counts))
            if not len(running):
                break
    return Fit(last, made, trace, ~np.isin(np.arange(n_restarts), running))


def _copy(arrays: Any) -> Any:
    return type(arrays)(*map(np.copy, arrays))


def reliability(
    fit: Fit,
    restart: int,
    prior: Prior,
    frequency: Floats,  # (n_annotators, n_classes) of the truth on which an annotator is judged
) -> tuple[Floats, Floats]:
    """Return competence and accuracy of each annotator, (n_annotators,); NaN without votes.

    Both are of the posterior means: competence theta, accuracy theta + (1 - theta) sum_l p_l xi_l.
    """
    known, spammed = (count[..., restart] for count in fit.counts[:2])
    votes = (known + spammed).sum(axis=1)
    theta = (known.sum(axis=1) + prior.beta) / (votes + prior.alpha + prior.beta)
    xi = spammed + prior.strategy
    xi /= xi.sum(axis=1, keepdims=True)
    accuracy = theta + (1 - theta) * (frequency * xi).sum(axis=1)
    silent = votes == 0
    theta[silent] = accuracy[silent] = np.nan
    return theta, accuracy
