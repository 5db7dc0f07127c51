"""Attribution by a language model that is shown explanations of each annotator.

Built to be checked before anything is learned, and again to judge: in between it takes no memory.
"""

import numpy as np

from annorun.method.llm_judge import LlmJudge, attributed, question
from annorun.seeds import rng
from annorun.votes import Items, Votes
from annorun.written import Texts, bags

# explanations that it is shown of each annotator, sizes of bags, and how many of each
SHOWN, ASKED, FEW = 8, (1, 8), 10


def shown_to(llm: LlmJudge, items: Items, votes: Votes, seed: int) -> list[list[str]]:
    """Return explanations of training items by each annotator, for a language model to know him by.

    Raises:
        ConfigError: with a bag of the longest of these and of the test items', they are more than
            the model takes.
    """
    said = Texts.of(votes.on(items.split == "train"))
    clean, draw = said.seen(items, "clean"), rng(seed, "llm")
    shown = []
    for who in range(votes.n_annotators):
        own = draw.permutation(np.flatnonzero(said.author == who))[:SHOWN]
        shown.append([clean[k] for k in own])
    assert items.held_out is not None
    human = Texts.of(items.held_out).seen(items, "clean")
    longest = sorted([*human, *(text for own in shown for text in own)], key=len)[-max(ASKED) :]
    llm.tokens([question(shown, longest)])
    return shown


def by_llm(
    name: str, llm: LlmJudge, shown: list[list[str]], items: Items, texts: Texts, seed: int
) -> dict[str, float]:
    """Return how often a language model names the author of a bag, a few of each author and size.

    Who has explained nothing to it is not named.
    """
    clean, found = texts.seen(items, "clean"), {}
    known = np.where([bool(own) for own in shown], 0.0, -np.inf)
    for size in ASKED:
        rows, whose = bags(texts.apart, size, seed)
        whose = whose % len(shown)
        # single ones, too, only as many of each
        place = np.argsort(rng(seed, f"llm/{size}").random(len(whose)), kind="stable")
        few = [k for who in np.unique(whose) for k in place[whose[place] == who][:FEW]]
        if few:
            told = attributed(llm, shown, [[clean[k] for k in rows[bag]] for bag in few]) + known
            found[f"{name}_bag{size}"] = float((told.argmax(axis=1) == whose[few]).mean())
    return found
