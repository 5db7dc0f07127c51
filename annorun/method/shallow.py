"""Shallow classifiers of each task alone: LRMV, LRDS, RFMV and RFDS.

Baselines of Kumagai et al., arXiv 2506.10259, 5: logistic regression or a random forest (Breiman:
Random Forests, Machine Learning 45, 2001) learns a task's support, labelled by majority vote or by
Dawid-Skene (`annorun.objective.votes_em`). Nothing is learned from other tasks.

Readings of what our sources do not state:

1. Inputs are what the networks take, flattened: pixels, or features. Both classifiers have
   scikit-learn's own settings: an L2 penalty with C = 1; `trees` that see each a bootstrap sample
   of the support, and at each split a root of the numbers of an input.
2. An example whose labels tie stands once for each of the m tied classes, with weight 1 / m.
3. Where all labels are of one class, that class is the answer.
4. A class's probability is at least that of a class without a prototype, before all are divided by
   their sum: `LEAST`, what one tree of a hundred says.
5. Logistic regression learns in coordinates of the space that the support spans, at most N of them:
   the penalty knows lengths alone, so its answers are the same, and it takes half the time.
"""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from annorun.kinds import Count, Positive
from annorun.method.episodic import Tasks
from annorun.method.prototypical import LEAST, Labelled
from annorun.seeds import child
from annorun.votes import Floats, Ints, TaskSpec


class Shallow(Labelled):
    """A classifier of scikit-learn for each task.

    Args:
        spec, network, optimizer, seed: see `Episodic`; the network is not built, nor an optimizer.
        labels, classes, right, wrong: see `Labelled`.
        classifier: logistic_regression or random_forest.
        trees: of a forest; nothing to logistic regression.
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
        classifier: Literal["logistic_regression", "random_forest"],
        trees: Count,
    ):
        super().__init__(spec, network, optimizer, seed, labels, classes, right, wrong)
        forest = classifier == "random_forest"
        self.classifier: Any = self._forest(trees) if forest else self._regression()
        self.project = not forest

    @classmethod
    def learner(cls, node: dict[str, Any]) -> dict[str, Any] | None:
        """Return None: there is nothing to train."""
        return None

    def from_labels(self, tasks: Tasks, labels: Tensor) -> Tensor:
        """See `Labelled`."""
        support, query, shares = (
            part.flatten(2).cpu().double().numpy() for part in (tasks.support, tasks.query, labels)
        )
        found = [self.probabilities(*task) for task in zip(support, query, shares, strict=True)]
        return torch.from_numpy(np.stack(found)).to(tasks.support).log()

    def probabilities(
        self,
        support: Floats,  # (n_examples, size)
        query: Floats,  # (n_queries, size)
        labels: Floats,  # (n_examples, n_classes), shares of an example
    ) -> Floats:  # (n_queries, n_classes)
        """Return the probabilities of one task's queries."""
        rows: Ints
        rows, classes = np.nonzero(labels)
        probs = np.full((len(query), labels.shape[1]), LEAST)
        if len(np.unique(classes)) == 1:
            probs[:, classes[0]] = 1.0
        else:
            if self.project:
                axes = np.linalg.qr(support.T)[0]
                support, query = support @ axes, query @ axes
            self.classifier.fit(support[rows], classes, sample_weight=labels[rows, classes])
            shown = self.classifier.predict_proba(query)
            probs[:, self.classifier.classes_] = np.maximum(shown, LEAST)
        normalised: Floats = probs / probs.sum(axis=1, keepdims=True)
        return normalised

    def _regression(self) -> Any:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=1000)

    def _forest(self, trees: int) -> Any:
        from sklearn.ensemble import RandomForestClassifier

        # the same draws for every task: an answer does not depend on the tasks before
        return RandomForestClassifier(trees, random_state=child(self.seed, "forest") % 2**32)
