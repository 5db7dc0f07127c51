"""What is left of an explanation without its format or its input, and how alike two texts are.

Annotators are told apart by surface format alone (one begins with a blank, another ends without a
full stop): a text is brought to one form before anybody judges whose it is. `words` is that form;
`content_reduced` leaves out what the input says (arXiv 2605.28802, input-content reduction; the
paper's own form of it is not known to us).

Example:
    >>> content_reduced(" The boys are PLAYING football.", "Boys run. A football lies there.")
    'the _ are playing _'
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

# letters of any script; digits, punctuation and blanks part words
WORD = re.compile(r"[^\W\d_]+")
HELD = "_"
# F1 of the words from which on two texts are nearly one
ALIKE = 0.9


def words(text: str) -> list[str]:
    """Return the words in lower case."""
    return WORD.findall(text.lower())


def content_reduced(text: str, given: str) -> str:
    """Return the words, those of the input each replaced by `_`."""
    known = set(words(given))
    return " ".join(HELD if word in known else word for word in words(text))


def viewed(
    texts: Sequence[str],
    given: Sequence[str],
    view: Literal["clean", "reduced"],
) -> list[str]:
    """Return texts in one form, or with the words of the input of each held back."""
    if view == "clean":
        return [" ".join(words(text)) for text in texts]
    return [content_reduced(text, own) for text, own in zip(texts, given, strict=True)]


def token_f1(one: str, other: str) -> float:
    """Return the F1 of the words that two texts share, counted as often as both have them."""
    mine, theirs = Counter(words(one)), Counter(words(other))
    shared = (mine & theirs).total()
    total = mine.total() + theirs.total()
    # two texts without a word are alike
    return 2 * shared / total if total else 1.0


def repeats(text: str, others: Sequence[str], alike: float = ALIKE) -> bool:
    """Say whether a text is nearly one of others, by the F1 of their words; wordless ones are."""
    mine = words(text)
    near = (other for other in others if _may_be(len(mine), len(words(other)), alike))
    return any(token_f1(text, other) > alike for other in near)


def _may_be(mine: int, theirs: int, alike: float) -> bool:
    """Say whether texts of so many words can be that alike: F1 is 2 shared / both."""
    return 2 * min(mine, theirs) >= alike * (mine + theirs)


def copied(text: str, given: str) -> float:
    """Return the share of the words that are the input's; NaN without a word."""
    mine, known = words(text), set(words(given))
    return sum(word in known for word in mine) / len(mine) if mine else float("nan")


def distinct(texts: list[str], n: int) -> float:
    """Return distinct n-grams a n-gram, over all texts (Li et al. 2016); NaN without any."""
    grams = [
        gram
        for text in texts
        for own in [words(text)]
        for gram in zip(*(own[k:] for k in range(n)), strict=False)
    ]
    return len(set(grams)) / len(grams) if grams else float("nan")
