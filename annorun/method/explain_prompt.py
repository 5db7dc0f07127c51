"""Explanations by prompting: a language model that learns nothing, told what is asked and of whom.

The baseline of CAPO (Chen et al., arXiv 2605.28802, abstract: prompting is limited and unstable).
Its prompts are not known to us; three that are usual:

    zero-shot   the question, the labels that there are, the form of an answer
    persona     before it, what is known of the annotator (LeWiDi's *_annotators_meta.json)
    few-shot    before it, training items with the annotator's own labels and explanations, at
                random, or those whose inputs are most like the one asked about

A model with a chat template is asked in it, examples as turns before; another in plain text.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from annorun import net_response
from annorun.kinds import Count, Natural, NonNegative
from annorun.votes import Ints

# between the turns of a conversation in plain text
APART = "\n\n"


class ExplainPrompt:
    """A language model as it is, and how it is asked.

    Args:
        network: what `annorun.net_response.build` takes.
        seed: of weights that are not loaded.
        examples: of the annotator's own, in each prompt; 0: none.
        choose: which of them.
        personas: a JSON file, annotator -> attribute -> value; None: nothing is said of him.
        temperature: of what is written.
        most_tokens: of a response.
        decodings: how often each test item is answered, by seeds of its own.
        encoder: a sentence encoder, whose embeddings a second judge sees; None: there is none.
        llm: a language model that judges as well; None: there is none.
    """

    # says to `annorun.run` that it writes responses, and that it does not learn
    writes = True
    learns = False

    def __init__(
        self,
        network: dict[str, Any],
        optimizer: dict[str, Any],
        seed: int,
        spec: Any = None,
        *,
        examples: Natural,
        choose: Literal["random", "nearest"],
        personas: str | None,
        temperature: NonNegative,
        most_tokens: Count,
        decodings: Count,
        encoder: str | None,
        llm: str | None,
    ):
        self.examples, self.choose, self.personas = examples, choose, personas
        self.temperature, self.most_tokens, self.decodings = temperature, most_tokens, decodings
        self.encoder, self.llm = encoder, llm
        self.net = net_response.build(network, seed)


def messages(
    question: str,
    labels: Sequence[str],
    examples: Sequence[tuple[str, str, str]],
    about: Mapping[str, str],
) -> list[dict[str, str]]:
    """Return a conversation that ends with the question.

    Args:
        question: with its input.
        labels: that an answer may have.
        examples: question, label and explanation of each; they stand before.
        about: what is known of whoever is asked.
    """
    form = f"Answer with one of {', '.join(labels)}, then |, then why in one sentence."
    who = "".join(f"{name}: {value}. " for name, value in about.items())
    turns = []
    for asked, label, why in examples:
        turns += [("user", f"{asked}\n{form}"), ("assistant", f"{label} | {why.strip()}")]
    turns.append(("user", f"{question}\n{form}"))
    if who:
        role, first = turns[0]
        turns[0] = (role, f"You are an annotator. {who}Answer as this person does.\n{first}")
    return [{"role": role, "content": content} for role, content in turns]


def prompt(conversation: Sequence[Mapping[str, str]], tokenizer: Any) -> list[int]:
    """Return the tokens of a conversation, up to where the answer begins.

    In a chat template without thinking aloud and without today's date, where it has either.
    """
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template(
            list(conversation),
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
            date_string="26 Jul 2024",
        )
        begin: list[int] = []
    else:
        said = {"user": "{}\nAnswer:", "assistant": " {}" + APART}
        text = "".join(said[turn["role"]].format(turn["content"]) for turn in conversation)
        # what a text begins with, of models that want it
        first = tokenizer("a")["input_ids"][:1]
        begin = first if first == [tokenizer.bos_token_id] else []
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return begin + ids


def answer(text: str, labels: Sequence[str]) -> tuple[str, str]:
    """Return the label that a text begins with, "" without one, and what follows it.

    What stands beyond a blank line is another turn, which a model without turns goes on with.

    Example:
        >>> answer(" Label: -3 | The first asks when.", ["3", "-3"])
        ('-3', 'The first asks when.')
        >>> answer("30 of them are alike.", ["3", "-3"])
        ('', '30 of them are alike.')
    """
    said = text.strip().split(APART)[0]
    # the longest first: one label may begin another
    names = sorted(labels, key=len, reverse=True)
    each = "|".join(f"({re.escape(name)})" for name in names)
    begins = (
        rf"[\s\"'*]*(?:(?i:label|answer)\s*:?[\s\"'*]*)?(?:{each})(?!\w|[./-]\w)[\s\"'*|:.,]*(.*)"
    )
    for way in (re.DOTALL, re.DOTALL | re.IGNORECASE):
        if found := re.match(begins, said, way):
            *given, why = found.groups()
            label = next(name for name, own in zip(names, given, strict=True) if own is not None)
            return label, why.strip()
    return "", said.strip()


def nearest(inputs: Sequence[str], asked: Sequence[str]) -> Ints:  # (n_asked, n_inputs)
    """Return the places of the inputs by how like they are to each that is asked, likest first.

    Cosine of TF-IDF of their words; of equals the first.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    # numbers and single letters too: nothing is left without a word
    counts = TfidfVectorizer(token_pattern=r"\S+").fit(inputs)
    alike = (counts.transform(asked) @ counts.transform(inputs).T).toarray()
    order: Ints = np.argsort(-alike, axis=1, kind="stable")
    return order
