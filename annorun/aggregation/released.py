"""The E-step of NUTMEG's released code, which is not that of its model.

J. Ivey, S. Gauch, D. Jurgens, NUTMEG, EMNLP 2025; github.com/jonathanivey/NUTMEG, nutmeg.py. With
G_ik(l) = (1/L) prod_m lik_m(l) the code divides the expected counts of a vote by

    Z_i = sum_k rho_ik sum_l G_ik(l),    rho_ik = share of item i's votes that come from group k,

where the model has the vote's own Z_ik = sum_l G_ik(l). Each vote so has the weight Z_ik / Z_i: of
an item's groups, the one that agrees within itself counts more. Its objective is
sum_i log(Z_i + 1e-8); no prior takes part in it. With one group both are the model's.

Deviation: in log space. The code multiplies likelihoods, which underflow beyond some 300 votes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from annorun.aggregation import spam
from annorun.votes import Floats, Ints

FLOOR = 1e-8


class Pairs(NamedTuple):
    """The votes by (item, group) pair.

    Attributes:
        cells: see `spam.Cells`, the unit being the pair.
        whole: a sparse (n_units, n_annotators * n_classes) of ones a block: who voted in the pair.
        pair: the pairs that have votes, in order.
        item: of each of these, its place among the items that have votes.
        first: where each item's pairs begin.
        share: rho of each.
    """

    cells: spam.Cells
    whole: list[Any]
    pair: Ints
    item: Ints
    first: Ints
    share: Floats


def steps(
    cells: spam.Cells,
    votes: Ints,  # (n_items, n_groups) number of votes
    improve: Callable[[spam.Counts], tuple[spam.Tables, Floats]],
) -> tuple[Any, Any]:
    """Return the E-step and the M-step of the released code."""
    pair = np.flatnonzero(votes)
    item, group = np.divmod(pair, votes.shape[1])
    share = votes[item, group] / votes.sum(axis=1)[item]
    first = np.flatnonzero(np.diff(item, prepend=-1))
    place = np.cumsum(np.diff(item, prepend=-1) > 0) - 1
    whole = [block.members @ block.said for block in cells.blocks]
    pairs = Pairs(cells, whole, pair, place, first, share[:, None])
    return partial(e_step, pairs), lambda counts: (improve(counts)[0], 0.0)


def e_step(pairs: Pairs, tables: spam.Tables) -> tuple[spam.Counts, Floats]:
    """Return the weighted expected counts and sum_i log(Z_i + 1e-8), (n_restarts,)."""
    spammed, weight, share = spam.weights(tables)
    n_restarts = weight.shape[-1]
    flat, log_spam = weight.reshape(-1, n_restarts), np.log(spammed).reshape(-1, n_restarts)
    n_units = len(pairs.cells.prior)
    log_z, q = np.full((n_units, n_restarts), -np.inf), []
    for block, whole in zip(pairs.cells.blocks, pairs.whole, strict=True):
        mass, log_total = spam.posterior(block, flat)
        log_z[block.first_unit : block.first_unit + len(log_total)] = log_total + whole @ log_spam
        q.append(mass)
    # runs of units hold pairs without votes too: those have no part in Z_i
    own = log_z[pairs.pair]
    top = np.maximum.reduceat(own, pairs.first, axis=0) if len(own) else own
    mean = np.exp(own - top[pairs.item]) * pairs.share
    log_item = np.log(np.add.reduceat(mean, pairs.first, axis=0)) + top if len(own) else own
    ratio = np.zeros_like(log_z)
    ratio[pairs.pair] = np.exp(own - log_item[pairs.item])
    hit, total = np.zeros_like(flat), np.zeros_like(flat)
    for block, whole, mass in zip(pairs.cells.blocks, pairs.whole, q, strict=True):
        here = ratio[block.first_unit : block.first_unit + whole.shape[0]]
        hit += block.said.T @ (mass * here[block.unit])
        total += whole.T @ here
    known = hit.reshape(weight.shape) * share
    counts = spam.Counts(known, np.maximum(total.reshape(weight.shape) - known, 0))
    return counts, np.log(np.exp(log_item) + FLOOR).sum(axis=0)
