"""MACE: who knows and who spams, one truth an item.

D. Hovy, T. Berg-Kirkpatrick, A. Vaswani, E. Hovy: Learning Whom to Trust with MACE. NAACL 2013,
section 3; the numbers are those of the authors' tool (github.com/dirkhovy/MACE).

Model, steps and arithmetic: `annorun.aggregation.spam`, the unit being the item. The restart of
the highest objective is kept: under EM the log posterior, under VB the whole bound. An annotator's
`accuracy` is theta + (1 - theta) sum_l p_l xi_l with p the mean posterior of the voted items.

Deviations from the paper:
    1. The paper and its tool compare restarts by the votes' evidence; under VB that leaves out the
       divergence of the annotators' posteriors from their priors, so that it may fall.
    2. `competence` is the posterior mean. The tool reports exp of an expected log, which lies below
       it and is no probability: it does not sum to one with its counterpart.

Example:
    >>> import numpy as np
    >>> from annorun.votes import Votes
    >>> votes = Votes(
    ...     item=[0, 0, 0, 1, 1, 1, 2, 2, 2],
    ...     annotator=[0, 1, 2, 0, 1, 2, 0, 1, 2],
    ...     label=[0, 0, 1, 1, 1, 1, 0, 0, 1],
    ...     n_items=3, n_annotators=3, n_classes=2,
    ... )
    >>> posterior = mace(votes, rng=np.random.default_rng(0))
    >>> posterior.probs.argmax(axis=1).tolist(), int(posterior.competence.argmin())
    ([0, 1, 0], 2)
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np

from annorun.aggregation import spam
from annorun.aggregation.restarts import Prior, iterate, maximise, reliability, vary
from annorun.errors import ConfigError
from annorun.kinds import Count, NonNegative, Positive
from annorun.votes import Floats, Ints, Posterior, Votes


def mace(
    votes: Votes,
    *,
    rng: np.random.Generator,
    inference: Literal["vb", "em"] = "vb",
    n_restarts: Count = 10,
    n_iter: Count = 50,
    tol: NonNegative | None = None,
    noise: Positive = 0.5,
    alpha: Positive = 0.5,
    beta: Positive = 0.5,
    strategy: Positive = 10.0,
    smoothing: Positive | None = None,
    class_prior: list[Positive] | None = None,
    known: Ints | None = None,
) -> Posterior:
    """Return the posterior of the items and the competence of the annotators.

    Args:
        votes: at most one label an item and annotator.
        rng: draws the restarts, each from a child of its own.
        inference: variational Bayes with the three priors below, or EM with `smoothing`.
        n_restarts: random starts; the one that ends highest is kept.
        n_iter: iterations of each.
        tol: a restart ends early when its objective rises by less than this share; None: never.
        noise: the start's shares are drawn from U(1, 1 + noise).
        alpha: of spamming, in an annotator's Beta prior.
        beta: of knowing, there; beta > alpha trusts.
        strategy: of each label in the Dirichlet prior of an annotator's spam.
        smoothing: added to each count under EM; None: 0.01 / n_classes.
        class_prior: one weight a class; None: all alike.
        known: (n_items,) labels of control items, -1 elsewhere: they are taken for the truth.
    """
    if votes.multi_label:
        raise ConfigError("mace: wants one label an item and annotator, not several")
    prior = truth_prior(votes.n_items, votes.n_classes, class_prior, known)
    cells = spam.cells(votes.item, votes.annotator, votes.label, prior, votes.n_annotators)
    start = spam.start(votes.n_annotators, votes.n_classes, noise, rng.spawn(n_restarts))
    added, improve = m_step(votes.n_classes, inference, smoothing, Prior(alpha, beta, strategy))
    fit = iterate(partial(spam.e_step, cells), improve, start, n_iter, tol)
    best, trace, objectives = fit.best()
    probs = spam.probabilities(cells, spam.pick(fit.tables, best))
    voted = np.bincount(votes.item, minlength=votes.n_items) > 0
    frequency = probs[voted].mean(axis=0, keepdims=True) if voted.any() else prior[:1]
    competence, accuracy = reliability(fit, best, added, frequency)
    return Posterior(
        probs,
        accuracy,
        trace=trace,
        converged=ended(trace, tol),
        competence=competence,
        restarts=objectives,
    )


def ended(trace: tuple[float, ...], tol: float | None) -> bool:
    """Say whether the last iteration raised the objective by no more than `tol`, or 1e-6, of it."""
    share = 1e-6 if tol is None else tol
    return len(trace) > 1 and abs(trace[-1] - trace[-2]) <= share * abs(trace[-1])


def m_step(
    n_classes: int, inference: Literal["vb", "em"], smoothing: float | None, prior: Prior
) -> tuple[Prior, Callable[[spam.Counts], tuple[spam.Tables, Floats]]]:
    """Return the votes that are added to the counts, and the step that adds them."""
    if inference == "vb":
        return prior, partial(vary, prior=prior)
    added = 0.01 / n_classes if smoothing is None else smoothing
    return Prior(added, added, added), partial(maximise, smoothing=added)


def truth_prior(
    n_items: int,
    n_classes: int,
    class_prior: list[float] | None,  # (n_classes,) weights
    known: Ints | None,  # (n_items,), -1 where unknown
) -> Floats:
    """Return the prior of each item's truth, (n_items, n_classes): all of it on a known label.

    Raises:
        ConfigError: not one weight a class, or a known label is none of the classes.
    """
    weight = np.ones(n_classes) if class_prior is None else np.array(class_prior, dtype=np.float64)
    if weight.shape != (n_classes,) or not (weight > 0).all() or not np.isfinite(weight).all():
        raise ConfigError(
            f"class_prior: {class_prior}; allowed is one finite weight above 0 for each of the "
            f"{n_classes} classes"
        )
    prior = np.tile(weight / weight.sum(), (n_items, 1))
    if known is not None:
        known = np.asarray(known)
        if known.shape != (n_items,) or (known < -1).any() or (known >= n_classes).any():
            raise ConfigError(
                f"known: allowed is a label in 0..{n_classes - 1} for each of the {n_items} items, "
                "or -1"
            )
        control = known >= 0
        prior[control] = np.eye(n_classes)[known[control]]
    return prior
