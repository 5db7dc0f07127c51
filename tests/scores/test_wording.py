"""Texts in one form, by hand."""

import math

import pytest

from annorun.scores.wording import content_reduced, copied, distinct, token_f1, words


def test_format_leaves_no_trace() -> None:
    assert (
        words(" Not the SAME; see Q1.")
        == words("not the same see q")
        == [
            "not",
            "the",
            "same",
            "see",
            "q",
        ]
    )
    assert words("Ça_va 12 3") == ["ça", "va"]


def test_the_inputs_words_are_held_back_wherever_they_stand() -> None:
    assert content_reduced("A dog is no Cat!", "the cat\nand a dog") == "_ _ is no _"
    assert content_reduced("12.", "12") == ""


def test_token_f1_by_hand() -> None:
    """Shared: a, b (a once of two): 2 * 2 / (3 + 2)."""
    assert token_f1("a a b", "A b.") == pytest.approx(0.8)
    assert token_f1("a", "b") == 0
    assert token_f1("!", "?") == 1


def test_copied_by_hand() -> None:
    assert copied("The dog barks", "a dog, the cat") == pytest.approx(2 / 3)
    assert math.isnan(copied("...", "a"))


def test_distinct_by_hand() -> None:
    """Bigrams: ab, bc, ab: two of three."""
    assert distinct(["a b c", "a b"], 2) == pytest.approx(2 / 3)
    assert distinct(["a a", "a"], 1) == pytest.approx(1 / 3)
    assert math.isnan(distinct(["a"], 2))
