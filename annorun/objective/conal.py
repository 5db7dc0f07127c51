"""Common noise adaptation layers (CoNAL): a vote is a common confusion, or the annotator's own.

Chu, Ma, Wang: Learning from Crowds by Modeling Common Confusions, AAAI 2021, arXiv 2012.13052;
their code, zdchu/CoNAL: conal.py (CoNAL.forward, simple_common_module), losses.py (multi_loss) and
workflow.py (train, mode "common").

Model: p = pi(. | x_i), the network's softmax over the K classes; W_c is everybody's matrix, W_r the
annotator's own, `[true, observed]`; v_i and u_r embed the input and the annotator.
    w_ir = sigmoid(v_i . u_r / (|v_i| |u_r|))
    a_ir = w_ir W_c^T p + (1 - w_ir) W_r^T p,   P(y | x_i, r) = softmax(a_ir)_y
    L = -mean over the votes (i, r, y) of log P(y | x_i, r)  -  lambda sum_r |W_c - W_r|
|.| of a matrix is the root of the sum of its squares: the second term drives the matrices apart.
All start at twice the identity. w_ir lies between sigmoid(-1) = .27 and sigmoid(1) = .73. As in
the crowd layer, matrices are no distributions: a_ir goes through a softmax.

With s = softmax(a_ir) - onehot(y), for one vote: dL/dW_c[k, y'] = w p_k s_y'; dL/dW_r[k, y'] =
(1 - w) p_k s_y'; dL/dw = p^T (W_c - W_r) s; dL/dp = (w W_c + (1 - w) W_r) s.

Readings, where paper and code leave room:
    1. What the paper's text says of the second term is known to us through their code alone.
    2. seunghyukcho/CoNAL-pytorch is not by the authors and is another model: w is the share of the
       annotator's own matrix, nothing is normalised, matrices have biases and start at random, and
       there is no second term. We follow the authors.
    3. The second term is over the annotators who have a vote; theirs is over all, which is the same
       in their data. Tasks of a batch have more and fewer of them.
    4. v_i and u_r come from outside: how they are made is the method's affair.

Example:
    >>> import torch
    >>> probs, own, common = torch.tensor([[1.0, 0.0]]), *start(1, 2)
    >>> vote = torch.tensor([0]), torch.tensor([0])
    >>> round(conal_loss(probs, *vote, torch.tensor([0.3]), own, common, apart=0.0).item(), 4)
    0.1269
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from annorun.objective import crowd_layer


def start(n_annotators: int, n_classes: int) -> tuple[Tensor, Tensor]:
    """Return each annotator's matrix, (n_annotators, K, K), and the common one, (K, K)."""
    return 2 * crowd_layer.identity(n_annotators, n_classes), 2 * torch.eye(n_classes)


def common_share(
    inputs: Tensor,  # (..., size) v
    annotators: Tensor,  # (..., size) u
) -> Tensor:  # (...)
    """Return how much of each vote is the common confusion."""
    cosine: Tensor = (normalize(inputs, dim=-1) * normalize(annotators, dim=-1)).sum(dim=-1)
    return cosine.sigmoid()


def mixed(
    share: Tensor,  # (n,)
    own: Tensor,  # (n, n_classes, n_classes) [..., true, observed]
    common: Tensor,  # (n_classes, n_classes) [true, observed]
) -> Tensor:  # (n, n_classes, n_classes) [..., true, observed]
    """Return the matrix between the network's softmax and each vote."""
    share = share[:, None, None]
    return share * common + (1 - share) * own


def conal_loss(
    probs: Tensor,  # (n_votes, n_classes), the network's softmax
    annotator: Tensor,  # (n_votes,)
    label: Tensor,  # (n_votes,)
    share: Tensor,  # (n_votes,)
    own: Tensor,  # (n_annotators, n_classes, n_classes) [annotator, true, observed]
    common: Tensor,  # (n_classes, n_classes) [true, observed]
    *,
    apart: float,
) -> Tensor:  # ()
    """Return the mean cross-entropy of the votes, less `apart` (lambda) times the distances."""
    weight = mixed(share, own[annotator], common)
    votes = cross_entropy(torch.einsum("vk,vky->vy", probs, weight), label)
    # of equal matrices, as at the start, the gradient is 0; who has no vote has no say
    distance = torch.linalg.vector_norm(own - common, dim=(-2, -1))
    voted = torch.zeros_like(distance).index_fill(0, annotator, 1.0)
    total: Tensor = (distance * voted).sum()
    return votes - apart * total


def implied_accuracy(
    share: Tensor,  # (n_annotators,), the mean over an annotator's votes
    own: Tensor,  # (n_annotators, n_classes, n_classes) [annotator, true, observed]
    common: Tensor,  # (n_classes, n_classes) [true, observed]
) -> Tensor:  # (n_annotators,)
    """Return the mean over the classes k of P(k | r) where the network is sure of k."""
    return crowd_layer.implied_accuracy(mixed(share, own, common))
