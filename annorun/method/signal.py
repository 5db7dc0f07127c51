"""Is there an annotator in the explanation? Attribution of human explanations, alone and in bags.

Chen et al., CAPO, arXiv 2605.28802: human label variation is a stable signal, weak in one
annotation and clear in several. Only the abstract is known to us; measures as in
`annorun.scores.attribution`. Judges and centroids learn from training items; explanations of all
other items are judged. No pair is on both sides (one of its two texts is, in up to 8 of 100).

Texts are seen in three views: as written (`raw`), in one form (`clean`: lower case, words alone),
and with the words of the input held back as well (`reduced`). What is found, by name:

    judge/acc_VIEW_bagB      characters' TF-IDF and logistic regression, bags of B
    judge/macro_f1_VIEW      of single explanations
    judge/acc_label_bagB     from the label alone, the floor
    encoder/acc_VIEW_bagB    logistic regression on sentence embeddings, with a sentence encoder
    centroid/acc_REDUCTION_bagB, centroid/margin_..., centroid/stability_..., centroid/p_...
                             nearest centroid of clean texts' representations: `none`, `centred` by
                             item, `residual` of a ridge regression on the input, `reduced` texts
    centroid/left_residual   the share of the variance that the input does not explain, out of fold
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from typing import Literal

import numpy as np

from annorun.aggregation.majority import majority
from annorun.errors import ConfigError
from annorun.kinds import Count
from annorun.method import judge
from annorun.scores import attribution, hard
from annorun.scores.wording import viewed
from annorun.votes import Bools, Floats, Ints, Items, Posterior, Votes

SIZES = (1, 2, 4, 8, 16, 32)


def signal(
    votes: Votes,
    items: Items,
    rng: np.random.Generator,
    *,
    encoder: str | None = None,
    pooling: Literal["first", "mean"] = "mean",
    draws: Count = 250,
    exchanges: Count = 199,
) -> Posterior:
    """Return the vote shares, and how well explanations are told apart.

    Args:
        votes: with an explanation each, outside of the test part.
        items: their inputs, and the test part's votes.
        rng: draws bags and exchanges.
        encoder: a sentence encoder, as in model_size.encoder (tiny: weights that have learned
            nothing); null: characters' TF-IDF alone.
        pooling: of its tokens, first or mean.
        draws: bags of each annotator and size.
        exchanges: of the permutation test of stability.

    Raises:
        ConfigError: an annotator has no explanation to learn from, or there is none to judge.
    """
    said = _responses(votes, items)
    fit = items.split[said.item] == "train"
    author = said.annotator
    learned, n = np.unique(author[fit]), votes.n_annotators
    if len(learned) < 2 or fit.all() or not np.isin(author, learned).all():
        raise ConfigError(
            "dataset: attribution wants two annotators or more who all explain training items, "
            "and explanations of other items"
        )
    texts = _views(said, items)
    bags = {b: attribution.drawn_bags(author[~fit], b, draws=draws, rng=rng) for b in SIZES}
    floor = attribution.label_judge(said.label[fit], author[fit], votes.n_classes, n)
    numbers = _by_bag("judge/acc_label", floor[said.label[~fit]], bags)
    numbers |= _judged(texts, author, fit, bags, n)
    given = viewed(items.inputs["text"], items.inputs["text"], "clean")
    if encoder is None:
        clean, reduced, asked = _latent(texts, given, fit)
    else:
        states = {view: judge.embedded(own, encoder, pooling) for view, own in texts.items()}
        for view, x in states.items():
            told = judge.judged_vectors(x[fit], author[fit], x[~fit], n)
            numbers |= _by_bag(f"encoder/acc_{view}", told, bags)
        clean, reduced = states["clean"], states["reduced"]
        asked = judge.embedded(given, encoder, pooling)
    residual, left = attribution.cross_residual(clean, asked[said.item], said.item, fit)
    numbers["centroid/left_residual"] = left
    shown = {
        "none": clean,
        "centred": attribution.item_centred(clean, said.item, author),
        "residual": residual,
        "reduced": reduced,
    }
    halves = int(rng.integers(2**62))
    for name, x in shown.items():
        numbers |= _by_centroid(name, x, author, fit, bags, n)
        # the same halves and exchanges for all
        same = np.random.default_rng(halves)
        found = attribution.split_half(
            x, author, said.item, n_annotators=n, draws=exchanges, rng=same
        )
        numbers |= dict(
            zip((f"centroid/stability_{name}", f"centroid/p_{name}"), found, strict=True)
        )
    return replace(majority(votes), numbers=numbers)


def _judged(
    texts: dict[str, list[str]],
    author: Ints,
    fit: Bools,
    bags: dict[int, tuple[Ints, Ints]],
    n_annotators: int,
) -> dict[str, float]:
    """Return what judges on characters make of each view."""
    found: dict[str, float] = {}
    for view, own in texts.items():
        known = judge.Judge(_some(own, fit), author[fit], n_annotators).log_probs(_some(own, ~fit))
        found |= _by_bag(f"judge/acc_{view}", known, bags)
        f1 = hard.macro_f1(known.argmax(axis=1), author[~fit], n_annotators)
        found[f"judge/macro_f1_{view}"] = f1
    return found


def _responses(votes: Votes, items: Items) -> Votes:
    """Return the responses to all items, those of the test part too."""
    held = items.held_out
    if votes.explanation is None or held is None or held.explanation is None:
        raise ConfigError("dataset: has no explanations; allowed is data that provide them")
    return replace(
        votes,
        item=np.concatenate([votes.item, held.item]),
        annotator=np.concatenate([votes.annotator, held.annotator]),
        label=np.concatenate([votes.label, held.label]),
        explanation=votes.explanation + held.explanation,
    )


def _views(said: Votes, items: Items) -> dict[str, list[str]]:
    """Return the explanations in each of the three views."""
    whys, given = list(said.explanation or ()), [items.inputs["text"][i] for i in said.item]
    clean, reduced = viewed(whys, given, "clean"), viewed(whys, given, "reduced")
    return {"raw": whys, "clean": clean, "reduced": reduced}


def _some(texts: Sequence[str], which: Bools) -> list[str]:
    """Return the texts of a mask."""
    return list(compress(texts, which))


def _latent(
    texts: dict[str, list[str]], given: list[str], fit: Bools
) -> tuple[Floats, Floats, Floats]:
    """Return representations without a network: clean, reduced, and of the inputs."""
    _, clean, asked = judge.latent(_some(texts["clean"], fit), [texts["clean"], given])
    _, reduced = judge.latent(_some(texts["reduced"], fit), [texts["reduced"]])
    return clean, reduced, asked


def _by_bag(name: str, log_probs: Floats, bags: dict[int, tuple[Ints, Ints]]) -> dict[str, float]:
    """Return the accuracy of a judge over bags of each size that there are."""
    return {
        f"{name}_bag{size}": float((attribution.bag_answers(log_probs, rows) == whose).mean())
        for size, (rows, whose) in bags.items()
        if len(rows)
    }


def _by_centroid(
    name: str,
    x: Floats,
    author: Ints,
    fit: Bools,
    bags: dict[int, tuple[Ints, Ints]],
    n_annotators: int,
) -> dict[str, float]:
    """Return accuracy and mean margin of the nearest centroid, over bags of each size."""
    means = attribution.centroids(x[fit], author[fit], n_annotators)
    found = {}
    for size, (rows, whose) in bags.items():
        if len(rows):
            alike = attribution.cosine(x[~fit][rows].mean(axis=1), np.nan_to_num(means))
            away = attribution.margin(alike, whose)
            # like all, such as a lone response centred: nobody's, and anybody's guess
            right = (away > 0) + (away == 0) / n_annotators
            found[f"centroid/acc_{name}_bag{size}"] = float(right.mean())
            found[f"centroid/margin_{name}_bag{size}"] = float(away.mean())
    return found
