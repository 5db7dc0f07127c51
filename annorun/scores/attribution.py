r"""Whose is it? Attribution of responses to annotators, one by one and in bags.

Chen et al., CAPO, arXiv 2605.28802: what an annotator has of its own is weak in one annotation,
where the input decides, and clear after reduction of the input's content and over several
annotations. Only the abstract is known to us; the measures are proposals of ours.

A judge gives log p(a | r) of each response. A bag of B responses of one annotator is answered by

    argmax_a sum_b log p(a | r_b),

exact where responses are independent given the annotator and annotators are equally likely. A
representation x_r is answered by the nearest centroid, in cosine, of the mean of the bag.

Input-content reduction of representations: `item_centred`, x less the mean over the item's
responses; `ridge_residual`, x less what a ridge regression on a representation of the input says.

Example:
    >>> import numpy as np
    >>> told = np.log([[0.6, 0.4], [0.4, 0.6], [0.9, 0.1]])
    >>> bag_answers(told, np.array([[0, 1], [1, 2]])).tolist()
    [0, 0]
"""

import numpy as np

from annorun.votes import Bools, Floats, Ints

# of the regression on the input, in its mean variance
PENALTIES = (0.01, 0.1, 1.0, 10.0)


def drawn_bags(
    author: Ints,  # (n,)
    size: int,
    *,
    draws: int,
    rng: np.random.Generator,
) -> tuple[Ints, Ints]:  # (n_bags, size) rows, (n_bags,) authors
    """Return bags of responses of one annotator each, `draws` of each annotator; of one, each once.

    Without replacement in a bag. There are none where an annotator has fewer responses: bags of all
    sizes are of the same annotators. Two responses of an annotator to one item may be in one bag.
    """
    if size == 1:
        return np.arange(len(author))[:, None], author.copy()
    rows: list[Ints] = []
    whose: list[int] = []
    if np.unique(author, return_counts=True)[1].min(initial=len(author)) < size:
        return np.empty((0, size), dtype=np.int64), np.empty(0, dtype=np.int64)
    for who in np.unique(author):
        own = np.flatnonzero(author == who)
        rows += [rng.choice(own, size, replace=False) for _ in range(draws)]
        whose += [who] * draws
    return np.array(rows), np.array(whose)


def bag_answers(
    log_probs: Floats,  # (n, n_annotators)
    bags: Ints,  # (n_bags, size)
) -> Ints:  # (n_bags,)
    """Return the most probable annotator of each bag, the first of several."""
    answer: Ints = log_probs[bags].sum(axis=1).argmax(axis=1)
    return answer


def label_judge(
    label: Ints,  # (n,) of the responses that it learns from
    author: Ints,  # (n,)
    n_classes: int,
    n_annotators: int,
) -> Floats:  # (n_classes, n_annotators)
    """Return log p(a | label) from counts with one more of each, annotators equally likely.

    The floor of every judge: whose a response is by its label alone.
    """
    counts = np.ones((n_classes, n_annotators))
    np.add.at(counts, (label, author), 1)
    likelihood = counts / counts.sum(axis=0)
    log_probs: Floats = np.log(likelihood / likelihood.sum(axis=1, keepdims=True))
    return log_probs


def item_centred(
    x: Floats,  # (n, d)
    item: Ints,  # (n,)
    author: Ints,  # (n,)
) -> Floats:  # (n, d)
    """Return each response less its item's mean over annotators; a lone annotator's is 0."""
    pair = np.stack([item, author], axis=1)
    (items, _), of = (
        v.T if v.ndim > 1 else v for v in np.unique(pair, axis=0, return_inverse=True)
    )
    own = _means(x, of.ravel())
    _, place = np.unique(items, return_inverse=True)
    of_item = _means(own, place)
    centred: Floats = x - of_item[place][of.ravel()]
    return centred


def _means(
    x: Floats,  # (n, d)
    place: Ints,  # (n,), each from 0 on
) -> Floats:  # (number of places, d)
    total = np.zeros((place.max(initial=-1) + 1, x.shape[1]))
    np.add.at(total, place, x)
    mean: Floats = total / np.bincount(place)[:, None]
    return mean


def ridge_residual(
    x: Floats,  # (n, d)
    given: Floats,  # (n, p), a representation of each response's input
    fit: Bools,  # (n,), the responses that the regression learns from
    penalty: float,
) -> Floats:  # (n, d)
    """Return what a ridge regression with an intercept on the input leaves of each response."""
    mean_x, mean_given = x[fit].mean(axis=0), given[fit].mean(axis=0)
    known, target = given[fit] - mean_given, x[fit] - mean_x
    gram = known.T @ known + penalty * np.eye(given.shape[1])
    residual: Floats = x - mean_x - (given - mean_given) @ np.linalg.solve(gram, known.T @ target)
    return residual


def cross_residual(
    x: Floats,  # (n, d)
    given: Floats,  # (n, p)
    item: Ints,  # (n,)
    fit: Bools,  # (n,)
) -> tuple[Floats, float]:  # (n, d), ()
    """Return residuals that no response had a part in, and the share that they leave.

    The responses that are fitted fall into five folds by item: their residuals are those of the
    regression on the other folds, at the penalty that leaves the least of them. A regression that
    sees its own residuals would leave less of them than of the judged ones.
    """
    fold = np.unique(item, return_inverse=True)[1] % 5
    scale = ((given[fit] - given[fit].mean(axis=0)) ** 2).sum() / given.shape[1]
    best, least = x, np.inf
    for penalty in scale * np.array(PENALTIES):
        out = ridge_residual(x, given, fit, penalty)
        for k in range(5):
            held = fit & (fold == k)
            if held.any() and (fit & ~held).any():
                out[held] = ridge_residual(x, given, fit & ~held, penalty)[held]
        left = float((out[fit] ** 2).sum())
        if left < least:
            best, least = out, left
    total = ((x[fit] - x[fit].mean(axis=0)) ** 2).sum()
    return best, least / float(total)


def centroids(
    x: Floats,  # (n, d)
    author: Ints,  # (n,)
    n_annotators: int,
) -> Floats:  # (n_annotators, d)
    """Return each annotator's mean response; NaN without any."""
    total = np.zeros((n_annotators, x.shape[1]))
    np.add.at(total, author, x)
    with np.errstate(invalid="ignore"):
        mean: Floats = total / np.bincount(author, minlength=n_annotators)[:, None]
    return mean


def cosine(
    a: Floats,  # (n, d)
    b: Floats,  # (m, d)
) -> Floats:  # (n, m)
    """Return the cosines of all pairs; 0 with a vector that is 0."""
    lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)[None, :]
    found: Floats = np.divide(a @ b.T, lengths, out=np.zeros(lengths.shape), where=lengths > 0)
    return found


def margin(
    likeness: Floats,  # (n, n_annotators)
    target: Ints,  # (n,)
) -> Floats:  # (n,)
    """Return the likeness to the target less the greatest to another annotator."""
    own = likeness[np.arange(len(target)), target]
    others = likeness.copy()
    others[np.arange(len(target)), target] = -np.inf
    difference: Floats = own - others.max(axis=1)
    return difference


def split_half(
    x: Floats,  # (n, d)
    author: Ints,  # (n,)
    item: Ints,  # (n,)
    *,
    n_annotators: int,
    draws: int,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Return how stable the annotators are, and the one-sided p of no stability.

    Items fall into two halves. Stability is the mean cosine of an annotator's mean responses in
    both halves, less that of two annotators'. If it did not matter who responded, the authors of
    an item's responses could be exchanged: p is the share of such exchanges, the data's own
    counted among them, that give as much or more.
    """
    _, place = np.unique(item, return_inverse=True)
    half = (rng.permutation(place.max() + 1) % 2)[place]
    own = np.eye(n_annotators, dtype=bool)

    def stability(who: Ints) -> float:
        means = [centroids(x[half == h], who[half == h], n_annotators) for h in (0, 1)]
        alike = cosine(*means)
        return float(alike[own].mean() - alike[~own].mean())

    found = stability(author)
    order = np.argsort(place, kind="stable")
    exchanged = 0
    for _ in range(draws):
        who = np.empty_like(author)
        # within each item, in a random order
        who[order] = author[np.lexsort((rng.random(len(author)), place))]
        exchanged += stability(who) >= found - 1e-12
    return found, (exchanged + 1) / (draws + 1)
