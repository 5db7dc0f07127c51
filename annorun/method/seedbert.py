"""SeedBERT: networks that differ in their head's first weights alone, as so many annotators.

Sampath, Lin, Morency, arXiv 2211.13196, 3 (notes 3.1): n networks softmax(W_s h_s(x) + c_s) start
from one pretrained encoder, each a copy of its own, and learn one label an item by cross-entropy.
The label is the majority vote of their answers, the annotators' distribution the shares of the
votes.

The members learn side by side: one loader, one tokenisation, one backward pass over the sum of
their losses, whose gradients do not meet. Member 0 is the network that `bert` is, the heads of the
others are drawn from the children `head/1`, `head/2`, .. of `seed`. All see the same batches and
the same dropout: nothing but the head moves them apart.

With a frozen encoder (`model_size.start=frozen`) the copies would stay equal: there is one, and n
heads. `encoder: shared` is a control: one encoder that learns, under n heads. `bootstrap` is
another (bagging): each member learns from a draw of the training items, with replacement.

Readings, where the paper is silent:

1. n = 5. A tie of votes goes to the label of the highest mean probability; the distribution has
   the shares of the votes as they are. What no member votes for has probability 0 then, and NLL and
   KL have their floor, 1e-12: for those, look at the mean probabilities.
2. `answer: mean_prob` is a deep ensemble's (Lakshminarayanan et al. 2017). The answer that is not
   asked for is judged beside it, as `test_vote/..` or `test_mean_prob/..`.
3. Each member's gradient is clipped by itself, as it would be alone.
4. The loss that is shown is the sum over the members.
"""

import copy
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.nn.utils import clip_grad_norm_, get_total_norm

from annorun import net
from annorun.kinds import Count
from annorun.method.base import Batch, Method
from annorun.method.output_layer import head_of, with_head
from annorun.seeds import child
from annorun.votes import Floats, Ints, TaskSpec

# of the mean probabilities beside the votes: parts ties alone, of up to 1000 members
TIE = 1e-3


class Members(nn.ModuleList):
    """Networks side by side, under one dropout."""

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the logits of all, (B, n, K)."""
        device = next(self.parameters()).device
        rng = torch.cuda if device.type == "cuda" else torch
        state, found = rng.get_rng_state(), []
        for network in self:
            rng.set_rng_state(state)
            found.append(network(**inputs))
        return torch.stack(found, dim=1)


class SeedBert(Method):
    """An ensemble over the first weights of the head.

    Args:
        spec, network, optimizer, seed: see `Method`.
        members: n.
        encoder: own or shared; a frozen one is always shared.
        bootstrap: whether each member learns from a draw of its own.
        answer: the shares of the members' votes, or the mean of their probabilities.
    """

    def __init__(
        self,
        spec: TaskSpec | dict[str, Any],
        network: dict[str, Any],
        optimizer: dict[str, Any],
        seed: int,
        members: Count,
        encoder: Literal["own", "shared"],
        bootstrap: bool,
        answer: Literal["vote", "mean_prob"],
    ):
        self.frozen = bool(network.get("frozen"))
        self.shared = encoder == "shared" or self.frozen
        super().__init__(spec, network, optimizer, seed)
        self.members, self.bootstrap, self.answer = members, bootstrap, answer
        # (n, n_items) how often each member draws each item
        self.times: Tensor | None = None
        first, k = self.net, self.spec.n_classes
        heads = [head_of(first)]
        for s in range(1, members):
            with net.seeded(seed, f"head/{s}"):
                heads.append(nn.Linear(heads[0].in_features, k))
        if self.shared:
            # a layer draws before it is filled
            with net.seeded(seed, "heads"):
                with_head(first, lambda _: side_by_side(heads))
        else:
            copies = [copy.deepcopy(first) for _ in heads[1:]]
            self.net = Members([first, *copies])
            for own, head in zip(copies, heads[1:], strict=True):
                head_of(own).load_state_dict(head.state_dict())

    def networks(self) -> list[nn.Module]:
        """Return the members, or the one that they share."""
        return [self.net] if self.shared else list(cast(Members, self.net))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the logits of all members, (B, n, K)."""
        logits = super().forward(inputs)
        return logits.view(len(logits), self.members, self.spec.n_classes)

    def on_fit_start(self) -> None:
        """Draw each member's items."""
        if self.bootstrap:
            data = cast(Any, self.trainer).datamodule
            draw = np.random.default_rng(child(self.hparams["seed"], "bootstrap"))
            n = len(data.train)
            times = np.zeros((self.members, len(data.truth)), dtype=np.float32)
            times[:, data.train] = draw.multinomial(n, np.full(n, 1 / n), size=self.members)
            self.times = torch.from_numpy(times).to(self.device)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the sum over the members of their mean cross-entropy."""
        label = batch["target"]
        if not (self.training and self.times is not None):
            # one by one: to the bit as each would be alone
            return torch.stack([cross_entropy(own, label) for own in logits.unbind(dim=1)]).sum()
        label = label[:, :, None].expand(-1, -1, self.members)
        # the classes are cross_entropy's second dimension
        losses = cross_entropy(logits.transpose(1, 2), label, reduction="none")  # (B, n)
        return (losses * self.times[:, batch["item"]].T).mean(dim=0).sum()

    def weight(self, batch: Batch) -> int:
        """Return the number of items."""
        return len(batch["item"])

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip each member's gradient by itself; that of a shared encoder that learns is one."""
        clip = self.optimizer["clip"]
        if not self.shared:
            for member in self.networks():
                clip_grad_norm_(member.parameters(), clip)
        elif self.frozen:
            grads = [
                cast(Tensor, p.grad).view(self.members, -1) for p in head_of(self.net).parameters()
            ]
            for own in zip(*(g.unbind() for g in grads), strict=True):
                factor = (clip / (get_total_norm(own) + 1e-6)).clamp(max=1.0)
                for grad in own:
                    grad.mul_(factor)
        else:
            super().on_before_optimizer_step(optimizer)

    def answers(self, logits: Tensor) -> Tensor:
        """Return the distribution that `answer` names, ties parted, (B, K)."""
        return self.parted(logits.detach().softmax(dim=-1).double())

    def parted(self, probs: Tensor) -> Tensor:
        """Return the distribution of probabilities (B, n, K) that `answer` names, ties parted."""
        return (1 - TIE) * distribution(probs, self.answer) + TIE * probs.mean(dim=1)

    def decided(self) -> Ints:
        """Return the label with the most votes or the highest mean probability, (n_test,)."""
        return self.parted(torch.from_numpy(self.heads())).argmax(dim=1).numpy()

    def each(self, inputs: dict[str, Tensor]) -> Tensor:
        """See `Method`."""
        logits: Tensor = self(inputs)
        return logits

    def heads(self) -> Floats:
        """Return the probabilities of every member, (n_test, n, K)."""
        return self.collected(self.members, self.spec.n_classes)

    def probabilities(self) -> Floats:
        """Return the distribution that `answer` names, (n_test, K)."""
        return distribution(torch.from_numpy(self.heads()), self.answer).numpy()

    def others(self) -> dict[str, Floats]:
        """Return the distribution that `answer` does not name."""
        other: Literal["vote", "mean_prob"] = "vote" if self.answer != "vote" else "mean_prob"
        return {other: distribution(torch.from_numpy(self.heads()), other).numpy()}


def distribution(
    probs: Tensor,  # (B, n, K)
    answer: Literal["vote", "mean_prob"],
) -> Tensor:  # (B, K)
    """Return the mean of the members' probabilities, or the shares of their votes."""
    if answer == "mean_prob":
        return probs.mean(dim=1)
    return one_hot(probs.argmax(dim=-1), probs.shape[-1]).to(probs).mean(dim=1)


def side_by_side(heads: list[nn.Linear]) -> nn.Linear:
    """Return one layer with the outputs of all."""
    wide = nn.Linear(heads[0].in_features, sum(h.out_features for h in heads))
    with torch.no_grad():
        wide.weight.copy_(torch.cat([h.weight for h in heads]))
        wide.bias.copy_(torch.cat([h.bias for h in heads]))
    return wide
