r"""Which heads of an ensemble an annotator is like, from a few of his labels.

A mixture of the heads, z_i ~ sum_r w_r p_r(. | x_i), with w ~ Dirichlet(2, .., 2): one label for
each head beforehand. Of labels z_1 .. z_n, EM climbs to the greatest posterior,
    E: g_ir = w_r p_r(z_i) / sum_s w_s p_s(z_i);      M: w_r = (1 + sum_i g_ir) / (n_heads + n),
which is one (the log posterior is concave in w). SeedBERT's last sentence (Sampath et al., arXiv
2211.13196) wishes for prior information on a specific annotator; how is not said, and is ours.

Example:
    >>> head_weights(np.array([[1.0, 0.0], [1.0, 0.0]])).round(4).tolist()
    [0.75, 0.25]
"""

import numpy as np

from annorun.votes import Floats

ITERATIONS = 200
TOLERANCE = 1e-10


def head_weights(
    said: Floats,  # (n_labels, n_heads)
) -> Floats:  # (n_heads,)
    """Return the weights of the heads; equal ones without labels.

    Args:
        said: the probability that each head gave to what the annotator said.
    """
    n_labels, n_heads = said.shape
    weights = np.full(n_heads, 1 / n_heads)
    # what no head thought possible tells them apart in nothing
    said = np.where(said.sum(axis=1, keepdims=True) > 0, said, 1.0)
    for _ in range(ITERATIONS):
        joint = said * weights
        new = (1 + (joint / joint.sum(axis=1, keepdims=True)).sum(axis=0)) / (n_heads + n_labels)
        if np.abs(new - weights).max() < TOLERANCE:
            return new  # type: ignore[no-any-return]
        weights = new
    return weights
