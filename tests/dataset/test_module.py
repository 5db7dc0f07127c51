"""The data module: which items train, what a batch holds, and what moves it."""

import numpy as np
import pytest
import torch

from annorun.dataset.module import CrowdData, encode, hold_out, standardised, trim
from annorun.net import tokenizer
from annorun.votes import Items, Votes


@pytest.fixture
def items() -> Items:
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    split = np.array(["train", "train", "train", "test", "train", "test"])
    return Items("features", {"x": x}, split, 3, truth=np.array([0, 1, 2, 0, -1, 1]))


@pytest.fixture
def votes() -> Votes:
    """Item 2 has no vote; items 3 (test) has one that must not train."""
    return Votes(
        np.array([4, 0, 1, 0, 3]), np.array([0, 1, 0, 0, 1]), np.array([2, 1, 1, 0, 0]), 6, 2, 3
    )


def module(items: Items, votes: Votes, **changes) -> CrowdData:
    settings = {"batch_size": 2, "val_share": 0.0, "data_seed": 0, "seed": 0} | changes
    return CrowdData(items, votes, tokenizer=None, prompt="", **settings)


def test_training_items_are_voted_and_in_the_train_split(items: Items, votes: Votes) -> None:
    data = module(items, votes)
    assert data.train.tolist() == [0, 1, 4]
    assert data.test.tolist() == [3, 5]


def test_a_batch_holds_every_vote_of_its_items(items: Items, votes: Votes) -> None:
    batch = module(items, votes).batch([4, 0, 2])
    # of items 0, 1, 4, which train, the first feature is 0, 2, 8: mean 10/3, variance 104/9
    scaled = [(8 - 10 / 3) / (104 / 9) ** 0.5, -(10 / 3) / (104 / 9) ** 0.5]
    assert batch["inputs"]["x"][:2, 0].tolist() == pytest.approx(scaled)
    assert batch["truth"].tolist() == [-1, 0, 2]
    triples = zip(batch["row"], batch["annotator"], batch["label"], strict=True)
    assert [tuple(int(v) for v in t) for t in triples] == [(0, 0, 2), (1, 0, 0), (1, 1, 1)]


def test_a_constant_feature_is_only_moved() -> None:
    x = torch.tensor([[5.0, 1.0], [5.0, 3.0], [9.0, 2.0]])
    moved = standardised(x, np.array([0, 1]))
    assert moved.tolist() == [[0, -1], [0, 1], [4, 0]]


def test_an_epoch_sees_every_training_vote_once(items: Items, votes: Votes) -> None:
    data = module(items, votes)
    seen = [int(i) for batch in data.train_dataloader() for i in batch["item"]]
    assert sorted(seen) == [0, 1, 4]
    assert sum(len(batch["label"]) for batch in data.train_dataloader()) == 4


def test_seed_moves_the_order_and_data_seed_the_validation() -> None:
    n = 40
    items = Items("features", {"x": np.zeros((n, 1), np.float32)}, np.full(n, "train"), 2)
    votes = Votes(np.arange(n), np.zeros(n), np.zeros(n), n, 1, 2)

    def look(**seeds: int) -> tuple[list[int], list[int]]:
        data = module(items, votes, val_share=0.25, **seeds)
        order = [int(i) for batch in data.train_dataloader() for i in batch["item"]]
        return order, data.val.tolist()

    order, val = look()
    assert len(val) == 10 and len(order) == 30 and not set(order) & set(val)
    assert look() == (order, val)
    other_order, same_val = look(seed=1)
    assert same_val == val and other_order != order and sorted(other_order) == sorted(order)
    assert look(data_seed=1)[1] != val


def test_validation_never_takes_the_last_training_item() -> None:
    kept, out = hold_out(np.array([7]), 0.9, data_seed=0)
    assert kept.tolist() == [7] and not len(out)


def test_prompts_show_question_and_lettered_options_and_are_trimmed() -> None:
    items = Items(
        "choice",
        {"question": ["Which?", "Which one is it?"], "options": [["x", "y"], ["u", "v"]]},
        np.array(["train", "train"]),
        2,
    )
    made = encode(items, tokenizer("tiny"), "{question} {options}")
    ids, mask = made["input_ids"], made["attention_mask"]
    text = bytes(int(i) - 3 for i in ids[0][mask[0] == 1][:-1]).decode()
    assert text == "Which? (a) x (b) y"
    assert ids[0][mask[0] == 1][-1] == 1, "the end of sequence, as T5 was trained"
    assert (ids[0][mask[0] == 0] == 0).all()
    short = trim({k: v[:1] for k, v in made.items()})
    assert short["input_ids"].shape[1] == int(mask[0].sum()) < ids.shape[1]
    assert torch.equal(short["input_ids"][0], ids[0][: short["input_ids"].shape[1]])
