"""Responses to one input, packed into one sequence: what they share is computed once.

A tree of segments: the input at the root, below it each annotator asked, below that the responses
that are scored for it. A token sees its own segment up to itself, and all of the segments above;
it stands at the place that it would have, were its branch alone. So every branch has the
log-probabilities of a sequence of its own (arXiv 2605.28802 scores pairs; its code is not public),
and an input with four annotators and four responses each is read once, not sixteen times.

Example:
    >>> tree = packed([((5, 6), -1), ((7,), 0), ((8, 9), 0)])
    >>> tree.tokens.tolist(), tree.position.tolist(), tree.before.tolist()
    ([5, 6, 7, 8, 9], [0, 1, 2, 2, 3], [-1, 0, 1, 1, 3])
    >>> tree.sees()[4].tolist()
    [True, True, False, True, True]
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annorun.votes import Bools, Ints


@dataclass(frozen=True, eq=False)
class Tree:
    """One packed sequence of T tokens in S segments.

    Attributes:
        tokens: (T,).
        position: (T,) places in the branch.
        before: (T,) where the token before stands, whose state predicts this one; -1 for the first.
        segment: (T,) of each token.
        above: (S, S) whether the second is the first or stands above it.
    """

    tokens: Ints
    position: Ints
    before: Ints
    segment: Ints
    above: Bools

    def sees(self) -> Bools:
        """Return which tokens each token sees, (T, T)."""
        place = np.arange(len(self.tokens))
        seen: Bools = self.above[self.segment[:, None], self.segment] & (place <= place[:, None])
        return seen


def packed(segments: Sequence[tuple[Sequence[int], int]]) -> Tree:
    """Return segments of tokens as one sequence, each with the number of the one above it.

    Args:
        segments: tokens, one or more, and the place in this list of the segment that they follow,
            which comes before them; -1 for the first and only root.

    Raises:
        ValueError: a segment is empty, or follows none that comes before it.
    """
    above = np.eye(len(segments), dtype=bool)
    tokens: list[int] = []
    position: list[int] = []
    before: list[int] = []
    owner: list[int] = []
    last: list[int] = []
    for number, (own, parent) in enumerate(segments):
        if not own or not (0 <= parent < number or (number == 0 and parent == -1)):
            raise ValueError("segments: allowed are tokens that follow a segment before them")
        start, first = len(tokens), -1 if parent < 0 else last[parent]
        if parent >= 0:
            above[number] |= above[parent]
        depth = 0 if first < 0 else position[first] + 1
        tokens += own
        position += range(depth, depth + len(own))
        before += [first, *range(start, start + len(own) - 1)]
        owner += [number] * len(own)
        last.append(len(tokens) - 1)
    return Tree(np.array(tokens), np.array(position), np.array(before), np.array(owner), above)
