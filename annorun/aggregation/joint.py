"""NUTMEG with one distribution over an item's vector of truths, learned inside the iterations.

Ours, an answer to the paper's question for a better imputation: the truths of the groups are not
independent. Vector v = (v_1 .. v_K) of an item has the probability pi_v, and

    P(votes of i, T_i = v)  prop. to  pi_v prod_k exp(x_{i k v_k}),    x as in `spam`,

so that a group without votes (x = 0) hears from the others through pi, in the E-step itself. Up to
MOST_VECTORS each of the L^K vectors has a probability of its own; beyond, pi is a mixture of 4 L
components within which the groups are independent, pi_v = sum_c w_c prod_k phi_{c k v_k}. Both are
one model: "each vector" is a component a vector, whose tables phi are fixed and hold one label.

E-step: m_ick = sum_l phi_ckl exp(x_ikl), r_ic prop. to w_c prod_k m_ick, q_ikl = sum_c r_ic
        phi_ckl exp(x_ikl) / m_ick.
M-step: w ~ Dirichlet(L / C, ..), phi_ck ~ Dirichlet(1, ..), by the same EM or VB as the annotators.
"""

from collections.abc import Callable
from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from annorun.aggregation import restarts, spam
from annorun.votes import Floats, Ints, Votes

MOST_VECTORS = 125
# numbers worked on at once
BLOCK = 2**20
# less than any share of a component that matters, more than 0: its logarithm is taken
TINY = 1e-300


class Tables(NamedTuple):
    """Those of `spam.Tables`, and pi.

    Attributes:
        know, spam, strategy: see there.
        weight: (n_components, n_restarts) w.
        truth: (n_components, n_groups, n_classes, n_restarts) phi.
    """

    know: Floats
    spam: Floats
    strategy: Floats
    weight: Floats
    truth: Floats


class Counts(NamedTuple):
    """Those of `spam.Counts`, and the expected number of items a component and of truths in it."""

    known: Floats
    spammed: Floats
    weight: Floats
    truth: Floats


class Model(NamedTuple):
    """The votes, items one after the other.

    Attributes:
        item: (n_used,) the items that have votes or a known label.
        said: (n_used * n_groups * n_classes, n_annotators * n_classes), sparse ones.
        prior: (n_items, n_groups, n_classes) the same for all labels, or all on one that is known.
        given: (n_annotators, n_classes) how often each label was given.
        vectors: (n_components, n_groups, n_classes) phi where it is fixed, else None.
        inference: of w and phi.
        smoothing: of w and phi, added under EM.
    """

    item: Ints
    said: Any
    prior: Floats
    given: Floats
    vectors: Floats | None
    inference: Literal["vb", "em"]
    smoothing: float


def model(
    votes: Votes,
    prior: Floats,  # (n_items, n_groups, n_classes)
    inference: Literal["vb", "em"],
    smoothing: float,
) -> Model:
    """Sort the votes by item, group and label."""
    assert votes.group is not None
    n_groups, n_classes = prior.shape[1:]
    # a control item tells of pi, with or without a vote
    counts = (prior.max(axis=2) == 1).any(axis=1)
    counts[votes.item] = True
    item = np.flatnonzero(counts)
    row = (
        np.searchsorted(item, votes.item) * n_groups + votes.group[votes.annotator]
    ) * n_classes + votes.label
    column = votes.annotator * n_classes + votes.label
    shape = (len(item) * n_groups * n_classes, votes.n_annotators * n_classes)
    said = csr_array((np.ones(len(votes)), (row, column)), shape=shape)
    given = np.bincount(column, minlength=shape[1]).reshape(-1, n_classes).astype(np.float64)
    vectors = None
    if n_classes**n_groups <= MOST_VECTORS:
        each = np.array(list(product(range(n_classes), repeat=n_groups)))
        vectors = np.eye(n_classes)[each]
    return Model(item, said, prior, given, vectors, inference, smoothing)


def start(model: Model, tables: spam.Tables, rngs: list[np.random.Generator]) -> Tables:
    """Add a start of pi: uniform where each vector has its own probability, else random tables."""
    n_groups, n_classes = model.prior.shape[1:]
    if model.vectors is not None:
        truth = np.repeat(model.vectors[..., None], len(rngs), axis=-1)
    else:
        shape = (4 * n_classes, n_groups)
        drawn = [rng.dirichlet(np.ones(n_classes), size=shape) for rng in rngs]
        truth = np.stack(drawn, axis=-1)
    return Tables(*tables, np.full((len(truth), len(rngs)), 1 / len(truth)), truth)


def e_step(model: Model, tables: Tables) -> tuple[Counts, Floats]:
    """Return the expected counts and the log evidence of the votes, (n_restarts,)."""
    n_groups, n_classes = model.prior.shape[1:]
    guess, weight, share = spam.weights(spam.Tables(*tables[:3]))
    flat = weight.reshape(-1, weight.shape[-1])
    hit = np.zeros_like(flat)
    components, truth = np.zeros_like(tables.weight), np.zeros_like(tables.truth)
    evidence = np.einsum("al,alr->r", model.given, np.log(guess))
    step = max(BLOCK // (tables.truth.size * 2), 1)
    for first in range(0, len(model.item), step):
        item = model.item[first : first + step]
        width = n_groups * n_classes
        said = model.said[first * width : (first + len(item)) * width]
        x = (said @ flat).reshape(len(item), n_groups, n_classes, -1)
        r, part, mass, log_total = _items(x, model.prior[item], tables)
        evidence += log_total.sum(axis=0)
        q = mass * np.einsum("nckr,cklr->nklr", part, tables.truth)
        hit += said.T @ q.reshape(len(item) * width, -1)
        components += r.sum(axis=0)
        if model.vectors is None:
            truth += tables.truth * np.einsum("nckr,nklr->cklr", part, mass)
    known = hit.reshape(weight.shape) * share
    # below 0 by rounding only
    spammed = np.maximum(model.given[..., None] - known, 0)
    return Counts(known, spammed, components, truth), evidence


def _items(
    x: Floats,  # (n, n_groups, n_classes, n_restarts)
    prior: Floats,  # (n, n_groups, n_classes)
    tables: Tables,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return r, r / m, exp(x) less a factor an item and group, and the log of the item's sum."""
    # a label that cannot be must not set the scale
    x = np.where(prior[..., None] > 0, x, -np.inf)
    top = x.max(axis=2, keepdims=True)
    mass = np.exp(x - top) * (prior * prior.shape[2])[..., None]
    m = np.maximum(np.einsum("nklr,cklr->nckr", mass, tables.truth), TINY)
    log_r = np.log(tables.weight) + np.log(m).sum(axis=2)
    peak = log_r.max(axis=1, keepdims=True)
    r = np.exp(log_r - peak)
    total = r.sum(axis=1, keepdims=True)
    r /= total
    log_total = (np.log(total) + peak)[:, 0] + top.sum(axis=(1, 2))
    return r, r[:, :, None] / m, mass, log_total


def m_step(
    model: Model,
    improve: Callable[[spam.Counts], tuple[spam.Tables, Floats]],
    counts: Counts,
) -> tuple[Tables, Floats]:
    """Return the tables, and the log density (or minus divergence) of annotators and pi."""
    tables, density = improve(spam.Counts(*counts[:2]))
    n_components, n_restarts = counts.weight.shape
    n_groups, n_classes = model.prior.shape[1:]
    weight, gain = _share(model, counts.weight[None], n_classes / n_components)
    density = density + gain
    if model.vectors is not None:
        truth = np.repeat(model.vectors[..., None], n_restarts, axis=-1)
    else:
        rows, gain = _share(model, counts.truth.reshape(-1, n_classes, n_restarts), 1.0)
        truth = rows.reshape(n_components, n_groups, n_classes, n_restarts)
        density = density + gain
    return Tables(*tables, weight[0], truth), density


def _share(model: Model, counts: Floats, prior: float) -> tuple[Floats, Floats]:
    """Return the M-step of shares, axis 1, and their log density or minus divergence."""
    if model.inference == "vb":
        log, far = restarts.expected_log(counts + prior, np.full((1, 1, 1), prior))
        return np.exp(log), -far.sum(axis=0)
    share = counts + model.smoothing
    share /= share.sum(axis=1, keepdims=True)
    return share, model.smoothing * np.log(share).sum(axis=(0, 1))


def truths(
    model: Model,
    tables: Tables,  # one restart
) -> tuple[Floats, Floats]:
    """Return each group's posterior, (n_items, n_groups, n_classes), and the disagreement."""
    n_items, n_groups, n_classes = model.prior.shape
    flat = spam.weights(spam.Tables(*tables[:3]))[1].reshape(-1, 1)
    x = np.zeros((n_items, n_groups, n_classes, 1))
    x[model.item] = (model.said @ flat).reshape(-1, n_groups, n_classes, 1)
    probs, disagreement = np.empty((n_items, n_groups, n_classes)), np.empty(n_items)
    step = max(BLOCK // (tables.truth.size * 2), 1)
    for first in range(0, n_items, step):
        here = slice(first, first + step)
        _, part, mass, _ = _items(x[here], model.prior[here], tables)
        q = (mass * np.einsum("nckr,cklr->nklr", part, tables.truth))[..., 0]
        # components may not sum to one under VB, and rounding adds up: the shares do
        probs[here] = q / q.sum(axis=2, keepdims=True)
        disagreement[here] = _differ(mass[..., 0], tables.weight[:, 0], tables.truth[..., 0])
    return probs, disagreement


def _differ(
    mass: Floats,  # (n, n_groups, n_classes) exp(x) less a factor an item and group
    weight: Floats,  # (n_components,)
    truth: Floats,  # (n_components, n_groups, n_classes)
) -> Floats:  # (n,)
    """Return the probability that the truths of an item are not all one."""
    with np.errstate(divide="ignore"):
        log_mass, log_truth, log_w = np.log(mass), np.log(truth), np.log(weight)
    log_m = np.log(np.maximum(np.einsum("nkl,ckl->nck", mass, truth), TINY))
    log_all = log_w + log_m.sum(axis=2)
    # sum_k of both: all groups have l, in component c
    log_same = log_mass.sum(axis=1)[:, None] + (log_w[:, None] + log_truth.sum(axis=1))
    top = log_all.max(axis=1)
    total = np.exp(log_all - top[:, None]).sum(axis=1)
    differ: Floats = 1 - np.exp(log_same - top[:, None, None]).sum(axis=(1, 2)) / total
    return differ
