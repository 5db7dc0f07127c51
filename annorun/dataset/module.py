"""The one LightningDataModule: items with all their votes, a batch at a time.

An item is encoded once however many annotators labelled it: a batch holds its items' inputs and
their votes as flat rows that point at them. Inputs are made tensors once, before training.
"""

import string
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from annorun.errors import ConfigError
from annorun.seeds import child, rng
from annorun.votes import Ints, Items, TaskSpec, Votes, group_names

LETTERS = string.ascii_lowercase
MAX_TOKENS = 512


class CrowdData(L.LightningDataModule):
    """Training and validation items are those with a vote of the train split, or of the val split.

    Args:
        items: what is asked.
        votes: who answered what, over the same items.
        tokenizer: for texts; None for features and images.
        prompt: how a question and its options become one text.
        batch_size: items.
        val_share: of the voted training items; 0 for none; the data's own val split comes first.
        data_seed: its child `validation` draws them.
        seed: its child `order` shuffles.
        max_length: tokens of a text, at most.
    """

    def __init__(
        self,
        items: Items,
        votes: Votes,
        *,
        tokenizer: Any,
        prompt: str,
        batch_size: int,
        val_share: float,
        data_seed: int,
        seed: int,
        max_length: int = MAX_TOKENS,
    ):
        super().__init__()
        self.votes, self.batch_size, self.seed = votes, batch_size, seed
        self.inputs = encode(items, tokenizer, prompt, max_length)
        truth = np.full(len(items), -1) if items.truth is None else items.truth
        self.truth = torch.from_numpy(truth.astype(np.int64))
        # (n_items, n_classes) labels of an aggregator, once it has run
        self.target: Tensor | None = None
        # (n_items, n_groups) labels of an aggregator with a truth for each group, -1 for none
        self.group_target: Tensor | None = None
        # votes are sorted by item: item i has those from first[i] to first[i + 1]
        self.first = np.searchsorted(votes.item, np.arange(len(items) + 1))
        voted, own = (
            np.flatnonzero((items.split == part) & (np.diff(self.first) > 0))
            for part in ("train", "val")
        )
        if not len(voted):
            raise ConfigError("dataset: no item to train on; allowed is one vote or more in train")
        self.train, self.val = (voted, own) if len(own) else hold_out(voted, val_share, data_seed)
        self.test = np.flatnonzero(items.split == "test")
        if items.kind == "features":
            self.inputs = {"x": standardised(self.inputs["x"], self.train)}

    def batch(self, index: list[int]) -> dict[str, Any]:
        """Return the batch of some items, by their number."""
        item = np.asarray(index)
        count = self.first[item + 1] - self.first[item]
        vote = np.concatenate([np.arange(self.first[i], self.first[i + 1]) for i in item])
        batch: dict[str, Any] = {
            "inputs": trim({k: v[item] for k, v in self.inputs.items()}),
            "item": torch.from_numpy(item),
            "truth": self.truth[item],
            "row": torch.from_numpy(np.repeat(np.arange(len(item)), count)),
            "annotator": torch.from_numpy(self.votes.annotator[vote]),
            "label": torch.from_numpy(self.votes.label[vote]),
        }
        if self.target is not None:
            batch["target"] = self.target[item]
        if self.group_target is not None:
            batch["group_target"] = self.group_target[item]
        return batch

    def _loader(self, index: Ints, shuffle: bool = False) -> DataLoader[int]:
        order = torch.Generator().manual_seed(child(self.seed, "order"))
        size = self.batch_size if shuffle else max(self.batch_size, 256)
        return DataLoader(
            index.tolist(), size, shuffle=shuffle, generator=order, collate_fn=self.batch
        )

    def train_dataloader(self) -> DataLoader[int]:
        """Items in a random order, none dropped."""
        return self._loader(self.train, shuffle=True)

    def val_dataloader(self) -> DataLoader[int]:
        """Held-out voted items; the trainer leaves validation out where there are none."""
        return self._loader(self.val)

    def test_dataloader(self) -> DataLoader[int]:
        """The test split, in its own order."""
        return self._loader(self.test)


def task_spec(items: Items, votes: Votes) -> TaskSpec:
    """Return what a method needs to know of the data before it sees them."""
    shape = items.inputs["x"].shape[1:] if "x" in items.inputs else ()
    return TaskSpec(
        kind=items.kind,
        n_classes=items.n_classes,
        n_annotators=votes.n_annotators,
        input_shape=tuple(int(n) for n in shape),
        n_groups=len(group_names(votes.group, items.group_names)),
        group=() if votes.group is None else tuple(votes.group.tolist()),
    )


def hold_out(index: Ints, share: float, data_seed: int) -> tuple[Ints, Ints]:
    """Return (kept, held out), both in ascending order; at least one item is kept."""
    n = min(round(share * len(index)), len(index) - 1)
    drawn = rng(data_seed, "validation").permutation(index)
    return np.sort(drawn[n:]), np.sort(drawn[:n])


def encode(
    items: Items, tokenizer: Any, prompt: str, max_length: int = MAX_TOKENS
) -> dict[str, Tensor]:
    """Return the network's inputs for all items, as tensors of n_items rows."""
    if "x" in items.inputs:
        x: NDArray[np.float32] = items.inputs["x"]
        return {"x": torch.from_numpy(x)}
    if items.kind == "text":
        texts = list(items.inputs["text"])
    else:
        options = [
            " ".join(f"({c}) {o}" for c, o in zip(LETTERS, given, strict=False))
            for given in items.inputs["options"]
        ]
        pairs = zip(items.inputs["question"], options, strict=True)
        texts = [prompt.format(question=q, options=o) for q, o in pairs]
    rows = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
    length = np.array([len(row) for row in rows])
    ids = np.full((len(rows), length.max(initial=1)), tokenizer.pad_token_id, dtype=np.int64)
    mask = np.arange(ids.shape[1]) < length[:, None]
    ids[mask] = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask.astype(np.int64)),
    }


def standardised(
    x: Tensor,  # (n_items, n_features)
    train: Ints,  # (n_train,)
) -> Tensor:  # (n_items, n_features)
    """Return features of mean 0, deviation 1 over the training items; constant ones only moved."""
    std = x[train].std(dim=0, correction=0)
    return (x - x[train].mean(dim=0)) / torch.where(std > 0, std, 1.0)


def trim(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cut padding columns that no item of the batch uses."""
    if "attention_mask" not in inputs:
        return inputs
    longest = int(inputs["attention_mask"].sum(dim=1).max())
    return {k: v[:, :longest] for k, v in inputs.items()}
