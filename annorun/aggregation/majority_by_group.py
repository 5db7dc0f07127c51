"""Majority vote within each group, as shares: one truth an item and group.

The baseline "majority vote per subpopulation" of J. Ivey, S. Gauch, D. Jurgens: NUTMEG: Separating
Signal From Noise in Annotator Disagreement, 2025.

Model: none. t_igk = (votes of group g on item i for class k) / (votes of group g on item i), NaN
for a group without a vote on the item. Each group's population is its number of annotators with a
vote on any item.
    q_ik = mean of t_igk over the groups with a vote on i, weighted by population
    disagreement_i = 1 - sum_k prod_g t_igk over the same groups, NaN where they are fewer than two
An item without votes has q as in `majority`. An annotator's accuracy is its mean agreement with its
own group, which counts its own vote too.

Example:
    >>> import numpy as np
    >>> from annorun.votes import Votes
    >>> votes = Votes(
    ...     item=[0, 0, 0, 1, 1], annotator=[0, 1, 2, 0, 1], label=[0, 0, 1, 1, 0],
    ...     n_items=2, n_annotators=3, n_classes=2, group=np.array([0, 0, 1]),
    ... )
    >>> posterior = majority_by_group(votes)
    >>> posterior.group_probs.tolist()
    [[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [nan, nan]]]
    >>> posterior.probs.round(3).tolist(), posterior.disagreement.tolist()
    ([[0.667, 0.333], [0.5, 0.5]], [1.0, nan])
"""

import numpy as np

from annorun.aggregation.majority import majority
from annorun.aggregation.tally import mean_by_annotator, population
from annorun.errors import ConfigError
from annorun.votes import Posterior, Votes


def majority_by_group(votes: Votes) -> Posterior:
    """Return the vote shares of each item and group."""
    if votes.group is None:
        raise ConfigError("majority_by_group: the votes do not say their annotators' groups")
    shape = (votes.n_items, votes.n_groups, votes.n_classes)
    at = (votes.item, votes.group[votes.annotator], votes.label)
    flat = np.ravel_multi_index(at, shape) if len(votes) else votes.item
    counts = np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape)
    n_votes = counts.sum(axis=2, keepdims=True)
    seen = n_votes > 0
    shares = counts / np.maximum(n_votes, 1)
    weight = np.where(seen[..., 0], population(votes), 0.0)  # (n_items, n_groups)
    total = weight.sum(axis=1, keepdims=True)
    probs = majority(votes).probs
    np.divide(np.einsum("ig,igk->ik", weight, shares), total, out=probs, where=total > 0)
    apart = 1 - np.where(seen, shares, 1.0).prod(axis=1).sum(axis=1)
    return Posterior(
        probs,
        accuracy=mean_by_annotator(votes, shares[at]),
        group_probs=np.where(seen, shares, np.nan),
        disagreement=np.where(seen.sum(axis=(1, 2)) > 1, apart, np.nan),
    )
