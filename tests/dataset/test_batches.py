"""Batches of texts of like length: every item, less padding, and the order that it was without."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from annorun.dataset.module import Batches, CrowdData
from annorun.net import tokenizer
from annorun.seeds import child
from annorun.votes import Items, Votes

# many short ones and a few that are very long
LENGTH = np.round(np.random.default_rng(0).lognormal(3, 1, 203)).astype(np.int64)


def drawn(bucket: int, seed: int = 0, size: int = 8, epochs: int = 1) -> list[list[list[int]]]:
    batches = Batches(LENGTH, size, bucket, torch.Generator().manual_seed(seed))
    return [list(batches) for _ in range(epochs)]


def padding(batches: list[list[int]]) -> int:
    return sum(int(LENGTH[b].max()) * len(b) - int(LENGTH[b].sum()) for b in batches)


@pytest.mark.parametrize("bucket", [1, 2, 5, 1000])
@pytest.mark.parametrize("size", [1, 8, 203, 500])
def test_an_epoch_has_every_item_once(bucket: int, size: int) -> None:
    """All batches are full, but for one that has the rest."""
    (batches,) = drawn(bucket, size=size)
    assert sorted(i for b in batches for i in b) == list(range(203))
    rest = [203 % size] if 203 % size else []
    assert sorted(map(len, batches)) == rest + [size] * (203 // size)
    assert len(batches) == len(Batches(LENGTH, size, bucket, torch.Generator()))


def test_a_window_of_batches_is_sorted_and_comes_in_a_random_order() -> None:
    """Items of a window are those that were drawn first; sorted, batch ends where another began."""
    (batches,) = drawn(bucket=5)
    order = torch.Generator().manual_seed(0)
    # what a RandomSampler draws, first of all
    first = torch.randperm(203, generator=order)[:40].tolist()
    window = batches[:5]
    assert sorted(i for b in window for i in b) == sorted(first)
    for batch in batches:
        assert LENGTH[batch].tolist() == sorted(LENGTH[batch])
    by_length = sorted(window, key=lambda b: (LENGTH[b[0]], LENGTH[b[-1]]))
    flat = [int(n) for b in by_length for n in LENGTH[b]]
    assert flat == sorted(LENGTH[first].tolist())
    assert any(drawn(5, seed)[0][0] != sorted_first(drawn(5, seed)[0][:5]) for seed in range(5))


def sorted_first(window: list[list[int]]) -> list[int]:
    return min(window, key=lambda b: (LENGTH[b[0]], LENGTH[b[-1]]))


def test_the_more_batches_are_sorted_the_less_padding() -> None:
    """And sorting all is the least that batches of this size can have."""
    unsorted, some, more, everything = (
        np.mean([padding(drawn(bucket, seed)[0]) for seed in range(10)])
        for bucket in (1, 3, 10, 1000)
    )
    assert unsorted > 1.5 * some and some > 1.3 * more and more > 1.2 * everything
    best = np.sort(LENGTH)
    least = sum(int(p.max()) * len(p) - int(p.sum()) for p in np.split(best, range(8, 203, 8)))
    assert everything == least


@pytest.mark.parametrize("bucket", [1, 5])
def test_epochs_differ_and_a_seed_says_how(bucket: int) -> None:
    first, second = drawn(bucket, epochs=2)
    assert first != second
    assert drawn(bucket, epochs=2) == [first, second]
    assert drawn(bucket, seed=1)[0] != first
    # not only the batches' order
    assert {frozenset(b) for b in first} != {frozenset(b) for b in second}


TEXTS = ["abcdefgh", "ab", "abcde", "a", "abcdefghij", "abc", "ab", "abcdefg"]


def crowd(n: int = 203, **changes) -> CrowdData:
    texts = ["x" * int(k) for k in LENGTH[:n]]
    items = Items("text", {"text": texts}, np.array(["train"] * n), 2)
    votes = Votes(np.arange(n), np.zeros(n), np.arange(n) % 2, n, 1, 2)
    settings = {"batch_size": 8, "val_share": 0.0, "data_seed": 0, "seed": 4} | changes
    return CrowdData(items, votes, tokenizer=tokenizer("tiny"), prompt="", **settings)


def test_one_batch_a_window_is_the_order_of_a_shuffling_loader() -> None:
    """What runs had before there were windows, epoch by epoch: their results stand."""
    data = crowd(bucket=1)
    order = torch.Generator().manual_seed(child(4, "order"))
    before = DataLoader(range(203), 8, shuffle=True, generator=order, collate_fn=list)
    now = data.train_dataloader()
    for _ in range(3):
        assert [b["item"].tolist() for b in now] == list(before)


def test_the_loader_draws_its_windows_by_the_texts_own_lengths() -> None:
    """A batch is as wide as its longest text, with the end of sequence."""
    loader = crowd(bucket=5).train_dataloader()
    assert len(loader) == 26
    seen, wide = [], 0
    for batch in loader:
        item = batch["item"].numpy()
        assert batch["inputs"]["input_ids"].shape == (len(item), LENGTH[item].max() + 1)
        assert LENGTH[item].tolist() == sorted(LENGTH[item])
        seen += item.tolist()
        wide += batch["inputs"]["input_ids"].numel()
    assert sorted(seen) == list(range(203))
    assert wide < sum(b["inputs"]["input_ids"].numel() for b in crowd().train_dataloader())


def test_what_is_tested_by_length_is_put_back_in_order() -> None:
    """Lengths 8 2 . . 10 3 . 7: items 1, 5, 7, 0, 4 are tested, which no swap puts back."""
    split = np.array(["test", "test", "train", "train", "test", "test", "train", "test"])
    items = Items("text", {"text": TEXTS}, split, 2)
    votes = Votes(np.array([2, 3, 6]), np.zeros(3), np.zeros(3), 8, 1, 2)
    settings = {"batch_size": 2, "val_share": 0.0, "data_seed": 0, "seed": 0}
    data = CrowdData(items, votes, tokenizer=tokenizer("tiny"), prompt="", **settings)
    assert data.test.tolist() == [0, 1, 4, 5, 7]
    assert data.tested.tolist() == [1, 5, 7, 0, 4]
    answered = np.concatenate([b["item"].numpy() for b in data.test_dataloader()])
    assert answered.tolist() == data.tested.tolist()
    assert data.in_order(answered).tolist() == data.test.tolist()
    deep = np.stack([answered, -answered], axis=1)[:, None]
    assert data.in_order(deep)[:, 0, 1].tolist() == [0, -1, -4, -5, -7]


def test_validation_keeps_its_order() -> None:
    data = crowd(val_share=0.25, bucket=5)
    seen = [int(i) for batch in data.val_dataloader() for i in batch["item"]]
    assert seen == data.val.tolist()


def test_windows_go_by_the_lengths_of_the_items_that_train() -> None:
    """Where every other item is tested or held out, a batch is sorted by its own texts still."""
    texts = ["x" * int(k) for k in LENGTH]
    split = np.array(["train", "test"])[np.arange(203) % 2]
    items = Items("text", {"text": texts}, split, 2)
    votes = Votes(np.arange(203), np.zeros(203), np.arange(203) % 2, 203, 1, 2)
    keys = {"batch_size": 8, "val_share": 0.2, "data_seed": 0, "seed": 4, "bucket": 4}
    data = CrowdData(items, votes, tokenizer=tokenizer("tiny"), prompt="", **keys)
    batches = [b["item"].numpy() for b in data.train_dataloader()]
    assert sorted(np.concatenate(batches)) == data.train.tolist()
    for item in batches:
        assert LENGTH[item].tolist() == sorted(LENGTH[item])
    # windows of 32: batches of one overlap in nothing but the length where they meet
    by_length = sorted(batches[:4], key=lambda item: LENGTH[item].tolist())
    flat = np.concatenate([LENGTH[item] for item in by_length]).tolist()
    assert flat == sorted(flat)


def test_another_seed_is_another_order_and_another_epoch_is_too() -> None:
    orders = []
    for seed in (4, 5):
        loader = crowd(seed=seed, bucket=3).train_dataloader()
        orders += [tuple(int(i) for b in loader for i in b["item"]) for _ in range(2)]
    assert len(set(orders)) == 4
