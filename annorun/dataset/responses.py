"""Explanations as what a language model learns to write: tokens, pairs, packed batches.

    PROMPT  [input]
    WHO         [annotator]                 or the same words for all, where nobody is told apart
    RESPONSE        [ label |][ why END]

The three parts, and a response's two, are tokenised apart: no token lies in two of them, so which
tokens are scored is exact, and what is written goes on from the very tokens that were learned from.
A response that is learned from under an annotator's name is his own; a pair has another's beside
it, to the same input (CAPO, arXiv 2605.28802, abstract).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np

from annorun.dataset.packing import Tree, packed
from annorun.errors import ConfigError
from annorun.scores.wording import ALIKE, content_reduced, token_f1
from annorun.votes import Floats, Ints, Items, Votes

Who = Literal["pooled", "token", "adapter"]
BAR = "|"


@dataclass(frozen=True, eq=False)
class Branch:
    """One annotator on one item: the responses that are scored under his name.

    Attributes:
        item, target: which.
        own, others: places of his responses and of the others', in the votes.
        pairs: (P, 2) places of the chosen and of the rejected response, those of near duplicates
            left out.
        weight: (P,) of each pair.
        first: the number of the first of his scored responses, own before others, among all.
    """

    item: int
    target: int
    own: list[int]
    others: list[int]
    pairs: Ints
    weight: Floats
    first: int

    def scored(self) -> list[int]:
        """Return the places of the responses that are scored."""
        return [*self.own, *self.others]


class Responses:
    """The responses of a part of the data, tokenised, with their pairs.

    Args:
        items: with the texts of the input.
        votes: with explanations.
        tokenizer: of the language model.
        prompt: with {text}, what stands before the annotator.
        who: how annotators are told apart: not, by their names, by adapters of their own.
        max_length: tokens of an input; a longer one loses its first.
        pairs: which pairs count: all, those of the same label, those of different labels.
        weights: of a pair: none; dissimilarity, 1 - F1 of the words that are not the input's; an
            array (n_annotators,), by whose response is chosen.
    """

    def __init__(
        self,
        items: Items,
        votes: Votes,
        tokenizer: Any,
        *,
        prompt: str,
        who: Who,
        max_length: int,
        pairs: Literal["all", "same", "different"],
        weights: Literal["none", "dissimilarity"] | Floats,
    ):
        assert votes.explanation is not None
        self.items, self.votes, self.tokenizer = items, votes, tokenizer
        if tokenizer.eos_token_id is None:
            raise ConfigError("model_size.causal: its tokenizer has no token that ends a text")
        self.end = int(tokenizer.eos_token_id)
        if held := [name for name in items.classes() if BAR in name]:
            raise ConfigError(
                f"dataset: label {held[0]!r} holds {BAR}, which parts labels from explanations; "
                "allowed is a label without"
            )
        # what a text begins with, of models that want it
        first = tokenizer("a")["input_ids"][:1]
        begin = first if first == [tokenizer.bos_token_id] else []
        asked = (self._tokens(prompt.format(text=text)) for text in items.inputs["text"])
        self.asked = [begin + tokens[-max_length:] for tokens in asked]
        names = items.annotator_names or [str(a) for a in range(votes.n_annotators)]
        own = [f"\n{name}:" if who == "token" else "\nAnswer:" for name in names]
        self.named = [self._tokens(words) for words in own]
        self.label = [self._tokens(f" {name} {BAR}") for name in items.classes()]
        self.why = [[*self._tokens(f" {why.strip()}"), self.end] for why in votes.explanation]
        self.kinds, self.weights, self.who = pairs, weights, who
        self.branches: list[Branch] = []
        self.n_scored = 0
        first = np.searchsorted(votes.item, np.arange(len(items) + 1))
        for item in np.unique(votes.item):
            self._add(int(item), list(range(first[item], first[item + 1])))

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _add(self, item: int, said: list[int]) -> None:
        annotator = self.votes.annotator
        for target in np.unique(annotator[said]).tolist():
            own = [v for v in said if annotator[v] == target]
            others = [v for v in said if annotator[v] != target]
            found = [(a, b) for a in own for b in others if self._is_pair(a, b)]
            weight = np.array([self._weight(item, a, b) for a, b in found])
            pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
            self.branches.append(Branch(item, target, own, others, pairs, weight, self.n_scored))
            self.n_scored += len(said)

    def _is_pair(self, chosen: int, rejected: int) -> bool:
        label, why = self.votes.label, self.votes.explanation or ()
        same = bool(label[chosen] == label[rejected])
        if self.kinds != "all" and same != (self.kinds == "same"):
            return False
        return not (same and token_f1(why[chosen], why[rejected]) > ALIKE)

    def _weight(self, item: int, chosen: int, rejected: int) -> float:
        if isinstance(self.weights, np.ndarray):
            return float(self.weights[self.votes.annotator[chosen]])
        if self.weights == "none":
            return 1.0
        given, why = self.items.inputs["text"][item], self.votes.explanation or ()
        return 1 - token_f1(*(content_reduced(why[v], given) for v in (chosen, rejected)))

    def response(self, vote: int) -> list[int]:
        """Return the tokens of a response, its end the last."""
        return [*self.label[self.votes.label[vote]], *self.why[vote]]

    def prompt(self, item: int, target: int) -> list[int]:
        """Return the tokens that stand before a response."""
        return [*self.asked[item], *self.named[target]]

    def batch(
        self, branches: Sequence[Branch], *, paired: bool, explanation_only: bool
    ) -> dict[str, Any]:
        """Return branches as arrays, those of one item packed into one sequence.

        Under adapters each branch is a sequence of its own: they act upon the input, too.

        Args:
            branches: those of an item stand together.
            paired: whether the others' responses are scored, too.
            explanation_only: whether the label is part of what is given.

        Returns:
            `tokens`, `position` (B, T), `sees` (B, T, T), `whose` (B,): the sequences, and the
            annotator of the first branch of each; `row`, `place`, `token`,
            `response` (N,): the scored tokens, where they are predicted, and whose they are;
            `number`, `group`, `chosen` (R,): each response's number among all, its branch, whether
            it is the annotator's own; `pairs` (P, 2) places among the R, `weight` (P,).
        """
        names = ("row", "place", "token", "response", "number", "group", "chosen")
        columns: dict[str, list[Any]] = {name: [] for name in (*names, "pairs", "weight")}
        trees, whose = [], []
        for row, (_, together) in enumerate(groupby(enumerate(branches), self._sequence)):
            own = list(together)
            whose.append(own[0][1].target)
            segments: list[tuple[Sequence[int], int]] = [(self.asked[own[0][1].item], -1)]
            nodes = []
            for group, branch in own:
                nodes += self._grow(branch, group, paired, segments, columns)
            tree = packed(segments)
            trees.append(tree)
            for segment, vote, response in nodes:
                scored = np.flatnonzero(tree.segment == segment)
                if explanation_only:
                    scored = scored[len(self.label[self.votes.label[vote]]) :]
                columns["row"] += [row] * len(scored)
                columns["place"] += tree.before[scored].tolist()
                columns["token"] += tree.tokens[scored].tolist()
                columns["response"] += [response] * len(scored)
        kinds = {"chosen": bool, "weight": np.float32}
        arrays = {k: np.array(v, dtype=kinds.get(k, np.int64)) for k, v in columns.items()}
        arrays["pairs"] = arrays["pairs"].reshape(-1, 2)
        arrays["whose"] = np.array(whose, dtype=np.int64)
        return padded(trees, self.end) | arrays

    def _sequence(self, numbered: tuple[int, Branch]) -> tuple[int, int]:
        """Return what branches of one sequence have in common."""
        _, branch = numbered
        return branch.item, branch.target if self.who == "adapter" else -1

    def _grow(
        self,
        branch: Branch,
        group: int,
        paired: bool,
        segments: list[tuple[Sequence[int], int]],
        columns: dict[str, list[Any]],
    ) -> list[tuple[int, int, int]]:
        """Add an annotator's branch; return the segment, vote and number of each response."""
        segments.append((self.named[branch.target], 0))
        above, start = len(segments) - 1, len(columns["number"])
        votes = branch.scored() if paired else branch.own
        nodes = [(above + 1 + k, vote, start + k) for k, vote in enumerate(votes)]
        segments += [(self.response(vote), above) for vote in votes]
        columns["number"] += range(branch.first, branch.first + len(votes))
        columns["group"] += [group] * len(votes)
        columns["chosen"] += [vote in branch.own for vote in votes]
        if paired:
            place = {vote: response for _, vote, response in nodes}
            columns["pairs"] += [(place[a], place[b]) for a, b in branch.pairs.tolist()]
            columns["weight"] += branch.weight.tolist()
        return nodes


def padded(trees: Sequence[Tree], end: int) -> dict[str, Any]:
    """Return the sequences as arrays of one length: `tokens`, `position`, `sees`."""
    longest = max(len(tree.tokens) for tree in trees)
    tokens = np.full((len(trees), longest), end)
    position = np.zeros((len(trees), longest), dtype=np.int64)
    # padding sees itself: attention to nothing is no number
    sees = np.tile(np.eye(longest, dtype=bool), (len(trees), 1, 1))
    for row, tree in enumerate(trees):
        n = len(tree.tokens)
        tokens[row, :n], position[row, :n] = tree.tokens, tree.position
        sees[row, :n, :n] = tree.sees()
    return {"tokens": tokens, "position": position, "sees": sees}
