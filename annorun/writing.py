"""Writing to test items with a language model: who is asked what, and what is sampled."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from annorun import llm_attribution, net
from annorun.errors import ConfigError
from annorun.method.judge import embedded
from annorun.method.llm_judge import LlmJudge
from annorun.votes import Items, Votes

# an item and an annotator
Pair = tuple[int, int]
# prompts written to at once
AT_ONCE = 64


def to_answer(items: Items, votes: Votes) -> list[Pair]:
    """Return each annotator on each test item."""
    test = np.flatnonzero(items.split == "test").tolist()
    return [(i, a) for i in test for a in range(votes.n_annotators)]


def texts(
    module: Any, tokenizer: Any, asked: dict[Pair, list[int]], seed: int
) -> Iterator[tuple[Pair, int, str]]:
    """Yield what is written to each prompt, in each of the module's decodings.

    Args:
        module: with `net`, `decodings`, `most_tokens`, `temperature`.
        tokenizer: its end of a text ends a response.
        asked: tokens of each prompt.
        seed: draws what is sampled; a decoding has a child of its own.
    """
    # those of like length together: the least padding
    pairs = sorted(asked, key=lambda pair: len(asked[pair]))
    for decoding in range(module.decodings):
        with net.seeded(seed, f"decoding/{decoding}"):
            for first in range(0, len(pairs), AT_ONCE):
                some = pairs[first : first + AT_ONCE]
                tokens = module.net.write(
                    [asked[pair] for pair in some],
                    [target for _, target in some],
                    end=tokenizer.eos_token_id,
                    most=module.most_tokens,
                    temperature=module.temperature,
                )
                for pair, own in zip(some, tokens, strict=True):
                    yield pair, decoding, tokenizer.decode(own, skip_special_tokens=True)


def judges(module: Any, items: Items, votes: Votes, seed: int, device: str) -> dict[str, Any]:
    """Return the judges beside that on characters, as `explained_results.judge` takes them.

    Raises:
        ConfigError: one of them cannot be loaded, or takes less than it would be shown.
    """
    asked = {"encoder": module.encoder, "llm": module.llm}
    try:
        if module.encoder is not None:
            embedded(["a text"], module.encoder, "mean")
    except ConfigError as error:
        raise _named("encoder", error) from error
    try:
        if module.llm is not None:
            llm = LlmJudge(module.llm, votes.n_annotators, seed=seed)
            llm_attribution.shown_to(llm, items, votes, seed)
    except ConfigError as error:
        raise _named("llm", error) from error
    return asked | {"device": device}


def _named(key: str, error: ConfigError) -> ConfigError:
    """Return a fault of loading a network under the key that names it."""
    lines = (line.replace("model_size:", f"method.module.{key}:", 1) for line in error.faults)
    return ConfigError(*lines)


def unjudged(items: Items, votes: Votes) -> list[str]:
    """Return what hinders what is written from being judged."""
    held, train = items.held_out, votes.on(items.split == "train")
    if held is None or not len(held) or held.explanation is None:
        return ["dataset: no explanation of a test item; allowed is data that have some"]
    if len(np.unique(train.annotator)) < 2:
        return [
            "dataset: fewer than two annotators explain training items, and there is nobody to be "
            "told from; allowed is data with more"
        ]
    return []
