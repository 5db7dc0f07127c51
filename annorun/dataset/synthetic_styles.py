"""Generated pairs of phrases, and annotators with labels, words, reasons and lengths of their own.

    big red fox / small blue fox        Ann2: no, "paint unlike i think"

A pair shares none to all of three aspects (size, colour, animal); an annotator says yes from a
number of shared aspects on that is its own, and errs now and then. The explanation names one aspect
on which the label rests (of those that are alike for yes, that differ for no, where there are any).
Of the style, four things are an annotator's own: what the aspects are called, what alike and
different are called, which aspect comes first, and how the explanation ends. Each is used with the
probability `strength`, else one that is drawn among all annotators': a style is a tendency, as
people's are, and one explanation does not tell whose it is.

A small stand-in for VariErr and Paraphrase (CAPO, arXiv 2605.28802), which a network that is built
from scratch can learn to write in seconds.
"""

import numpy as np

from annorun.dataset.explained import Said, assembled
from annorun.errors import ConfigError
from annorun.kinds import Count, Probability
from annorun.votes import Items, Votes

SIZES, COLOURS = ("big", "small", "tiny", "tall"), ("red", "blue", "green", "grey")
ANIMALS = ("fox", "cat", "owl", "bee")
VALUES = (SIZES, COLOURS, ANIMALS)
# by annotator: what size, colour and animal are called
ASPECTS = (
    ("size", "colour", "animal"),
    ("scale", "paint", "beast"),
    ("extent", "hue", "creature"),
    ("build", "shade", "being"),
)
ALIKE = ("same", "equal", "match", "agree")
DIFFERENT = ("differs", "unlike", "departs", "varies")
FIRST = ((0, 1, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
ENDS = ("", " i think", " so it is clear", " as one sees")
FROM = (1, 2, 3, 2)  # shared aspects from which on the label is yes
LABELS = ("no", "yes")
N = len(ASPECTS)
MOST = 4096


def synthetic_styles(
    *,
    rng: np.random.Generator,
    n_items: Count,
    strength: Probability,
    error: Probability,
) -> tuple[Items, Votes]:
    """Return the pairs, and labels with explanations of four annotators; those of test held out.

    Args:
        rng: draws pairs, labels and explanations; another `data_seed`, another set.
        n_items: pairs, all distinct; a tenth of them validates, a tenth tests.
        strength: how often each part of the style is the annotator's own.
        error: how often a label is the other one.

    Raises:
        ConfigError: fewer than 10 items, or more than there are pairs.
    """
    if not 10 <= n_items <= MOST:
        raise ConfigError(f"dataset.n_items={n_items}: allowed is 10 to {MOST}, all distinct")
    pairs = np.stack(np.unravel_index(rng.permutation(MOST)[:n_items], (4,) * 6), axis=1)
    texts = [f"{_phrase(pair[:3])}\n{_phrase(pair[3:])}" for pair in pairs]
    said = []
    for item, pair in enumerate(pairs):
        same = pair[:3] == pair[3:]
        for who in range(N):
            label = int((same.sum() >= FROM[who]) != (rng.random() < error))
            why = explanation(same, label, who, strength, rng)
            said.append(Said(item, f"Ann{who + 1}", LABELS[label], why))
    tenth = n_items // 10
    parts = np.repeat(["train", "val", "test"], [n_items - 2 * tenth, tenth, tenth])
    names = [str(i) for i in range(n_items)]
    return assembled(said, texts, names, rng.permutation(parts), LABELS, multi_label=False)


def explanation(
    same: np.ndarray,  # (3,) bool, which aspects are alike
    label: int,
    who: int,
    strength: float,
    rng: np.random.Generator,
) -> str:
    """Return one annotator's reason for a label."""
    own = np.where(rng.random(4) < strength, who, rng.integers(N, size=4)).tolist()
    fitting = [k for k in FIRST[own[0]] if same[k] == bool(label)]
    aspect = (fitting or FIRST[own[0]])[0]
    verdict = (ALIKE if same[aspect] else DIFFERENT)[own[1]]
    return f"{ASPECTS[own[2]][aspect]} {verdict}{ENDS[own[3]]}"


def _phrase(values: np.ndarray) -> str:
    return " ".join(words[k] for words, k in zip(VALUES, values, strict=True))
