"""The data module: which items train, what a batch holds, and what moves it."""

import numpy as np
import pytest
import torch

from annorun.dataset import module as dataset_module
from annorun.dataset.module import (
    CrowdData,
    encode,
    hold_out,
    standardised,
    task_spec,
    trim,
)
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


def drawn_crowd(n: int = 30, **more) -> tuple[Items, Votes]:
    """Items of three parts, interleaved; one to four votes each, of four annotators."""
    draw = np.random.default_rng(0)
    labelled = draw.random((n, 4)) < 0.5
    labelled[np.arange(n), draw.integers(0, 4, n)] = True
    item, annotator = np.nonzero(labelled)
    votes = Votes(item, annotator, draw.integers(0, 3, len(item)), n, 4, 3)
    split = np.array(["test", "train", "val", "train", "train"])[np.arange(n) % 5]
    x = draw.normal(size=(n, 2)).astype(np.float32) + np.arange(n)[:, None]
    return Items("features", {"x": x}, split, 3, **more), votes


@pytest.mark.parametrize("own_val", [True, False])
def test_features_are_standardised_by_the_items_that_train_alone(own_val: bool) -> None:
    """Neither validation nor test items move them, whichever way validation came about."""
    items, votes = drawn_crowd()
    if not own_val:
        split = np.where(items.split == "val", "train", items.split)
        items = Items("features", items.inputs, split, 3)
    data = module(items, votes, val_share=0.4)
    x, train = items.inputs["x"].astype(np.float64), data.train
    assert len(data.val) and not set(data.val) & set(train)
    expected = (x - x[train].mean(axis=0)) / x[train].std(axis=0)
    np.testing.assert_allclose(data.inputs["x"], expected, rtol=1e-4, atol=1e-5)


def test_the_datas_own_validation_items_are_taken_where_they_have_votes() -> None:
    """All training items stay, whatever the share; one without a vote validates nothing."""
    items, votes = drawn_crowd()
    silent = np.flatnonzero(items.split == "val")[2]
    data = module(items, votes.on(np.arange(30) != silent), val_share=0.4)
    assert data.train.tolist() == np.flatnonzero(items.split == "train").tolist()
    assert data.val.tolist() == [i for i in range(30) if items.split[i] == "val" and i != silent]
    assert data.test.tolist() == list(range(0, 30, 5))


@pytest.mark.parametrize(("n", "share", "held"), [(17, 0.1, 2), (17, 0.08, 1), (9, 0.5, 4)])
def test_the_share_of_validation_items_is_rounded(n: int, share: float, held: int) -> None:
    index = np.arange(3, 3 + 2 * n, 2)
    kept, out = hold_out(index, share, data_seed=4)
    assert len(out) == held and sorted([*kept, *out]) == index.tolist()
    assert kept.tolist() == sorted(kept) and out.tolist() == sorted(out)
    drawn = {tuple(hold_out(index, share, data_seed=s)[1]) for s in range(8)}
    assert len(drawn) > 3, "items are drawn, not the first"


def test_shares_are_of_each_items_votes() -> None:
    """Item by item; an item without votes has none."""
    items, votes = drawn_crowd()
    votes = votes.on(np.arange(30) != 7)
    data = module(items, votes)
    batch = data.batch([9, 3, 28, 7])
    for row, i in zip(batch["shares"], (9, 3, 28, 7), strict=True):
        mine = votes.label[votes.item == i].tolist()
        assert row.tolist() == pytest.approx([mine.count(k) / max(len(mine), 1) for k in range(3)])


def test_shares_are_of_the_datas_ratings_where_it_has_some() -> None:
    ratings = np.random.default_rng(3).integers(0, 9, (30, 3)).astype(float)
    ratings[4] = 0
    items, votes = drawn_crowd(soft=ratings)
    batch = module(items, votes).batch([9, 3, 28, 4])
    for row, i in zip(batch["shares"], (9, 3, 28, 4), strict=True):
        assert row.tolist() == pytest.approx((ratings[i] / max(ratings[i].sum(), 1)).tolist())


def test_a_batch_holds_its_items_rows_and_votes_in_its_own_order() -> None:
    """Whatever the order of the items; the votes of each come by annotator."""
    draw = np.random.default_rng(5)
    items, votes = drawn_crowd(truth=draw.integers(-1, 3, 30))
    data = module(items, votes)
    data.target = torch.from_numpy(draw.dirichlet(np.ones(3), 30))
    data.group_target = torch.from_numpy(draw.integers(-1, 3, (30, 2)))
    index = [21, 3, 17, 4, 29]
    batch = data.batch(index)
    assert batch["item"].tolist() == index
    assert batch["truth"].tolist() == items.truth[index].tolist()
    assert torch.equal(batch["inputs"]["x"], data.inputs["x"][index])
    assert torch.equal(batch["target"], data.target[index])
    assert torch.equal(batch["group_target"], data.group_target[index])
    triples = zip(batch["row"].tolist(), batch["annotator"], batch["label"], strict=True)
    dense = votes.dense()
    expected = [
        (row, m, dense[i, m]) for row, i in enumerate(index) for m in range(4) if dense[i, m] >= 0
    ]
    assert [(row, int(m), int(y)) for row, m, y in triples] == expected


def test_an_unknown_truth_is_no_class() -> None:
    items, votes = drawn_crowd()
    assert module(items, votes).batch([1, 2])["truth"].tolist() == [-1, -1]


@pytest.mark.parametrize("part", ["val", "test"])
def test_every_validation_and_test_item_is_answered_once(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches of four, of which the last is smaller."""
    monkeypatch.setattr(dataset_module, "MOST_ITEMS", 4)
    items, votes = drawn_crowd()
    data = module(items, votes)
    batches = list(data.val_dataloader() if part == "val" else data.test_dataloader())
    assert [len(b["item"]) for b in batches] == [4, 2]
    answered = [int(i) for b in batches for i in b["item"]]
    assert answered == np.flatnonzero(items.split == part).tolist()


GROUPS = (1, 0, 0, 1, 0)


def test_what_a_method_needs_to_know_of_the_data() -> None:
    """Annotators and groups without a vote count, too."""
    x = np.zeros((4, 2, 5, 7), np.float32)
    items = Items("image", {"x": x}, np.full(4, "train"), 3, group_names=["a", "b", "c"])
    votes = Votes(np.array([0]), np.array([1]), np.array([2]), 4, 5, 3, group=np.array(GROUPS))
    spec = task_spec(items, votes)
    assert (spec.kind, spec.n_classes, spec.n_annotators) == ("image", 3, 5)
    assert (spec.input_shape, spec.n_groups, spec.group) == ((2, 5, 7), 3, GROUPS)
    texts = Items("text", {"text": ["a"] * 4}, np.full(4, "train"), 3)
    plain = task_spec(texts, Votes(np.array([0]), np.array([1]), np.array([2]), 4, 5, 3))
    assert (plain.input_shape, plain.n_groups, plain.group) == ((), 0, ())
