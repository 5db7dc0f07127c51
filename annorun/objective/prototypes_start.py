"""What the EM of `annorun.objective.prototypes` starts from: one floating type, the vote shares.

Start: q_nk = the share of class k in the votes on example n, 1 / K without votes, so that ties
split. Where all shares of a task are 1 / K all prototypes would be the mean of the support: without
votes for good, and with votes that cancel only c would move them. There
    q_nk = (1 - `JITTER`) / K + `JITTER` [example n is nearest to seed k]
The seeds are K examples: the one farthest from the mean, then each time the one farthest from those
before. The rule reads no order of examples or annotators. It gives the classes to the seeds in
order: votes that tie everywhere do not name the clusters.

Example:
    >>> import torch
    >>> vote_shares(torch.tensor([[[0, 1], [1, 1], [-1, -1]]]), 2).tolist()
    [[[0.5, 0.5], [0.0, 1.0], [0.5, 0.5]]]
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

# how far from uniform a task starts whose votes all tie: enough to leave the fixed point
JITTER = 1e-3


class Start(NamedTuple):
    """What every step reads, in one floating type, and the responsibilities before the first.

    Attributes:
        embedded: (n_tasks, n_examples, size).
        said: (n_tasks, n_examples, n_annotators, n_classes), 1 for the label of each vote.
        log_responsibilities: (n_tasks, n_examples, n_classes).
        log_variance: ().
    """

    embedded: Tensor
    said: Tensor
    log_responsibilities: Tensor
    log_variance: Tensor


def full_precision(values: Tensor) -> torch.autocast:
    """Return the context in which nothing is rounded to a half type."""
    return torch.autocast(values.device.type, enabled=False)


def spoken(
    votes: Tensor,  # (n_tasks, n_examples, n_annotators), -1 where there is none
    n_classes: int,
    kind: torch.dtype = torch.float32,
) -> Tensor:  # (n_tasks, n_examples, n_annotators, n_classes)
    """Return 1 for the label of each vote, 0 elsewhere."""
    return one_hot(votes + 1, n_classes + 1)[..., 1:].to(kind)


def vote_shares(
    votes: Tensor,  # (n_tasks, n_examples, n_annotators), -1 where there is none
    n_classes: int,
    kind: torch.dtype = torch.float32,
) -> Tensor:  # (n_tasks, n_examples, n_classes)
    """Return the share of each class in an example's votes, 1 / n_classes without votes."""
    return _shares(spoken(votes, n_classes, kind))


def _shares(said: Tensor) -> Tensor:
    counts = said.sum(dim=2)
    total = counts.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, counts / total.clamp_min(1), 1 / said.shape[-1])


def squared_distances(
    points: Tensor,  # (n_tasks, n_points, size)
    centres: Tensor,  # (n_tasks, n_centres, size)
) -> Tensor:  # (n_tasks, n_points, n_centres)
    """Return the squared distance of each point to each centre."""
    # |a|^2 - 2 a b + |b|^2 cancels where a and b are far from 0, so 0 goes between the centres
    origin = centres.mean(dim=1, keepdim=True)
    a, b = points - origin, centres - origin
    cross = a @ b.transpose(1, 2)
    return a.square().sum(-1, keepdim=True) - 2 * cross + b.square().sum(-1).unsqueeze(1)


def farthest_first(
    embedded: Tensor,  # (n_tasks, n_examples, size)
    n_classes: int,
) -> Tensor:  # (n_tasks, n_examples)
    """Return for each example the nearest of `n_classes` examples that are far from each other."""
    gap = (embedded - embedded.mean(dim=1, keepdim=True)).square().sum(-1)
    seeds = embedded[:, :0]
    # each needs those before it; only where all votes of a task tie
    for _ in range(n_classes):
        row = gap.argmax(dim=1)[:, None, None].expand(-1, 1, embedded.shape[-1])
        seeds = torch.cat([seeds, embedded.gather(1, row)], dim=1)
        gap = squared_distances(embedded, seeds).amin(dim=-1)
    return squared_distances(embedded, seeds).argmin(dim=-1)


def untied(
    shares: Tensor,  # (n_tasks, n_examples, n_classes)
    embedded: Tensor,  # (n_tasks, n_examples, size)
) -> Tensor:  # (n_tasks, n_examples, n_classes)
    """Return the shares, moved by `JITTER` in the tasks where all of them are 1 / n_classes."""
    tied = (shares.amax(dim=-1) == shares.amin(dim=-1)).all(dim=1)
    if not tied.any():
        return shares
    n_classes = shares.shape[-1]
    nearest = one_hot(farthest_first(embedded, n_classes), n_classes).to(shares.dtype)
    return torch.where(tied[:, None, None], shares + JITTER * (nearest - shares), shares)


def start(
    embedded: Tensor,  # (n_tasks, n_examples, size)
    votes: Tensor,  # (n_tasks, n_examples, n_annotators), -1 where there is none
    n_classes: int,
    log_variance: Tensor | float,
) -> Start:
    """Return what every step reads, in float32 at least."""
    kind = torch.promote_types(embedded.dtype, torch.float32)
    embedded, said = embedded.to(kind), spoken(votes, n_classes, kind)
    shares = untied(_shares(said), embedded)
    # the smallest number for 0: a class without votes then has equal weights, not 0 / 0
    log_shares = shares.clamp_min(torch.finfo(kind).tiny).log()
    scale = torch.as_tensor(log_variance, dtype=kind, device=embedded.device)
    return Start(embedded, said, log_shares, scale)
