"""Kinds of reasoning by their words: sentences of each kind, and shares that add up."""

import numpy as np
import pytest

from annorun.scores.reasoning import KINDS, kinds, shares


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The context does not mention a dog.", ["absence"]),
        ("It doesn't say where.", ["absence"]),
        ("There is no information about the price.", ["absence"]),
        ("It is unclear who won.", ["absence"]),
        ("The context never mentions it.", ["absence"]),
        ("The statement states that a dog runs.", ["other"]),
        ("The student tells him.", ["other"]),
        ("This contradicts the first sentence.", ["conflict"]),
        ("He cannot be in two places.", ["conflict"]),
        ("She might be his sister.", ["possibility"]),
        ("They are wet because it rains.", ["inference"]),
        ("Both ask the SAME thing.", ["likeness"]),
        ("The verbs are different.", ["difference"]),
        ("The second is more specific.", ["scope"]),
        ("A dog runs.", ["other"]),
        ("", ["other"]),
        (
            "Nothing is said, but they may agree.",
            ["absence", "possibility", "likeness", "difference"],
        ),
        # a word is a cue by itself, not within another
        ("The sofa and the soap, almost.", ["other"]),
    ],
)
def test_words_tell_the_kind(text: str, found: list[str]) -> None:
    assert kinds(text) == found


def test_shares_are_of_explanations_and_of_several_kinds_in_parts() -> None:
    got = dict(zip(KINDS, shares(["A dog.", "It might, but the same."]), strict=True))
    parts = {"other": 1 / 2, "possibility": 1 / 6, "likeness": 1 / 6, "difference": 1 / 6}
    assert got == pytest.approx({name: parts.get(name, 0.0) for name in KINDS})
    rng = np.random.default_rng(0)
    words = "not mention same because might only while dog the a".split()
    some = [" ".join(rng.choice(words, 6)) for _ in range(50)]
    assert shares(some).sum() == pytest.approx(1) and (shares(some) >= 0).all()
    # the mean over parts of the set, by their sizes
    halves = 0.4 * shares(some[:20]) + 0.6 * shares(some[20:])
    assert shares(some) == pytest.approx(halves)


def test_nobody_said_anything() -> None:
    with pytest.raises(ValueError, match="one or more"):
        shares([])
