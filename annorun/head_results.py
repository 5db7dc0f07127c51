"""What the heads of a network answer, beside what people answered: heads.csv and its metrics.

`heads/bias` says how far the heads lean towards labels of their own (`annorun.scores.label_bias`),
`annotators/bias` the same of people, on the test items' own votes. `annotators/known_nll` is the
surprise, in nats a vote, at what an annotator says on items of whom `KNOWN` labels are known and
weigh the heads (`annorun.aggregation.head_weights`); `annotators/unknown_nll` that under equal
weights; over the same votes, of annotators who have more votes than that.
"""

from pathlib import Path

import numpy as np

from annorun import results
from annorun.aggregation.head_weights import head_weights
from annorun.scores.calibration import FLOOR
from annorun.scores.label_bias import Bias, label_bias
from annorun.votes import Floats, Ints, Items, Votes

KNOWN = 5


def write(
    folder: Path,
    items: Items,
    test: Ints,  # (n_test,)
    heads: Floats,  # (n_test, n_heads, n_classes)
    rng: np.random.Generator,
) -> dict[str, float]:
    """Write heads.csv, a line a head and a person; return the metrics.

    Args:
        folder: of the run.
        items: of which `test` are the tested.
        test: their numbers.
        heads: probabilities.
        rng: draws shuffles, and whose labels are known.
    """
    own = label_bias(said(heads), rng=rng)
    lines = _lines("head", [str(r) for r in range(heads.shape[1])], own)
    found = {"heads/bias": own.bias, "heads/bias_p": own.p}
    held = items.held_out
    if held is not None and not held.multi_label and len(held):
        people = label_bias(held, rng=rng)
        names = [str(n) for n in items.annotator_names or range(held.n_annotators)]
        lines += _lines("annotator", names, people)
        found |= {"annotators/bias": people.bias, "annotators/bias_p": people.p}
        whole = np.zeros((held.n_items, *heads.shape[1:]))
        whole[test] = heads
        found |= known_annotators(whole, held, rng)
    results.write_csv(folder / "heads.csv", ["kind", "name", *items.classes()], lines)
    return found


def said(heads: Floats) -> Votes:
    """Return the most probable label of each head as its vote, on every item."""
    n_items, n_heads, n_classes = heads.shape
    item, head = (place.ravel() for place in np.indices((n_items, n_heads)))
    return Votes(item, head, heads.argmax(axis=2).ravel(), n_items, n_heads, n_classes)


def _lines(kind: str, names: list[str], found: Bias) -> list[list[object]]:
    rows = zip(names, found.marginals, strict=True)
    return [[kind, name, *map(float, row)] for name, row in rows if np.isfinite(row[0])]


def known_annotators(
    heads: Floats,  # (n_items, n_heads, n_classes)
    votes: Votes,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Return what a few labels of an annotator tell of the others; {} if nobody has so many."""
    known, unknown = [], []
    for r in np.flatnonzero(np.bincount(votes.annotator, minlength=votes.n_annotators) > KNOWN):
        own = rng.permutation(np.flatnonzero(votes.annotator == r))
        at = heads[votes.item[own], :, votes.label[own]]  # (n, n_heads)
        weights = head_weights(at[:KNOWN])
        known.append(-np.log(np.maximum(at[KNOWN:] @ weights, FLOOR)))
        unknown.append(-np.log(np.maximum(at[KNOWN:].mean(axis=1), FLOOR)))
    if not known:
        return {}
    return {
        "annotators/known_nll": float(np.concatenate(known).mean()),
        "annotators/unknown_nll": float(np.concatenate(unknown).mean()),
    }
