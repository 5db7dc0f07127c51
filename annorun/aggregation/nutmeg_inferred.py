"""NUTMEG without given groups: which annotators share a truth is inferred from their votes.

Ours; the paper (J. Ivey, S. Gauch, D. Jurgens, EMNLP 2025) names it as open. Annotator j is of
group g_j, g ~ the Dirichlet-multinomial of uniform shares, and the rest is NUTMEG with a joint
distribution over an item's vector of truths (`annorun.aggregation.joint`). A partition g is worth

    bound(votes | g) + log p(g),    p(g) = K! (K - 1)! prod_k n_k! / (J + K - 1)!

for K groups, the factor K! because their order means nothing. A group that nobody is in costs
nothing there: of a split of one group into two and no split, the higher is taken, and groups are
split until none pays or there are `most_groups`.

Start: a group is cut where its annotators differ in competence, or in the leading eigenvector of
how much more often than the fit expects they agree with each other, at several sizes.

Then EM over memberships pi_jk. E-step of the items as in `joint`, each vote counting for group k
with pi_jk. E-step of the annotators: the probability of j's vote y on item i, were he in k, by what
the *other* votes say of the item's vector v (else each would find his own vote in every group):

    pi_jk  prop. to  share_k prod_votes (s_jy + theta_j P(v_k = y | the others' votes)),
    P(v | others)  prop. to  P(v | all) exp(-sum_k pi_jk w_jy [v_k = y]).

Example:
    >>> import numpy as np
    >>> from annorun.votes import Votes
    >>> item, annotator = np.divmod(np.arange(360), 12)
    >>> votes = Votes(
    ...     item=item, annotator=annotator,
    ...     label=np.where((annotator < 4) & (item % 3 == 0), 1 - item % 2, item % 2),
    ...     n_items=30, n_annotators=12, n_classes=2,
    ... )
    >>> nutmeg_inferred(votes, rng=np.random.default_rng(0)).group.tolist()
    [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.special import gammaln

from annorun.aggregation.joint import MOST_VECTORS
from annorun.aggregation.nutmeg import nutmeg
from annorun.aggregation.restarts import Prior, vary
from annorun.aggregation.spam import Counts, weights
from annorun.aggregation.tally import by_annotator, by_label, sums
from annorun.errors import ConfigError
from annorun.kinds import Count
from annorun.votes import Bools, Floats, Ints, Posterior, Votes

# as in NUTMEG's code
PRIOR = Prior(alpha=0.5, beta=0.5, strategy=10.0)
# parts of a group that a start cuts off
CUTS = (0.1, 0.2, 0.35, 0.5)
# membership at the start: nearly sure, or the groups would drift into one
SURE = 0.98
# iterations with the start's memberships, then all
HOLD, ITERATIONS = 10, 40
# memberships that move less have ended
STILL = 1e-4
# annotators up to which an eigenvector is worked out in full
DENSE = 300


def nutmeg_inferred(
    votes: Votes, *, rng: np.random.Generator, most_groups: Count = 3, n_iter: Count = 50
) -> Posterior:
    """Return the posterior of each group's truths, and the groups, the largest first.

    Args:
        votes: at most one label an item and annotator; groups that they have are not used.
        rng: draws the starts of the fits.
        most_groups: groups at most; fewer where n_classes ** n_groups would be over 125.
        n_iter: iterations of the fit of each partition.

    Raises:
        ConfigError: the votes have several labels an item and annotator.
    """
    if votes.multi_label:
        raise ConfigError("nutmeg_inferred: wants one label an item and annotator, not several")
    group = np.zeros(votes.n_annotators, dtype=np.int64)
    fit = _fit(votes, group, n_iter, rng)
    n_groups = 1
    while n_groups < most_groups and votes.n_classes ** (n_groups + 1) <= MOST_VECTORS:
        found = []
        for start in _starts(votes, fit, group):
            split = memberships(votes, start).argmax(axis=1)
            if len(np.unique(split)) > n_groups:
                found.append((_fit(votes, split, n_iter, rng), split))
        worth = [f.trace[-1] + log_prior(g, n_groups + 1) for f, g in found]
        if not worth or max(worth) <= fit.trace[-1] + log_prior(group, n_groups + 1):
            break
        fit, group = found[int(np.argmax(worth))]
        n_groups += 1
    order = np.argsort(-np.bincount(group), kind="stable")
    group = np.argsort(order)[group]
    return replace(_fit(votes, group, n_iter, rng), group=group)


def _fit(votes: Votes, group: Ints, n_iter: int, rng: np.random.Generator) -> Posterior:
    """Fit NUTMEG with these groups, from one start."""
    known = replace(votes, group=group)
    return nutmeg(known, rng=rng, imputation="joint", n_restarts=1, n_iter=n_iter)


def log_prior(group: Ints, n_groups: int) -> float:
    """Return log p(g) of a partition into at most n_groups, their order not counting."""
    size = np.bincount(group, minlength=n_groups)
    order = gammaln(n_groups + 1) + gammaln(n_groups)
    return float(order + gammaln(size + 1).sum() - gammaln(len(group) + n_groups))


def _starts(votes: Votes, fit: Posterior, group: Ints) -> Iterator[Floats]:
    """Yield memberships, (n_annotators, n_groups + 1): a part of one group cut off."""
    n_groups = group.max() + 1
    assert fit.competence is not None
    competence = np.nan_to_num(fit.competence, nan=1.0)
    for k in range(n_groups):
        inside = np.flatnonzero(group == k)
        axis = agreement_axis(votes, competence, inside)
        for score in (competence[inside], axis, -axis):
            for cut in CUTS:
                part = group.copy()
                part[inside[np.argsort(score, kind="stable")[: round(cut * len(inside))]]] = (
                    n_groups
                )
                sure = np.full((len(group), n_groups + 1), (1 - SURE) / n_groups)
                sure[np.arange(len(group)), part] = SURE
                yield sure


def agreement_axis(
    votes: Votes,
    competence: Floats,  # (n_annotators,)
    inside: Ints,  # (n,) the annotators to compare
) -> Floats:  # (n,)
    """Return the leading eigenvector of agreement beyond what competence explains.

    For two annotators of competence a and b who guess uniformly it explains ab + (1 - ab) / K of
    the items they share. The excess is divided by its standard deviation, less for pairs with
    hardly any item.
    """
    n_classes = votes.n_classes
    place = np.full(votes.n_annotators, -1)
    place[inside] = np.arange(len(inside))
    own = place[votes.annotator]
    cell = (votes.item * n_classes + votes.label)[own >= 0]
    own = own[own >= 0]
    shape = (votes.n_items, len(inside))
    seen = csr_array((np.ones(len(own)), (cell // n_classes, own)), shape=shape)
    said = csr_array(
        (np.ones(len(own)), (cell, own)), shape=(votes.n_items * n_classes, len(inside))
    )
    shared = (seen.T @ seen).tocoo()
    both = competence[inside][shared.row] * competence[inside][shared.col]
    expected = both + (1 - both) / n_classes
    pairs = (shared.row, shared.col)
    deviation = np.sqrt(shared.data * expected * (1 - expected) + 0.05)
    # with oneself one always agrees: that says nothing
    deviation[shared.row == shared.col] = np.inf
    explained = csr_array((shared.data * expected, pairs), shape=shared.shape)
    weight = csr_array((1 / deviation, pairs), shape=shared.shape)
    return _leading((said.T @ said - explained).multiply(weight).tocsr())


def _leading(matrix: Any) -> Floats:
    """Return the eigenvector of the largest eigenvalue of a symmetric sparse matrix."""
    n = matrix.shape[0]
    if n <= DENSE:
        axis: Floats = np.linalg.eigh(matrix.toarray())[1][:, -1]
        return axis
    # not at the top: the import costs what a small aggregation does
    from scipy.sparse.linalg import eigsh

    axis = eigsh(matrix, k=1, which="LA", v0=np.ones(n))[1][:, 0]
    return axis


def memberships(
    votes: Votes,
    start: Floats,  # (n_annotators, n_groups)
) -> Floats:  # (n_annotators, n_groups)
    """Run the EM over memberships from a start."""
    n_groups, n_classes = start.shape[1], votes.n_classes
    vectors = np.array(list(product(range(n_classes), repeat=n_groups)))
    one = (vectors == vectors[:, :1]).all(axis=1)
    # most items have one truth for all, at the start
    shares = np.where(one, 0.8 / one.sum(), 0.2 / max((~one).sum(), 1))
    cell = votes.annotator * n_classes + votes.label
    given = np.bincount(cell, minlength=len(start) * n_classes).reshape(-1, n_classes)
    hit = vectors[None] == votes.label[:, None, None]
    empty = np.zeros((len(start), n_classes, 1))
    # as if every annotator had answered one item in a hundred at random
    counts = Counts(0.99 * given[..., None] + empty, 0.01 * given[..., None] + empty)
    member, groups = start, start.mean(axis=0)
    for k in range(ITERATIONS):
        spam, weight, share = (t[..., 0] for t in weights(vary(counts, PRIOR)[0]))
        posterior = _vectors(votes, member, weight, vectors, shares)
        shares = (posterior.sum(axis=0) + 1) / (len(posterior) + len(vectors))
        of_vote = posterior[votes.item]
        alike = np.einsum("mv,mvk->mk", of_vote, hit)
        said = (member[votes.annotator] * alike).sum(axis=1)
        known = sums(cell, said, given.size).reshape(given.shape) * share
        counts = Counts(known[..., None], (given - known)[..., None])
        if k >= HOLD:
            log = np.log(groups) + _evidence(votes, member, spam, weight, of_vote, hit)
            before, member = member, np.exp(log - log.max(axis=1, keepdims=True))
            member /= member.sum(axis=1, keepdims=True)
            if np.abs(member - before).max(initial=0) < STILL:
                break
            groups = (member.sum(axis=0) + 1) / (len(member) + n_groups)
    return member


def _vectors(
    votes: Votes,
    member: Floats,  # (n_annotators, n_groups)
    weight: Floats,  # (n_annotators, n_classes)
    vectors: Ints,  # (n_vectors, n_groups)
    shares: Floats,  # (n_vectors,)
) -> Floats:  # (n_items, n_vectors)
    """Return the posterior of each item's vector of truths."""
    own = weight[votes.annotator, votes.label]
    log = np.tile(np.log(shares), (votes.n_items, 1))
    for k in range(vectors.shape[1]):
        log += by_label(votes, own * member[votes.annotator, k])[:, vectors[:, k]]
    posterior: Floats = np.exp(log - log.max(axis=1, keepdims=True))
    posterior /= posterior.sum(axis=1, keepdims=True)
    return posterior


def _evidence(
    votes: Votes,
    member: Floats,  # (n_annotators, n_groups)
    spam: Floats,  # (n_annotators, n_classes) s
    weight: Floats,  # (n_annotators, n_classes) w = log(1 + theta / s)
    posterior: Floats,  # (n_votes, n_vectors) of the vote's item
    hit: Bools,  # (n_votes, n_vectors, n_groups) the vector has the vote's label there
) -> Floats:  # (n_annotators, n_groups)
    """Return the log probability of each annotator's votes in each group, by the others' votes."""
    place = (votes.annotator, votes.label)
    counted = np.einsum("mvk,mk->mv", hit, member[votes.annotator]) * weight[place][:, None]
    others = posterior * np.exp(-counted)
    others /= others.sum(axis=1, keepdims=True)
    alike = np.einsum("mv,mvk->mk", others, hit)
    # s + theta [alike], theta = s (exp(w) - 1)
    log = np.log(spam[place][:, None] * (1 + np.expm1(weight[place])[:, None] * alike))
    return np.stack([by_annotator(votes, part) for part in log.T], axis=1)
