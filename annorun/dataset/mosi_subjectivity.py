"""MOSI-Subjectivity (Sampath, Lin, Morency, arXiv 2211.13196, 2): what five raters feel in clips.

Neither file is public as such, and nobody of us has seen the ratings: CMU-MOSI's transcripts come
with its SDK, the ratings are the authors' to give. Two files, in one folder:

    transcripts.csv     clip,text               one line a clip, such as 03bSnISJMiM_11
    ratings.csv         clip,rater,any,most,all one line a clip and rater

`any`: yes or no, whether there is an emotion. `most`: the most present one of the six of Ekman,
empty where there is none. `all`: all that are present, between semicolons. One of these three
questions is asked at a time; `all` has several labels an item, and `none` for an empty cell: who
sees no emotion has rated, too. (The layout is ours.)

Items are the clips of whom there are a text and an answer. `in_folds` says which are tested; their
votes are `Items.held_out`, and no aggregator and no training sees them.
"""

from pathlib import Path
from typing import Literal

import numpy as np

from annorun.dataset.files import refuse, rows_of
from annorun.dataset.folds import in_folds
from annorun.errors import ConfigError
from annorun.kinds import Count, Natural
from annorun.votes import Items, Votes

EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
YES_NO, NONE = ("no", "yes"), "none"
TEXTS, RATINGS = "transcripts.csv", "ratings.csv"
Line = tuple[int, dict[str, str]]


def mosi_subjectivity(
    *,
    rng: np.random.Generator,
    path: str,
    question: Literal["any", "most", "all"],
    folds: Count,
    fold: Natural | None,
) -> tuple[Items, Votes]:
    """Read the clips' words and what each rater says to one question, in the order of the texts.

    Args:
        rng: draws the folds.
        path: the folder with both files.
        question: see above.
        folds: k of the cross-validation.
        fold: the one that is tested on; null: none.

    Raises:
        ConfigError: files are missing, or what is wrong inside them, all of it.
    """
    folder, faults = Path(path).expanduser(), list[str]()
    texts: dict[str, str] = {}
    for line, row in _lines(folder / TEXTS, ("clip", "text"), faults):
        if row["clip"] in texts or not row["clip"] or not row["text"].strip():
            faults.append(
                f"{folder / TEXTS}, line {line}: clip {row['clip']!r}, text {row['text']!r}; "
                "needed is one line a clip, with both"
            )
        texts[row["clip"]] = row["text"].strip()
    classes = {"any": YES_NO, "most": EMOTIONS, "all": (*EMOTIONS, NONE)}[question]
    said = _answers(folder / RATINGS, question, set(texts), faults)
    refuse(faults)
    if not said:
        raise ConfigError(f"{folder / RATINGS}: no answer to {question}; needed is one or more")
    answered = {clip for clip, _, _ in said}
    names = [clip for clip in texts if clip in answered]
    who = sorted({rater for _, rater, _ in said})
    clip_at, rater_at = ({name: i for i, name in enumerate(part)} for part in (names, who))
    triplets = [(clip_at[c], rater_at[r], classes.index(label)) for c, r, label in said]
    item, annotator, label = np.array(triplets).T
    sizes = (len(names), len(who), len(classes))
    votes = Votes(item, annotator, label, *sizes, multi_label=question == "all")
    split = in_folds(len(names), folds, fold, rng)
    items = Items(
        kind="text",
        inputs={"text": [texts[name] for name in names]},
        split=split,
        n_classes=len(classes),
        held_out=votes.on(split == "test"),
        names=names,
        class_names=list(classes),
        annotator_names=who,
    )
    return items, votes.on(split != "test")


def _lines(file: Path, wanted: tuple[str, ...], faults: list[str]) -> list[Line]:
    if not file.is_file():
        raise ConfigError(
            f"dataset.path: there is no {file} (looked in {file.parent.absolute()}); needed are "
            f"{TEXTS} (clip,text: CMU-MOSI's transcripts, from its SDK) and {RATINGS} "
            "(clip,rater,any,most,all: of the authors of arXiv 2211.13196); neither is public. "
            "dataset=emobank stands in for them"
        )
    return rows_of(file, wanted, faults)


def _answers(
    file: Path, question: str, clips: set[str], faults: list[str]
) -> list[tuple[str, str, str]]:
    """Return (clip, rater, label) of every answer to a question; several of one rater to `all`."""
    found, seen = [], dict[tuple[str, str], int]()
    allowed = YES_NO if question == "any" else EMOTIONS
    for line, row in _lines(file, ("clip", "rater", question), faults):
        where, pair = f"{file}, line {line}", (row["clip"], row["rater"])
        if row["clip"] not in clips or not row["rater"]:
            faults.append(
                f"{where}: clip {row['clip']!r}, rater {row['rater']!r}; needed are a clip of "
                f"{TEXTS} and a rater"
            )
        elif seen.setdefault(pair, line) != line:
            faults.append(f"{where}: rater {pair[1]} rated {pair[0]} in line {seen[pair]} already")
        answer = row[question].lower()
        labels = [part.strip() for part in (answer.split(";") if question == "all" else [answer])]
        labels = [label for label in labels if label]
        nothing = [NONE] if question == "all" and not labels else []
        bad = [label for label in labels if label not in allowed]
        if bad or len(set(labels)) < len(labels):
            faults.append(
                f"{where}, column {question}: {row[question]!r}; allowed: {', '.join(allowed)}"
                f"{', each once, between semicolons' if question == 'all' else ''}"
            )
        found += [(*pair, label) for label in [*labels, *nothing] if not bad]
    return found
