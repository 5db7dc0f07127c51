"""Co-teaching's exchange: each of two networks learns from what its peer finds easy.

Han, Yao, Yu, Niu, Xu, Hu, Tsang, Sugiyama: Co-teaching: robust training of deep neural networks
with extremely noisy labels, NeurIPS 2018, Algorithm 1; their code, loss.py.

Of the n terms of a batch, D_f are the R(t) n with the smallest loss under network f, D_g under g
(lines 5 and 6). f learns from the mean loss over D_g, g from that over D_f (lines 7 and 8):
    L = mean over D_g of l_f + mean over D_f of l_g
    R(t) = 1 - tau min(t / t_k, 1)                                                       (line 10)
The networks share no weights, so the gradient of the sum is each one's own. No gradient flows
through the choice, nor to terms that are not chosen.

Deviations from the paper:
    1. t counts steps, where they count epochs: a step's R is then known without a data set's size.
    2. ceil(R n) terms are kept, as in Algorithm 1 (|D'| >= R |D|); their code keeps int(R n), which
       may be none.

Example:
    >>> import torch
    >>> losses = torch.tensor([[0.1, 2.0], [3.0, 0.2], [0.3, 0.4]])
    >>> round(exchanged_loss(losses, keep=1).item(), 4)  # f learns from term 1, g from term 0
    5.0
"""

from torch import Tensor


def exchanged_loss(
    losses: Tensor,  # (n, 2), of each term under each network
    keep: int,
) -> Tensor:  # ()
    """Return the sum of both networks' mean loss over the `keep` terms that the peer finds easy.

    Ties go to the terms that come first.
    """
    easy = losses.detach().argsort(dim=0, stable=True)[:keep]
    return losses.gather(0, easy.flip(1)).mean(dim=0).sum()


def kept(n: int, step: int, forget: float, ramp_steps: float) -> int:
    """Return ceil(R(t) n): of n terms, those that are learned at step t.

    Args:
        n: terms of the batch.
        step: t, from 0.
        forget: tau in [0, 1), the share that is left out in the end.
        ramp_steps: t_k; below 1 everything is left out from step 1 on.
    """
    return n - int(forget * min(step / max(ramp_steps, 1.0), 1.0) * n)
