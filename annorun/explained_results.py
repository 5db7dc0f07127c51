"""How good written explanations are: whose they seem, what they decide, how they are worded.

Attribution is by judges that have seen human explanations of training items alone: those that the
network has learned from, too, so that it is told who it is by recitation as well as by manner. The
judge `unseen` knows explanations of validation items instead, fewer, from which nothing is learned.
Beside what is written stand the humans' own explanations of the same test items (`human_...`): what
is written may go beyond them, where it has more of an annotator's manner than the annotator has, or
recites. Judged is what is written to items that the target has explained; a bag is of one decoding.

    attribution/acc_VIEW_bagB   the judge names the target; views `clean` and `reduced` by
                                characters, `encoder` by embeddings of clean texts, `unseen` as
                                `clean` from validation items; human_VIEW_..
    attribution/acc_llm_bagB    a language model names the target (`annorun.llm_attribution`),
                                where one is asked; human_llm_..; bags of 1 and 8, few of each
    attribution/macro_f1_VIEW   of single explanations
    attribution/acc_label_bag1, attribution/human_label_bag1    by the label alone, the floor
    imitation/acc_REDUCTION_bagB, imitation/margin_REDUCTION_bagB   nearest centroid of the
                                humans', of clean texts: `none`, `centred` by item, `residual` of a
                                regression on the input, `reduced`; human_acc_.., human_margin_..
    test/label_acc              the label is one that the target gave; human_..: another annotator's
                                label is
    test/label_mae              where labels are numbers: distance to the nearest of the target's
    test/malformed              no label, or none that there is

and what `annorun.written` measures of the words.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from annorun import llm_attribution, results
from annorun.method.judge import Judge, embedded, judged_vectors, latent
from annorun.method.llm_judge import LlmJudge
from annorun.scores import attribution, hard
from annorun.scores.wording import viewed
from annorun.votes import Floats, Ints, Items, Votes
from annorun.written import (
    Texts,
    View,
    Written,
    agrees,
    bags,
    decisions,
    overlap,
    reasons,
    recited,
    wording,
)

SIZES = (1, 2, 4, 8, 16, 32)
VIEWS: tuple[View, ...] = ("clean", "reduced")


def judge(
    folder: Path,
    items: Items,
    votes: Votes,
    written: Sequence[Written],
    *,
    seed: int,
    encoder: str | None = None,
    llm: str | None = None,
    device: str = "cpu",
) -> dict[str, float]:
    """Write responses.csv and return the metrics.

    Args:
        folder: of the run.
        items: with the test part's votes and explanations held out.
        votes: the others.
        written: to each test item, for each annotator.
        seed: draws bags.
        encoder: a sentence encoder, whose embeddings one more judge sees; None: there is none.
        llm: a language model that is one more; None: there is none.
        device: of that one.
    """
    held, train = items.held_out, votes.on(items.split == "train")
    assert held is not None and held.explanation is not None
    wanted = set(zip(held.item.tolist(), held.annotator.tolist(), strict=True))
    judged = [one for one in written if one[:2] in wanted]
    n = votes.n_annotators
    target = np.array([one.target for one in judged])
    decoding = np.array([one.decoding for one in judged])
    item = np.array([one.item for one in judged])
    ours = Texts([one.why for one in judged], item, target, target + n * decoding)
    said, human, unseen = map(Texts.of, (train, held, votes.on(items.split == "val")))
    told = _told(items, (said, ours, human), unseen, n, encoder)
    found: dict[str, float] = {}
    for name, (own, theirs) in told.items():
        found |= _by_bag(f"attribution/acc_{name}", own, ours.apart, seed)
        found |= _by_bag(f"attribution/human_{name}", theirs, human.apart, seed)
        f1 = hard.macro_f1(own.argmax(axis=1), target, n)
        found[f"attribution/macro_f1_{name}"] = f1
    if llm is not None:
        asked = LlmJudge(llm, n, seed=seed, device=device)
        shown = llm_attribution.shown_to(asked, items, votes, seed)
        for who, texts in (("acc", ours), ("human", human)):
            name = f"attribution/{who}_llm"
            found |= llm_attribution.by_llm(name, asked, shown, items, texts, seed)
    found |= _by_label(train, held, items, judged)
    for name, places in _reductions(items, (said, ours, human), n).items():
        means = attribution.centroids(places[0], said.author, n)
        found |= _imitation("", name, means, places[1], ours.apart, seed)
        found |= _imitation("human_", name, means, places[2], human.apart, seed)
    found |= decisions(items, held, judged) | wording(items, held, judged)
    found |= recited(train, held, judged)
    found |= overlap(held, judged) | reasons(train, held, judged)
    _write(folder, items, held, judged, told["clean"][0].argmax(axis=1))
    return found


def _told(
    items: Items,
    texts: tuple[Texts, Texts, Texts],
    unseen: Texts,
    n_annotators: int,
    encoder: str | None,
) -> dict[str, tuple[Floats, Floats]]:
    """Return what each judge says of what is written, and of the humans' own."""
    found: dict[str, tuple[Floats, Floats]] = {
        view: _by_characters(items, texts, n_annotators, view) for view in VIEWS
    }
    if len(np.unique(unseen.author)) > 1:
        known = (unseen, *texts[1:])
        found["unseen"] = _by_characters(items, known, n_annotators, "clean")
    if encoder is not None:
        found["encoder"] = _by_embedding(items, texts, n_annotators, encoder)
    return found


def _by_characters(
    items: Items, texts: tuple[Texts, Texts, Texts], n_annotators: int, view: View
) -> tuple[Floats, Floats]:
    """Return what a judge on characters says of what is written, and of the humans' own."""
    said, *others = texts
    own = Judge(said.seen(items, view), said.author, n_annotators)
    ours, human = (own.log_probs(other.seen(items, view)) for other in others)
    return ours, human


def _by_embedding(
    items: Items,
    texts: tuple[Texts, Texts, Texts],
    n_annotators: int,
    encoder: str,
) -> tuple[Floats, Floats]:
    """Return the same of a judge on a sentence encoder's states."""
    every = [text for part in texts for text in part.seen(items, "clean")]
    states = embedded(every, encoder, "mean")
    first, second = len(texts[0].why), len(texts[0].why) + len(texts[1].why)
    told = judged_vectors(states[:first], texts[0].author, states[first:], n_annotators)
    return told[: second - first], told[second - first :]


def _reductions(
    items: Items, parts: tuple[Texts, Texts, Texts], n_annotators: int
) -> dict[str, list[Floats]]:
    """Return representations of each part with the input's content, and without in three ways."""
    said, *others = parts
    given = viewed(items.inputs["text"], items.inputs["text"], "clean")
    shown = latent(said.seen(items, "clean"), [*(o.seen(items, "clean") for o in others), given])
    asked = shown.pop()
    reduced = latent(said.seen(items, "reduced"), [o.seen(items, "reduced") for o in others])
    # of what is written, the responses of one decoding to an item stand together
    group = [part.item + len(items) * (part.apart // n_annotators) for part in parts]
    centred = [
        attribution.item_centred(x, where, part.author)
        for x, where, part in zip(shown, group, parts, strict=True)
    ]
    item = np.concatenate([part.item for part in parts])
    ends = np.cumsum([len(part.why) for part in parts])
    fit = np.arange(ends[-1]) < ends[0]
    residual, _ = attribution.cross_residual(np.concatenate(shown), asked[item], item, fit)
    split = np.split(residual, ends[:-1])
    return {"none": shown, "centred": centred, "residual": split, "reduced": reduced}


def _by_bag(name: str, log_probs: Floats, author: Ints, seed: int) -> dict[str, float]:
    """Return the accuracy over bags; an author is a target, of one decoding or another."""
    found = {}
    for size in SIZES:
        rows, whose = bags(author, size, seed)
        if len(rows):
            right = attribution.bag_answers(log_probs, rows) == whose % log_probs.shape[1]
            found[f"{name}_bag{size}"] = float(right.mean())
    return found


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


def _imitation(
    prefix: str, name: str, means: Floats, x: Floats, author: Ints, seed: int
) -> dict[str, float]:
    """Return how well bags find their target's centroid among the humans'."""
    found = {}
    for size in SIZES:
        rows, whose = bags(author, size, seed)
        if len(rows):
            alike = attribution.cosine(x[rows].mean(axis=1), np.nan_to_num(means))
            away = attribution.margin(alike, whose % len(means))
            # like all, such as a lone response centred: nobody's, and anybody's guess
            right = (away > 0) + (away == 0) / len(means)
            found[f"imitation/{prefix}acc_{name}_bag{size}"] = float(right.mean())
            found[f"imitation/{prefix}margin_{name}_bag{size}"] = float(away.mean())
    return found


def _write(
    folder: Path, items: Items, held: Votes, written: Sequence[Written], answers: Ints
) -> None:
    """Write responses.csv: each response, is its label the target's, whose it seems to the judge.

    The judge is that on characters of clean texts.
    """
    most = max((one.target for one in written), default=-1)
    names = items.annotator_names or [str(a) for a in range(max(most, *answers.tolist(), 0) + 1)]
    header = ("item", "target", "decoding", "label", "explanation", "agrees", "judged")
    rows = [
        (items.name(one.item), names[one.target], one.decoding, one.label, one.why, int(same), own)
        for one, same, own in zip(
            written,
            agrees(items, held, written).tolist(),
            (names[who] for who in answers.tolist()),
            strict=True,
        )
    ]
    results.write_csv(folder / "responses.csv", header, rows)
