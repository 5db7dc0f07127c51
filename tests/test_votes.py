"""The shared dataclasses: what Votes refuses, its order, and how ties are drawn."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from annorun.errors import ConfigError
from annorun.votes import (
    Items,
    Posterior,
    TaskSpec,
    Votes,
    group_labels,
    group_names,
    hard_labels,
)

SIZES = {"n_items": 4, "n_annotators": 3, "n_classes": 3}
ROWS = [(0, 0, 2), (0, 1, 1), (1, 2, 0), (3, 0, 0), (3, 2, 1)]


def votes(rows: list[tuple[int, int, int]] = ROWS, **more: object) -> Votes:
    item, annotator, label = zip(*rows, strict=True)
    return Votes(item, annotator, label, **{**SIZES, **more})  # type: ignore[arg-type]


def test_shuffled_rows_are_the_same_votes() -> None:
    order = np.random.default_rng(0).permutation(len(ROWS))
    one, two = votes(), votes([ROWS[i] for i in order])
    for name in ("item", "annotator", "label"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert list(zip(one.item, one.annotator, one.label, strict=True)) == ROWS


@pytest.mark.parametrize("huge", [False, True])
@pytest.mark.parametrize("in_order", [False, True])
def test_the_order_is_that_of_three_keys(huge: bool, in_order: bool) -> None:
    """Also where the three do not fit into one number, and where there is nothing to sort."""
    rng = np.random.default_rng(0)
    flat = np.sort(rng.permutation(7 * 11 * 5)[:200])
    rows = np.stack(np.unravel_index(flat if in_order else rng.permutation(flat), (7, 11, 5)))
    sizes = (2**40, 2**30, 2**20) if huge else (7, 11, 5)
    order = np.lexsort(rows[::-1])
    found = Votes(*rows, *sizes, explanation=tuple(map(str, range(200))), multi_label=True)
    np.testing.assert_array_equal([found.item, found.annotator, found.label], rows[:, order])
    assert found.explanation == tuple(map(str, order))
    # the caller's arrays stay the caller's
    rows[:] = 0
    assert found.item.any()


def test_explanations_travel_with_their_votes() -> None:
    shuffled = votes(ROWS[::-1], explanation=tuple("edcba"))
    assert shuffled.explanation == tuple("abcde")


def test_dense_and_counts() -> None:
    assert votes().dense().tolist() == [[2, 1, -1], [-1, -1, 0], [-1, -1, -1], [0, -1, 1]]
    assert votes().counts().tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 0]]
    assert len(votes()) == 5


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ((4, 0, 0), "item 4 (vote 5) is not in 0..3"),
        ((0, 3, 0), "annotator 3 (vote 5) is not in 0..2"),
        ((0, 2, 3), "label 3 (vote 5) is not in 0..2"),
        ((0, 2, -1), "label -1 (vote 5) is not in 0..2"),
        ((-1, 0, 0), "item -1 (vote 5) is not in 0..3"),
        ((3, 2, 0), "annotator 2 labelled item 3 more than once"),
        ((3, 2, 1), "annotator 2 labelled item 3 more than once"),
    ],
)
def test_bad_votes_are_refused(row: tuple[int, int, int], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        votes([*ROWS, row])
    assert words in str(error.value)


def test_several_labels_are_allowed_where_the_task_is_multi_label() -> None:
    several = votes([*ROWS, (3, 2, 0)], multi_label=True)
    assert several.counts()[3].tolist() == [2, 1, 0]
    with pytest.raises(ValueError, match="no dense form"):
        several.dense()
    with pytest.raises(ConfigError, match="more than once"):
        votes([*ROWS, (3, 2, 1)], multi_label=True)


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ConfigError, match="differ in shape"):
        Votes([0, 1], [0], [0, 0], **SIZES)  # type: ignore[arg-type]


def test_no_votes_at_all() -> None:
    none = Votes([], [], [], **SIZES)  # type: ignore[arg-type]
    assert none.counts().sum() == 0
    assert (none.dense() == -1).all()


def test_votes_are_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        votes().label[0] = 0
    with pytest.raises(FrozenInstanceError):
        votes().n_items = 5  # type: ignore[misc]


def test_names_of_items_and_classes() -> None:
    items = Items(kind="votes", inputs={}, split=np.array(["train"] * 2), n_classes=2)
    assert (items.name(1), items.classes(), len(items)) == ("1", ["0", "1"], 2)
    named = replace(items, names=["a", "b"], class_names=["no", "yes"])
    assert (named.name(1), named.classes()) == ("b", ["no", "yes"])


def test_a_spec_is_plain_and_comes_back() -> None:
    spec = TaskSpec(kind="image", n_classes=10, n_annotators=3, input_shape=(1, 8, 8))
    assert TaskSpec(**spec.plain()) == spec


def test_hard_labels_take_the_most_probable() -> None:
    probs = np.array([[0.2, 0.5, 0.3], [0.6, 0.4, 0.0]])
    assert hard_labels(probs, rng=np.random.default_rng(0)).tolist() == [1, 0]


def test_ties_are_drawn_fairly_and_by_the_generator() -> None:
    """2000 rows of a tie between classes 0 and 2: a binomial(2000, .5), within 4 deviations."""
    probs = np.tile([0.4, 0.2, 0.4], (2000, 1))
    one = hard_labels(probs, rng=np.random.default_rng(1))
    assert set(one.tolist()) == {0, 2}
    assert abs((one == 0).mean() - 0.5) < 4 * np.sqrt(0.25 / 2000)
    np.testing.assert_array_equal(one, hard_labels(probs, rng=np.random.default_rng(1)))
    assert (one != hard_labels(probs, rng=np.random.default_rng(2))).any()


def test_a_tie_moves_no_other_draw() -> None:
    tied = np.tile([0.5, 0.5], (50, 1))
    other = tied.copy()
    other[7] = [0.9, 0.1]
    one = hard_labels(tied, rng=np.random.default_rng(3))
    two = hard_labels(other, rng=np.random.default_rng(3))
    np.testing.assert_array_equal(np.delete(one, 7), np.delete(two, 7))


def test_ties_up_to_rounding_are_ties() -> None:
    probs = np.tile([0.1 + 0.2, 0.3, 0.4 - 1e-9], (500, 1))
    probs[:, 2] = 0.3 * (1 - 1e-12)
    assert set(hard_labels(probs, rng=np.random.default_rng(0)).tolist()) == {0, 1, 2}


def test_votes_on_some_items_keep_sizes_groups_and_explanations() -> None:
    item, annotator, label = np.array([2, 0, 1]), np.array([0, 1, 0]), np.array([1, 1, 0])
    votes = Votes(item, annotator, label, 4, 2, 2, np.array([1, 0]), ("two", "zero", "one"))
    some = votes.on(np.array([True, False, True, True]))
    assert (some.item.tolist(), some.annotator.tolist(), some.label.tolist()) == (
        [0, 2],
        [1, 0],
        [1, 1],
    )
    assert some.explanation == ("zero", "two") and some.group.tolist() == [1, 0]
    assert (some.n_items, some.n_annotators, some.n_classes) == (4, 2, 2)


def test_labels_of_groups_are_of_their_item_and_group() -> None:
    """Three items, two groups: what is not estimated is -1, a tie is drawn cell by cell."""
    nan = [np.nan] * 3
    probs = np.array(
        [[[0.1, 0.2, 0.7], nan], [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]], [nan, [0.8, 0.1, 0.1]]]
    )
    posterior = Posterior(probs[:, 0], np.ones(2), group_probs=probs)
    got = group_labels(posterior, rng=np.random.default_rng(0))
    assert got is not None and got.tolist() == [[2, -1], [0, 1], [-1, 0]]
    assert group_labels(replace(posterior, group_probs=None), rng=np.random.default_rng(0)) is None
    tied = replace(posterior, group_probs=np.full((40, 2, 3), 1 / 3))
    drawn = group_labels(tied, rng=np.random.default_rng(5))
    flat = hard_labels(np.full((80, 3), 1 / 3), rng=np.random.default_rng(5))
    assert drawn is not None and drawn.tolist() == flat.reshape(40, 2).tolist()


def test_groups_are_named_or_numbered() -> None:
    group = np.array([2, 0, 2])
    assert group_names(group, None) == ["0", "1", "2"]
    assert group_names(group, ["old", "new", "odd"]) == ["old", "new", "odd"]
    assert group_names(None, ["old"]) == group_names(np.zeros(0, dtype=np.int64), None) == []
    votes = Votes([0], [1], [0], 1, 3, 2, group=group)  # type: ignore[arg-type]
    assert votes.n_groups == 3 and replace(votes, group=None).n_groups == 0
