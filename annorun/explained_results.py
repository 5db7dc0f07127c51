"""How good written explanations are: whose they seem, what they decide, how they are worded.

Attribution is by a judge that has seen human explanations of training items alone. Beside what is
written stand the humans' own explanations of the same test items (`human_...`): what is written may
go beyond them, where it has more of an annotator's manner than the annotator has. Judged is what is
written to items that the target has explained; a bag is of one decoding.

    attribution/acc_VIEW_bagB   the judge names the target; views `clean` and `reduced`
    attribution/macro_f1_clean
    attribution/acc_label_bag1, attribution/human_label_bag1    by the label alone, the floor
    imitation/acc_bagB, imitation/margin_bagB   nearest centroid of the humans'; human_..
    test/label_acc              the label is one that the target gave
    test/malformed              no label, or none that there is
    test/rouge_l                with the target's own of the item; human_..: of the others' with it
    test/copied, test/distinct2, test/length    words of the input; bigrams; against the target's
    reasoning/jsd               of kinds (`annorun.scores.reasoning`), nats, to the target's own of
                                test items, mean over targets; human_..: of his training items;
                                others_..: of the others' of test items
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from annorun import results
from annorun.method.judge import Judge, latent
from annorun.scores import attribution, hard, reasoning, soft
from annorun.scores.wording import copied, distinct, viewed, words
from annorun.seeds import rng
from annorun.votes import Floats, Ints, Items, Votes

SIZES = (1, 8)
View = Literal["clean", "reduced"]
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
    asked = set(zip(held.item.tolist(), held.annotator.tolist(), strict=True))
    judged = [one for one in written if one[:2] in asked]
    target = np.array([one.target for one in judged])
    item = np.array([one.item for one in judged])
    # bags of one decoding of one target
    apart = target + votes.n_annotators * np.array([one.decoding for one in judged])
    whys = [one.why for one in judged]
    found: dict[str, float] = {}
    answers = np.empty(0, dtype=np.int64)
    views: tuple[View, ...] = ("clean", "reduced")
    for view in views:
        own = Judge(_viewed(train, items, view), train.annotator, votes.n_annotators)
        told = own.log_probs(viewed(whys, _given(items, item), view))
        human = own.log_probs(_viewed(held, items, view))
        found |= _by_bag(f"attribution/acc_{view}", told, apart, seed)
        found |= _by_bag(f"attribution/human_{view}", human, held.annotator, seed)
        if view == "clean":
            answers = told.argmax(axis=1)
            f1 = hard.macro_f1(answers, target, votes.n_annotators)
            found["attribution/macro_f1_clean"] = f1
    train_place, own_place, human_place = latent(
        _viewed(train, items, "clean"),
        [viewed(whys, _given(items, item), "clean"), _viewed(held, items, "clean")],
    )
    means = attribution.centroids(train_place, train.annotator, train.n_annotators)
    found |= _imitation("", means, own_place, apart, seed)
    found |= _imitation("human_", means, human_place, held.annotator, seed)
    found |= _by_label(train, held, items, judged)
    found |= _labels(items, held, judged) | _wording(items, held, judged)
    found |= _overlap(held, judged) | _reasoning(train, held, judged)
    _write(folder, items, judged, answers)
    return found


def _viewed(votes: Votes, items: Items, view: View) -> list[str]:
    return viewed(list(votes.explanation or ()), _given(items, votes.item), view)


def _given(items: Items, item: Ints) -> list[str]:
    """Return the input of each response."""
    return [items.inputs["text"][i] for i in item]


def _by_bag(name: str, log_probs: Floats, author: Ints, seed: int) -> dict[str, float]:
    """Return the accuracy over bags; an author is a target, of one decoding or another."""
    found = {}
    for size in SIZES:
        rows, whose = _bags(author, size, seed)
        if len(rows):
            right = attribution.bag_answers(log_probs, rows) == whose % log_probs.shape[1]
            found[f"{name}_bag{size}"] = float(right.mean())
    return found


def _bags(author: Ints, size: int, seed: int) -> tuple[Ints, Ints]:
    return attribution.drawn_bags(author, size, draws=DRAWS, rng=rng(seed, f"bags/{size}"))


def _by_label(
    train: Votes, held: Votes, items: Items, judged: Sequence[Written]
) -> dict[str, float]:
    """Return how often the label alone tells the author; one that is no label tells nothing."""
    n, place = train.n_annotators, {name: k for k, name in enumerate(items.classes())}
    told = attribution.label_judge(train.label, train.annotator, train.n_classes, n)
    answers = told.argmax(axis=1)
    right = [
        answers[place[one.label]] == one.target if one.label in place else 1 / n for one in judged
    ]
    human = answers[held.label] == held.annotator
    return {
        "attribution/acc_label_bag1": float(np.mean(right)),
        "attribution/human_label_bag1": float(human.mean()),
    }


def _imitation(prefix: str, means: Floats, x: Floats, author: Ints, seed: int) -> dict[str, float]:
    """Return how well bags find their target's centroid among the humans'."""
    found = {}
    for size in SIZES:
        rows, whose = _bags(author, size, seed)
        if len(rows):
            alike = attribution.cosine(x[rows].mean(axis=1), np.nan_to_num(means))
            away = attribution.margin(alike, whose % len(means))
            found[f"imitation/{prefix}acc_bag{size}"] = float((away > 0).mean())
            found[f"imitation/{prefix}margin_bag{size}"] = float(away.mean())
    return found


def _labels(items: Items, held: Votes, written: Sequence[Written]) -> dict[str, float]:
    """Return how often the label is one of the target's own, and how often it is none at all."""
    given: dict[tuple[int, int], set[str]] = {}
    classes = items.classes()
    for i, who, label in zip(held.item, held.annotator, held.label, strict=True):
        given.setdefault((int(i), int(who)), set()).add(classes[label])
    asked = [(one.label, given[one.item, one.target]) for one in written]
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
    # of those who have explained test items
    ratios = [
        n_words[target == who].mean()
        / np.mean([n for n, a in zip(lengths, held.annotator, strict=True) if a == who])
        for who in np.unique(target)
    ]
    first = [one.why for one in written if one.decoding == 0]
    return {
        "test/copied": float(np.nanmean(shares)) if np.isfinite(shares).any() else float("nan"),
        "test/distinct2": distinct(first, 2),
        "test/human_distinct2": distinct(list(held.explanation or ()), 2),
        "test/length": float(np.mean(ratios)),
    }


def _overlap(held: Votes, written: Sequence[Written]) -> dict[str, float]:
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


def _reasoning(train: Votes, held: Votes, written: Sequence[Written]) -> dict[str, float]:
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


def _write(folder: Path, items: Items, written: Sequence[Written], answers: Ints) -> None:
    """Write responses.csv: each response, and whose the judge takes it to be."""
    most = max((one.target for one in written), default=-1)
    names = items.annotator_names or [str(a) for a in range(max(most, *answers.tolist(), 0) + 1)]
    header = ("item", "target", "decoding", "label", "explanation", "judged")
    rows = [
        (items.name(one.item), names[one.target], one.decoding, one.label, one.why, names[who])
        for one, who in zip(written, answers.tolist(), strict=True)
    ]
    results.write_csv(folder / "responses.csv", header, rows)
