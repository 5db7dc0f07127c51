"""How good written explanations are: whose they seem, what they decide, how they are worded.

Attribution is by a judge that has seen human explanations of training items alone. Beside what is
written stand the humans' own explanations of the same test items (`human_...`, the ceiling).

    attribution/acc_VIEW_bagB   the judge names the target; views `clean` and `reduced`
    attribution/macro_f1_clean
    imitation/acc_bagB, imitation/margin_bagB   nearest centroid of the humans' explanations
    test/label_acc              the label is one that the target gave
    test/malformed              no label, or none that there is
    test/copied, test/distinct2, test/length    words of the input; bigrams; against the target's
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from annorun import results
from annorun.method.judge import Judge, latent
from annorun.scores import attribution, hard
from annorun.scores.wording import content_reduced, copied, distinct, words
from annorun.seeds import rng
from annorun.votes import Floats, Ints, Items, Votes

SIZES = (1, 8)
DRAWS = 250


class Written(NamedTuple):
    """What was written to one test item for one annotator."""

    item: int
    target: int
    decoding: int
    label: str
    why: str


def judge(
    folder: Path, items: Items, votes: Votes, written: Sequence[Written], *, seed: int
) -> dict[str, float]:
    """Write responses.csv and return the metrics.

    Args:
        folder: of the run.
        items: with the test part's votes and explanations held out.
        votes: the others.
        written: to each test item, for each annotator.
        seed: draws bags.
    """
    held, train = items.held_out, votes.on(items.split == "train")
    assert held is not None and held.explanation is not None
    target = np.array([one.target for one in written])
    item = np.array([one.item for one in written])
    whys = [one.why for one in written]
    found: dict[str, float] = {}
    answers = np.empty(0, dtype=np.int64)
    for view in ("clean", "reduced"):
        own = Judge(_viewed(train, items, view), train.annotator, votes.n_annotators)
        told = own.log_probs(_shown(whys, item, items, view))
        human = own.log_probs(_viewed(held, items, view))
        found |= _by_bag(f"attribution/acc_{view}", told, target, seed)
        found |= _by_bag(f"attribution/human_{view}", human, held.annotator, seed)
        if view == "clean":
            answers = told.argmax(axis=1)
            f1 = hard.macro_f1(answers, target, votes.n_annotators)
            found["attribution/macro_f1_clean"] = f1
    found |= _imitation(train, items, _shown(whys, item, items, "clean"), target, seed)
    found |= _labels(items, held, written) | _wording(items, held, written)
    _write(folder, items, written, answers)
    return found


def _viewed(votes: Votes, items: Items, view: str) -> list[str]:
    return _shown(list(votes.explanation or ()), votes.item, items, view)


def _shown(whys: Sequence[str], item: Ints, items: Items, view: str) -> list[str]:
    """Return texts in one form, or with the input's words held back."""
    if view == "clean":
        return [" ".join(words(why)) for why in whys]
    given = items.inputs["text"]
    return [content_reduced(why, given[i]) for why, i in zip(whys, item, strict=True)]


def _by_bag(name: str, log_probs: Floats, author: Ints, seed: int) -> dict[str, float]:
    found = {}
    for size in SIZES:
        rows, whose = _bags(author, size, seed)
        if len(rows):
            right = attribution.bag_answers(log_probs, rows) == whose
            found[f"{name}_bag{size}"] = float(right.mean())
    return found


def _bags(author: Ints, size: int, seed: int) -> tuple[Ints, Ints]:
    """Return bags; of one, each response once."""
    if size == 1:
        return np.arange(len(author))[:, None], author
    return attribution.drawn_bags(author, size, draws=DRAWS, rng=rng(seed, f"bags/{size}"))


def _imitation(
    train: Votes, items: Items, shown: list[str], target: Ints, seed: int
) -> dict[str, float]:
    """Return how well bags find their target's centroid among the humans'."""
    human, own = latent(_viewed(train, items, "clean"), [shown])
    means = attribution.centroids(human, train.annotator, train.n_annotators)
    found = {}
    for size in SIZES:
        rows, whose = _bags(target, size, seed)
        if len(rows):
            alike = attribution.cosine(own[rows].mean(axis=1), np.nan_to_num(means))
            found[f"imitation/acc_bag{size}"] = float((alike.argmax(axis=1) == whose).mean())
            found[f"imitation/margin_bag{size}"] = float(attribution.margin(alike, whose).mean())
    return found


def _labels(items: Items, held: Votes, written: Sequence[Written]) -> dict[str, float]:
    """Return how often the label is one of the target's own, and how often it is none at all."""
    given: dict[tuple[int, int], set[str]] = {}
    classes = items.classes()
    for i, who, label in zip(held.item, held.annotator, held.label, strict=True):
        given.setdefault((int(i), int(who)), set()).add(classes[label])
    asked = [(one.label, given[one.item, one.target]) for one in written if one[:2] in given]
    return {
        "test/label_acc": float(np.mean([label in own for label, own in asked])),
        "test/malformed": float(np.mean([one.label not in classes for one in written])),
    }


def _wording(items: Items, held: Votes, written: Sequence[Written]) -> dict[str, float]:
    texts = items.inputs["text"]
    shares = [copied(one.why, texts[one.item]) for one in written]
    n_words = np.array([len(words(one.why)) for one in written], dtype=float)
    target = np.array([one.target for one in written])
    lengths = [len(words(why)) for why in held.explanation or ()]
    human = [
        np.mean([n for n, a in zip(lengths, held.annotator, strict=True) if a == who])
        for who in range(held.n_annotators)
    ]
    by_target = [n_words[target == who].mean() for who in range(held.n_annotators)]
    first = [one.why for one in written if one.decoding == 0]
    return {
        "test/copied": float(np.nanmean(shares)) if np.isfinite(shares).any() else float("nan"),
        "test/distinct2": distinct(first, 2),
        "test/length": float(np.mean(np.divide(by_target, human))),
    }


def _write(folder: Path, items: Items, written: Sequence[Written], answers: Ints) -> None:
    """Write responses.csv: each response, and whose the judge takes it to be."""
    names = items.annotator_names or [str(a) for a in range(int(answers.max(initial=0)) + 1)]
    header = ("item", "target", "decoding", "label", "explanation", "judged")
    rows = [
        (items.name(one.item), names[one.target], one.decoding, one.label, one.why, names[who])
        for one, who in zip(written, answers.tolist(), strict=True)
    ]
    results.write_csv(folder / "responses.csv", header, rows)
