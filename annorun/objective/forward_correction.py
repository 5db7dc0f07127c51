"""Forward correction: the network's answer, passed through what is known of the errors.

Patrini, Rozza, Menon, Nock, Qu: Making deep neural networks robust to label noise: a loss
correction approach, CVPR 2017, section 4.2 and Theorem 2.

Model: T_m[k, y] = P(annotator m says y | the truth is k), given and fixed; pi is the network's
softmax.
    p(y | x, m) = sum_k T_m[k, y] pi(k | x)
    L = -mean over the votes (x, m, y) of log p(y | x, m)
This is their l(T' h(x)) for cross-entropy. Theorem 2: where T is not singular, the minimiser of L
over noisy labels is the minimiser of cross-entropy over clean ones: the clean posterior.

With r_k = T_m[k, y] pi_k / p(y | x, m), the posterior of the truth given the vote, and the logits
z: dL/dz = pi - r. T = I is cross-entropy; equal rows, an annotator who guesses, teach nothing.

Deviations from the paper:
    1. One T for each annotator, where they have one for all labels.
    2. No T_ij is below `FLOOR`: without it a vote that T rules out for each class has no gradient.
       log p is a sum in log space (logsumexp), where theirs is a product of probabilities.

Example:
    >>> import torch
    >>> confusion = torch.tensor([[[0.9, 0.1], [0.4, 0.6]]])
    >>> vote = torch.tensor([0]), torch.tensor([1])
    >>> round(forward_loss(torch.tensor([[0.5, 0.5]]).log(), *vote, confusion).item(), 4)
    1.0498
"""

import torch
from torch import Tensor

# a vote that T rules out costs 27.6 at most; far below what any number of votes can tell from 0
FLOOR = 1e-12


def forward_loss(
    log_probs: Tensor,  # (n_votes, n_classes), of the network
    annotator: Tensor,  # (n_votes,)
    label: Tensor,  # (n_votes,)
    confusion: Tensor,  # (n_annotators, n_classes, n_classes) [annotator, true, observed]
) -> Tensor:  # ()
    """Return the mean negative log likelihood of the votes."""
    log_said = confusion[annotator, :, label].clamp_min(FLOOR).log()
    return -torch.logsumexp(log_probs + log_said, dim=-1).mean()
