"""BNN: an encoder under an output layer whose weights are a distribution (Bayes by backprop).

The comparison model of SeedBERT (arXiv 2211.13196, notes 3.3) after Raj Prabhu et al. 2022, on the
one aggregated label. The formulas are `annorun.objective.bayes_linear`.

Readings and deviations:

1. A training step draws the weights once; the loss is the mean cross-entropy of the batch and
   KL / n_train: the evidence bound over n_train. (With the *sum* of a batch the weight would be
   KL / number of batches, as the notes have it.)
2. rho starts at -5 (deviations of .0067), mu as any linear layer; the prior is N(0, 1); an answer
   is the mean over 10 draws: none of it is stated.
3. The draws of the answers are the same for all items: those of a child of `seed`.
4. Weight decay would pull rho, too, on top of the KL: the sweep files have none.
5. Theirs also fits the raters' mean and deviation; one label has neither.
"""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, softplus

from annorun import net
from annorun.kinds import Count, Positive
from annorun.method.base import Batch, Method
from annorun.method.output_layer import head_of, with_head
from annorun.objective.bayes_linear import drawn, gaussian_kl
from annorun.seeds import child
from annorun.votes import TaskSpec


class BayesLinear(nn.Linear):
    """Weights drawn anew at each training step; log mean probabilities of `samples` otherwise.

    Args:
        start: the layer whose weights are the first means.
        rho: where the deviations start, softplus of it.
        samples: draws of an answer.
        seed: of these draws.
    """

    def __init__(self, start: nn.Linear, rho: float, samples: int, seed: int):
        super().__init__(start.in_features, start.out_features)
        self.load_state_dict(start.state_dict())
        self.rho = nn.Parameter(torch.full((start.out_features, start.in_features + 1), rho))
        self.samples, self.seed = samples, seed

    def posterior(self) -> tuple[Tensor, Tensor]:
        """Return means and deviations, (K, d + 1), the bias last."""
        return torch.cat([self.weight, self.bias[:, None]], dim=1), softplus(self.rho)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., d) to (..., K)."""
        mean, std = self.posterior()
        if self.training:
            own = drawn(mean, std, torch.randn_like(mean))
            return linear(x, own[:, :-1], own[:, -1])
        draw = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(self.samples, *mean.shape, generator=draw).to(mean)
        own = drawn(mean, std, noise)  # (S, K, d + 1)
        logits = torch.einsum("...d,skd->s...k", x, own[..., :-1])
        logits = logits + own[..., -1].view(self.samples, *[1] * (x.dim() - 1), -1)
        return logits.log_softmax(dim=-1).logsumexp(dim=0) - math.log(self.samples)


class BNN(Method):
    """A network whose output layer is a `BayesLinear`.

    Args:
        spec, network, optimizer, seed: see `Method`.
        prior_std: deviation of the prior.
        rho: where the posterior's deviations start, softplus of it.
        samples: draws of an answer.
    """

    def __init__(
        self,
        spec: TaskSpec | dict[str, Any],
        network: dict[str, Any],
        optimizer: dict[str, Any],
        seed: int,
        prior_std: Positive,
        rho: float,
        samples: Count,
    ):
        super().__init__(spec, network, optimizer, seed)
        self.prior_std, self.n_train = prior_std, 1
        with net.seeded(seed, "posterior"):
            draws = child(seed, "draws")
            with_head(self.net, lambda head: BayesLinear(head, rho, samples, draws))

    def on_fit_start(self) -> None:
        """Count the training items."""
        self.n_train = len(cast(Any, self.trainer).datamodule.train)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean cross-entropy and the KL's share of an item."""
        head = cast(BayesLinear, head_of(self.net))
        kl = gaussian_kl(*head.posterior(), self.prior_std)
        return cross_entropy(logits, batch["target"]) + kl / self.n_train

    def weight(self, batch: Batch) -> int:
        """Return the number of items."""
        return len(batch["item"])
