"""Prompting: each annotator is asked of each test item with examples and a persona of their own.

The data are small and uneven: inputs, labels and explanations of unequal lengths, interleaved
parts, an annotator with two labels. The network is replaced by one that answers with its prompt.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from annorun import config, net_response, prompting, writing
from annorun import run as runner
from annorun.errors import ConfigError
from annorun.method import explain_prompt
from annorun.prompting import Prompting, about
from annorun.votes import Items, Votes

Compose = Callable[..., DictConfig]
Build = Callable[..., Prompting]
NAMES, TEST = ("ann", "bob", "cy"), (1, 7, 13)
FEW = (
    "method=explain_prompt",
    "dataset=explained_table",
    "dataset.prompt='Q: {text}'",
    "model_size=tiny",
    "method.module.most_tokens=4",
    "method.module.temperature=0.6",
)


@pytest.fixture
def build(compose: Compose, explained: Path) -> Build:
    """Return a function: overrides -> a Prompting of the uneven data."""

    def built(*overrides: str) -> Prompting:
        c = config.plain(compose(*FEW, f"dataset.path='{explained}'", *overrides))
        network: Prompting = runner.training(c, runner.load(c))
        return network

    return built


def read(one: Prompting, pair: tuple[int, int]) -> str:
    text: str = one.tokenizer.decode(one.prompts[pair])
    return text


def examples(one: Prompting, pair: tuple[int, int]) -> list[tuple[str, str, str]]:
    """Return question, label and explanation of each example of a prompt."""
    *shown, last = read(one, pair).split("\n\n")
    assert last.endswith("\nAnswer:")
    found = []
    for turn in shown:
        asked, _, answer = turn.partition("\nAnswer: ")
        label, _, why = answer.partition(" | ")
        found.append((asked.split("\n")[0], label, why))
    return found


def responses(one: Prompting, who: int) -> dict[int, list[tuple[str, str, str]]]:
    """Return an annotator's responses to training items as they would be shown, by item."""
    votes, found = one.given, {}
    for k in np.flatnonzero(votes.annotator == who):
        item = int(votes.item[k])
        if one.items.split[item] == "train":
            label = one.items.classes()[votes.label[k]]
            text, why = one.items.inputs["text"][item], (votes.explanation or ())[k]
            found.setdefault(item, []).append((f"Q: {text}", label, why))
    return found


def test_prompt_without_examples_by_hand(build: Build) -> None:
    one = build()
    assert sorted(one.prompts) == [(i, a) for i in TEST for a in range(3)]
    for item in TEST:
        form = "Answer with one of no, unsure, yes, then |, then why in one sentence."
        expected = f"Q: {one.items.inputs['text'][item]}\n{form}\nAnswer:"
        assert {read(one, (item, a)) for a in range(3)} == {expected}
    assert len({len(one.prompts[i, 0]) for i in TEST}) == 3


@pytest.mark.parametrize("choose", ["random", "nearest"])
def test_examples_are_training_responses_of_the_annotator_asked(build: Build, choose: str) -> None:
    """Label and explanation are of one response; no response is shown twice in a prompt."""
    one = build("method.module.examples=4", f"method.module.choose={choose}")
    for item, who in one.prompts:
        shown = examples(one, (item, who))
        own = [response for of_item in responses(one, who).values() for response in of_item]
        assert len(shown) == len(set(shown)) == 4 and set(shown) <= set(own)
        last = read(one, (item, who)).split("\n\n")[-1]
        assert last.startswith(f"Q: {one.items.inputs['text'][item]}\n")


def test_nearest_examples_are_the_annotators_likest_the_likest_last(build: Build) -> None:
    """By TF-IDF among all inputs, an order that is another one for each test item."""
    one = build("method.module.examples=3", "method.module.choose=nearest")
    texts, seen = one.items.inputs["text"], []
    for item, who in one.prompts:
        (order,) = explain_prompt.nearest(texts, [texts[item]])
        own = responses(one, who)
        ranked = [response for i in order.tolist() for response in own.get(i, [])]
        assert examples(one, (item, who)) == ranked[:3][::-1]
        # what is likest of all is another part's or another annotator's
        assert order[0] == item
        seen.append(tuple(ranked[:3]))
    assert len(set(seen)) == len(one.prompts)


def test_random_examples_are_drawn_anew_for_each_prompt_and_by_the_seed(build: Build) -> None:
    words = ("method.module.examples=5", "method.module.choose=random")
    one, again, other = build(*words), build(*words), build(*words, "seed=1")
    assert one.prompts == again.prompts
    assert all(one.prompts[pair] != other.prompts[pair] for pair in one.prompts)
    for who in range(3):
        drawn = [examples(one, (item, who)) for item in TEST]
        assert len({tuple(shown) for shown in drawn}) == 3
        # nor in the order of the data
        order = [response for own in responses(one, who).values() for response in own]
        assert any([r for r in order if r in shown] != shown for shown in drawn)


def test_persona_is_that_of_the_annotator_asked(build: Build, tmp_path: Path) -> None:
    """Whatever the order of the file, and with values that are no texts."""
    file = tmp_path / "people.json"
    people = {"cy": {"Age": 33, "Job": "cook"}, "nobody": {}, "ann": {"Age": 11}, "bob": {"Age": 2}}
    file.write_text(json.dumps(people), encoding="utf-8")
    words = {"ann": "Age: 11. ", "bob": "Age: 2. ", "cy": "Age: 33. Job: cook. "}
    for n in (0, 2):
        one = build(f"method.module.personas='{file}'", f"method.module.examples={n}")
        for item, who in one.prompts:
            text = read(one, (item, who))
            begin = f"You are an annotator. {words[NAMES[who]]}Answer as this person does.\nQ: "
            assert text.startswith(begin) and text.count("Age") == 1
    assert about(str(file), ["bob", "cy"]) == [{"Age": "2"}, {"Age": "33", "Job": "cook"}]
    assert about(None, ["bob", "cy"]) == [{}, {}]


class Echo:
    """Answers each prompt with its annotator and its last question."""

    def __init__(self, one: Prompting):
        self.one, self.calls = one, []
        self.seeds: list[float] = []

    def __call__(self, prompts: list[list[int]], whose: list[int], **how: Any) -> list[list[int]]:
        self.calls.append((len(prompts), how))
        self.seeds.append(float(torch.rand(())))
        answers = []
        for prompt, who in zip(prompts, whose, strict=True):
            question = self.one.tokenizer.decode(prompt).split("\n\n")[-1].split("\n")[0]
            text = f" Label: yes | {who} {question}\n\nQ: another turn"
            answers.append(self.one.tokenizer(text, add_special_tokens=False)["input_ids"])
        return answers


def test_answers_go_to_their_item_and_annotator(
    build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Prompts of unequal length, two at a time, three decodings that share no seed."""
    one = build("method.module.examples=2", "method.module.decodings=3", "seed=4")
    evaluated: list[Any] = []

    def judge(folder: Path, *what: Any, **how: Any) -> dict[str, float]:
        evaluated.append((folder, what, how))
        return {"test/label_acc": 0.25}

    monkeypatch.setattr(prompting.explained_results, "judge", judge)
    monkeypatch.setattr(writing, "AT_ONCE", 2)
    echo = Echo(one)
    monkeypatch.setattr(
        net_response.ResponseLM, "write", lambda _, *what, **how: echo(*what, **how)
    )
    assert one.explain(tmp_path) == {"test/label_acc": 0.25} and one.steps == 0
    ((folder, (items, votes, written), how),) = evaluated
    assert folder == tmp_path and items is one.items
    # a judge sees explanations of validation items, too
    assert votes is one.given and (votes.item % 6 == 4).any()
    assert how == {"seed": 4, "encoder": None, "llm": None, "device": "cpu"}
    texts = one.items.inputs["text"]
    assert [tuple(w) for w in written] == [
        (i, a, d, "yes", f"{a} Q: {texts[i]}") for i in TEST for a in range(3) for d in range(3)
    ]
    decoding = {"end": one.tokenizer.eos_token_id, "most": 4, "temperature": 0.6}
    assert echo.calls == [(n, decoding) for n in (2, 2, 2, 2, 1)] * 3
    assert len(set(echo.seeds)) == len(echo.seeds)


def test_decodings_are_sampled_by_seeds_of_their_own(build: Build) -> None:
    """One decoding is the first of three; the global generator stays as it was."""
    first, found = build("seed=0"), []
    for words in (("seed=0", "1"), ("seed=0", "3"), ("seed=1", "1")):
        one = build(words[0], f"method.module.decodings={words[1]}", "method.module.temperature=1")
        # another seed draws other weights, too
        one.module.net.load_state_dict(first.module.net.state_dict())
        torch.manual_seed(len(found))
        before = torch.get_rng_state()
        said = writing.texts(one.module, one.tokenizer, one.prompts, one.c["seed"])
        found.append({(pair, decoding): text for pair, decoding, text in said})
        assert torch.equal(torch.get_rng_state(), before)
    alone, three, other = found
    assert len(three) == 27 and alone == {key: three[key] for key in alone}
    decodings = [[three[pair, d] for pair in sorted(one.prompts)] for d in range(3)]
    assert all(decodings[a] != decodings[b] for a, b in ((0, 1), (0, 2), (1, 2)))
    assert list(other.values()) != list(alone.values())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        # of 12 training items bob leaves out three; cy answers two of theirs twice
        (["method.module.examples={most}"], r"has {few} responses .* allowed is up to {few}$"),
        (["method.module.examples=2", "method.module.most_tokens=2000"], "takes 2048"),
    ],
)
def test_more_examples_than_there_are_or_than_fit_are_refused(
    build: Build, words: list[str], why: str
) -> None:
    one = build()
    few = min(sum(map(len, responses(one, a).values())) for a in range(3))
    filled = [word.format(most=few + 1) for word in words]
    with pytest.raises(ConfigError, match=why.replace("{few}", str(few))):
        build(*filled)
    assert build(f"method.module.examples={few}").prompts


def test_prompt_may_be_as_long_as_the_network_takes(build: Build) -> None:
    longest = max(map(len, build().prompts.values()))
    assert build(f"method.module.most_tokens={2048 - longest}").prompts
    with pytest.raises(ConfigError, match="prompt of 2049 tokens with its response"):
        build(f"method.module.most_tokens={2049 - longest}")


def crowd(held: Sequence[int], train: Sequence[int]) -> tuple[Items, Votes]:
    """Return two items, and annotators of test and of training explanations."""

    def votes(item: int, who: Sequence[int]) -> Votes:
        same = np.full(len(who), item)
        whys = tuple("so" for _ in who)
        return Votes(same, np.array(who, dtype=int), same * 0, 2, 3, 2, explanation=whys)

    split = np.array(["train", "test"])
    items = Items("explain", {"text": ["a", "b"]}, split, 2, held_out=votes(1, held))
    return items, votes(0, train)


@pytest.mark.parametrize(
    ("held", "train", "why"),
    [
        ((), (0, 1), "no explanation of a test item"),
        ((0, 1, 2), (2,), "fewer than two annotators explain training items"),
        ((0,), (0, 2), None),
    ],
)
def test_data_that_cannot_be_evaluated(
    held: Sequence[int], train: Sequence[int], why: str | None
) -> None:
    found = writing.unjudged(*crowd(held, train))
    assert [why in fault for fault in found] == [True] if why else found == []


def test_everybody_is_asked_of_every_test_item() -> None:
    """Also who has explained none; not of other parts."""
    items, votes = crowd((0,), (0, 2))
    assert writing.to_answer(items, votes) == [(1, 0), (1, 1), (1, 2)]


def test_plain_conversation_keeps_the_order_of_its_turns() -> None:
    """With labels, in the order of the classes, in every turn of a question."""
    shown = [("A?", "yes", " as it is "), ("B?", "no", "not so")]
    turns: list[Mapping[str, str]] = list(explain_prompt.messages("C?", ("no", "yes"), shown, {}))

    class Bytes:
        chat_template, bos_token_id = None, 1

        def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
            return {"input_ids": [1] * add_special_tokens + list(text.encode())}

    ids = explain_prompt.prompt(turns, Bytes())
    form = "\nAnswer with one of no, yes, then |, then why in one sentence.\nAnswer:"
    assert ids[0] == 1 and ids.count(1) == 1
    assert bytes(ids[1:]).decode() == (
        f"A?{form} yes | as it is\n\nB?{form} no | not so\n\nC?{form}"
    )
