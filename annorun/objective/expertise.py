"""Expertise-weighted likelihood (REALM): a reliability for each annotator, learned with the model.

Ghiasvand, Beliaev, Alizadeh, Pedarsani: REALM, arXiv 2604.17289, section 3.2.

Model: pi(k | x), k = 1..K, is the model's restricted softmax over the answers (Eq. 2).
    rho_m = sigmoid(omega_m)
    p(y | x, m) = rho_m pi(y | x) + (1 - rho_m) / K                         (Eq. 1)
    L = -mean over the votes (x, m, y) of log p(y | x, m)                   (Eq. 3)

The responsibility w = rho_m pi(y | x) / p(y | x, m) is the probability that the vote came from the
model and not from a guess. With it, for one vote and the logits z:
    dL/dz = w (pi - onehot(y))
    dL/domega = -rho (1 - rho) (pi_y - 1/K) / p = rho - w
omega -> +inf is cross-entropy; omega -> -inf is log K, whatever the model says.

Items may differ in their number of answers: a class that an item does not have is -inf in
`log_probs` and is not counted in that row's K. Every log term is computed in float32 at least, also
under autocast.

Not implemented: Eq. 4, an expertise for each pair of annotator and task, sigmoid(Omega[m, t]), and
Eq. 5, an expertise that depends on the input. Here an annotator has one rho, whatever the task.

Example:
    >>> import torch
    >>> logits = torch.tensor([[2.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0]])
    >>> annotator, label, omega = torch.tensor([0, 1]), torch.tensor([0, 3]), torch.zeros(2)
    >>> votes = torch.log_softmax(logits, dim=-1), label, omega[annotator]
    >>> expertise_loss(*votes).item().__round__(4)
    1.2432
    >>> [round(w, 3) for w in responsibility(*votes).tolist()]
    [0.74, 0.278]
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def log_mixture(
    log_probs: Tensor,  # (n_votes, n_classes), -inf where an item does not have the class
    label: Tensor,  # (n_votes,)
    omega: Tensor,  # (n_votes,), the logit of the expertise of each vote's annotator
) -> Tensor:  # (n_votes,)
    """Return log(rho pi_y + (1 - rho) / K) of each vote."""
    log_pi, log_k, omega = _terms(log_probs, label, omega)
    # log(1 - sigmoid(omega)) = logsigmoid(-omega): exact where sigmoid(omega) rounds to 1
    return torch.logaddexp(logsigmoid(omega) + log_pi, logsigmoid(-omega) - log_k)


def expertise_loss(
    log_probs: Tensor,  # (n_votes, n_classes)
    label: Tensor,  # (n_votes,)
    omega: Tensor,  # (n_votes,)
) -> Tensor:  # ()
    """Return the mean negative log likelihood of the votes."""
    return -log_mixture(log_probs, label, omega).mean()


def responsibility(
    log_probs: Tensor,  # (n_votes, n_classes)
    label: Tensor,  # (n_votes,)
    omega: Tensor,  # (n_votes,)
) -> Tensor:  # (n_votes,)
    """Return the probability that each vote came from the model and not from a guess."""
    log_pi, log_k, omega = _terms(log_probs, label, omega)
    # the log odds: logsigmoid(omega) - logsigmoid(-omega) = omega
    return torch.sigmoid(omega + log_pi + log_k)


def _terms(log_probs: Tensor, label: Tensor, omega: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    log_pi = log_probs.gather(-1, label.unsqueeze(-1)).squeeze(-1)
    n_classes = (log_probs > -torch.inf).sum(-1)
    kind = torch.promote_types(torch.promote_types(log_probs.dtype, omega.dtype), torch.float32)
    return log_pi.to(kind), n_classes.to(kind).log(), omega.to(kind)
