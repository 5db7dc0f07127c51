"""How an explanation reasons, told by its words: of which kinds it is, and how often each is.

Hong et al. (LiTEx, 2025) sort explanations of inference by hand into eight kinds (coreference,
syntax, semantics, pragmatics, absence of mention, logical conflict, factual and inferential
knowledge); CAPO (arXiv 2605.28802, abstract) asks that reasoning patterns are kept. There is no
labelled set to learn these kinds from that we know of, so the kinds here are those that words of
English tell:

    absence       what is not said: "does not mention", "no information", "unclear"
    conflict      "contradicts", "opposite", "instead of", "cannot"
    possibility   "might", "could", "likely", "perhaps"
    inference     "because", "so", "implies", "must", "if"
    likeness      "same", "similar", "synonym", "means"
    difference    "different", "differs", "other", "while"
    scope         "only", "more general", "specific", "also"

Deviations from the paper: 1. its own patterns are not known to us. 2. An explanation of several
kinds counts for each in equal parts, one of none for `other`.

Example:
    >>> kinds("It might be, but the text does not mention it.")
    ['absence', 'possibility', 'difference']
"""

import re
from collections.abc import Sequence

import numpy as np

from annorun.votes import Floats

CUES = {
    "absence": (
        r"\b(?:no|not|none|nothing|nowhere)\b[^.]{0,20}\b(?:mention|say|said|state|specif|tell|told)",
        r"\b(?:no|not|none|nothing|nowhere)\b[^.]{0,20}\b(?:known|indicat|information|evidence|clear)",
        r"\b(?:do|does|did|is|was|were|ca|could|wo|would)n\W?t (?:mention|say|state|specif|tell)",
        r"\bnever (?:mention|sa(?:y|id)|state|specif|tell|told)",
        r"\bwithout\b|\bun(?:clear|known|specified|stated|mentioned)",
    ),
    "conflict": (
        r"\bcontra(?:dict|ry)|\bopposite|\bconflict|\binstead\b|\bcan(?:not|\W?t)\b",
        r"\bimpossible|\bincompatible|\brather than\b",
    ),
    "possibility": (
        r"\b(?:may|might|could|perhaps|maybe|possibl[ye]|possibility|likely|probabl[ye])\b",
    ),
    "inference": (
        r"\b(?:because|so|since|therefore|thus|hence|must|if|then|as)\b",
        r"\bimpl(?:y|ies|ied)|\binfer|\bconclu|\bassum",
    ),
    "likeness": (
        r"\b(?:same|similar(?:ly)?|equal(?:s|ly)?|identical|equivalent|alike|agree|match(?:es)?)\b",
        r"\bsynonym|\bmean(?:s|ing)?\b|\bparaphras|\brephras|\breword",
    ),
    "difference": (
        r"\bdiffer|\b(?:unlike|other|another|while|whereas|but|departs)\b|\bvar(?:y|ies)\b",
    ),
    "scope": (
        r"\b(?:only|also|all|some|part of|more than)\b|\bevery",
        r"\bgeneral|\bspecific|\bbroad|\bnarrow|\bsubset",
    ),
}
PATTERNS = {name: re.compile("|".join(cues), re.IGNORECASE) for name, cues in CUES.items()}
KINDS = (*CUES, "other")


def kinds(text: str) -> list[str]:
    """Return the kinds of an explanation, in their order above; `other` where no word tells."""
    return [name for name, cue in PATTERNS.items() if cue.search(text)] or ["other"]


def shares(texts: Sequence[str]) -> Floats:  # (n_kinds,), sums to 1
    """Return how often each kind is among explanations, one or more.

    Raises:
        ValueError: there is no explanation.
    """
    if not texts:
        raise ValueError("texts: allowed is one or more")
    found = np.zeros(len(KINDS))
    for text in texts:
        own = kinds(text)
        for name in own:
            found[KINDS.index(name)] += 1 / len(own)
    return found / len(texts)
