"""A language model that judges whose explanations are: what is asked, rotations, what it reads."""

import doctest
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from annorun import net
from annorun.errors import ConfigError
from annorun.method import llm_judge
from annorun.method.llm_judge import LlmJudge, attributed, letter_ids, question
from annorun.votes import Floats

Ask = Callable[[list[str]], Floats]
SHOWN = [["it rains", "so wet"], ["thus it is"], ["hence, no"], ["as they say", "as told", "as is"]]
BAGS = [["they say"], ["it rains", "no"], ["thus"], ["told as is"], ["all of hence, no"]]
LEAN = np.array([9.0, -3.0, 0.5, 4.0])


def told_by(prompt: str) -> tuple[list[str], str]:
    """Return what stands under each letter, in order, and the bag."""
    *shown, bag = re.split(r"Annotator [A-Z]:|One of them wrote:", prompt)[1:]
    return [own.strip() for own in shown], bag.split("\n\n")[0].strip()


def asking(score: Callable[[str, str], float], lean: Floats) -> Ask:
    """Return an `ask`: a score of texts and bag, and a liking for letters that adds to it."""

    def ask(prompts: list[str]) -> Floats:
        scores = [[score(own, bag) for own in shown] for shown, bag in map(told_by, prompts)]
        return log_softmax(np.array(scores) + lean, axis=1)

    return ask


def shared(own: str, bag: str) -> float:
    return len(set(own.split()) & set(bag.split()) - {"-"}) * 1.7


def test_the_example_is_true() -> None:
    result = doctest.testmod(llm_judge)
    assert result.failed == 0 and result.attempted == 1


def test_a_text_is_a_line_and_letters_are_in_the_order_given() -> None:
    text = question([["b\n\n c ", "d"], [], ["e"]], ["x", "y\tz"])
    assert text.split("\n\n")[1:] == [
        "Annotator A:\n- b c\n- d",
        "Annotator B:",
        "Annotator C:\n- e",
        "One of them wrote:\n- x\n- y z",
        "Which annotator wrote these? Answer with one letter.",
    ]
    assert text.startswith("Each of 3 annotators")


def test_two_annotators_by_hand() -> None:
    """A is .8 with annotator 0 there, and .6 with annotator 1 there.

    Annotator 0 has log .8 and log .4, annotator 1 log .2 and log .6: means of logs are those of
    sqrt(.32) and sqrt(.12), whose ratio is sqrt(8 / 3); p(0) = 1 / (1 + sqrt(3 / 8)) = .6202...
    The mean of probabilities, .6 and .4, would be another answer.
    """

    def ask(prompts: list[str]) -> Floats:
        assert [told_by(prompt)[0][0] for prompt in prompts] == ["- zero", "- one"]
        return np.log([[0.8, 0.2], [0.6, 0.4]])

    found = np.exp(attributed(ask, [["zero"], ["one"]], [["which"]]))
    assert found == pytest.approx(np.array([[1, np.sqrt(3 / 8)]]) / (1 + np.sqrt(3 / 8)), abs=1e-12)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_liking_for_letters_alone_tells_nothing(n: int) -> None:
    ask = asking(lambda own, bag: 0.0, LEAN[:n])
    assert np.ptp(ask([question(SHOWN[:n], BAGS[0])])) > 2
    found = attributed(ask, SHOWN[:n], BAGS)
    assert found.shape == (5, n)
    assert found == pytest.approx(np.full((5, n), -np.log(n)), abs=1e-12)


def test_what_speaks_for_annotators_is_all_that_stays() -> None:
    """s + b - z averages to s and a constant: the answers are log_softmax(s)."""
    told = np.random.default_rng(0).normal(size=(len(BAGS), len(SHOWN)))
    texts = ["\n".join(f"- {text}" for text in own) for own in SHOWN]
    bags = ["\n".join(f"- {text}" for text in own) for own in BAGS]
    ask = asking(lambda own, bag: told[bags.index(bag), texts.index(own)], LEAN)
    assert attributed(ask, SHOWN, BAGS) == pytest.approx(log_softmax(told, axis=1), abs=1e-12)


def test_a_match_is_found_under_any_letter_against_a_strong_liking() -> None:
    shown = [[f"own{k} words"] for k in range(4)]
    bags = [[f"own{k}"] for k in (2, 0, 3, 1, 1)]
    ask = asking(shared, LEAN)
    assert (ask([question(shown, bag) for bag in bags]).argmax(axis=1) == 0).all(), "asked once"
    assert attributed(ask, shown, bags).argmax(axis=1).tolist() == [2, 0, 3, 1, 1]


def test_permuted_annotators_are_permuted_answers() -> None:
    """Of a liking that adds: by any permutation, not the cyclic ones alone."""
    ask = asking(shared, LEAN)
    found = attributed(ask, SHOWN, BAGS)
    assert np.ptp(found, axis=1).min() > 0.5
    for order in ([1, 0, 2, 3], [2, 3, 1, 0], [3, 2, 1, 0], [1, 2, 3, 0]):
        permuted = attributed(ask, [SHOWN[a] for a in order], BAGS)
        assert permuted == pytest.approx(found[:, order], abs=1e-12)


def test_what_order_and_texts_do_together_stays() -> None:
    """Whoever stands after annotator 0, in a circle, is annotator 1 in each rotation."""

    def ask(prompts: list[str]) -> Floats:
        place = [told_by(prompt)[0].index("- zero") for prompt in prompts]
        return log_softmax([np.eye(3)[(k + 1) % 3] for k in place], axis=1)

    found = attributed(ask, [["zero"], ["one"], ["two"]], [["which"]])
    assert found == pytest.approx(log_softmax([[0.0, 1.0, 0.0]], axis=1), abs=1e-12)


def test_no_bags_are_no_answers() -> None:
    assert attributed(LlmJudge("tiny", 4, seed=0), SHOWN, []).shape == (0, 4)


def judge(model: str = "tiny", *, size: int = 8) -> LlmJudge:
    """Return a tiny judge that tells prompts apart: drawn as it is, all its logits are near 0."""
    found = LlmJudge(model, 4, seed=3, size=size)
    with torch.no_grad():
        for weights in found.net.parameters():
            weights.mul_(10 if weights.dim() > 1 else 1)
    return found


def test_a_prompts_answer_is_the_whole_models_whatever_it_is_batched_with() -> None:
    """The logits after its last token, of the letters' bytes, read without padding."""
    with net.seeded(3, "weights"):
        whole = net.causal("tiny").eval()
    with torch.no_grad():
        for weights in whole.parameters():
            weights.mul_(10 if weights.dim() > 1 else 1)
    prompts = [question(SHOWN[:k], bag) for k, bag in zip((4, 2, 3, 1, 4), BAGS, strict=True)]
    alone = judge(size=1)
    assert not alone.net.training
    expected = []
    for prompt, ids in zip(prompts, alone.tokens(prompts), strict=True):
        assert bytes(i - 3 for i in ids).decode() == f"{prompt}\nAnswer:"
        with torch.no_grad():
            last = whole(torch.tensor([ids])).logits[0, -1, [ord(letter) + 3 for letter in "ABCD"]]
        expected.append(last.double().log_softmax(dim=0).numpy())
    assert np.ptp(expected, axis=0).min() > 0.1
    for one in (alone, judge(size=2), judge(size=5)):
        assert one(prompts) == pytest.approx(np.array(expected), abs=1e-4)


def test_shifted_annotators_are_shifted_answers_and_swapped_ones_are_not() -> None:
    """Rotations are n of the n! orders: only a shift in a circle asks the same prompts again."""
    ask, bags = judge(), BAGS[:2]
    found = attributed(ask, SHOWN, bags)
    for by in (1, 2, 3):
        order = np.roll(np.arange(4), by).tolist()
        shifted = attributed(ask, [SHOWN[a] for a in order], bags)
        assert shifted == pytest.approx(found[:, order], abs=1e-4)
    swapped = attributed(ask, [SHOWN[a] for a in (1, 0, 2, 3)], bags)
    assert np.abs(swapped - found[:, [1, 0, 2, 3]]).max() > 0.01
    # asked once, not even a shift is
    once = ask([question(SHOWN, bags[0])])
    other = ask([question([*SHOWN[1:], SHOWN[0]], bags[0])])
    assert np.abs(other - once[:, [1, 2, 3, 0]]).max() > 0.01


def test_a_prompt_that_the_model_cannot_take_is_refused() -> None:
    one = LlmJudge("tiny", 4, seed=0)
    rest = len(question([["b"]], ["it"])) + len("\nAnswer:") - 1
    fits = question([["b" * (2048 - rest)]], ["it"])
    assert [len(ids) for ids in one.tokens(["short", fits])][1] == 2048
    with pytest.raises(ConfigError, match=r"method\.module\.llm=tiny: .* 2049 tokens.* 2048"):
        one(["short", question([["b" * (2049 - rest)]], ["it"])])


def test_letters_are_read_as_they_follow_a_prompt(tmp_path: Path) -> None:
    """After a blank in plain text; in a conversation they are the first of an answer."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", letter) for letter in "DCBA"]
    known = {piece: i for i, piece in enumerate([*alphabet, *map("".join, merges), "<end>"])}
    inner = Tokenizer(models.BPE(known, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>")
    assert letter_ids(own, 4, "own") == [known[f"Ġ{letter}"] for letter in "ABCD"]
    own.chat_template = "{{ messages[0]['content'] }}<he>"
    assert letter_ids(own, 4, "own") == [known[letter] for letter in "ABCD"]
    net.causal("tiny").save_pretrained(tmp_path)
    own.save_pretrained(tmp_path)
    chat = judge(str(tmp_path))
    assert chat.net.answers.ids.tolist() == [known[letter] for letter in "ABCD"]
    (ids,) = chat.tokens(["Who?"])
    assert "".join(chat.tokenizer.convert_ids_to_tokens(ids)) == "Who?<he>"


def test_a_model_without_the_letters_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"A": 0, "B": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    own = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?")
    assert letter_ids(own, 2, "own") == [0, 1]
    with pytest.raises(ConfigError, match=r"method\.module\.llm=own: .* letters A to C"):
        letter_ids(own, 3, "own")
    with pytest.raises(ConfigError, match=r"27 annotators; allowed are 26"):
        LlmJudge("tiny", 27, seed=0)
