"""Model-agnostic meta-learning on labels out of votes: MaMV and MaDS.

Finn, Abbeel, Levine: Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks, ICML 2017,
Algorithm 2. A network with a linear layer for the K classes is adapted to a task by some steps of
gradient descent on the cross-entropy of its support; its initial weights are those from which that
ends well on the queries. Baselines of Kumagai et al., arXiv 2506.10259, 5: the support of a target
task is labelled by majority vote or by Dawid-Skene, that of a training task is clean
(`episodes.pseudo=false`).

Deviations from the paper, or what it implies:

1. `first_order`: the gradient of the queries at the adapted weights stands for that at the initial
   ones (5.2: nearly as good in theirs). Without it a training step takes two to four times as long.
2. Batch normalisation is by the examples at hand, here a task's support, or its queries: those of a
   target task are answered together, and tell of each other. It is so in the authors' code too; no
   running statistics are kept.
3. An example whose labels tie has its loss shared among them. As in `annorun.method.prototypical`,
   training and its validation have majority labels whatever `labels` says; validation takes
   `inner_steps`.
4. Weights move in float32, whatever the trainer's precision: a support of a dozen images is too
   small for a half type to pay.
5. Tasks are adapted one after another: as one network of many groups they take longer on a
   processor.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, replace_all_batch_norm_modules_
from torch.nn.functional import cross_entropy

from annorun import net
from annorun.kinds import Count, Positive
from annorun.method.episodic import Answers, Tasks
from annorun.method.prototypical import Labelled
from annorun.objective import votes_em
from annorun.objective.prototypes_start import full_precision
from annorun.votes import TaskSpec

Weights = dict[str, Tensor]


class Maml(Labelled):
    """Initial weights from which a few steps of gradient descent learn a task.

    Args:
        spec, network, optimizer, seed: see `Episodic`.
        labels, classes, right, wrong: see `Labelled`.
        inner_steps: gradient steps on the support of a training task.
        inner_lr: of each.
        first_order: leave out the derivative of the steps.
        test_steps: gradient steps on the support of a target task.
    """

    ONLY_ANSWERS = (*Labelled.ONLY_ANSWERS, "test_steps")

    def __init__(
        self,
        spec: TaskSpec | dict[str, Any],
        network: dict[str, Any],
        optimizer: dict[str, Any],
        seed: int,
        labels: Literal["majority", "dawid_skene"],
        classes: Positive,
        right: Positive,
        wrong: Positive,
        inner_steps: Count,
        inner_lr: Positive,
        first_order: bool,
        test_steps: Count,
    ):
        super().__init__(spec, network, optimizer, seed, labels, classes, right, wrong)
        self.inner_steps, self.inner_lr = inner_steps, inner_lr
        self.first_order, self.test_steps = first_order, test_steps
        embedding, size = net.embedding(network, self.spec, seed)
        with net.seeded(seed, "head"):
            head = nn.Linear(size, self.spec.n_classes)
        self.net = nn.Sequential(embedding, head)
        # a step may not change the running statistics that the next one reads
        replace_all_batch_norm_modules_(self.net)

    def from_labels(self, tasks: Tasks, labels: Tensor) -> Tensor:
        """See `Labelled`."""
        return self.after(tasks, labels, self.inner_steps)

    def answer(self, tasks: Tasks) -> Answers:
        """See `Episodic`."""
        found = self.believed(tasks.votes)
        log_probs = self.after(tasks, votes_em.hard(found.probs).float(), self.test_steps)
        return Answers(log_probs, found.probs, found.accuracy)

    def after(self, tasks: Tasks, labels: Tensor, steps: int) -> Tensor:
        """Return log probabilities of the queries, (T, Q, K), after steps on labels (T, N, K)."""
        start: Weights = dict(self.net.named_parameters())
        logits = []
        with full_precision(tasks.support):
            for support, label, query in zip(tasks.support, labels, tasks.query, strict=True):
                weights = self.adapted(start, support, label, steps)
                logits.append(functional_call(self.net, weights, (query,)))
        return torch.stack(logits).log_softmax(dim=-1)

    def adapted(self, start: Weights, support: Tensor, labels: Tensor, steps: int) -> Weights:
        """Return weights after steps on one task's support (N, ...) and labels (N, K).

        First-order weights have the gradient 1 with respect to `start`.
        """
        if self.first_order:
            with torch.no_grad():
                end = self._descended(start, support, labels, steps)
            return {name: w + (end[name] - w).detach() for name, w in start.items()}
        return self._descended(start, support, labels, steps)

    def _descended(self, start: Weights, support: Tensor, labels: Tensor, steps: int) -> Weights:
        def loss(weights: Weights) -> Tensor:
            return cross_entropy(functional_call(self.net, weights, (support,)), labels)

        # torch.func.grad differentiates also where gradients are switched off around it
        gradient, weights = grad(loss), start
        for _ in range(steps):
            slope = gradient(weights)
            weights = {name: w - self.inner_lr * slope[name] for name, w in weights.items()}
        return weights
