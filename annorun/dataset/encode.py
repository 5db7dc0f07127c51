"""From items to tensors: texts and prompts become tokens once, before training."""

import string
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from annorun.errors import ConfigError
from annorun.votes import Ints, Items

LETTERS = string.ascii_lowercase
MAX_TOKENS = 512


def encode(
    items: Items,
    tokenizer: Any,
    prompt: str,
    max_length: int = MAX_TOKENS,
    pairs: bool = False,
) -> dict[str, Tensor]:
    """Return the network's inputs for all items, as tensors of n_items rows.

    Args:
        items: what is asked.
        tokenizer: for texts; None for features and images.
        prompt: how a question, its options and perhaps its context become one text.
        max_length: tokens of a text, at most. A text loses its end, a prompt its beginning: the
            options stand at its end. Of a pair the longer one loses its beginning.
        pairs: a question and each of its options apart, (n_items, K, length), for an encoder.
    """
    if "x" in items.inputs:
        x: NDArray[np.float32] = items.inputs["x"]
        return {"x": torch.from_numpy(x)}
    cut = {"truncation": True, "max_length": max_length}
    if items.kind == "text":
        return padded(tokenizer(list(items.inputs["text"]), **cut)["input_ids"], tokenizer)
    tokenizer.truncation_side = "left"
    if not pairs:
        return padded(tokenizer(prompts(items, prompt), **cut)["input_ids"], tokenizer)
    options = items.inputs["options"]
    asked = [q for q, given in zip(questions(items, prompt), options, strict=True) for _ in given]
    offered = [option for given in options for option in given]
    flat = padded(tokenizer(asked, offered, **cut)["input_ids"], tokenizer)
    return {k: v.view(len(items), items.n_classes, -1) for k, v in flat.items()}


def prompts(items: Items, prompt: str) -> list[str]:
    """Return one text an item: the prompt, filled in."""
    options = [
        " ".join(f"({letter}) {o}" for letter, o in zip(LETTERS, given, strict=False))
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
    if "context" not in items.inputs:
        raise ConfigError(
            f"dataset.prompt={prompt}: the data have no context; "
            "allowed is a text with {question} and {options} alone"
        )
    found: Sequence[str] = items.inputs["context"]
    return found


def padded(rows: list[list[int]], tokenizer: Any) -> dict[str, Tensor]:
    """Return rows of tokens as tensors, padded on the right."""
    length = np.array([len(row) for row in rows])
    # a causal model's tokenizer may have no padding; what is masked may be any token
    fill = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    ids = np.full((len(rows), length.max(initial=1)), fill, dtype=np.int64)
    mask = np.arange(ids.shape[1]) < length[:, None]
    ids[mask] = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask.astype(np.int64)),
    }


def lengths(inputs: dict[str, Tensor], n_items: int) -> Ints:
    """Return how many tokens each item has, of K options the longest, (n_items,); 0 for others."""
    if "attention_mask" not in inputs:
        return np.zeros(n_items, dtype=np.int64)
    found: Ints = inputs["attention_mask"].sum(dim=-1).view(n_items, -1).amax(dim=1).numpy()
    return found


def trim(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cut padding columns that no item of the batch uses."""
    if "attention_mask" not in inputs:
        return inputs
    longest = int(inputs["attention_mask"].sum(dim=-1).max())
    return {k: v[..., :longest] for k, v in inputs.items()}


def standardised(
    x: Tensor,  # (n_items, n_features)
    train: Ints,  # (n_train,)
) -> Tensor:  # (n_items, n_features)
    """Return features of mean 0, deviation 1 over the training items; constant ones only moved."""
    std = x[train].std(dim=0, correction=0)
    return (x - x[train].mean(dim=0)) / torch.where(std > 0, std, 1.0)
