"""Measures of generated explanations by hand: whose label, words, length and reasons they have."""

import numpy as np
import pytest

from annorun.scores import soft
from annorun.scores.reasoning import shares
from annorun.votes import Items, Votes
from annorun.written import (
    Texts,
    Written,
    agrees,
    bags,
    decisions,
    overlap,
    reasons,
    recited,
    wording,
)

TEXTS = ("a dog runs", "the cat sat down", "birds")
CLASSES = ("no", "yes", "so")


def votes(*said: tuple[int, int, int, str]) -> Votes:
    """Return votes of (item, annotator, label, explanation)."""
    item, who, label = (np.array([one[k] for one in said]) for k in range(3))
    whys = tuple(one[3] for one in said)
    return Votes(item, who, label, 3, 3, 3, explanation=whys, multi_label=True)


# of test items 1 and 2; annotator 2 explains one of them, 1 gives item 1 two labels
HELD = votes(
    (1, 0, 0, "it might be the cat"),
    (1, 1, 0, "because it sat"),
    (1, 1, 1, "because it sat down and so it is"),
    (1, 2, 2, "only the cat"),
    (2, 0, 1, "birds might differ"),
    (2, 1, 0, "so"),
)
TRAIN = votes(
    (0, 0, 1, "a dog might run"),
    (0, 1, 0, "because the dog runs it must"),
    (0, 2, 0, "all dogs"),
)
SPLIT = np.array(["train", "test", "test"])
ITEMS = Items("explain", {"text": list(TEXTS)}, SPLIT, 3, held_out=HELD, class_names=CLASSES)
WRITTEN = (
    Written(1, 0, 0, "no", "the cat might fly"),
    Written(1, 0, 1, "yes", "the cat"),
    Written(1, 1, 0, "yes", "because the dog runs it must"),
    Written(1, 2, 0, "no", "because the dog runs it must"),
    Written(2, 0, 0, "no", "a dog might run"),
    Written(2, 1, 0, "no", ""),
    Written(2, 1, 1, "perhaps", "so birds"),
)


def test_a_label_agrees_with_the_targets_labels_of_the_item() -> None:
    """Neither with another annotator's nor with those of another item."""
    expected = [True, False, True, False, False, True, False]
    assert agrees(ITEMS, HELD, WRITTEN).tolist() == expected
    found = decisions(ITEMS, HELD, WRITTEN)
    assert found["test/label_acc"] == pytest.approx(3 / 7)
    assert found["test/malformed"] == pytest.approx(1 / 7)
    # item 1: four labels, each of two other targets; 0 and 1 say "no" both; item 2: none of two
    assert found["test/human_label_acc"] == pytest.approx(2 / 10)
    assert "test/label_mae" not in found


def test_words_are_compared_with_the_items_input_and_the_targets_own_length() -> None:
    found = wording(ITEMS, HELD, WRITTEN)
    copied = [2 / 4, 2 / 2, 1 / 6, 1 / 6, 0, 1 / 2]
    assert found["test/copied"] == pytest.approx(np.mean(copied))
    # bigrams of the first decoding: the-cat cat-might might-fly; five of a text that is there
    # twice; a-dog dog-might might-run
    assert found["test/distinct2"] == pytest.approx(11 / 16)
    # it-might might-be be-the the-cat; because-it it-sat; because-it it-sat sat-down down-and
    # and-so so-it it-is; only-the the-cat; birds-might might-differ
    assert found["test/human_distinct2"] == pytest.approx(14 / 17)
    # 4, 2 and 4 words of target 0, whose own are 5 and 3; 6, 0 and 2 of 1 to 3, 8 and 1; 6 to 3
    expected = np.mean([(10 / 3) / 4, (8 / 3) / 4, 6 / 3])
    assert found["test/length"] == pytest.approx(expected)


def test_recited_are_the_targets_training_explanations_alone() -> None:
    """The same text under another's name is not recited, nor are words of test explanations."""
    found = recited(TRAIN, HELD, WRITTEN)
    assert found == {"test/recited": pytest.approx(2 / 7), "test/human_recited": 0}
    human = votes(
        (1, 1, 0, "Because the dog runs, it must."),
        (1, 2, 0, "because the dog runs it must"),
        (2, 2, 1, "all dogs"),
    )
    copies = [Written(1, 0, 0, "no", why) for why in human.explanation or ()]
    found = recited(TRAIN, human, copies)
    assert found == {"test/recited": 0, "test/human_recited": pytest.approx(2 / 3)}


def test_overlap_is_with_the_target_and_of_the_humans_with_others() -> None:
    """Item 2, by hand: longest common subsequences of words, F of the two lengths."""
    human = votes((2, 0, 1, "birds might differ"), (2, 1, 0, "so birds differ here"))
    written = (
        Written(2, 0, 0, "no", "birds might"),
        Written(2, 1, 0, "no", "birds differ"),
        Written(2, 1, 1, "no", "so"),
    )
    found = overlap(human, written)
    assert found["test/rouge_l"] == pytest.approx(np.mean([4 / 5, 4 / 6, 2 / 5]))
    # birds .. differ: two of three and of four words, in both directions
    assert found["test/human_rouge_l"] == pytest.approx(4 / 7)


def test_reasons_are_compared_with_the_targets_own_of_test_items() -> None:
    found = reasons(TRAIN, HELD, WRITTEN)
    ways: dict[str, list[list[str]]] = {"jsd": [], "human_jsd": [], "others_jsd": []}
    own = []
    for who in range(3):
        ways["jsd"].append([one.why for one in WRITTEN if one.target == who])
        human = list(zip(HELD.annotator, HELD.explanation or (), strict=True))
        own.append([why for a, why in human if a == who])
        ways["others_jsd"].append([why for a, why in human if a != who])
        ways["human_jsd"].append([(TRAIN.explanation or ())[who]])
    for name, texts in ways.items():
        far = [
            soft.jsd(shares(a)[None], shares(b)[None])[0] for a, b in zip(texts, own, strict=True)
        ]
        assert found[f"reasoning/{name}"] == pytest.approx(np.mean(far))
    assert len({round(value, 6) for value in found.values()}) == 3


def test_distance_of_numbers_is_to_the_targets_nearest() -> None:
    """Labels of one and two digits and a sign, of which the place among classes tells nothing."""
    names = ("-1", "10", "3")
    items = Items("explain", {"text": list(TEXTS)}, SPLIT, 3, held_out=HELD, class_names=names)
    written = (Written(1, 0, 0, "3", ""), Written(1, 1, 0, "3", ""), Written(1, 2, 0, "4", ""))
    # |3 - -1| = 4; of -1 and 10 the former is nearer, 4; 4 is no label
    assert decisions(items, HELD, written)["test/label_mae"] == pytest.approx(4)
    far = (*written, Written(2, 1, 0, "10", ""), Written(1, 1, 1, "10", ""))
    assert decisions(items, HELD, far)["test/label_mae"] == pytest.approx((4 + 4 + 11 + 0) / 4)


def test_texts_of_votes_are_their_annotators_and_are_seen_beside_their_own_input() -> None:
    texts = Texts.of(HELD)
    assert texts.item.tolist() == HELD.item.tolist()
    assert texts.author.tolist() == texts.apart.tolist() == HELD.annotator.tolist()
    assert texts.seen(ITEMS, "clean") == list(HELD.explanation or ())
    assert texts.seen(ITEMS, "reduced") == [
        "it might be _ _",
        "because it _",
        "because it _ _ and so it is",
        "only _ _",
        "_ might differ",
        "so",
    ]


def test_bags_are_drawn_by_the_seed_and_the_size() -> None:
    author = np.repeat([0, 3], 20)
    one, again, other = (bags(author, 4, seed)[0] for seed in (0, 0, 1))
    assert one.shape == (500, 4)
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert not np.array_equal(bags(author, 8, 0)[0][:, :4], one)
