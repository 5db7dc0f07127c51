"""Judges of authors and representations: what they are fitted to, whose row is whose."""

import numpy as np
import pytest

from annorun.method.judge import Judge, embedded, judged_vectors, latent


def test_embeddings_are_of_their_texts_whatever_their_order_and_number() -> None:
    texts = ["b cat", "a much longer text than the others", "b cat", "a", "zebra"]
    together = embedded(texts, "tiny", "mean")
    for text, state in zip(texts, together, strict=True):
        np.testing.assert_allclose(embedded([text], "tiny", "mean")[0], state, atol=1e-5)
    assert len(np.unique(together.round(4), axis=0)) == 4
    assert np.abs(embedded(texts, "tiny", "first") - together).max() > 0.01


def test_representations_are_fitted_to_the_first_texts_alone() -> None:
    texts = ["the cat sat", "a dog ran off", "birds fly", "cats and dogs", "it rains"]
    others = ["the cat sat", "quite other words"]
    fitted, first, second = latent(texts, [others, ["birds fly", "it rains"]])
    alone, turned = latent(texts, [others[::-1]])
    np.testing.assert_allclose(fitted, alone)
    np.testing.assert_allclose(first, turned[::-1])
    np.testing.assert_allclose(first[0], fitted[0], atol=1e-9)
    np.testing.assert_allclose(second, fitted[[2, 4]], atol=1e-9)
    assert fitted.shape == (5, 4)


def test_annotators_are_equally_likely_however_much_they_have_written() -> None:
    """What tells nothing leaves half each; by counts it would be 9 of 10."""
    texts, author = ["same"] * 20, np.array([0] * 18 + [1] * 2)
    assert np.exp(Judge(texts, author, 2).log_probs(["same"])) == pytest.approx(0.5, abs=0.01)
    x = np.zeros((20, 3))
    assert np.exp(judged_vectors(x, author, x[:1], 2)) == pytest.approx(0.5, abs=0.01)


def test_vectors_are_standardised_by_those_that_are_fitted() -> None:
    """Units do not matter, nor do the vectors that are judged beside one."""
    draw = np.random.default_rng(0)
    author = np.repeat([0, 1, 3], 10)
    x = draw.normal(size=(30, 3)) + author[:, None] * [1.0, 0.0, -1.0]
    others = draw.normal(size=(4, 3)) * 3
    found = judged_vectors(x, author, others, 4)
    scale, shift = np.array([1000.0, 1e-3, 1.0]), np.array([5.0, 0.0, -7.0])
    moved = judged_vectors(x * scale + shift, author, others * scale + shift, 4)
    np.testing.assert_allclose(found[:, [0, 1, 3]], moved[:, [0, 1, 3]], atol=1e-6)
    assert np.isneginf(found[:, 2]).all()
    np.testing.assert_allclose(judged_vectors(x, author, others[:1], 4)[0], found[0])
