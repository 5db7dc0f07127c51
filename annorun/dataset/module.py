"""The one LightningDataModule: items with all their votes, a batch at a time.

An item is encoded once however many annotators labelled it: a batch holds its items' inputs and
their votes as flat rows that point at them. Inputs are made tensors once, before training.
"""

from collections.abc import Iterator
from typing import Any, TypeVar, cast

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, Sampler

from annorun.dataset.encode import MAX_TOKENS, columns
from annorun.errors import ConfigError
from annorun.seeds import child, rng
from annorun.votes import Ints, Items, TaskSpec, Votes, group_names

Answers = TypeVar("Answers", bound=NDArray[Any])
# at most so many items and tokens at once, where nothing is learned
MOST_ITEMS, MOST_TOKENS = 256, 2**16


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
        pairs: see `annorun.dataset.encode.columns`.
        bucket: batches that are sorted by length among themselves.
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
        pairs: bool = False,
        bucket: int = 1,
    ):
        super().__init__()
        self.votes, self.batch_size, self.seed = votes, batch_size, seed
        self.bucket = bucket
        self.inputs = encode(items, tokenizer, prompt, max_length, pairs)
        self.length = lengths(self.inputs, len(items))
        truth = np.full(len(items), -1) if items.truth is None else items.truth
        self.truth = torch.from_numpy(truth.astype(np.int64))
        # (n_items, n_classes) labels of an aggregator, once it has run
        self.target: Tensor | None = None
        # (n_items, n_groups) labels of an aggregator with a truth for each group, -1 for none
        self.group_target: Tensor | None = None
        # (n_annotators, n_classes, n_classes) what the aggregator found of each, if it did
        self.confusion: Tensor | None = None
        # (n_items, n_classes) of the votes or ratings of each item; 0 where there are none
        counts = votes.counts() if items.soft is None else items.soft
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        self.shares = torch.from_numpy(share.astype(np.float32))
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
        # texts of like length together: the least padding
        self.tested = self.test[np.argsort(self.length[self.test], kind="stable")]
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
            "shares": self.shares[item],
            "row": torch.from_numpy(np.repeat(np.arange(len(item)), count)),
            "annotator": torch.from_numpy(self.votes.annotator[vote]),
            "label": torch.from_numpy(self.votes.label[vote]),
        }
        if self.target is not None:
            batch["target"] = self.target[item]
        if self.group_target is not None:
            batch["group_target"] = self.group_target[item]
        return batch

    def _loader(self, index: Ints) -> DataLoader[int]:
        mask = self.inputs.get("attention_mask")
        size = MOST_ITEMS if mask is None else MOST_TOKENS // mask[0].numel()
        size = max(1, min(size, MOST_ITEMS), self.batch_size)
        # without a generator, each pass would draw from the global one
        generator = torch.Generator()
        return DataLoader(index.tolist(), size, collate_fn=self.batch, generator=generator)

    def train_dataloader(self) -> DataLoader[int]:
        """Items in a random order, none dropped."""
        order = torch.Generator().manual_seed(child(self.seed, "order"))
        batches = Batches(self.length[self.train], self.batch_size, self.bucket, order)
        return DataLoader(
            self.train.tolist(), batch_sampler=batches, generator=order, collate_fn=self.batch
        )

    def val_dataloader(self) -> DataLoader[int]:
        """Held-out voted items; the trainer leaves validation out where there are none."""
        return self._loader(self.val)

    def test_dataloader(self) -> DataLoader[int]:
        """The test split, in the order of `tested`: short texts first."""
        return self._loader(self.tested)

    def in_order(self, answers: Answers) -> Answers:
        """Return answers to the items of `tested` in the order of `test`, (n_test, ...)."""
        return cast(Answers, answers[np.argsort(self.tested)])


class Batches(Sampler[list[int]]):
    """Batches of items in a random order, none dropped; every `bucket` of them sorted by length.

    A batch pads its texts to its longest: sorted, there is less padding. Batches come in a random
    order too, or each window would begin with its shortest.

    Args:
        length: (n,) tokens of each item.
        size: items a batch.
        bucket: batches a window; 1: items stay as they are drawn.
        generator: draws the orders.
    """

    def __init__(self, length: Ints, size: int, bucket: int, generator: torch.Generator):
        self.length, self.size, self.bucket = length, size, bucket
        self.generator = generator
        self.items = RandomSampler(range(len(length)), generator=generator)

    def __len__(self) -> int:
        return -(-len(self.length) // self.size)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield places in `length`."""
        order, window = np.array(list(self.items)), self.size * self.bucket
        for first in range(0, len(order), window):
            part = order[first : first + window]
            if self.bucket > 1:
                part = part[np.argsort(self.length[part], kind="stable")]
            batches = [part[i : i + self.size].tolist() for i in range(0, len(part), self.size)]
            if self.bucket > 1:
                batches = [
                    batches[i] for i in torch.randperm(len(batches), generator=self.generator)
                ]
            yield from batches


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
    items: Items, tokenizer: Any, prompt: str, max_length: int = MAX_TOKENS, pairs: bool = False
) -> dict[str, Tensor]:
    """Return `annorun.dataset.encode.columns` as tensors."""
    found = columns(items, tokenizer, prompt, max_length, pairs)
    return {k: torch.from_numpy(v) for k, v in found.items()}


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
