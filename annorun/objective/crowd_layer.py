"""Crowd layer: a matrix for each annotator between the network's softmax and his votes.

Rodrigues, Pereira: Deep learning from crowds, AAAI 2018, section "Crowd layer", the variant with a
full matrix (MW); their code, crowd_layer/crowd_layers.py (CrowdsClassification, conn_type "MW", and
MaskedMultiCrossEntropy).

Model: p = pi(. | x), the network's softmax over the K classes, is the bottleneck.
    a_m = W_m p,   P(y | x, m) = softmax(a_m)_y
    L = -mean over the votes (x, m, y) of log P(y | x, m)
W_m starts at the identity. It is kept transposed, `[annotator, true, observed]`, as a confusion
matrix is: a_my = sum_k p_k W[m, k, y].

The layer reads probabilities, so its answers are bounded: with W_m = I the surest network gives its
class e / (e + K - 1), .23 for ten classes. What makes a vote sure is W_m, not p. P(y | x, m) stays
the same when a number is added to W[m, k, :], and when the classes of p are renamed together with
the rows of every W_m: only the start says which class of the network is which.

With s = softmax(a_m) - onehot(y), for one vote: dL/dW[m, k, y'] = p_k s_y'; dL/dp = W_m^T s.

Deviations from their code:
    1. The mean is over the votes. Theirs is over all items times annotators, a missing vote counted
       as 0: the same gradient but for the factor (votes / (items x annotators)) of the batch.
    2. Only the matrices of the batch's votes are multiplied; theirs makes all annotators' answers.

Example:
    >>> import torch
    >>> probs, weight = torch.tensor([[1.0, 0.0]]), identity(1, 2)
    >>> vote = torch.tensor([0]), torch.tensor([0])
    >>> round(crowd_layer_loss(probs, *vote, weight).item(), 4)
    0.3133
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def identity(n_annotators: int, n_classes: int) -> Tensor:  # (n_annotators, n_classes, n_classes)
    """Return one identity matrix for each annotator."""
    return torch.eye(n_classes).repeat(n_annotators, 1, 1)


def crowd_layer_loss(
    probs: Tensor,  # (n_votes, n_classes), the network's softmax
    annotator: Tensor,  # (n_votes,)
    label: Tensor,  # (n_votes,)
    weight: Tensor,  # (n_annotators, n_classes, n_classes) [annotator, true, observed]
) -> Tensor:  # ()
    """Return the mean cross-entropy of the votes."""
    return cross_entropy(torch.einsum("vk,vky->vy", probs, weight[annotator]), label)


def implied_accuracy(
    weight: Tensor,  # (n_annotators, n_classes, n_classes) [annotator, true, observed]
) -> Tensor:  # (n_annotators,)
    """Return the mean over the classes k of P(k | m) where the network is sure of k."""
    return weight.softmax(dim=-1).diagonal(dim1=-2, dim2=-1).mean(dim=-1)
