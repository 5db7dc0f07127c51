"""Generated sentences of two clauses with two feelings; each annotator judges by one clause alone.

    Anna was thrilled, but the teacher looked gloomy.

Tests SeedBERT's explanation (Sampath et al., arXiv 2211.13196, notes 3.5) against planted truth:
annotators differ as they attend to different parts, and heads of different first weights would
find these parts out of one label an item. Half of the annotators read the first clause, half the
second; an item's label, the one that most of its annotators give, is the one clause's or the
other's, as they are drawn.

Feelings stand on a circle (joy, anger, sadness, calm; Russell's circumplex, by its quadrants):
those of a sentence are opposite, or adjacent, which have valence or arousal in common.
"""

from typing import Literal

import numpy as np

from annorun.dataset.folds import in_folds
from annorun.errors import ConfigError
from annorun.kinds import Count, Natural
from annorun.votes import Items, Votes

WORDS = {
    "joy": "thrilled delighted excited overjoyed ecstatic elated cheerful joyful",
    "anger": "furious enraged outraged irate livid angry hostile annoyed",
    "sadness": "gloomy miserable heartbroken sorrowful dejected mournful unhappy sad",
    "calm": "relaxed serene peaceful content calm tranquil restful untroubled",
}
WHO = "Anna|Omar|the teacher|the driver|the nurse|my brother|a neighbour|the singer".split("|")
VERBS = ("was", "looked", "felt", "seemed", "sounded")
MOST = 100_000
JOINTS = (", and ", ", but ", ", while ", "; ")


def two_clauses(
    *,
    rng: np.random.Generator,
    feelings: Literal["opposite", "adjacent"],
    n_items: Count,
    n_annotators: Count,
    per_item: Count,
    folds: Count,
    fold: Natural | None,
) -> tuple[Items, Votes]:
    """Return the sentences, and what each item's annotators say; those of test items held out.

    Beside the text, `second` is the place of the letter with which the second clause begins, and
    `felt` (n_items, 2) are the clauses' feelings.

    Args:
        rng: draws sentences, annotators and folds, and so another `data_seed` other sentences; not
            by the fold that is asked for.
        feelings: of a sentence's clauses.
        n_items: sentences, all distinct.
        n_annotators: an even number.
        per_item: who labels an item, an odd number: two labels never tie.
        folds: k of the cross-validation.
        fold: the one that is tested on; null: none.

    Raises:
        ConfigError: a number is out of range.
    """
    if n_items > MOST:
        raise ConfigError(f"dataset.n_items={n_items}: allowed is at most {MOST}, all distinct")
    if n_annotators % 2:
        raise ConfigError(f"dataset.n_annotators={n_annotators}: allowed is an even number")
    if per_item % 2 == 0 or per_item > n_annotators:
        raise ConfigError(
            f"dataset.per_item={per_item}: allowed is an odd number, {n_annotators} at most"
        )
    names = list(WORDS)
    felt = rng.integers(len(names), size=n_items)
    apart = 2 if feelings == "opposite" else rng.choice([1, 3], size=n_items)
    felt = np.stack([felt, (felt + apart) % len(names)], axis=1)  # (n_items, 2)
    texts = sentences([[names[k] for k in own] for own in felt], rng)
    reads = np.arange(n_annotators) * 2 // n_annotators
    who = rng.random((n_items, n_annotators)).argsort(axis=1)[:, :per_item]
    item = np.repeat(np.arange(n_items), per_item)
    votes = Votes(
        item=item,
        annotator=who.ravel(),
        label=felt[item, reads[who.ravel()]],
        n_items=n_items,
        n_annotators=n_annotators,
        n_classes=len(names),
        group=reads,
    )
    split = in_folds(n_items, folds, fold, rng)
    # of two labels in an odd number of votes one has more
    most = votes.counts().argmax(axis=1)
    items = Items(
        kind="text",
        inputs={"text": list(texts), "second": np.array(list(texts.values())), "felt": felt},
        split=split,
        n_classes=len(names),
        truth=most,
        held_out=votes.on(split == "test"),
        class_names=names,
        group_names=["first clause", "second clause"],
    )
    return items, votes.on(split != "test")


def sentences(felt: list[list[str]], rng: np.random.Generator) -> dict[str, int]:
    """Return a sentence for each pair of feelings, all distinct, and where its second clause is."""
    found: dict[str, int] = {}
    for own in felt:
        while True:
            text, second = sentence(own, rng)
            if text not in found:
                break
        found[text] = second
    return found


def sentence(feelings: list[str], rng: np.random.Generator) -> tuple[str, int]:
    """Return a sentence of two feelings, and where its second clause begins."""
    who = rng.choice(WHO, 2, replace=False)
    clauses = [
        f"{who[i]} {rng.choice(VERBS)} {rng.choice(WORDS[feeling].split())}"
        for i, feeling in enumerate(feelings)
    ]
    first = clauses[0][0].upper() + clauses[0][1:] + str(rng.choice(JOINTS))
    return f"{first}{clauses[1]}.", len(first)
