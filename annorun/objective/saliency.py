r"""Which tokens an answer hangs on: s_t = |sum_d (dz / de_td) e_td|, gradient times input.

e_t is the embedding of token t, z the logit of the answer. (Shrikumar et al. 2016, Not Just a Black
Box; Denil et al. 2014.) For z linear in the embeddings, s_t is what token t adds to z.

Example:
    >>> import torch
    >>> e = torch.tensor([[[1.0], [2.0]]], requires_grad=True)
    >>> gradient_times_input((e * torch.tensor([[3.0], [-1.0]])).sum(), [e]).tolist()
    [[3.0, 2.0]]
"""

import torch
from torch import Tensor


def gradient_times_input(
    score: Tensor,  # (), the sum of the items' logits
    embeddings: list[Tensor],  # (B, length, d) each
) -> Tensor:  # (B, length)
    """Return the saliency of each token, summed over the networks whose embeddings these are.

    A network that has no part in the score adds nothing.
    """
    slopes = torch.autograd.grad(score, embeddings, retain_graph=True, allow_unused=True)
    parts = [
        (slope * e).sum(dim=-1).abs().detach()
        for slope, e in zip(slopes, embeddings, strict=True)
        if slope is not None
    ]
    return torch.stack(parts).sum(dim=0)
