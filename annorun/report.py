"""report.md, a page for who collected the votes; and the agreement numbers of row.json.

It judges by numbers, with these thresholds:

- Krippendorff (Content analysis, 2nd ed. 2004, 11.4.2): alpha of 0.8 is reliable, of 0.667
  tentative; here the lower end of its interval, on 30 items or more with two votes (ours).
- An annotator's chance is what it would get right with its own labels dealt out at random, sum_k
  (its share of label k) (share of class k), of the truths of its own group where groups have
  theirs. Who is not a tenth of the way from there to 1 looks like guessing (the tenth is ours): so
  does who gives one label to all. It takes 20 votes, and an accuracy that stays below by two
  standard errors, to be told so.
- The label of a contested item has a probability below 0.9 (ours).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from annorun.chance import chance
from annorun.votes import Floats, Ints, Items, Posterior, Votes

ENDS = 5
MOST = 20
SKILL = 0.1
FEWEST_VOTES = 20
FEWEST_SHARED = 30
SURE = 0.9
COEFFICIENTS = {
    "krippendorff_alpha": "Krippendorff's alpha",
    "fleiss_kappa": "Fleiss' kappa",
    "mean_cohen_kappa": "Cohen's kappa, mean over pairs",
}


def write(
    folder: Path,
    items: Items,
    votes: Votes,
    posterior: Posterior,
    labels: Ints,  # (n_items,)
    metrics: dict[str, float],
    *,
    method: str | None = None,
) -> None:
    """Write report.md.

    Args:
        folder: the run's.
        items: for the names.
        votes: what the aggregator saw.
        posterior: what it believes.
        labels: what it says of each item.
        metrics: the run's so far, with those of `scores.summary.of_agreement`.
        method: its name; what `agreement` says of annotators is no probability of being right.
    """
    parts = [
        "# Report of the votes",
        *_votes(votes),
        *_agreement(votes, items.classes(), metrics),
        *_annotators(items, votes, posterior, method),
        *_contested(items, votes, posterior, labels),
        *_classes(items, votes, labels),
        *_aggregator(posterior, metrics),
    ]
    (folder / "report.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _votes(votes: Votes) -> Iterable[str]:
    per_item = np.bincount(votes.item, minlength=votes.n_items)
    voted = per_item[per_item > 0]
    n_annotators = len(np.unique(votes.annotator))
    text = (
        f"{len(votes)} votes of {n_annotators} annotators on {len(voted)} items, "
        f"{votes.n_classes} classes."
    )
    if len(voted):
        text += f" {voted.mean():.1f} votes an item (fewest {voted.min()}, most {voted.max()})."
    if single := int((voted == 1).sum()):
        text += f" Items with one vote, of no use to agreement: {single}."
    if absent := votes.n_items - len(voted):
        text += f" Items without a vote, left out below: {absent}."
    yield text


def _agreement(votes: Votes, classes: list[str], metrics: dict[str, float]) -> Iterable[str]:
    yield "## Do the annotators agree?"
    rows = []
    for name, words in COEFFICIENTS.items():
        ends = [metrics.get(f"agreement/{name}{end}", np.nan) for end in ("", "_low", "_high")]
        if not np.isnan(ends[0]):
            rows.append((words, _number(ends[0]), f"{_number(ends[1])} to {_number(ends[2])}"))
    if rows:
        yield _table(("coefficient", "value", "95 % interval"), rows)
    if votes.multi_label:
        yield (
            "An annotator gives an item several labels: kappa is the mean over the labels, each "
            "given or not. An item that he gives no label is not counted for him."
        )
        kappas = [metrics.get(f"agreement/cohen_kappa_{name}", np.nan) for name in classes]
        each = ["" if np.isnan(k) else _number(k) for k in kappas]
        yield _table(("label", "kappa"), list(zip(classes, each, strict=True)))
        return
    alpha = metrics.get("agreement/krippendorff_alpha", np.nan)
    low = metrics.get("agreement/krippendorff_alpha_low", np.nan)
    shared = int((np.bincount(votes.item) > 1).sum())
    yield _meaning(alpha, low, shared)


def _meaning(alpha: float, low: float, shared: int) -> str:
    if np.isnan(alpha):
        return "Agreement is not defined: no item has two votes, or all votes are for one class."
    if shared < FEWEST_SHARED:
        return (
            f"Items with two votes or more: {shared}, too few to tell whether they agree; "
            f"{FEWEST_SHARED} are needed."
        )
    scale = "by the lower end of alpha's interval; 1 is full agreement, 0 is what chance would give"
    if low >= 0.8:
        return f"They agree well: the labels can be relied on ({scale})."
    if low >= 2 / 3:
        return f"They agree fairly: draw tentative conclusions only ({scale})."
    if low <= 0:
        return (
            f"Their agreement cannot be told from chance ({scale}): "
            "no aggregation can make good labels of these votes alone."
        )
    return (
        f"They agree little ({scale}): the task is hard, its guideline is unclear, or some "
        "annotators do not try. The two lists below tell these apart."
    )


def _annotators(
    items: Items, votes: Votes, posterior: Posterior, method: str | None
) -> Iterable[str]:
    yield "## Who is reliable?"
    names = items.annotator_names or range(votes.n_annotators)
    given = np.bincount(votes.annotator, minlength=votes.n_annotators)
    by_chance = chance(votes, posterior)
    agrees = method == "agreement"
    heading = "agreement with others" if agrees else "estimated accuracy"
    known = np.flatnonzero(~np.isnan(posterior.accuracy))
    order = known[np.argsort(-posterior.accuracy[known].round(9), kind="stable")]

    def table(who: Iterable[int]) -> str:
        rows = [
            (_name(names[a]), given[a], _number(posterior.accuracy[a]), _number(by_chance[a]))
            for a in who
        ]
        return _table(("annotator", "votes", heading, "by chance"), rows)

    if not len(order):
        yield "Nothing is known of any annotator."
        return
    if len(order) <= 2 * ENDS:
        yield table(order)
    else:
        yield f"The best and the worst {ENDS} of {len(order)} (all are in annotators.csv):"
        yield table([*order[:ENDS], *order[-ENDS:]])
    if not agrees:
        yield _guessers(names, known, given, posterior.accuracy, by_chance)


def _guessers(
    names: Sequence[Any], known: Ints, given: Ints, accuracy: Floats, chance: Floats
) -> str:
    judged = known[given[known] >= FEWEST_VOTES]
    few = len(known) - len(judged)
    left_out = f" With fewer than {FEWEST_VOTES} votes, not judged: {few}." if few else ""
    if not len(judged):
        return f"Whether somebody guesses cannot be told.{left_out}"
    p = accuracy[judged]
    most = p + 2 * np.sqrt(np.clip(p * (1 - p), 0, None) / given[judged])
    guess = judged[most < chance[judged] + SKILL * (1 - chance[judged])]
    if not len(guess):
        return f"Nobody looks like guessing.{left_out}"
    guess = guess[np.argsort(-given[guess], kind="stable")]
    share = given[guess].sum() / given.sum()
    listed = ", ".join(f"{_name(names[a])} ({given[a]})" for a in guess[:MOST])
    return (
        f"**{len(guess)} of {len(judged)} look like guessing**, at or near what their labels would "
        f"get by chance; they gave {share:.0%} of the votes. By number of votes: "
        f"{listed}{_rest(len(guess))}.{left_out}"
    )


def _contested(items: Items, votes: Votes, posterior: Posterior, labels: Ints) -> Iterable[str]:
    yield "## Which items are contested?"
    classes = items.classes()
    voted = np.unique(votes.item)
    sure = posterior.probs[voted, labels[voted]].round(9)
    order = np.argsort(sure, kind="stable")
    order = order[sure[order] < SURE]
    if not len(order):
        yield f"None: the aggregator is sure of every label ({SURE:.0%} or more)."
    else:
        counts = votes.counts()
        rows = [
            (
                _name(items.name(i)),
                _shares(counts[i], classes),
                _name(classes[labels[i]]),
                _number(posterior.probs[i, labels[i]]),
            )
            for i in voted[order[:MOST]].tolist()
        ]
        yield (
            f"The aggregator is not sure of {len(order)} of {len(voted)} items; the least sure "
            "(all are in labels.csv):"
        )
        yield _table(("item", "votes", "label", "probability"), rows)
    apart = np.zeros(0) if posterior.disagreement is None else posterior.disagreement[voted]
    if not np.isnan(apart).all():
        share = float(np.nanmean(apart))
        yield f"The groups do not share one truth on {share:.0%} of the items, by the estimate."


def _shares(counts: Floats, classes: Sequence[str]) -> str:
    most = [k for k in np.argsort(-counts, kind="stable").tolist() if counts[k]]
    said = [f"{_name(classes[k])} {counts[k] / counts.sum():.0%}" for k in most[:ENDS]]
    return ", ".join(said) + (", ..." if len(most) > ENDS else "")


def _classes(items: Items, votes: Votes, labels: Ints) -> Iterable[str]:
    yield "## How are the classes balanced?"
    voted = np.unique(votes.item)
    n_labels = np.bincount(labels[voted], minlength=votes.n_classes)
    n_votes = np.bincount(votes.label, minlength=votes.n_classes)
    classes = items.classes()
    rows = [
        (
            _name(classes[k]),
            n_labels[k],
            f"{n_labels[k] / max(len(voted), 1):.1%}",
            f"{n_votes[k] / max(len(votes), 1):.1%}",
        )
        for k in np.argsort(-n_labels, kind="stable")[:MOST].tolist()
    ]
    yield _table(("class", "items", "share of the labels", "share of the votes"), rows)
    if votes.n_classes > MOST:
        yield f"and {votes.n_classes - MOST} more classes."


def _aggregator(posterior: Posterior, metrics: dict[str, float]) -> Iterable[str]:
    yield "## Can the labels be trusted?"
    n = len(posterior.trace)
    if not n:
        text = "The aggregator counts; there is nothing to converge."
    elif posterior.converged:
        text = f"The aggregator ended as it should, after {n} iterations."
    else:
        text = (
            f"**The aggregator had not converged after {n} iterations**: raise its limit "
            "(max_iter or n_iter) before you use these labels."
        )
    if "labels/acc" in metrics:
        text += f" Against the known truth the labels are {metrics['labels/acc']:.1%} right."
    yield text


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def _rest(n: int) -> str:
    return f" and {n - MOST} more" if n > MOST else ""


def _name(name: Any) -> str:
    """Return a name as it can stand in a cell of a Markdown table, 60 letters at most."""
    text = " ".join(str(name).split())
    text = text if len(text) <= 60 else text[:57] + "..."
    for letter in "\\|*_`[]<>#":
        text = text.replace(letter, f"\\{letter}")
    return text
