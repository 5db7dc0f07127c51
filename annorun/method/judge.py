"""Judges that name the author of an explanation, and the representations that they see.

A judge learns from human explanations of training items alone; what it judges stands on others.
Whoever reads a judge's answers gives it texts in one form (`annorun.scores.wording`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from annorun.votes import Floats, Ints, TaskSpec

# penalty of the logistic regression, of characters and of sentence embeddings
C = 10.0
NGRAMS = (2, 5)
DIMENSIONS = 100
MAX_TOKENS = 256
FEW = 50


class Judge:
    """Logistic regression on TF-IDF of characters, 2 to 5 at a time, across words.

    Annotators are equally likely, however much each has written.

    Args:
        texts: what it learns from.
        author: (n,) whose they are.
        n_annotators: also those without a text, who are never named.
    """

    def __init__(self, texts: Sequence[str], author: Ints, n_annotators: int):
        from sklearn.pipeline import make_pipeline

        self.n_annotators = n_annotators
        self.model = make_pipeline(characters(len(texts)), regression())
        self.model.fit(list(texts), author)

    def log_probs(self, texts: Sequence[str]) -> Floats:
        """Return log p(annotator | text), (n, n_annotators)."""
        return _whole(self.model, list(texts), self.n_annotators)


def judged_vectors(
    x: Floats,  # (n, d) what it learns from
    author: Ints,  # (n,)
    others: Floats,  # (m, d)
    n_annotators: int,
) -> Floats:  # (m, n_annotators)
    """Return log p(annotator | vector) of logistic regression on standardised vectors."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # many numbers, few texts: a stronger penalty than of sparse n-grams
    model = make_pipeline(StandardScaler(), regression(c=0.1))
    return _whole(model.fit(x, author), others, n_annotators)


def characters(n_texts: int) -> Any:
    """Return a TF-IDF of characters; of many texts, what is in one alone is left out."""
    min_df = 2 if n_texts > FEW else 1
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        analyzer="char", lowercase=False, ngram_range=NGRAMS, sublinear_tf=True, min_df=min_df
    )


def regression(c: float = C) -> Any:
    """Return logistic regression for annotators who are equally likely."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=c, max_iter=2000, class_weight="balanced")


def latent(
    texts: Sequence[str],  # n, those that it is fitted to
    others: Sequence[Sequence[str]],
) -> list[Floats]:  # (n, d), then each of the others, (m, d)
    """Return representations without a network: TF-IDF of characters, its first directions."""
    from sklearn.decomposition import TruncatedSVD

    tfidf = characters(len(texts))
    table = tfidf.fit_transform(list(texts))
    size = min(DIMENSIONS, min(table.shape) - 1)
    svd = TruncatedSVD(size, random_state=0).fit(table)
    return [svd.transform(table), *(svd.transform(tfidf.transform(list(o))) for o in others)]


def embedded(texts: Sequence[str], model: str, pooling: str) -> Floats:
    """Return a sentence encoder's states, (n, d); equal texts are encoded once."""
    from annorun import net, net_text

    network = {"family": "encoder", "model": model, "pooling": pooling, "frozen": True}
    encoder = net.build(network, TaskSpec("text", 1, 0), seed=0)
    once, place = np.unique(np.array(texts, dtype=object), return_inverse=True)
    tokens = net.tokenizer(model)(
        once.tolist(),
        padding=True,
        truncation=True,
        max_length=MAX_TOKENS,
        return_tensors="pt",
    )
    inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    # an encoder by its family
    states = net_text.states(encoder, inputs, "cpu")  # type: ignore[arg-type]
    found: Floats = states.double().numpy()[place]
    return found


def _whole(model: Any, x: Any, n_annotators: int) -> Floats:
    """Return the model's log-probabilities, -inf for annotators whom it has not seen."""
    found = np.full((len(x), n_annotators), -np.inf)
    found[:, model.classes_] = model.predict_log_proba(x)
    return found
