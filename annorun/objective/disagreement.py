r"""How much the annotators of an item disagree: -sum_k q_k ln q_k / ln K, q the shares of votes.

0 where all give one label, 1 where all labels are as frequent.

Example:
    >>> import torch
    >>> disagreement(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).tolist()
    [0.0, 1.0]
"""

import math

import torch
from torch import Tensor


def disagreement(
    shares: Tensor,  # (B, K)
) -> Tensor:  # (B,)
    """Return the entropy of each row as a share of the greatest there is."""
    found: Tensor = torch.special.entr(shares).sum(dim=-1) / math.log(shares.shape[-1])
    return found
