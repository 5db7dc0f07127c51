r"""Preference losses over the responses of several annotators to the same input (CAPO).

Chen et al., CAPO, arXiv 2605.28802. Only the paper's abstract is known to us: pairs whose chosen
response is the target annotator's and whose rejected one is another's to the same input. The
losses are those of the works named below.

A response y has the summed log-probability s = sum_t log pi(y_t | x, y_<t) over its n tokens, and
against a frozen reference the log-ratio r = s - s_ref. A pair's logit is h = r_chosen - r_rejected.

    dpo       -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h)     Rafailov et al. 2023, Eq. 7
                                              (e: label smoothing)    Mitchell 2023
    ipo       (h - 1 / (2 beta))^2, from log-ratios a token             Azar et al. 2024, Eq. 17
    simpo     -log sigmoid(beta (s_c / n_c - s_r / n_r) - margin)       Meng et al. 2024, Eq. 6
    listwise  -log of the chosen's share of sum_j exp(beta r_j), over all responses to one input
    anchor    -s_c / n_c, the likelihood of the chosen response, added with a weight

Listwise with one other response is DPO. At the reference itself h = 0: DPO's loss is log 2.
Every response is scored once, however many pairs it is in: losses take scores of all responses and
the places of the pairs' two.

Deviations from the sources:
1. IPO's log-ratios are a token's, not a sequence's: annotators differ twofold in length, and one
   beta could not fit both. `r / n` of each response, then the difference.
2. SimPO's margin stands outside of beta, as in its paper; its code divides by beta.

Example:
    >>> import torch
    >>> ratio, pair = torch.tensor([0.5, -0.5]), (torch.tensor([0]), torch.tensor([1]))
    >>> round(dpo(ratio, *pair, beta=1.0).item(), 4)
    0.3133
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def response_scores(
    logits: Tensor,  # (N, V), what is predicted for each token of the responses
    token: Tensor,  # (N,)
    response: Tensor,  # (N,), whose token it is
    n_responses: int,
) -> tuple[Tensor, Tensor]:  # (n_responses,), (n_responses,)
    """Return each response's summed log-probability and its number of tokens, in float32 at least.

    What stands before a response has no logits here, and so no part in its score.
    """
    told = logits.to(torch.promote_types(logits.dtype, torch.float32))
    each = told.gather(1, token[:, None])[:, 0] - told.logsumexp(dim=1)
    total = each.new_zeros(n_responses).index_add(0, response, each)
    length = each.new_zeros(n_responses).index_add(0, response, torch.ones_like(each))
    return total, length


def dpo(
    ratio: Tensor,  # (B,), log-ratio of each response
    chosen: Tensor,  # (P,), a place in `ratio`
    rejected: Tensor,  # (P,)
    *,
    beta: float,
    smoothing: float = 0.0,
) -> Tensor:  # (P,)
    """Return DPO's loss of each pair; with smoothing, that of labels that are wrong so often."""
    h = beta * (ratio[chosen] - ratio[rejected])
    return -(1 - smoothing) * logsigmoid(h) - smoothing * logsigmoid(-h)


def ipo(
    ratio: Tensor,  # (B,), log-ratio a token
    chosen: Tensor,  # (P,)
    rejected: Tensor,  # (P,)
    *,
    beta: float,
) -> Tensor:  # (P,)
    """Return IPO's loss of each pair: the logit is drawn to 1 / (2 beta), and not beyond."""
    return (ratio[chosen] - ratio[rejected] - 1 / (2 * beta)).square()


def simpo(
    score: Tensor,  # (B,), log-probability a token
    chosen: Tensor,  # (P,)
    rejected: Tensor,  # (P,)
    *,
    beta: float,
    margin: float,
) -> Tensor:  # (P,)
    """Return SimPO's loss of each pair, which wants no reference."""
    return -logsigmoid(beta * (score[chosen] - score[rejected]) - margin)


def listwise(
    ratio: Tensor,  # (B,), log-ratio of each response
    group: Tensor,  # (B,), which input and target each response belongs to
    chosen: Tensor,  # (B,) bool, one or more a group; a group's chosen are never each other's rival
    *,
    beta: float,
) -> Tensor:  # (number chosen,)
    """Return the loss of each chosen response against the others of its group together."""
    score = beta * ratio
    rival = (group[chosen][:, None] == group[None, :]) & ~chosen[None, :]
    against = torch.where(rival, score[None, :], -torch.inf).logsumexp(dim=1)
    return torch.logaddexp(score[chosen], against) - score[chosen]
