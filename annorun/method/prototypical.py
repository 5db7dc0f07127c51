"""Prototypical networks on labels out of votes: PrMV and PrDS, with and without pseudo-annotation.

Snell, Swersky, Zemel: Prototypical Networks for Few-shot Learning, NeurIPS 2017. A class is the
mean of its support in the embedding, c_k; p(t = k | x) prop. to exp(-|f(x) - c_k|^2 / 2). Baselines
of Kumagai et al., arXiv 2506.10259, 5: the support of a target task is labelled by majority vote or
by Dawid-Skene (`annorun.objective.votes_em`), that of a training task is clean
(`episodes.pseudo=false`).

Deviations, or readings of what our sources do not state:

1. The distance is halved, as in Eq. 8 of Kumagai et al., so that both methods are one where labels
   are clean; Snell et al. do not halve it. The embedding learns its own scale.
2. Labels are hard, as Snell et al. have them; an example whose labels tie counts for each of the m
   tied classes by 1 / m.
3. A class that no label names has no prototype and is not answered: its probability is `LEAST` to
   the others' 1, before all are divided by their sum. At the mean of the support, where the method
   of Kumagai et al. starts such a class, its prototype takes queries from all others.
4. `episodes.pseudo=true` is the control that the paper lacks: PrMV+PA and PrDS+PA. Training and its
   validation have majority labels whatever `labels` says: both answer with one network.
"""

from math import log
from typing import Any, Literal

import torch
from torch import Tensor

from annorun import net
from annorun.kinds import Positive
from annorun.method.episodic import Answers, Episodic, Tasks, embedded
from annorun.objective import prototypes_start, votes_em
from annorun.objective.prototypes import Priors
from annorun.objective.votes_em import Believed
from annorun.votes import TaskSpec

# of a class that cannot be the answer; with 0 one such query would make the likelihood infinite
LEAST = 0.01


class Labelled(Episodic):
    """A method that learns from one label an example, whoever gave it.

    Training and validation are by majority vote, so that the network is that of both `labels`.

    Args:
        spec, network, optimizer, seed: see `Episodic`.
        labels: of a target task, by majority vote or Dawid-Skene.
        classes, right, wrong: pseudo-counts of Dawid-Skene, see
            `annorun.objective.prototypes.Priors`; nothing to a majority vote.
    """

    ONLY_ANSWERS: tuple[str, ...] = ("labels", "classes", "right", "wrong")

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
    ):
        super().__init__(spec, network, optimizer, seed)
        self.labels, self.priors = labels, Priors(classes, right, wrong)

    def believed(self, votes: Tensor) -> Believed:
        """Return what votes (T, N, R) of target tasks say."""
        if self.labels == "majority":
            return votes_em.majority(votes, self.spec.n_classes)
        return votes_em.dawid_skene(votes, self.spec.n_classes, self.priors)

    def labels_of(self, votes: Tensor) -> Tensor:
        """Return the hard labels of votes (T, N, R), (T, N, K), float32; see `votes_em.hard`."""
        return votes_em.hard(self.believed(votes).probs).float()

    def practise(self, tasks: Tasks) -> Tensor:
        """See `Episodic`; by majority labels: weights may not depend on `labels`."""
        labels = votes_em.hard(votes_em.majority(tasks.votes, self.spec.n_classes).probs)
        return self.from_labels(tasks, labels.float())

    def from_labels(self, tasks: Tasks, labels: Tensor) -> Tensor:
        """Return log probabilities of the queries, (T, Q, K), by support labels (T, N, K)."""
        raise TypeError(f"{type(self).__name__} has no answer")

    def answer(self, tasks: Tasks) -> Answers:
        """See `Episodic`."""
        found = self.believed(tasks.votes)
        log_probs = self.from_labels(tasks, votes_em.hard(found.probs).float())
        return Answers(log_probs, found.probs, found.accuracy)


class Prototypical(Labelled):
    """Class means in a learned embedding.

    Args:
        spec, network, optimizer, seed: see `Episodic`.
        labels, classes, right, wrong: see `Labelled`.
    """

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
    ):
        super().__init__(spec, network, optimizer, seed, labels, classes, right, wrong)
        self.net, self.size = net.embedding(network, self.spec, seed)

    def from_labels(self, tasks: Tasks, labels: Tensor) -> Tensor:
        """See `Labelled`."""
        return log_posterior(*embedded(self.net, tasks), labels)


def log_posterior(
    support: Tensor,  # (n_tasks, n_examples, size)
    query: Tensor,  # (n_tasks, n_queries, size)
    labels: Tensor,  # (n_tasks, n_examples, n_classes), shares of an example
) -> Tensor:  # (n_tasks, n_queries, n_classes)
    """Return log p(t = k | x) by the distance to the class means of the support."""
    labels = labels.to(support)
    missing = labels.sum(dim=1, keepdim=True) == 0
    with prototypes_start.full_precision(support):
        shares = labels / labels.sum(dim=1, keepdim=True).masked_fill(missing, 1)
        near = prototypes_start.squared_distances(query, shares.mT @ support)
        found = (-0.5 * near).masked_fill(missing, -torch.inf).log_softmax(dim=-1)
        return found.masked_fill(missing, log(LEAST)).log_softmax(dim=-1)
