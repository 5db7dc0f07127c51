"""Generated multiple-choice questions about an invented vocabulary; embedded, no file needed.

    Which bird sings? (a) gemi (b) vuti (c) rufi (d) nuka

Each word belongs to a topic and has its topic's property or lacks it. A question names a topic and
shows K of its words, exactly one of which has the property. Who knows the words answers; who does
not can only guess. A question's words are all of one sort:

    familiar    few words, which a network may have met beforehand (`clean_questions`, read by
                `annorun.pretrain`): it starts as Flan-T5 does on the paper's questions, knowing a
                part
    unfamiliar  as few, which it can learn from the training questions alone
    rare        so many that each is seen too seldom to be learned: nobody answers everything

The words are constant: they hang on no seed of a run. A hash of the set of a question's options
says whether it is of the clean part or of the part that train and test are drawn from, so no
`data_seed` can meet a question seen beforehand. Train and test share no set of options either.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annorun.errors import ConfigError
from annorun.kinds import Count, Share
from annorun.votes import Ints, Items

TOPICS = (("bird", "sings"), ("herb", "heals"), ("tool", "cuts"), ("gem", "glows"))
SORTS = ("familiar", "unfamiliar", "rare")
# words that have and that lack the property, of a topic, by sort
HAVE, LACK = (8, 10, 80), (16, 20, 160)
WORD_SEED = 20240229
CLEAN_SHARE = 0.25
MOST_CLASSES = 6


@dataclass(frozen=True, eq=False)
class Questions:
    """n questions, as numbers.

    Attributes:
        topic: (n,).
        options: (n, K) places in `words()`.
        gold: (n,) the right option.
    """

    topic: Ints
    options: Ints
    gold: Ints

    def __getitem__(self, index: NDArray[np.intp]) -> "Questions":
        return Questions(self.topic[index], self.options[index], self.gold[index])

    def text(self) -> dict[str, list[str] | list[list[str]]]:
        """Return the columns `question` and `options`."""
        asked = [f"Which {noun} {verb}?" for noun, verb in TOPICS]
        options = words()[self.options].tolist()
        return {"question": [asked[t] for t in self.topic], "options": options}


def synthetic_qa(
    *,
    rng: np.random.Generator,
    n_classes: Count = 4,
    n_train: Count = 2200,
    n_test: Count = 3000,
    familiar: Share = 0.57,
    rare: Share = 0.05,
) -> tuple[Items, None]:
    """Return train and test questions with their truth; the votes are simulated.

    Args:
        rng: draws the questions, from the part that is not clean.
        n_classes: K options, 2 to 6.
        n_train: training questions.
        n_test: test questions.
        familiar: share of the questions with familiar words, in train and test alike.
        rare: the same of rare words; the rest are unfamiliar.

    Raises:
        ConfigError: K or the shares are out of range, or there are not so many distinct questions.
    """
    if not 2 <= n_classes <= MOST_CLASSES:
        raise ConfigError(f"dataset.n_classes={n_classes}: allowed is 2 to {MOST_CLASSES}")
    if familiar + rare > 1:
        raise ConfigError(f"dataset.familiar, rare: {familiar} and {rare} are more than 1 together")
    train, test = [], []
    for sort, (n_first, n_second) in enumerate(
        zip(by_sort(n_train, familiar, rare), by_sort(n_test, familiar, rare), strict=True)
    ):
        drawn = collect(rng, n_first + n_second, n_classes, sort)
        train.append(drawn[np.arange(n_first)])
        test.append(drawn[np.arange(n_first, n_first + n_second)])
    questions = join([shuffled(join(train), rng), shuffled(join(test), rng)])
    n = sum(len(part.gold) for part in train)
    items = Items(
        kind="choice",
        inputs=questions.text(),
        split=np.where(np.arange(len(questions.gold)) < n, "train", "test"),
        n_classes=n_classes,
        truth=questions.gold,
        class_names=list("abcdef"[:n_classes]),
    )
    return items, None


def by_sort(n: int, familiar: float, rare: float) -> tuple[int, int, int]:
    """Return how many of n questions have familiar, unfamiliar and rare words."""
    first = round(familiar * n)
    last = min(round(rare * n), n - first)
    return first, n - first - last, last


def words() -> NDArray[np.str_]:  # (n_words,)
    """Return distinct words of two syllables, by sort, by topic, those with the property first."""
    rng = np.random.default_rng(WORD_SEED)
    syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    all_words = np.array([s + t for s in syllables for t in syllables if s != t])
    return rng.choice(all_words, len(TOPICS) * (sum(HAVE) + sum(LACK)), replace=False)


def candidates(
    rng: np.random.Generator, n: int, n_classes: int, sort: int, vocabulary: float = 1.0
) -> Questions:
    """Return n questions of either part, with topics and places of the answer in equal numbers."""
    have = max(1, round(HAVE[sort] * vocabulary))
    lack = max(n_classes, round(LACK[sort] * vocabulary))
    topic = rng.permutation(np.arange(n) % len(TOPICS))
    gold = rng.permutation(np.arange(n) % n_classes)
    options = HAVE[sort] + rng.random((n, lack)).argsort(axis=1)[:, :n_classes]
    row = np.arange(n)
    options[row, gold] = rng.integers(0, have, n)
    size = HAVE[sort] + LACK[sort]
    before = len(TOPICS) * (sum(HAVE[:sort]) + sum(LACK[:sort]))
    return Questions(topic, before + topic[:, None] * size + options, gold)


def collect(rng: np.random.Generator, n: int, n_classes: int, sort: int) -> Questions:
    """Return n questions of one sort that are not clean, no set of options twice."""
    kept: list[Questions] = []
    seen, missing = np.empty(0, np.uint64), n
    # each round finds a good part of what is missing, unless there is no more to find
    for _ in range(100):
        if not missing:
            break
        drawn = candidates(rng, 2 * missing + 64, n_classes, sort)
        mark = option_hash(drawn.options)
        first = np.zeros(len(mark), bool)
        first[np.unique(mark, return_index=True)[1]] = True
        good = np.flatnonzero(first & ~np.isin(mark, seen) & ~is_clean(mark))[:missing]
        kept.append(drawn[good])
        seen = np.concatenate([seen, mark[good]])
        missing -= len(good)
    if missing:
        raise ConfigError(
            f"dataset.n_train, n_test: with {n_classes} options there are no {n} distinct "
            f"questions of {SORTS[sort]} words; allowed is fewer"
        )
    return join(kept) if kept else candidates(rng, 0, n_classes, sort)


def option_hash(options: Ints) -> NDArray[np.uint64]:
    """Return 64 bits for each set of options, whatever their order (splitmix64 over sorted ids)."""
    mark = np.full(len(options), 0x9E3779B97F4A7C15, np.uint64)
    for column in np.sort(options, axis=1).T.astype(np.uint64):
        mark = (mark ^ (column + np.uint64(1))) * np.uint64(0xBF58476D1CE4E5B9)
        mark ^= mark >> np.uint64(27)
        mark *= np.uint64(0x94D049BB133111EB)
        mark ^= mark >> np.uint64(31)
    return mark


def is_clean(mark: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Say of each hash whether its question is set aside for what is learned beforehand."""
    share: NDArray[np.bool_] = (mark >> np.uint64(11)) < np.uint64(CLEAN_SHARE * 2**53)
    return share


def clean_questions(
    rng: np.random.Generator, n: int, n_classes: int, sort: int = 0, vocabulary: float = 1.0
) -> Questions:
    """Return n questions of the clean part, repeats possible.

    Args:
        rng: draws them.
        n: how many.
        n_classes: K.
        sort: 0 familiar, 1 unfamiliar, 2 rare.
        vocabulary: share of the sort's words that appear.
    """
    found = candidates(rng, 0, n_classes, sort)
    while len(found.gold) < n:
        drawn = candidates(rng, 5 * n, n_classes, sort, vocabulary)
        found = join([found, drawn[np.flatnonzero(is_clean(option_hash(drawn.options)))]])
    return found[np.arange(n)]


def join(parts: list[Questions]) -> Questions:
    """Return the questions of all parts, one after the other."""
    columns = ([getattr(p, name) for p in parts] for name in ("topic", "options", "gold"))
    return Questions(*(np.concatenate(column) for column in columns))


def shuffled(questions: Questions, rng: np.random.Generator) -> Questions:
    """Return the questions in a random order."""
    return questions[rng.permutation(len(questions.gold))]
