r"""A linear layer whose weights have a Gaussian posterior, each by itself: Bayes by backprop.

Blundell et al., Weight Uncertainty in Neural Networks, ICML 2015, 3.2:

    w = mu + softplus(rho) eps, eps ~ N(0, 1);      loss = sum_i CE_i + KL(q || p)

    KL(N(mu, s^2) || N(0, s_p^2)) = ln(s_p / s) + (s^2 + mu^2) / (2 s_p^2) - 1/2, a weight.

Here the prior is one Gaussian, so that the KL has this closed form; theirs is a mixture of two
and the KL is sampled.

Example:
    >>> import torch
    >>> gaussian_kl(torch.zeros(3), torch.ones(3), 1.0).item()
    0.0
"""

import math

from torch import Tensor


def gaussian_kl(
    mean: Tensor,
    std: Tensor,  # as mean, above 0
    prior_std: float,
) -> Tensor:  # ()
    """Return the KL from a centred Gaussian to the posterior, summed over the weights, in nats."""
    scaled = (std.square() + mean.square()) / (2 * prior_std**2)
    return (math.log(prior_std) - std.log() + scaled - 0.5).sum()


def drawn(
    mean: Tensor,
    std: Tensor,  # as mean
    noise: Tensor,  # (..., *mean.shape), standard normal
) -> Tensor:  # as noise
    """Return weights of the posterior."""
    return mean + std * noise
