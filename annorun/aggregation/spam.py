r"""Know or spam: the likelihood that MACE and NUTMEG share, many restarts side by side.

Model: a unit u (an item, or an item as one subpopulation sees it) has the truth T_u, with a given
prior. Annotator a knows with probability theta_a and votes T_u; else he votes a label drawn from
his own xi_a, whatever the unit. D. Hovy et al.: Learning Whom to Trust with MACE, NAACL 2013, 3.

With s_al = (1 - theta_a) xi_al a vote of label y has the likelihood s_ay + theta_a [T = y], so

    P(votes of u, T_u = l) = prior_ul (prod_m s_ay) exp(x_ul),
    x_ul = sum over u's votes for l of w_al = log(1 + theta_a / s_al)

and three things follow that make an iteration cheap. The product over s needs no vote, only how
often each annotator gave each label. x is 0 for a label that nobody voted for, so only `cells`,
the voted (unit, label) pairs, have work: sum_l prior_ul exp(x_ul) = rest_u + sum over cells. And
as x >= 0 no exp can underflow: there is nothing to lose by leaving log space inside a unit, short
of overflow, where the largest x of the unit is taken out first.

E-step:  q_ul = prior_ul exp(x_ul) / (their sum), R_al = sum over a's votes for l of
         q_ul theta_a / (theta_a + s_al), the votes that were known; the others were spam.
M-step:  `maximise` (EM) or `vary` (variational Bayes).

Arrays carry the restarts as their last axis: a vote's place in memory is looked up once for all.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from annorun.votes import Floats, Ints

# cells worked on at once: their numbers stay in the processor's cache
BLOCK = 16384
# beyond it exp(x), summed over the labels, could overflow
LARGEST = 600.0
# less than any probability of spam that matters, more than 0: it divides, and has a logarithm
TINY = 1e-300


class Tables(NamedTuple):
    """What an annotator does; normalised under EM, exp of expected logs (sums below 1) under VB.

    Attributes:
        know: (n_annotators, n_restarts) probability of answering the truth.
        spam: (n_annotators, n_restarts) of not doing so.
        strategy: (n_annotators, n_classes, n_restarts) xi, what is voted then.
    """

    know: Floats
    spam: Floats
    strategy: Floats


class Counts(NamedTuple):
    """Expected votes, (n_annotators, n_classes, n_restarts) each.

    Attributes:
        known: that answered the truth.
        spammed: that did not.
    """

    known: Floats
    spammed: Floats


class Block(NamedTuple):
    """Consecutive units and their cells.

    Attributes:
        said: (n_cells, n_annotators * n_classes), sparse ones: who voted for the cell.
        members: (n_units, n_cells), sparse ones: the cells of each unit.
        unit: (n_cells,) the unit of each cell, counted from the block's first.
        prior: (n_cells, 1) of the cell's label.
        rest: (n_units, 1) prior of the labels that nobody voted for.
        first_cell, first_unit: where the block begins.
    """

    said: Any
    members: Any
    unit: Ints
    prior: Floats
    rest: Floats
    first_cell: int
    first_unit: int


class Cells(NamedTuple):
    """The votes as voted (unit, label) pairs.

    Attributes:
        blocks: see `Block`.
        unit, label: (n_cells,) of each cell, in order.
        prior: (n_units, n_classes) of the truth; a row may be shared by all (a broadcast).
        given: (n_annotators, n_classes) how often each label was given.
    """

    blocks: list[Block]
    unit: Ints
    label: Ints
    prior: Floats
    given: Floats


def cells(
    unit: Ints,  # (n_votes,)
    annotator: Ints,  # (n_votes,)
    label: Ints,  # (n_votes,)
    prior: Floats,  # (n_units, n_classes)
    n_annotators: int,
) -> Cells:
    """Sort votes into cells; within a cell they stay in the order given."""
    n_classes = prior.shape[1]
    key = unit * n_classes + label
    order = np.argsort(key, kind="stable")
    key = key[order]
    start = np.flatnonzero(np.diff(key, prepend=-1))
    of_cell = key[start]
    cell_unit, cell_label = of_cell // n_classes, of_cell % n_classes
    column = (annotator * n_classes + label).astype(np.int32)[order]
    start = np.append(start, len(key))
    blocks, cell_prior = [], prior[cell_unit, cell_label]
    for first, last in _runs(cell_unit):
        low, high = cell_unit[first], cell_unit[last - 1] + 1
        own = cell_unit[first:last] - low
        votes = slice(start[first], start[last])
        width = n_annotators * n_classes
        pointer = (start[first : last + 1] - start[first]).astype(np.int32)
        ones = np.ones(len(column[votes]))
        said = csr_array((ones, column[votes], pointer), shape=(last - first, width))
        cut = np.searchsorted(own, np.arange(high - low + 1)).astype(np.int32)
        ones = np.ones(last - first)
        members = csr_array(
            (ones, np.arange(last - first, dtype=np.int32), cut), shape=(high - low, last - first)
        )
        weight = cell_prior[first:last, None]
        # below 0 by rounding only
        rest = np.maximum(1 - members @ weight, 0)
        blocks.append(Block(said, members, own, weight, rest, first, int(low)))
    given = np.bincount(annotator * n_classes + label, minlength=n_annotators * n_classes)
    shape = (n_annotators, n_classes)
    return Cells(blocks, cell_unit, cell_label, prior, given.reshape(shape).astype(np.float64))


def _runs(unit: Ints) -> list[tuple[int, int]]:
    """Cut cells into runs of about BLOCK that part no unit."""
    cuts = [0]
    while cuts[-1] < len(unit):
        cuts.append(int(np.searchsorted(unit, unit[min(cuts[-1] + BLOCK, len(unit)) - 1], "right")))
    return list(pairwise(cuts))


def start(
    n_annotators: int, n_classes: int, noise: float, rngs: list[np.random.Generator]
) -> Tables:
    """Return one start a generator: shares drawn from U(1, 1 + noise), then normalised."""
    shape = (n_annotators, 2 + n_classes)
    drawn = np.stack([rng.uniform(1, 1 + noise, shape) for rng in rngs], axis=-1)
    choice, strategy = drawn[:, :2], drawn[:, 2:]
    know, spam = (choice / choice.sum(axis=1, keepdims=True)).transpose(1, 0, 2)
    return Tables(know, spam, strategy / strategy.sum(axis=1, keepdims=True))


def weights(tables: Tables) -> tuple[Floats, Floats, Floats]:
    """Return s, w and theta / (theta + s), (n_annotators, n_classes, n_restarts) each."""
    spam = np.maximum(tables.spam[:, None] * tables.strategy, TINY)
    know = tables.know[:, None]
    return spam, np.log1p(know / spam), know / (know + spam)


def posterior(
    block: Block,
    weight: Floats,  # (n_annotators * n_classes, n_restarts)
) -> tuple[Floats, Floats]:
    """Return q of each cell, (n_cells, n_restarts), and log sum_l prior exp(x) of each unit."""
    x = block.said @ weight
    if x.max(initial=0.0) < LARGEST:
        mass = np.exp(x, out=x)
        mass *= block.prior
        total = block.members @ mass
        total += block.rest
        log_total = np.log(total)
    else:
        # 0 is the x of a unit without votes; a label that cannot be must not set the scale
        x = np.where(block.prior > 0, x, 0.0)
        begin = block.members.indptr[:-1]
        voted = np.diff(block.members.indptr) > 0
        top = np.zeros((len(voted), x.shape[1]))
        top[voted] = np.maximum.reduceat(x, begin[voted], axis=0)
        mass = np.exp(x - top[block.unit]) * block.prior
        total = block.members @ mass + block.rest * np.exp(-top)
        log_total = np.log(total) + top
    mass *= np.take(1 / total, block.unit, axis=0)
    return mass, log_total


def e_step(cells: Cells, tables: Tables) -> tuple[Counts, Floats]:
    """Return the expected counts and the log evidence of the votes, (n_restarts,)."""
    spam, weight, share = weights(tables)
    flat = weight.reshape(-1, weight.shape[-1])
    hit = np.zeros_like(flat)
    evidence = np.einsum("al,alr->r", cells.given, np.log(spam))
    for block in cells.blocks:
        q, log_total = posterior(block, flat)
        hit += block.said.T @ q
        evidence += log_total.sum(axis=0)
    known = hit.reshape(weight.shape) * share
    # below 0 by rounding only
    return Counts(known, np.maximum(cells.given[..., None] - known, 0)), evidence


def pick(tables: Any, restart: int) -> Any:
    """Return the tables of one restart, their last axis kept."""
    return type(tables)(*(table[..., [restart]] for table in tables))


def probabilities(
    cells: Cells,
    tables: Tables,  # one restart
) -> Floats:
    """Return the posterior of each unit, (n_units, n_classes); without votes it is the prior."""
    weight = weights(tables)[1].reshape(-1, 1)
    probs = cells.prior.copy()
    for block in cells.blocks:
        q, log_total = posterior(block, weight)
        last = block.first_unit + len(log_total)
        probs[block.first_unit : last] *= np.exp(-log_total)
        here = slice(block.first_cell, block.first_cell + len(q))
        probs[cells.unit[here], cells.label[here]] = q[:, 0]
    return probs
