"""Prompting: what is asked, whose examples are shown, how an answer is read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig

from annorun import config, prompting, results
from annorun.errors import ConfigError
from annorun.method import explain_prompt
from annorun.method.explain_prompt import answer, messages, nearest, prompt
from annorun.run import run

Compose = Callable[..., DictConfig]
FEW = [
    "method=explain_prompt",
    "dataset=synthetic_styles",
    "dataset.n_items=40",
    "model_size=tiny",
    "method.module.decodings=2",
    "method.module.most_tokens=4",
]


class Words:
    """A tokenizer that keeps the text it was given."""

    bos_token_id = 7

    def __init__(self, template: str | None):
        self.chat_template = template
        self.text = ""

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        self.text = text
        return {"input_ids": [7] * add_special_tokens + [1]}

    def apply_chat_template(
        self,
        turns: list[dict[str, str]],
        tokenize: bool,
        add_generation_prompt: bool,
        enable_thinking: bool,
        date_string: str,
    ) -> str:
        assert not tokenize and add_generation_prompt and not enable_thinking and date_string
        return "".join(f"<{t['role']}>{t['content']}" for t in turns) + "<assistant>"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" yes | they match", ("yes", "they match")),
        ("Label: No. They differ.", ("no", "They differ.")),
        ('"**yes**" | so', ("yes", "so")),
        ("yes", ("yes", "")),
        ("yesterday was fine", ("", "yesterday was fine")),
        ("I think yes", ("", "I think yes")),
        ("", ("", "")),
        # a model without turns goes on with the next question
        ("yes | so it is.\n\nC?\nAnswer: no | x", ("yes", "so it is.")),
        ("\n\nno | as it is", ("no", "as it is")),
        ("no/yes", ("", "no/yes")),
    ],
)
def test_an_answer_begins_with_its_label(text: str, found: tuple[str, str]) -> None:
    assert answer(text, ("no", "yes")) == found


def test_numbers_with_a_sign_are_labels_of_their_own() -> None:
    labels = [str(n) for n in range(-5, 6)]
    for label in labels:
        assert answer(f"{label} | as they ask", labels) == (label, "as they ask")
    for text in ("12 | no", "1.5 of them", "4/5 | a", "0-5 | a"):
        assert answer(text, labels) == ("", text)
    assert answer("3. They ask", labels) == ("3", "They ask")


def test_labels_that_differ_in_case_or_in_no_case_of_english() -> None:
    assert answer("A | x", ["A", "a"]) == ("A", "x") and answer("a | x", ["A", "a"]) == ("a", "x")
    # the dotless i: equal without regard to case, not in lower case
    assert answer("hay\u0131r | x", ["HAYIR", "EVET"])[1].endswith("x")


def test_a_conversation_has_examples_first_and_says_who_once() -> None:
    turns = messages("Q?", ("no", "yes"), [("A?", "yes", " so "), ("B?", "no", "as")], {"Age": "9"})
    assert [t["role"] for t in turns] == ["user", "assistant"] * 2 + ["user"]
    assert turns[1]["content"] == "yes | so" and turns[3]["content"] == "no | as"
    assert turns[0]["content"].startswith("You are an annotator. Age: 9.")
    assert "Age" not in turns[2]["content"] + turns[4]["content"]
    assert all("no, yes" in t["content"] for t in turns[::2])
    assert turns[4]["content"].startswith("Q?")
    (alone,) = messages("Q?", ("no", "yes"), [], {})
    assert alone["content"].startswith("Q?")


def test_a_model_is_asked_in_its_own_form() -> None:
    turns = messages("Q?", ("no", "yes"), [("A?", "yes", "so")], {})
    chat, plain = Words("a template"), Words(None)
    # a template has its own beginning of a text
    assert prompt(turns, chat) == [1] and prompt(turns, plain) == [7, 1]
    assert chat.text.startswith("<user>A?") and chat.text.endswith("<assistant>")
    assert "\nAnswer: yes | so\n\nQ?" in plain.text and plain.text.endswith("\nAnswer:")


def test_the_likest_inputs_come_first() -> None:
    order = nearest(["a b", "c d", "a c d"], ["c d", "a b x", "nothing"])
    assert order[0].tolist() == [1, 2, 0] and order[1].tolist()[0] == 0
    # of equals the first
    assert order[2].tolist() == [0, 1, 2]


@pytest.mark.parametrize("choose", ["random", "nearest"])
def test_shown_are_training_items_of_the_annotator_alone(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, choose: str, tmp_path: Path
) -> None:
    asked: list[tuple[str, list[tuple[str, str, str]]]] = []
    before = explain_prompt.messages

    def seen(question: str, labels: Any, examples: Any, about: Any) -> Any:
        asked.append((question, list(examples)))
        return before(question, labels, examples, about)

    monkeypatch.setattr(explain_prompt, "messages", seen)
    kept: list[prompting.Prompting] = []
    init = prompting.Prompting.__init__

    def built(self: prompting.Prompting, *given: Any) -> None:
        init(self, *given)
        kept.append(self)

    monkeypatch.setattr(prompting.Prompting, "__init__", built)
    row = run(compose(*FEW, "method.module.examples=3", f"method.module.choose={choose}"))
    # validation items, which are not shown, are a judge's
    assert "attribution/acc_unseen_bag1" in row["metrics"]
    (one,) = kept
    votes, items = one.votes, one.items
    texts = items.inputs["text"]
    train = np.flatnonzero(items.split == "train").tolist()
    # 4 test items, each asked of 4 annotators in their order
    assert len(asked) == 16
    for number, (question, examples) in enumerate(asked):
        own = {
            (texts[i], why)
            for i, a, why in zip(votes.item, votes.annotator, votes.explanation or (), strict=True)
            if a == number % 4 and i in train
        }
        assert len(examples) == 3 and {(e[0], e[2]) for e in examples} <= own
        if choose == "nearest":
            order = nearest(texts, [question])[0]
            best = [texts[i] for i in order if i in train][:3]
            assert [e[0] for e in examples] == best[::-1]
    folder = next((tmp_path / "runs" / "default").iterdir())
    assert len(results.read_csv(folder / "responses.csv")) == 32


def test_personas_are_told_of_their_annotator(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "people.json"
    file.write_text(json.dumps({f"Ann{k}": {"Age": k} for k in range(1, 5)}))
    told = []
    before = explain_prompt.messages

    def seen(question: str, labels: Any, examples: Any, about: dict[str, str]) -> Any:
        told.append(about)
        return before(question, labels, examples, about)

    monkeypatch.setattr(explain_prompt, "messages", seen)
    run(compose(*FEW, f"method.module.personas='{file}'"))
    assert told[:4] == [{"Age": str(k)} for k in range(1, 5)]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["method.module.examples=100"], "an annotator has 32 responses to training items"),
        (["method.module.personas=none.json"], "there is no such file"),
        (["model_size=none"], "model_size"),
        (["method.module.examples=20"], r"prompt of \d+ tokens .* takes 2048; ask for fewer"),
    ],
)
def test_faults(compose: Compose, words: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        run(compose(*FEW, *words))


def test_personas_that_leave_somebody_out(compose: Compose, tmp_path: Path) -> None:
    file = tmp_path / "people.json"
    file.write_text('{"Ann1": {"Age": 1}}')
    with pytest.raises(ConfigError, match="says nothing of Ann2") as found:
        run(compose(*FEW, f"method.module.personas='{file}'"))
    assert len(found.value.faults) == 3


def test_other_personas_are_another_run(compose: Compose, tmp_path: Path) -> None:
    file = tmp_path / "people.json"
    marks = []
    for age in (1, 2):
        file.write_text(json.dumps({f"Ann{k}": {"Age": age} for k in range(1, 5)}))
        cfg = compose(*FEW, f"method.module.personas='{file}'")
        marks.append(results.identity(config.plain(cfg)))
    other = tmp_path / "copy.json"
    other.write_text(file.read_text())
    cfg = compose(*FEW, f"method.module.personas='{other}'")
    assert marks[0] != marks[1] == results.identity(config.plain(cfg))
