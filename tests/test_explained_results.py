"""Judging what is written: at the humans' own words, at others', at none; bags and overlap."""

from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annorun import explained_results, llm_attribution, results
from annorun.dataset.synthetic_styles import synthetic_styles
from annorun.votes import Items, Votes
from annorun.written import Texts, Written, decisions, overlap


def generated() -> tuple[Items, Votes]:
    return synthetic_styles(rng=np.random.default_rng(0), n_items=200, strength=0.6, error=0.0)


def copies(items: Items) -> list[Written]:
    """Return the humans' own test responses as if they had been written."""
    held = items.held_out
    assert held is not None
    said = zip(held.item, held.annotator, held.label, held.explanation or (), strict=True)
    return [Written(int(i), int(a), 0, items.classes()[k], why) for i, a, k, why in said]


def test_the_humans_own_words_are_at_the_ceiling(tmp_path: Path) -> None:
    items, votes = generated()
    found = explained_results.judge(tmp_path, items, votes, copies(items), seed=0)
    for view in ("clean", "reduced"):
        for size in (1, 8):
            own = found[f"attribution/acc_{view}_bag{size}"]
            assert own == found[f"attribution/human_{view}_bag{size}"] > 0.6
    assert found["test/label_acc"] == 1 and found["test/malformed"] == 0
    assert found["test/length"] == pytest.approx(1)
    assert found["test/rouge_l"] == pytest.approx(1) and 0 < found["test/human_rouge_l"] < 0.9
    assert (
        found["reasoning/jsd"] == 0 < found["reasoning/human_jsd"] < found["reasoning/others_jsd"]
    )
    assert found["imitation/acc_none_bag8"] == found["imitation/human_acc_none_bag8"] > 0.9
    assert found["imitation/margin_none_bag8"] == found["imitation/human_margin_none_bag8"] > 0
    assert found["attribution/acc_label_bag1"] == found["attribution/human_label_bag1"] > 0.25


def test_bags_are_of_one_decoding(tmp_path: Path) -> None:
    """The first decoding is the target's own words, the others another's: a bag of 16 tells them.

    One in three is right; mixed bags would be another's nearly always.
    """
    items, votes = generated()
    own, turned = copies(items), copies(items)
    said = {(one.item, one.target): one for one in turned}
    mixed = list(own)
    for decoding in (1, 2):
        mixed += [
            said[one.item, (one.target + 1) % 4]._replace(target=one.target, decoding=decoding)
            for one in own
        ]
    found = explained_results.judge(tmp_path, items, votes, mixed, seed=0)
    assert found["attribution/acc_clean_bag16"] == pytest.approx(1 / 3, abs=0.03)
    # an item's mean is over what one decoding wrote: the same four texts in each
    turned_back = [one._replace(decoding=0) for one in mixed if one.decoding == 1]
    alone = explained_results.judge(tmp_path, items, votes, turned_back, seed=0)
    first = explained_results.judge(tmp_path, items, votes, own, seed=0)
    name = "imitation/acc_centred_bag1"
    assert found[name] == pytest.approx((first[name] + 2 * alone[name]) / 3)


def test_who_has_explained_no_test_item_is_not_judged(tmp_path: Path) -> None:
    items, votes = generated()
    held = items.held_out
    assert held is not None
    kept = replace(items, held_out=replace(held, **without(held, 3)))
    found = explained_results.judge(tmp_path, kept, votes, copies(items), seed=0)
    assert found["test/length"] == pytest.approx(1)
    assert found["attribution/acc_clean_bag1"] == found["attribution/human_clean_bag1"]


def without(votes: Votes, who: int) -> dict[str, Any]:
    """Return the columns of votes less one annotator's."""
    kept = votes.annotator != who
    columns = {name: getattr(votes, name)[kept] for name in ("item", "annotator", "label")}
    return columns | {"explanation": tuple(compress(votes.explanation or (), kept))}


def test_another_annotators_words_are_attributed_to_him(tmp_path: Path) -> None:
    items, votes = generated()
    swapped = [one._replace(target=(one.target + 1) % 4) for one in copies(items)]
    found = explained_results.judge(tmp_path, items, votes, swapped, seed=0)
    assert found["attribution/acc_clean_bag8"] < 0.1
    assert found["imitation/margin_none_bag8"] < 0
    assert found["test/label_acc"] < 0.9
    # each is written to the item that it was said of, by another
    assert found["test/rouge_l"] == pytest.approx(found["test/human_rouge_l"], abs=0.05)
    assert found["reasoning/jsd"] > found["reasoning/human_jsd"]


def test_overlap_is_with_the_best_of_the_targets_own(tmp_path: Path) -> None:
    """By hand: of 5 words and 4 the longest common subsequence has 3, so F = 2 * 3 / 9."""
    held = Votes(
        item=np.array([0, 0]),
        annotator=np.array([0, 0]),
        label=np.array([0, 1]),
        n_items=1,
        n_annotators=1,
        n_classes=2,
        explanation=("nothing alike", "the dog ran away"),
        multi_label=True,
    )
    found = overlap(held, [Written(0, 0, 0, "a", "the big dog went away")])
    assert found == {"test/rouge_l": pytest.approx(2 * 3 / 9)}


def test_what_has_no_label_is_malformed(tmp_path: Path) -> None:
    items, votes = generated()
    broken = [one._replace(label="perhaps", why="") for one in copies(items)]
    found = explained_results.judge(tmp_path, items, votes, broken, seed=0)
    assert (found["test/malformed"], found["test/label_acc"], found["test/length"]) == (1, 0, 0)
    assert np.isnan(found["test/copied"]) and np.isnan(found["test/distinct2"])


def test_reductions_are_told_apart_and_the_humans_own_words_are_at_their_ceiling(
    tmp_path: Path,
) -> None:
    """By item's mean, by regression: each differs, and copies are the humans'.

    An item's mean over targets is over what one decoding wrote, as over what humans did. These
    explanations have no word of the input that could be held back.
    """
    items, votes = generated()
    twice = [one._replace(decoding=d) for one in copies(items) for d in range(2)]
    found = explained_results.judge(tmp_path, items, votes, twice, seed=0)
    ways = ("none", "centred", "residual", "reduced")
    for name in ways:
        for kind in ("acc", "margin"):
            own = found[f"imitation/{kind}_{name}_bag1"]
            assert own == pytest.approx(found[f"imitation/human_{kind}_{name}_bag1"])
    assert len({found[f"imitation/margin_{name}_bag1"] for name in ways}) == 3
    assert found["imitation/margin_reduced_bag1"] == found["imitation/margin_none_bag1"]
    assert found["imitation/margin_centred_bag1"] > found["imitation/margin_none_bag1"]


def test_bags_grow_up_to_what_every_target_has(tmp_path: Path) -> None:
    items, votes = generated()
    found = explained_results.judge(tmp_path, items, votes, copies(items), seed=0)
    # 20 test items
    sizes = {int(k.rpartition("bag")[2]) for k in found if k.startswith("attribution/acc_clean")}
    assert sizes == {1, 2, 4, 8, 16}
    curve = [found[f"attribution/acc_clean_bag{size}"] for size in (1, 4, 16)]
    assert curve == sorted(curve) and curve[-1] > curve[0]


def test_a_response_says_whether_its_label_is_the_targets(tmp_path: Path) -> None:
    items, votes = generated()
    wrong = {"no": "yes", "yes": "no"}
    mixed = [one._replace(label=wrong[one.label]) if one.item % 2 else one for one in copies(items)]
    found = explained_results.judge(tmp_path, items, votes, mixed, seed=0)
    rows = results.read_csv(tmp_path / "responses.csv")
    assert all(int(row["agrees"]) == 1 - int(row["item"]) % 2 for row in rows)
    share = np.mean([row["agrees"] == "1" for row in rows])
    assert found["test/label_acc"] == pytest.approx(share)


def test_labels_that_are_numbers_have_a_distance() -> None:
    """By hand: 2 and 0 of -1 and (1 or 2); the word is left out. Of others' labels none agrees."""
    held = Votes([0, 1, 1, 0], [0, 0, 0, 1], [0, 2, 3, 1], 2, 2, 4, multi_label=True)
    names = ("-1", "0", "1", "2")
    split = np.full(2, "test")
    items = Items("explain", {"text": ["a", "b"]}, split, 4, held_out=held, class_names=names)
    written = [Written(0, 0, 0, "1", ""), Written(1, 0, 0, "2", ""), Written(1, 0, 1, "x", "")]
    found = decisions(items, held, written)
    assert found["test/label_mae"] == pytest.approx(1)
    assert found["test/label_acc"] == pytest.approx(1 / 3)
    assert found["test/malformed"] == pytest.approx(1 / 3)
    assert found["test/human_label_acc"] == 0


def test_words_learned_from_are_recited_and_a_judge_that_knows_others_is_not_fooled(
    tmp_path: Path,
) -> None:
    """Each answer is a training explanation of the target's, word for word, of another item."""
    items, votes = generated()
    train = votes.on(items.split == "train")
    drawn = np.random.default_rng(0)
    texts = np.array(train.explanation, dtype=object)
    recited = [
        one._replace(why=str(drawn.choice(texts[train.annotator == one.target])))
        for one in copies(items)
    ]
    found = explained_results.judge(tmp_path, items, votes, recited, seed=0)
    assert found["test/recited"] == 1 > found["test/human_recited"]
    known = found["attribution/acc_clean_bag1"] - found["attribution/human_clean_bag1"]
    unseen = found["attribution/acc_unseen_bag1"] - found["attribution/human_unseen_bag1"]
    assert unseen < known + 0.05


def test_nobody_recites_what_is_only_of_equal_length(tmp_path: Path) -> None:
    items, votes = generated()
    other = [one._replace(why="quite other words altogether") for one in copies(items)]
    found = explained_results.judge(tmp_path, items, votes, other, seed=0)
    assert found["test/recited"] == 0


def test_a_language_model_that_knows_whose_it_is_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """It likes letter A, and finds under which letter the bag's own words stand.

    Shown and asked are texts in one form, each annotator's marked by a word of his own.
    """
    items, votes = generated()
    marked = replace(
        votes,
        explanation=tuple(f"WORD{'abcd'[a]}." for a in votes.annotator.tolist()),
    )

    class Knows:
        def tokens(self, prompts: list[str]) -> None:
            assert all("WORD" not in text for text in prompts)

        def __call__(self, prompts: list[str]) -> np.ndarray:
            told = np.zeros((len(prompts), 4))
            for k, text in enumerate(prompts):
                shown, asked = text.split("One of them wrote:")
                (word,) = {w for w in ("worda", "wordb", "wordc", "wordd") if w in asked}
                told[k] = [word in part for part in shown.split("Annotator ")[1:]]
            told[:, 0] += 1.5
            return told

    shown = llm_attribution.shown_to(Knows(), items, marked, 0)
    assert [len(own) for own in shown] == [8] * 4
    author = np.repeat(np.arange(4), 20)
    texts = Texts([f"Word{'abcd'[a]}!" for a in author], np.tile(np.arange(20), 4), author, author)
    found = llm_attribution.by_llm("x", Knows(), shown, items, texts, 0)
    assert found == {"x_bag1": 1, "x_bag8": 1}
    wrong = texts._replace(author=(author + 1) % 4, apart=(author + 1) % 4)
    assert llm_attribution.by_llm("x", Knows(), shown, items, wrong, 0)["x_bag8"] == 0
