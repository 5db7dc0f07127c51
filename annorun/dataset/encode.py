"""From items to arrays: texts and prompts become tokens once, before training."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annorun.errors import ConfigError
from annorun.votes import LETTERS, Items

Columns = dict[str, NDArray[Any]]
MAX_TOKENS = 512


def columns(
    items: Items,
    tokenizer: Any,
    prompt: str,
    max_length: int = MAX_TOKENS,
    pairs: bool = False,
) -> Columns:
    """Return the network's inputs for all items, n_items rows each.

    Args:
        items: what is asked.
        tokenizer: for texts; None for features and images.
        prompt: how a question, its options and perhaps its context become one text.
        max_length: tokens of a text, at most. A text loses its end, a prompt its beginning: the
            options stand at its end. Of a pair the question does.
        pairs: a question and each of its options apart, (n_items, K, length), for an encoder.

    Raises:
        ConfigError: the options of an item alone are longer than that.
    """
    if "x" in items.inputs:
        return {"x": items.inputs["x"]}
    if items.kind == "text":
        cut = tokenizer(list(items.inputs["text"]), truncation=True, max_length=max_length)
        return padded(cut["input_ids"], tokenizer)
    tokenizer.truncation_side = "left"
    if not pairs:
        cut = tokenizer(prompts(items, prompt), truncation=True, max_length=max_length)
        full = [i for i, row in enumerate(cut["input_ids"]) if len(row) >= max_length]
        if full:
            ends = prompts(items, prompt[prompt.index("{options}") :])
            refuse_long([len(tokenizer(ends[i])["input_ids"]) for i in full], max_length)
        return padded(cut["input_ids"], tokenizer)
    options = items.inputs["options"]
    asked = [q for q, given in zip(questions(items, prompt), options, strict=True) for _ in given]
    offered = [option for given in options for option in given]
    needed = [len(row) for row in tokenizer([""] * len(offered), offered)["input_ids"]]
    refuse_long(needed, max_length)
    # fast tokenizers cut no text to nothing
    asked = ["" if n == max_length else q for q, n in zip(asked, needed, strict=True)]
    cut = tokenizer(asked, offered, truncation="only_first", max_length=max_length)
    flat = padded(cut["input_ids"], tokenizer)
    return {k: v.reshape(len(items), items.n_classes, -1) for k, v in flat.items()}


def starts(texts: Sequence[str], tokenizer: Any, length: int) -> NDArray[np.int64]:
    """Return the place of each token's first letter in its text, (n_texts, length); -1: none.

    Special tokens and padding have none. For the byte-level tokenizer, texts of ASCII.
    """
    found = np.full((len(texts), length), -1, dtype=np.int64)
    if tokenizer.is_fast:
        own = tokenizer(
            list(texts), truncation=True, max_length=length, return_offsets_mapping=True
        )
        for row, offsets in zip(found, own["offset_mapping"], strict=True):
            # what stands for no letter has no width
            row[: len(offsets)] = [a if b > a else -1 for a, b in offsets]
        return found
    for row, text in zip(found, texts, strict=True):
        n = min(len(text.encode("ascii")), length)
        row[:n] = np.arange(n)
    return found


def refuse_long(needed: list[int], max_length: int) -> None:
    """Raise ConfigError where options and what stands after them want more tokens than allowed."""
    long = sum(n > max_length for n in needed)
    if long:
        raise ConfigError(
            f"dataset.max_length={max_length}: {long} items would lose a part of their options; "
            f"allowed is {max(needed)} or more"
        )


def prompts(items: Items, prompt: str) -> list[str]:
    """Return one text an item: the prompt, filled in."""
    options = [
        " ".join(f"({letter}) {o}" for letter, o in zip(LETTERS[: len(given)], given, strict=True))
        for given in items.inputs["options"]
    ]
    pairs = zip(items.inputs["question"], options, contexts(items, prompt), strict=True)
    return [prompt.format(question=q, options=o, context=c) for q, o, c in pairs]


def questions(items: Items, prompt: str) -> list[str]:
    """Return each question, after its context where the prompt has a place for one."""
    pairs = zip(contexts(items, prompt), items.inputs["question"], strict=True)
    return [f"{context} {question}".strip() for context, question in pairs]


def contexts(items: Items, prompt: str) -> Sequence[str]:
    """Return the contexts that the prompt wants; empty ones where it wants none."""
    if "{context}" not in prompt:
        return [""] * len(items)
    found: Sequence[str] = items.inputs["context"]
    return found


def padded(rows: list[list[int]], tokenizer: Any) -> Columns:
    """Return rows of tokens as arrays, padded on the right."""
    length = np.array([len(row) for row in rows])
    # a causal model's tokenizer may have no padding; what is masked may be any token
    fill = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    ids = np.full((len(rows), length.max(initial=1)), fill, dtype=np.int64)
    mask = np.arange(ids.shape[1]) < length[:, None]
    ids[mask] = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    return {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
