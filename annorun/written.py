"""What is written to test items, and how: its labels, words, overlap, kinds of reasoning.

    test/copied, test/distinct2, test/length    words of the input; bigrams; against the target's
    test/recited                nearly one of the target's training explanations; human_..
    test/rouge_l                with the target's own of the item; human_..: of the others' with it
    reasoning/jsd               of kinds (`annorun.scores.reasoning`), nats, to the target's own of
                                test items, mean over targets; human_..: of his training items;
                                others_..: of the others' of test items

Measures of Chen et al., CAPO (arXiv 2605.28802): only its abstract is known to us; these are ours.
"""

import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from annorun.scores import attribution, reasoning, soft
from annorun.scores.wording import copied, distinct, repeats, viewed, words
from annorun.seeds import rng
from annorun.votes import Bools, Ints, Items, Votes

View = Literal["clean", "reduced"]
# bags of each author and size
DRAWS = 250


class Written(NamedTuple):
    """What was written to one test item for one annotator."""

    item: int
    target: int
    decoding: int
    label: str
    why: str


class Texts(NamedTuple):
    """Explanations of one kind: the humans' of training items, what is written, the humans' own.

    Attributes:
        why: the texts.
        item, author: (n,) of each; of what is written, the target.
        apart: (n,) whose bag each may be in: an author's, of one decoding.
    """

    why: list[str]
    item: Ints
    author: Ints
    apart: Ints

    @classmethod
    def of(cls, votes: Votes) -> "Texts":
        """Return the explanations of votes."""
        return cls(list(votes.explanation or ()), votes.item, votes.annotator, votes.annotator)

    def seen(self, items: Items, view: View) -> list[str]:
        """Return the texts in one form, or with the words of their inputs held back."""
        return viewed(self.why, [items.inputs["text"][i] for i in self.item], view)


def bags(author: Ints, size: int, seed: int) -> tuple[Ints, Ints]:
    """Return bags of one author each, and their authors; the same of equal seeds."""
    return attribution.drawn_bags(author, size, draws=DRAWS, rng=rng(seed, f"bags/{size}"))


def agrees(items: Items, held: Votes, written: Sequence[Written]) -> Bools:  # (n,)
    """Return of each whether its label is one of the target's own of the item."""
    given = _given(items, held)
    own = (one.label in given[one.item, one.target] for one in written)
    return np.fromiter(own, dtype=np.bool_, count=len(written))


def decisions(items: Items, held: Votes, written: Sequence[Written]) -> dict[str, float]:
    """Return how often labels are the target's, how far they are off, how many are none at all."""
    classes = items.classes()
    given = _given(items, held)
    others = [
        label in given[item, target]
        for (item, who), own in given.items()
        for label in own
        for target in range(held.n_annotators)
        if target != who and (item, target) in given
    ]
    found = {
        "test/label_acc": float(np.mean(agrees(items, held, written))),
        "test/malformed": float(np.mean([one.label not in classes for one in written])),
    }
    if others:
        found["test/human_label_acc"] = float(np.mean(others))
    if all(re.fullmatch(r"[+-]?[0-9]+", name) for name in classes):
        far = [
            min(abs(int(one.label) - int(own)) for own in given[one.item, one.target])
            for one in written
            if one.label in classes
        ]
        found |= {"test/label_mae": float(np.mean(far))} if far else {}
    return found


def _given(items: Items, held: Votes) -> dict[tuple[int, int], set[str]]:
    """Return the labels that each annotator gave each item."""
    given: dict[tuple[int, int], set[str]] = {}
    classes = items.classes()
    for i, who, label in zip(held.item, held.annotator, held.label, strict=True):
        given.setdefault((int(i), int(who)), set()).add(classes[label])
    return given


def wording(items: Items, held: Votes, written: Sequence[Written]) -> dict[str, float]:
    """Return how much is the input's, how many bigrams are distinct, how long it is."""
    texts = items.inputs["text"]
    shares = [copied(one.why, texts[one.item]) for one in written]
    n_words = np.array([len(words(one.why)) for one in written], dtype=float)
    target = np.array([one.target for one in written])
    lengths = np.array([len(words(why)) for why in held.explanation or ()], dtype=float)
    # of those who have explained test items, in words
    ratios = [
        n_words[target == who].mean() / own
        for who in np.unique(target)
        if (own := lengths[held.annotator == who].mean())
    ]
    first = [one.why for one in written if one.decoding == 0]
    return {
        "test/copied": float(np.nanmean(shares)) if np.isfinite(shares).any() else float("nan"),
        "test/distinct2": distinct(first, 2),
        "test/human_distinct2": distinct(list(held.explanation or ()), 2),
        "test/length": float(np.mean(ratios)) if ratios else float("nan"),
    }


def recited(train: Votes, held: Votes, written: Sequence[Written]) -> dict[str, float]:
    """Return how often a text is nearly one of the same annotator's training explanations."""
    known: dict[int, list[str]] = {}
    for who, why in zip(train.annotator.tolist(), train.explanation or (), strict=True):
        known.setdefault(who, []).append(why)
    human = zip(held.annotator.tolist(), held.explanation or (), strict=True)
    ways = {
        "test/recited": [(one.target, one.why) for one in written],
        "test/human_recited": list(human),
    }
    return {
        name: float(np.mean([repeats(why, known.get(who, [])) for who, why in said]))
        for name, said in ways.items()
    }


def overlap(held: Votes, written: Sequence[Written]) -> dict[str, float]:
    """Return ROUGE-L with the target's own explanations of the item, the best of several."""
    own: dict[tuple[int, int], list[str]] = {}
    said = list(
        zip(held.item.tolist(), held.annotator.tolist(), held.explanation or (), strict=True)
    )
    for item, who, why in said:
        own.setdefault((item, who), []).append(why)
    ours = [(one.why, own[one.item, one.target]) for one in written]
    others = [
        (why, own[item, target])
        for item, who, why in said
        for target in range(held.n_annotators)
        if target != who and (item, target) in own
    ]
    found = {"test/rouge_l": _rouge_l(ours)}
    return found | ({"test/human_rouge_l": _rouge_l(others)} if others else {})


def _rouge_l(pairs: Sequence[tuple[str, Sequence[str]]]) -> float:
    """Return the mean F of texts against the best of their references."""
    from torchmetrics.functional.text import rouge_score

    preds, target = zip(*pairs, strict=True)
    found = rouge_score(list(preds), list(target), accumulate="best", rouge_keys="rougeL")
    return float(found["rougeL_fmeasure"])


def reasons(train: Votes, held: Votes, written: Sequence[Written]) -> dict[str, float]:
    """Return how far the kinds of explanations are from the target's own of test items."""

    def of(votes: Votes, who: int, apart: bool = False) -> list[str]:
        said = zip(votes.annotator.tolist(), votes.explanation or (), strict=True)
        return [why for a, why in said if (a == who) != apart]

    asked = sorted({one.target for one in written})
    ways: dict[str, Callable[[int], list[str]]] = {
        "reasoning/jsd": lambda who: [one.why for one in written if one.target == who],
        "reasoning/human_jsd": lambda who: of(train, who),
        "reasoning/others_jsd": lambda who: of(held, who, apart=True),
    }
    found = {}
    for name, texts in ways.items():
        both = [(texts(who), of(held, who)) for who in asked]
        far = [
            soft.jsd(reasoning.shares(said)[None], reasoning.shares(own)[None])[0]
            for said, own in both
            if said
        ]
        if far:
            found[name] = float(np.mean(far))
    return found
