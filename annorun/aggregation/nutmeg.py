"""NUTMEG: who knows and who spams, one truth an item and subpopulation.

J. Ivey, S. Gauch, D. Jurgens: NUTMEG: Separating Signal From Noise in Annotator Disagreement. EMNLP
2025; "released" is the authors' code (github.com/jonathanivey/NUTMEG).

Model, steps and arithmetic: `annorun.aggregation.spam`, the unit being the pair (item, group) of
the annotator's own group. With one group it is MACE. What a group that did not vote on an item
believes is `imputation`; where that is `joint`, the truths of an item are one draw from a
distribution over all vectors (T_1 .. T_K), learned inside the iterations (`annorun.aggregation
.joint`); else the truths of the groups have nothing to do with each other while these last.

Deviations from the paper:
    1. `estep: exact` takes the expectations of the model as the paper states it. The released code
       weighs each vote by Z_ik / Z_i, evidence of its own pair over a mean of the item's pairs, so
       that the groups that agree within themselves count more: `estep: released`.
    2. `imputation: naive_bayes` is what the released code sets out to do; in what it does, a pair
       without a vote always has the first label: `imputation: released`.
    3. Restarts differ; the released ones are copies of one (`restarts: identical`).
    4. As in `annorun.aggregation.mace`: the whole bound chooses, competence is a posterior mean.

Example:
    >>> import numpy as np
    >>> from annorun.votes import Votes
    >>> item, annotator = np.divmod(np.arange(24), 4)
    >>> votes = Votes(
    ...     item=item, annotator=annotator, label=np.where(annotator < 2, item % 2, 0),
    ...     n_items=6, n_annotators=4, n_classes=2, group=np.array([0, 0, 1, 1]),
    ... )
    >>> nutmeg(votes, rng=np.random.default_rng(0)).group_probs.argmax(axis=2)[:2].tolist()
    [[0, 0], [1, 0]]
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np

from annorun.aggregation import joint, released, spam
from annorun.aggregation.imputation import FILL, frequency
from annorun.aggregation.mace import ended, m_step, truth_prior
from annorun.aggregation.restarts import Fit, Prior, iterate, reliability
from annorun.aggregation.tally import population
from annorun.errors import ConfigError
from annorun.kinds import Count, NonNegative, Positive
from annorun.votes import Bools, Floats, Ints, Posterior, Votes

MStep = Callable[[spam.Counts], tuple[spam.Tables, Floats]]


def nutmeg(
    votes: Votes,
    *,
    rng: np.random.Generator,
    estep: Literal["exact", "released"] = "exact",
    imputation: Literal["none", "released", "naive_bayes", "joint"] = "naive_bayes",
    restarts: Literal["independent", "identical"] = "independent",
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
    """Return the posterior of each group's truths and the competence of the annotators.

    Args:
        votes: with the group of each annotator, at most one label an item and annotator.
        rng: draws the restarts, each from a child of its own.
        estep: of the model, or of the released code.
        imputation: of the (item, group) pairs without a vote; none leaves them NaN.
        restarts: identical ones, as released, are one.
        inference: as in `mace`, like all that follow.
        n_restarts: random starts; the one that ends highest is kept.
        n_iter: iterations of each.
        tol: a restart ends early when its objective rises by less than this share; None: never.
        noise: the start's shares are drawn from U(1, 1 + noise).
        alpha: of spamming, in an annotator's Beta prior.
        beta: of knowing, there; beta > alpha trusts.
        strategy: of each label in the Dirichlet prior of an annotator's spam.
        smoothing: added to each count under EM; None: 0.01 / n_classes.
        class_prior: one weight a class; None: all alike. Not with `joint`, which learns it.
        known: labels of control items, (n_items, n_groups), or (n_items,) for all groups; else -1.

    Raises:
        ConfigError: the votes have no groups or several labels, or the options do not go together.
    """
    _refuse(votes, estep, imputation, class_prior)
    count, prior, settled = _pairs(votes, class_prior, known)
    # a control pair needs no imputation, with or without votes
    starts = rng.spawn(n_restarts if restarts == "independent" else 1)
    tables = spam.start(votes.n_annotators, votes.n_classes, noise, starts)
    added, improve = m_step(votes.n_classes, inference, smoothing, Prior(alpha, beta, strategy))
    run = partial(iterate, n_iter=n_iter, tol=tol)
    if imputation == "joint":
        model = joint.model(votes, prior, inference, added.alpha)
        fit, probs, disagreement = _together(model, improve, tables, starts, run)
    else:
        fit, probs = _apart(votes, count, prior, estep, improve, tables, run)
        probs, disagreement = FILL[imputation](probs, settled)
    best, trace, objectives = fit.best()
    judged = frequency(probs, settled)[votes.group]
    competence, accuracy = reliability(fit, best, added, judged)
    return Posterior(
        one_truth(probs, votes),
        accuracy,
        trace=trace,
        converged=ended(trace, tol),
        competence=competence,
        group_probs=probs,
        # below 0 by rounding only
        disagreement=np.maximum(disagreement, 0),
        restarts=objectives * (n_restarts // len(starts)),
    )


def _pairs(
    votes: Votes, class_prior: list[float] | None, known: Ints | None
) -> tuple[Ints, Floats, Bools]:
    """Return the votes of each (item, group), its truth's prior, and where there is either."""
    assert votes.group is not None
    n_groups = int(votes.group.max(initial=0)) + 1
    pair = votes.item * n_groups + votes.group[votes.annotator]
    count = np.bincount(pair, minlength=votes.n_items * n_groups)
    shape = (votes.n_items, n_groups)
    told = np.full(shape, -1)
    if known is not None:
        if np.shape(known) not in (shape, shape[:1]):
            raise ConfigError(
                f"nutmeg: known has the shape {np.shape(known)}; allowed is a label, or -1, for "
                f"each of the {votes.n_items} items, and for each of the {n_groups} groups or all"
            )
        told[:] = known if np.ndim(known) == 2 else np.asarray(known)[:, None]
    prior = truth_prior(len(count), votes.n_classes, class_prior, told.ravel())
    count = count.reshape(shape)
    return count, prior.reshape(*shape, votes.n_classes), (count > 0) | (told >= 0)


def _together(
    model: joint.Model,
    improve: MStep,
    tables: spam.Tables,
    starts: list[np.random.Generator],
    run: Callable[..., Fit],
) -> tuple[Fit, Floats, Floats]:
    """Fit with a prior over the vectors of an item's truths."""
    start = joint.start(model, tables, starts)
    fit = run(partial(joint.e_step, model), partial(joint.m_step, model, improve), start)
    return fit, *joint.truths(model, spam.pick(fit.tables, fit.best()[0]))


def _apart(
    votes: Votes,
    count: Ints,  # (n_items, n_groups)
    prior: Floats,  # (n_items, n_groups, n_classes)
    estep: str,
    improve: MStep,
    tables: spam.Tables,
    run: Callable[..., Fit],
) -> tuple[Fit, Floats]:
    """Fit with no prior over vectors of truths: a pair is a unit like any other."""
    assert votes.group is not None
    pair = votes.item * count.shape[1] + votes.group[votes.annotator]
    flat = prior.reshape(-1, votes.n_classes)
    cells = spam.cells(pair, votes.annotator, votes.label, flat, votes.n_annotators)
    expect: Callable[[spam.Tables], tuple[spam.Counts, Floats]] = partial(spam.e_step, cells)
    if estep == "released":
        expect, improve = released.steps(cells, count, improve)
    fit = run(expect, improve, tables)
    return fit, spam.probabilities(cells, spam.pick(fit.tables, fit.best()[0])).reshape(prior.shape)


def _refuse(votes: Votes, estep: str, imputation: str, class_prior: list[float] | None) -> None:
    if votes.multi_label:
        raise ConfigError("nutmeg: wants one label an item and annotator, not several")
    if votes.group is None:
        raise ConfigError("nutmeg: wants the group of each annotator, and the votes have none")
    if imputation == "joint" and (estep == "released" or class_prior is not None):
        raise ConfigError("nutmeg: imputation=joint wants estep=exact and no class_prior")


def one_truth(
    group_probs: Floats,  # (n_items, n_groups, n_classes), NaN where not estimated
    votes: Votes,
) -> Floats:  # (n_items, n_classes)
    """Return one posterior an item: the mean over its groups, weighted by their annotators.

    An annotator counts who has a vote; where all of an item is NaN it is uniform.
    """
    weight = np.where(np.isnan(group_probs[:, :, 0]), 0.0, population(votes))
    total = weight.sum(axis=1, keepdims=True)
    mean = (weight[..., None] * np.nan_to_num(group_probs)).sum(axis=1)
    uniform = np.full(mean.shape, 1 / mean.shape[1])
    mixed: Floats = np.divide(mean, total, out=uniform, where=total > 0)
    return mixed
