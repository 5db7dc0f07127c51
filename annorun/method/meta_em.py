"""Meta-learning from multiple annotators: an embedding in which EM over annotators works.

Kumagai, Iwata, Nishiyama, Ida, Fujiwara, arXiv 2506.10259. A task's support is embedded; J steps of
EM estimate a prototype of each class, the class prior and each annotator's confusion matrix
(`annorun.objective.prototypes`, Eqs. 5-7); queries are answered by the prototypes (Eq. 8). The loss
of the clean queries goes back through all J steps into the embedding.

Deviations from the paper, or readings of what our sources do not state:

1. `covariance`: identity is the paper's; `scalar` learns one variance e^s with the embedding. At
   unit variance and M dimensions squared distances are large, responsibilities saturate, and
   annotators have no say.
2. `scale`: the embedding is divided by sqrt(M), so that distances start near one.
3. A training task has R annotators drawn from `episodes.annotators`: one network for every R.
4. Batch normalisation is over one task's support and queries while training (as with one task a
   step), and by the running means for target tasks.
5. `model`: besides the EM, its variational form, confusion matrices that depend on the input, and
   one accuracy an annotator in the place of a matrix.
"""

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from annorun import net
from annorun.errors import ConfigError
from annorun.kinds import Count, Natural, NonNegative, Positive
from annorun.method.episodic import Answers, Episodic, Tasks, embedded
from annorun.objective import acquisition, prototypes, prototypes_gated, prototypes_variational
from annorun.objective.prototypes import Priors
from annorun.objective.prototypes_one_coin import one_coin_em
from annorun.objective.prototypes_start import full_precision
from annorun.votes import TaskSpec

# the gate of an input starts nearly open, where the matrices do not depend on the input
OPEN = 3.0


class MetaEM(Episodic):
    """EM in the embedding space, differentiable end to end.

    Args:
        spec, network, optimizer, seed: see `Episodic`.
        model: em, one_coin (an accuracy in the place of a matrix), variational, or gated
            (input-dependent confusion).
        steps: J.
        covariance: of a class around its prototype.
        scale: divide the embedding by sqrt(M).
        classes, right, wrong, precision: see `annorun.objective.prototypes.Priors`; of one_coin,
            `wrong` is of all wrong labels together.
        acquire: how the votes of a target task are asked for (`annorun.objective.acquisition`);
            None: all are there.
        first: votes that each example has before.
        budget: votes that are asked for.
    """

    ONLY_ANSWERS = ("acquire", "first", "budget")

    def __init__(
        self,
        spec: TaskSpec | dict[str, Any],
        network: dict[str, Any],
        optimizer: dict[str, Any],
        seed: int,
        model: Literal["em", "one_coin", "variational", "gated"],
        steps: Count,
        covariance: Literal["identity", "scalar"],
        scale: bool,
        classes: Positive,
        right: Positive,
        wrong: Positive,
        precision: NonNegative,
        acquire: Literal["random", "entropy"] | None = None,
        first: Count = 1,
        budget: Natural = 0,
    ):
        super().__init__(spec, network, optimizer, seed)
        refuse(model, precision, acquire, budget)
        self.acquire, self.first, self.budget = acquire, first, budget
        self.model, self.steps, self.scale = model, steps, scale
        self.priors = Priors(classes, right, wrong, precision)
        self.net, size = net.embedding(network, self.spec, seed)
        self.log_variance = nn.Parameter(torch.zeros(()), requires_grad=covariance == "scalar")
        if model == "gated":
            self.gate = nn.Linear(size, 1)
            nn.init.zeros_(self.gate.weight)
            nn.init.constant_(self.gate.bias, OPEN)

    def practise(self, tasks: Tasks) -> Tensor:
        """See `Episodic`: with all votes."""
        support, query = self.embedded(tasks)
        return self.adapt(support, query, tasks.votes)[0].log_probs

    def answer(self, tasks: Tasks) -> Answers:
        """See `Episodic`: with the votes that it chooses to ask for, if it does."""
        support, query = self.embedded(tasks)
        votes = self.asked(support, query, tasks)
        return replace(self.adapt(support, query, votes)[0], votes=votes)

    def asked(self, support: Tensor, query: Tensor, tasks: Tasks) -> Tensor:
        """Return the votes of target tasks, -1 where one was not asked for, (T, N, R)."""
        if not self.acquire:
            return tasks.votes

        def answered(s: Tensor, q: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            found, log_confusion = self.adapt(s, q, v)
            assert found.labels is not None
            return found.log_probs, found.labels, log_confusion

        how = (self.acquire, self.first, self.budget)
        return acquisition.acquire(answered, support, query, tasks.votes, *how, tasks.seed)

    def places(self, tasks: Tasks) -> tuple[Tensor, Tensor, Tensor]:
        """See `Episodic`."""
        support, query = self.embedded(tasks)
        found = self.fitted(support, self.asked(support, query, tasks))
        return support[0], query[0], found.prototypes[0]

    def embedded(self, tasks: Tasks) -> tuple[Tensor, Tensor]:
        """Return support (T, N, M) and queries (T, Q, M) in the embedding, scaled if asked."""
        support, query = embedded(self.net, tasks)
        root = support.shape[-1] ** 0.5 if self.scale else 1.0
        return support / root, query / root

    def adapt(self, support: Tensor, query: Tensor, votes: Tensor) -> tuple[Answers, Tensor]:
        """Return the answers to queries (T, Q, M), and the log confusion matrices (T, R, K, K).

        Args:
            support: (T, N, M).
            query: (T, Q, M).
            votes: (T, N, R).
        """
        found, s = self.fitted(support, votes), self.log_variance
        if isinstance(found, prototypes_variational.Variational):
            log_probs = prototypes_variational.log_predictive(query, found, s)
            found = prototypes_variational.means(found)
        else:
            log_probs = prototypes.log_posterior(query, found, s)
        answers = Answers(log_probs, found.responsibilities, prototypes.accuracy(found))
        return answers, found.log_confusion

    def fitted(
        self,
        support: Tensor,  # (T, N, M)
        votes: Tensor,  # (T, N, R)
    ) -> prototypes.Fitted | prototypes_variational.Variational:
        """Return what J steps make of each task."""
        k = self.spec.n_classes
        how: dict[str, Any] = {
            "steps": self.steps,
            "priors": self.priors,
            "log_variance": self.log_variance,
        }
        if self.model == "variational":
            return prototypes_variational.variational_em(support, votes, k, **how)
        if self.model == "gated":
            with full_precision(support):
                gate = self.gate(support).squeeze(-1)
            return prototypes_gated.gated_em(support, votes, k, gate, **how)
        if self.model == "one_coin":
            return one_coin_em(support, votes, k, **how)
        return prototypes.em(support, votes, k, **how)


def refuse(model: str, precision: float, acquire: str | None, budget: int) -> None:
    """Raise ConfigError for keys that do not go together."""
    faults = []
    if model == "variational" and not precision:
        faults.append(
            "method.module.precision=0: prototypes without a prior have no variational posterior; "
            "allowed is a number above 0, such as 1"
        )
    if model == "gated" and acquire:
        faults.append(
            f"method.module.acquire={acquire}: a vote is predicted whatever the input; "
            "allowed with method.module.model=em, one_coin or variational"
        )
    if budget and not acquire:
        faults.append(
            f"method.module.budget={budget}: nothing is asked for; allowed is 0, or "
            "method.module.acquire=random or entropy"
        )
    if faults:
        raise ConfigError(*faults)
