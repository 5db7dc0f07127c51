"""Several labels an item as yes-or-no questions, one for each item and label (binary relevance).

Tsoumakas and Katakis, Multi-label classification: an overview, 2007, section 2: what wants one
label an item and annotator is asked of each label by itself.

Example:
    >>> votes = Votes(
    ...     item=[0, 0], annotator=[1, 1], label=[0, 2],
    ...     n_items=1, n_annotators=2, n_classes=3, multi_label=True,
    ... )
    >>> asked = one_vs_rest(votes)
    >>> asked.item.tolist(), asked.annotator.tolist(), asked.label.tolist()
    ([0, 1, 2], [1, 1, 1], [1, 0, 1])
"""

import numpy as np

from annorun.votes import Votes


def one_vs_rest(votes: Votes) -> Votes:
    """Return item * n_classes + label as items, 1 from whoever gave the label, 0 from who did not.

    Who gave an item no label has no vote on it.
    """
    k = votes.n_classes
    pair = np.unique(np.stack([votes.item, votes.annotator], axis=1), axis=0)
    item = (pair[:, 0, None] * k + np.arange(k)).ravel()
    annotator = np.repeat(pair[:, 1], k)
    given = np.zeros((votes.n_items * k, votes.n_annotators), dtype=np.int64)
    given[votes.item * k + votes.label, votes.annotator] = 1
    return Votes(item, annotator, given[item, annotator], votes.n_items * k, votes.n_annotators, 2)
