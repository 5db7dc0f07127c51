"""Sentiment polarity (Rodrigues, Pereira & Ribeiro 2013): film reviews, real Mechanical Turk crowd.

The files are those of github.com/fmenat/PyLearningCrowds, folder `data/Sentiment`. The 4999
training sentences have the votes of 203 annotators and gold, the 3999 test sentences gold alone.
Neither the files nor their README name the classes; reading the sentences says that 1 is positive.
"""

from pathlib import Path

import numpy as np

from annorun.dataset.files import refuse
from annorun.dataset.questions import Source, is_text, lines_of, with_files
from annorun.votes import Ints, Items, Votes

SPLITS = ("train", "test")
CLASSES = ("negative", "positive")
ANSWERS = "answers.txt"
TEXT = "Sentiment_text_{}.txt"
GOLD = "Sentiment_Z_{}.txt"
SOURCE = Source(
    name="sentiment_polarity",
    origin="data/Sentiment of github.com/fmenat/PyLearningCrowds",
    files=(ANSWERS, *(name.format(split) for split in SPLITS for name in (TEXT, GOLD))),
    splits=SPLITS,
)


def sentiment_polarity(*, rng: np.random.Generator, path: str) -> tuple[Items, Votes]:
    """Read the sentences, gold and votes; train items first, then test, in file order.

    Args:
        rng: not used; the split is the authors'.
        path: the folder with the authors' files.

    Raises:
        ConfigError: files are missing, or what is wrong inside them, all of it.
    """
    folder = with_files(Path(path).expanduser(), SOURCE)
    faults: list[str] = []
    texts = [_texts(folder / TEXT.format(split), faults) for split in SPLITS]
    gold = [_labels(folder / GOLD.format(split), 0, 1, faults) for split in SPLITS]
    dense = _labels(folder / ANSWERS, -1, None, faults)
    if not faults:
        wanted = {GOLD.format("train"): (gold[0], 0), GOLD.format("test"): (gold[1], 1)}
        wanted[ANSWERS] = (dense, 0)
        for name, (rows, k) in wanted.items():
            if len(rows) != len(texts[k]):
                faults.append(
                    f"{folder / name}, line {len(rows)}: the file ends after {len(rows)} lines, "
                    f"but {TEXT.format(SPLITS[k])} has {len(texts[k])}; the same number is needed"
                )
    refuse(faults)
    item, annotator = np.nonzero(dense >= 0)
    names = [
        f"{split}-{k}" for split, part in zip(SPLITS, texts, strict=True) for k in range(len(part))
    ]
    items = Items(
        kind="text",
        inputs={"text": [text for part in texts for text in part]},
        split=np.repeat(SPLITS, [len(part) for part in texts]),
        n_classes=len(CLASSES),
        truth=np.concatenate(gold)[:, 0],
        names=names,
        class_names=list(CLASSES),
    )
    votes = Votes(
        item=item,
        annotator=annotator,
        label=dense[item, annotator],
        n_items=len(items),
        n_annotators=dense.shape[1],
        n_classes=len(CLASSES),
    )
    return items, votes


def _texts(file: Path, faults: list[str]) -> list[str]:
    """Return the file's lines, without blanks around them; a blank line is a fault."""
    rows = lines_of(file, faults)
    faults += [f"{where}: {text!r}; needed is a text" for where, text in rows if not is_text(text)]
    return [text.strip() for _, text in rows]


def _labels(file: Path, lowest: int, width: int | None, faults: list[str]) -> Ints:
    """Return (n, width) labels from `lowest` to 1; without a width the first line sets it."""
    names = {str(k): k for k in range(lowest, len(CLASSES))}
    allowed = f"allowed: {', '.join(names)}" + (" (-1: no vote)" if lowest < 0 else "")
    before, found = len(faults), []
    for where, text in lines_of(file, faults):
        cells = text.split()
        width = width or len(cells)
        if len(cells) != width or not cells:
            faults.append(f"{where}: {len(cells)} columns; needed: {max(width, 1)}")
            continue
        faults += [
            f"{where}, column {column}: {cell!r}; {allowed}"
            for column, cell in enumerate(cells, 1)
            if cell not in names
        ]
        found.append([names.get(cell, 0) for cell in cells])
    if len(faults) > before:
        return np.empty((0, max(width or 1, 1)), dtype=np.int64)
    return np.array(found, dtype=np.int64)
