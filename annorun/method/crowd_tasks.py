"""Crowd layers on each target task's support alone: CL, CNAL, MCL and MCNAL of the meta-EM table.

Kumagai et al., arXiv 2506.10259, notes 2.7. A classifier (embedding and linear layer) and a crowd
layer learn from the votes on a task's support, by Adam on all of it at once; queries are answered
by the classifier, the crowd layer dropped. The layer is that of Rodrigues and Pereira
(`annorun.objective.crowd_layer`) or of Chu, Ma and Wang (`annorun.objective.conal`).

All tasks of a batch are trained at once (`annorun.method.stacked`). Adam works on each number
alone, so one Adam for all is one for each task. A step of 10 tasks of 12 images of 28 x 28 takes
some 0.15 s on one thread, 0.16 one task after another and 0.34 by torch.vmap.

Readings and deviations, where neither paper says how a task of a dozen examples is learned:

1. `start`: scratch starts Conv-4 as it is drawn, the same for every task; the linear layer starts
   at zero, so that nothing depends on the order of the classes. prototypical starts with the
   meta-trained network, and a linear layer whose logits are the prototypical network's, w_k = c_k
   and b_k = -|c_k|^2 / 2, c_k the means by majority labels (Snell et al. 2017, 2.4, but for the
   halved distance of `annorun.method.prototypical`).
2. Batch normalisation: a scratch network's is by its task's own support, in training and for the
   queries, which are never normalised by each other. The meta-trained network's stays as learned.
3. The meta-trained embedding is kept unless `net_lr` says otherwise: linear layer and crowd layer
   learn. Tried on 10 tasks of Omniglot (3 shots, 5 annotators, a fifth of them spammers, a network
   of 220 training steps), 20 steps: .860 kept, .863 tuned at 1e-4 in seven times as long, .44 with
   all at 1e-3. The network's answer by majority vote, where it starts, is .905.
4. CoNAL's embedding of an input is one linear map of the classifier's embedding, through which
   nothing is learned there; theirs is two such maps, with nothing between, of the raw features that
   its classifier reads too. Annotators start with one drawn vector for all: they are told apart by
   their votes, and their order changes nothing. No dropout.
5. An annotator's accuracy is what his matrix makes of a classifier that is sure; in CoNAL, the
   mixture of both matrices at the mean share of his votes. After few steps it tells an order, and
   no size.
6. What a class is called is known through the start alone: the matrices' is near the identity.
7. Adam's eps is `EPS`. From scratch, in float32, 20 steps still carry rounding into the answers: a
   task alone and in a batch differ by up to half a nat, in no class of those we looked at.
"""

from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from annorun.kinds import Count, NonNegative, Positive
from annorun.method.episodic import Answers, Tasks
from annorun.method.prototypical import Prototypical
from annorun.method.stacked import Weights, by_task, for_each, linear, stacked
from annorun.objective import conal, crowd_layer, prototypes
from annorun.objective.prototypes import Priors
from annorun.seeds import child
from annorun.votes import TaskSpec

# of CoNAL's embeddings of inputs and annotators (their conal.py: com_emb_size)
SIZE = 20
# pseudo-counts of Dawid-Skene: the start is labelled by majority
UNUSED = Priors()[:3]
# Adam's own 1e-8 would make whole steps of gradients that are nothing but rounding, such as those
# of a bias before batch normalisation
EPS = 1e-5


class Cast(NamedTuple):
    """One task's votes, (n_votes,) each."""

    item: Tensor
    annotator: Tensor
    label: Tensor


class Learned(NamedTuple):
    """What is learned of each task: embedding, linear layer and crowd layer."""

    net: Weights
    head: Weights
    layer: Weights


class Layer(Protocol):
    """What lies between a classifier's softmax and the votes of one task."""

    def initial(self, n_annotators: int, n_classes: int, size: int) -> Weights:
        """Return where every task starts; an embedding has `size` numbers."""

    def loss(self, own: Weights, probs: Tensor, embedded: Tensor, cast: Cast) -> Tensor:
        """Return the loss, (), of probabilities (N, K) and embeddings (N, M)."""

    def accuracy(self, own: Weights, embedded: Tensor, cast: Cast) -> Tensor:
        """Return how often each annotator is right, (R,)."""


class Own:
    """The crowd layer: a matrix for each annotator."""

    def initial(self, n_annotators: int, n_classes: int, size: int) -> Weights:
        """See `Layer`."""
        return {"own": crowd_layer.identity(n_annotators, n_classes)}

    def loss(self, own: Weights, probs: Tensor, embedded: Tensor, cast: Cast) -> Tensor:
        """See `Layer`."""
        return crowd_layer.crowd_layer_loss(
            probs[cast.item], cast.annotator, cast.label, own["own"]
        )

    def accuracy(self, own: Weights, embedded: Tensor, cast: Cast) -> Tensor:
        """See `Layer`."""
        return crowd_layer.implied_accuracy(own["own"])


class OwnAndCommon:
    """CoNAL: also a matrix for all, and how much of each vote it is.

    Args:
        apart: lambda of `annorun.objective.conal`.
        seed: draws the embeddings.
    """

    def __init__(self, apart: float, seed: int):
        self.apart, self.seed = apart, seed

    def initial(self, n_annotators: int, n_classes: int, size: int) -> Weights:
        """See `Layer`."""
        own, common = conal.start(n_annotators, n_classes)
        draw = torch.Generator().manual_seed(child(self.seed, "conal"))
        inputs = torch.randn(size, SIZE, generator=draw) / size**0.5
        annotator = torch.randn(SIZE, generator=draw).expand(n_annotators, SIZE)
        return {"own": own, "common": common, "inputs": inputs, "annotators": annotator}

    def share(self, own: Weights, embedded: Tensor, cast: Cast) -> Tensor:
        """Return how much of each vote is common, (n_votes,)."""
        inputs, annotators = embedded @ own["inputs"], own["annotators"]
        return conal.common_share(inputs[cast.item], annotators[cast.annotator])

    def loss(self, own: Weights, probs: Tensor, embedded: Tensor, cast: Cast) -> Tensor:
        """See `Layer`."""
        return conal.conal_loss(
            probs[cast.item],
            cast.annotator,
            cast.label,
            self.share(own, embedded, cast),
            own["own"],
            own["common"],
            apart=self.apart,
        )

    def accuracy(self, own: Weights, embedded: Tensor, cast: Cast) -> Tensor:
        """See `Layer`."""
        given = torch.bincount(cast.annotator, minlength=len(own["own"]))
        total = embedded.new_zeros(len(given))
        total = total.index_add(0, cast.annotator, self.share(own, embedded, cast))
        return conal.implied_accuracy(total / given.clamp_min(1), own["own"], own["common"])


class CrowdTasks(Prototypical):
    """A classifier with a crowd layer, trained on each task's support.

    Args:
        spec, network, optimizer, seed: see `Episodic`.
        layer: crowd_layer, or conal.
        start: scratch, or prototypical: the meta-trained network.
        steps: of Adam, each on the whole support.
        lr: of Adam, for the linear layer and the crowd layer.
        net_lr: of Adam, for the embedding, 0 to keep it; None: `lr` from scratch, else 0.
        apart: lambda of `annorun.objective.conal`; nothing to a crowd layer.
    """

    def __init__(
        self,
        spec: TaskSpec | dict[str, Any],
        network: dict[str, Any],
        optimizer: dict[str, Any],
        seed: int,
        layer: Literal["crowd_layer", "conal"],
        start: Literal["scratch", "prototypical"],
        steps: Count,
        lr: Positive,
        net_lr: NonNegative | None,
        apart: NonNegative,
    ):
        super().__init__(spec, network, optimizer, seed, "majority", *UNUSED)
        self.start, self.steps, self.lr = start, steps, lr
        usual = lr if start == "scratch" else 0.0
        self.net_lr = usual if net_lr is None else net_lr
        self.layer: Layer = Own() if layer == "crowd_layer" else OwnAndCommon(apart, seed)

    @classmethod
    def learner(cls, node: dict[str, Any]) -> dict[str, Any] | None:
        """See `Episodic`: that of the prototypical network, or None from scratch."""
        if node["start"] == "scratch":
            return None
        return Prototypical.learner({"_target_": "annorun.method.prototypical.Prototypical"})

    def answer(self, tasks: Tasks) -> Answers:
        """See `Episodic`."""
        n_support = tasks.support.shape[1]
        cast = [by_vote(votes) for votes in tasks.votes]
        # who asks for answers has mostly switched gradients off
        with torch.enable_grad():
            learned = self._initial(tasks)
            self._fit(tasks.support, cast, learned)
        with torch.no_grad():
            both = torch.cat([tasks.support, tasks.query], dim=1)
            embedded = self._embedded(learned.net, both, n_support)
            log_probs = linear(embedded, learned.head).log_softmax(dim=-1)
            accuracy = [
                self.layer.accuracy(own, embedded[t, :n_support], cast[t])
                for t, own in enumerate(by_task(learned.layer))
            ]
        return Answers(
            log_probs[:, n_support:], log_probs[:, :n_support].exp(), torch.stack(accuracy)
        )

    def _initial(self, tasks: Tasks) -> Learned:
        """Return the start, a row for each task."""
        n_tasks, _, n_annotators = tasks.votes.shape
        k = self.spec.n_classes
        net = {name: for_each(n_tasks, p.detach()) for name, p in self.net.named_parameters()}
        weight = tasks.support.new_zeros(n_tasks, k, self.size)
        if self.start == "prototypical":
            with torch.no_grad():
                weight = self._centres(net, tasks)
        head = {"weight": weight, "bias": -0.5 * weight.square().sum(dim=-1)}
        layer = {
            name: for_each(n_tasks, p.to(weight))
            for name, p in self.layer.initial(n_annotators, k, self.size).items()
        }
        return Learned(net, head, layer)

    def _fit(self, support: Tensor, cast: list[Cast], learned: Learned) -> None:
        """Train every task's weights, in place."""
        n_support = support.shape[1]
        others = [*learned.head.values(), *learned.layer.values()]
        groups = [{"params": [w.requires_grad_() for w in others], "lr": self.lr}]
        if self.net_lr:
            net = [w.requires_grad_() for w in learned.net.values()]
            groups.append({"params": net, "lr": self.net_lr})
        adam = torch.optim.Adam(groups, eps=EPS)
        embedded = self._embedded(learned.net, support, n_support)
        for step in range(self.steps):
            if self.net_lr and step:
                embedded = self._embedded(learned.net, support, n_support)
            probs = linear(embedded, learned.head).softmax(dim=-1)
            losses = [
                self.layer.loss(own, probs[t], embedded[t].detach(), cast[t])
                for t, own in enumerate(by_task(learned.layer))
            ]
            adam.zero_grad()
            torch.autograd.backward(torch.stack(losses).sum())
            adam.step()

    def _centres(self, net: Weights, tasks: Tasks) -> Tensor:
        """Return the means of the classes, (T, K, M), by majority labels."""
        embedded = self._embedded(net, tasks.support, tasks.support.shape[1])
        labels = self.labels_of(tasks.votes).to(embedded)
        # as in `annorun.method.prototypical.log_posterior`
        weights = labels.clamp_min(torch.finfo(labels.dtype).tiny).log()
        return prototypes.prototype_means(embedded, weights, 0.0, embedded.new_zeros(()))

    def _embedded(self, net: Weights, x: Tensor, n_support: int) -> Tensor:
        fixed = self.start == "prototypical"
        return stacked(self.net, net, x, n_support, fixed)


def by_vote(votes: Tensor) -> Cast:
    """Return the votes of one task, (N, R), that there are."""
    item, annotator = (votes >= 0).nonzero(as_tuple=True)
    return Cast(item, annotator, votes[item, annotator])
