"""Masked cross-entropy over several heads: one label a head, where there is one.

Ivey, Gauch, Jurgens: NUTMEG, EMNLP 2025, section 6; their `models/multi_task.py`. Heads are the
subpopulations, a single label, or the annotators (Davani et al., TACL 2022).

Model: head h = 1..H of item x gives pi_h(k | x), the softmax of its own K logits. y_ih is the label
of item i for head h, -1 where it is missing; I_h = {i: y_ih >= 0}.
    L = sum over the heads with I_h not empty of  mean over i in I_h of  -log pi_h(y_ih | x_i)

A head with one label in the batch weighs as much as one with a label for every item. An entry that
is missing has no part in the gradient, whatever its logits are. No deviations from their code.

Example:
    >>> import torch
    >>> logits = torch.zeros(2, 2, 2)
    >>> label = torch.tensor([[0, -1], [1, -1]])
    >>> round(multi_head_loss(logits, label).item(), 4)
    0.6931
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def multi_head_loss(
    logits: Tensor,  # (n_items, n_heads, n_classes)
    label: Tensor,  # (n_items, n_heads), -1 where missing
) -> Tensor:  # ()
    """Return the sum over the heads of each one's mean cross-entropy; 0 without any label."""
    item, head = torch.nonzero(label >= 0, as_tuple=True)
    cost = cross_entropy(logits[item, head], label[item, head], reduction="none")
    count = torch.bincount(head, minlength=label.shape[1])
    return (cost / count[head]).sum()


def vote_labels(
    row: Tensor,  # (n_votes,)
    annotator: Tensor,  # (n_votes,)
    label: Tensor,  # (n_votes,)
    shape: tuple[int, int],  # (n_items, n_annotators)
) -> Tensor:  # (n_items, n_annotators)
    """Return the votes as a table, -1 where there is none."""
    table = torch.full(shape, -1, dtype=torch.long, device=label.device)
    table[row, annotator] = label
    return table
