"""Judging what is written: at the humans' own words, at others', at none; bags and overlap."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from annorun import explained_results, llm_attribution, results
from annorun.dataset.synthetic_styles import synthetic_styles
from annorun.method.judge import Judge, judged_vectors, latent
from annorun.method.llm_judge import question
from annorun.scores import attribution, hard
from annorun.scores.wording import viewed
from annorun.seeds import rng
from annorun.votes import Floats, Items, Votes
from annorun.written import (
    Texts,
    View,
    Written,
    bags,
    decisions,
    overlap,
    reasons,
    recited,
    wording,
)


def generated(n_items: int = 200) -> tuple[Items, Votes]:
    return synthetic_styles(rng=np.random.default_rng(0), n_items=n_items, strength=0.6, error=0.0)


def copies(items: Items) -> list[Written]:
    """Return the humans' own test responses as if they had been written."""
    held = items.held_out
    assert held is not None
    said = zip(held.item, held.annotator, held.label, held.explanation or (), strict=True)
    return [Written(int(i), int(a), 0, items.classes()[k], why) for i, a, k, why in said]


@pytest.fixture(scope="module")
def crowd() -> tuple[Items, Votes]:
    return generated()


@pytest.fixture(scope="module")
def copied(
    crowd: tuple[Items, Votes], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, float]:
    """Return the metrics of the humans' own test responses."""
    items, votes = crowd
    folder = tmp_path_factory.mktemp("copied")
    return explained_results.judge(folder, items, votes, copies(items), seed=0)


def test_the_humans_own_words_are_at_the_ceiling(copied: dict[str, float]) -> None:
    found = copied
    for view in ("clean", "reduced"):
        for size in (1, 8):
            own = found[f"attribution/acc_{view}_bag{size}"]
            assert own == found[f"attribution/human_{view}_bag{size}"] > 0.6
    assert found["test/label_acc"] == 1 and found["test/malformed"] == 0
    # nor are judges asked that nobody asked for
    assert not any("_llm_" in name or "_encoder_" in name for name in found)
    assert found["test/length"] == pytest.approx(1)
    assert found["test/rouge_l"] == pytest.approx(1) and 0 < found["test/human_rouge_l"] < 0.9
    assert (
        found["reasoning/jsd"] == 0 < found["reasoning/human_jsd"] < found["reasoning/others_jsd"]
    )
    assert found["imitation/acc_none_bag8"] == found["imitation/human_acc_none_bag8"] > 0.9
    assert found["imitation/margin_none_bag8"] == found["imitation/human_margin_none_bag8"] > 0
    assert found["attribution/acc_label_bag1"] == found["attribution/human_label_bag1"] > 0.25


def test_bags_are_of_one_decoding(
    crowd: tuple[Items, Votes], copied: dict[str, float], tmp_path: Path
) -> None:
    """The first decoding is the target's own words, the others another's: a bag of 16 tells them.

    One in three is right; mixed bags would be another's nearly always.
    """
    items, votes = crowd
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
    name = "imitation/acc_centred_bag1"
    assert found[name] == pytest.approx((copied[name] + 2 * alone[name]) / 3)


def test_who_has_explained_no_test_item_is_not_judged(
    crowd: tuple[Items, Votes], tmp_path: Path
) -> None:
    items, votes = crowd
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


def test_another_annotators_words_are_attributed_to_him(
    crowd: tuple[Items, Votes], tmp_path: Path
) -> None:
    items, votes = crowd
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


def test_what_has_no_label_is_malformed(crowd: tuple[Items, Votes], tmp_path: Path) -> None:
    items, votes = crowd
    broken = [one._replace(label="perhaps", why="") for one in copies(items)]
    found = explained_results.judge(tmp_path, items, votes, broken, seed=0)
    assert (found["test/malformed"], found["test/label_acc"], found["test/length"]) == (1, 0, 0)
    assert np.isnan(found["test/copied"]) and np.isnan(found["test/distinct2"])


def test_reductions_are_told_apart_and_the_humans_own_words_are_at_their_ceiling(
    crowd: tuple[Items, Votes], tmp_path: Path
) -> None:
    """By item's mean, by regression: each differs, and copies are the humans'.

    An item's mean over targets is over what one decoding wrote, as over what humans did. These
    explanations have no word of the input that could be held back.
    """
    items, votes = crowd
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


def test_bags_grow_up_to_what_every_target_has(copied: dict[str, float]) -> None:
    found = copied
    # 20 test items
    sizes = {int(k.rpartition("bag")[2]) for k in found if k.startswith("attribution/acc_clean")}
    assert sizes == {1, 2, 4, 8, 16}
    curve = [found[f"attribution/acc_clean_bag{size}"] for size in (1, 4, 16)]
    assert curve == sorted(curve) and curve[-1] > curve[0]


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
    crowd: tuple[Items, Votes], tmp_path: Path
) -> None:
    """Each answer is a training explanation of the target's, word for word, of another item."""
    items, votes = crowd
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


def test_nobody_recites_what_is_only_of_equal_length(crowd: tuple[Items, Votes]) -> None:
    items, votes = crowd
    other = [one._replace(why="quite other words altogether") for one in copies(items)]
    assert items.held_out is not None
    found = recited(votes.on(items.split == "train"), items.held_out, other)
    assert found["test/recited"] == 0


def test_a_language_model_that_knows_whose_it_is_is_right(crowd: tuple[Items, Votes]) -> None:
    """It likes letter A, and finds under which letter the bag's own words stand.

    Shown and asked are texts in one form, each annotator's marked by a word of his own.
    """
    items, votes = crowd
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


SEED, N, DECODINGS = 3, 4, 3


class Uneven(NamedTuple):
    """A crowd of unequal numbers of explanations, and what was generated, unlike the humans'."""

    items: Items
    votes: Votes
    written: list[Written]
    metrics: dict[str, float]
    folder: Path
    asked: dict[str, Any]

    def texts(self, part: str) -> Texts:
        """Return the explanations of a part, as the definition has it."""
        if part == "generated":
            held = {
                (int(i), int(a)) for i, a in zip(self.held.item, self.held.annotator, strict=True)
            }
            own = [one for one in self.written if (one.item, one.target) in held]
            item, author, decoding = (np.array([one[k] for one in own]) for k in range(3))
            return Texts([one.why for one in own], item, author, author + N * decoding)
        votes = self.held if part == "test" else self.votes
        rows = np.flatnonzero(self.items.split[votes.item] == part)
        whys = [(votes.explanation or ())[k] for k in rows]
        return Texts(whys, votes.item[rows], votes.annotator[rows], votes.annotator[rows])

    @property
    def held(self) -> Votes:
        assert self.items.held_out is not None
        return self.items.held_out

    def viewed(self, part: str, view: View) -> list[str]:
        texts = self.texts(part)
        return viewed(texts.why, [self.items.inputs["text"][i] for i in texts.item], view)


def states(texts: Sequence[str], *_: object) -> Floats:
    """Return how often each letter is in each text, in place of a sentence encoder's states."""
    return np.array([[text.count(chr(97 + k)) for k in range(26)] for text in texts], dtype=float)


def thinned(votes: Votes, every: int) -> Votes:
    """Return votes less every so manieth, from another place on for each annotator."""
    kept = (votes.item + 3 * votes.annotator) % every > 0
    columns = {name: getattr(votes, name)[kept] for name in ("item", "annotator", "label")}
    return replace(votes, **columns, explanation=tuple(compress(votes.explanation or (), kept)))


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Uneven:
    items, votes = generated(120)
    # a word of the input in every explanation, so that it can be held back
    texts = items.inputs["text"]
    votes, held = (
        replace(
            own,
            explanation=tuple(
                f"{texts[i].split()[a]} {why}"
                for i, a, why in zip(own.item, own.annotator, own.explanation or (), strict=True)
            ),
        )
        for own in (votes, items.held_out or votes)
    )
    # the labels of test responses are turned: of these another would be named
    votes, held = thinned(votes, 5), thinned(replace(held, label=1 - held.label), 6)
    items = replace(items, held_out=held)
    draw = np.random.default_rng(0)
    whys, labels = np.array(votes.explanation, dtype=object), ("no", "yes", "perhaps")
    written = []
    for i in np.flatnonzero(items.split == "test").tolist():
        for a in range(N):
            for d in range(DECODINGS):
                # the more often the target's own, the earlier the decoding
                who = a if draw.random() < 0.9 - 0.3 * d else int(draw.integers(N))
                why = str(draw.choice(whys[votes.annotator == who]))
                written.append(Written(i, a, d, str(draw.choice(labels)), why))
    folder, asked = tmp_path_factory.mktemp("uneven"), {}

    def judge(*what: object, **how: object) -> str:
        asked["judge"] = (what, how)
        return "a judge"

    def by_llm(name: str, *given: Any) -> dict[str, float]:
        asked[name] = given
        return {f"{name}_bag1": len(asked) / 8}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explained_results, "embedded", states)
        patch.setattr(explained_results, "LlmJudge", judge)
        patch.setattr(llm_attribution, "by_llm", by_llm)
        patch.setattr(llm_attribution, "shown_to", lambda *given: ["shown", *given])
        metrics = explained_results.judge(
            *(folder, items, votes, written),
            seed=SEED,
            encoder="an encoder",
            llm="a model",
            device="there",
        )
    return Uneven(items, votes, written, metrics, folder, asked)


@pytest.mark.parametrize(
    ("name", "part", "view"),
    [("clean", "train", "clean"), ("reduced", "train", "reduced"), ("unseen", "val", "clean")],
)
def test_attribution_is_by_a_judge_of_its_part_and_view(
    uneven: Uneven, name: str, part: str, view: View
) -> None:
    """Single texts and bags of 4 by the definition, of generated and of human explanations."""
    judge = Judge(uneven.viewed(part, view), uneven.texts(part).author, N)
    check_attribution(
        uneven, name, *(judge.log_probs(uneven.viewed(p, view)) for p in ("generated", "test"))
    )


def test_attribution_by_an_encoder_is_by_vectors_of_clean_texts(uneven: Uneven) -> None:
    x = {part: states(uneven.viewed(part, "clean")) for part in ("train", "generated", "test")}
    author = uneven.texts("train").author
    check_attribution(
        uneven,
        "encoder",
        *(judged_vectors(x["train"], author, x[part], N) for part in ("generated", "test")),
    )


def check_attribution(uneven: Uneven, name: str, generated: Floats, human: Floats) -> None:
    """Compare the metrics of a judge with those of its log-probabilities."""
    for who, part, log_probs in (("acc", "generated", generated), ("human", "test", human)):
        texts = uneven.texts(part)
        single = float((log_probs.argmax(axis=1) == texts.author).mean())
        assert uneven.metrics[f"attribution/{who}_{name}_bag1"] == pytest.approx(single)
        rows, whose = attribution.drawn_bags(texts.apart, 4, draws=250, rng=rng(SEED, "bags/4"))
        # one annotator's and one decoding's
        assert (texts.apart[rows] == whose[:, None]).all()
        right = log_probs[rows].sum(axis=1).argmax(axis=1) == texts.author[rows[:, 0]]
        assert len(right) == 250 * N * (DECODINGS if who == "acc" else 1)
        assert uneven.metrics[f"attribution/{who}_{name}_bag4"] == pytest.approx(right.mean())
    f1 = hard.macro_f1(generated.argmax(axis=1), uneven.texts("generated").author, N)
    assert uneven.metrics[f"attribution/macro_f1_{name}"] == pytest.approx(f1)


def test_numbers_of_the_uneven_crowd_differ(uneven: Uneven) -> None:
    """Else a metric could stand in another's place unseen."""
    names = ("clean", "reduced", "unseen", "encoder")
    found = [uneven.metrics[f"attribution/{k}_{n}_bag1"] for k in ("acc", "human") for n in names]
    assert len(set(found)) == len(found)


def test_floor_is_the_label_of_training_responses(uneven: Uneven) -> None:
    """A label that is none is a guess: one in four."""
    train = uneven.votes.on(uneven.items.split == "train")
    told = attribution.label_judge(train.label, train.annotator, 2, N).argmax(axis=1)
    held = {(int(i), int(a)) for i, a in zip(uneven.held.item, uneven.held.annotator, strict=True)}
    own = [one for one in uneven.written if (one.item, one.target) in held]
    right = [
        1 / N if one.label == "perhaps" else told[("no", "yes").index(one.label)] == one.target
        for one in own
    ]
    human = told[uneven.held.label] == uneven.held.annotator
    of_test = attribution.label_judge(uneven.held.label, uneven.held.annotator, 2, N)
    assert (of_test.argmax(axis=1) != told).all()
    assert uneven.metrics["attribution/acc_label_bag1"] == pytest.approx(np.mean(right))
    assert uneven.metrics["attribution/human_label_bag1"] == pytest.approx(human.mean())


@pytest.fixture(scope="module")
def reductions(uneven: Uneven) -> dict[str, list[Floats]]:
    parts = tuple(map(uneven.texts, ("train", "generated", "test")))
    return explained_results._reductions(uneven.items, parts, N)  # type: ignore[arg-type]


def test_centred_is_less_the_mean_of_annotators_of_the_same_item_and_decoding(
    uneven: Uneven, reductions: dict[str, list[Floats]]
) -> None:
    found = reductions
    for place, part in enumerate(("train", "generated", "test")):
        texts, x = uneven.texts(part), found["none"][place]
        expected = np.empty_like(x)
        groups = np.stack([texts.item, texts.apart // N], axis=1)
        for group in np.unique(groups, axis=0):
            rows = np.flatnonzero((groups == group).all(axis=1))
            # one text an annotator here
            assert len(np.unique(texts.author[rows])) == len(rows) <= N
            expected[rows] = x[rows] - x[rows].mean(axis=0)
        np.testing.assert_allclose(found["centred"][place], expected, atol=1e-12)


def test_reductions_are_fitted_to_training_texts(
    uneven: Uneven, reductions: dict[str, list[Floats]]
) -> None:
    """Representations of clean and of reduced texts; a regression on the inputs of training."""
    found = reductions
    parts = ("train", "generated", "test")
    inputs = viewed(uneven.items.inputs["text"], uneven.items.inputs["text"], "clean")
    texts = {view: [uneven.viewed(part, view) for part in parts] for view in ("clean", "reduced")}
    *clean, asked = latent(texts["clean"][0], [*texts["clean"][1:], inputs])
    reduced = latent(texts["reduced"][0], texts["reduced"][1:])
    item = np.concatenate([uneven.texts(part).item for part in parts])
    fit = np.arange(len(item)) < len(clean[0])
    residual, _ = attribution.cross_residual(np.concatenate(clean), asked[item], item, fit)
    start = 0
    for place, x in enumerate(clean):
        np.testing.assert_allclose(found["none"][place], x)
        np.testing.assert_allclose(found["reduced"][place], reduced[place])
        np.testing.assert_allclose(found["residual"][place], residual[start : start + len(x)])
        start += len(x)


def test_imitation_is_nearness_to_the_humans_training_centroids(
    uneven: Uneven, reductions: dict[str, list[Floats]]
) -> None:
    for name, (train, *others) in reductions.items():
        means = attribution.centroids(train, uneven.texts("train").author, N)
        for prefix, part, x in zip(("", "human_"), ("generated", "test"), others, strict=True):
            texts = uneven.texts(part)
            for size in (1, 4):
                rows, _ = bags(texts.apart, size, SEED)
                near = attribution.cosine(x[rows].mean(axis=1), means)
                away = attribution.margin(near, texts.author[rows[:, 0]])
                right = np.where(away == 0, 1 / N, away > 0).mean()
                acc, margin = (
                    uneven.metrics[f"imitation/{prefix}{kind}_{name}_bag{size}"]
                    for kind in ("acc", "margin")
                )
                assert (acc, margin) == (pytest.approx(right), pytest.approx(away.mean()))


def test_measures_of_words_are_of_what_the_target_has_explained(uneven: Uneven) -> None:
    held = {(int(i), int(a)) for i, a in zip(uneven.held.item, uneven.held.annotator, strict=True)}
    own = [one for one in uneven.written if (one.item, one.target) in held]
    train = uneven.votes.on(uneven.items.split == "train")
    expected = decisions(uneven.items, uneven.held, own) | wording(uneven.items, uneven.held, own)
    expected |= recited(train, uneven.held, own) | overlap(uneven.held, own)
    expected |= reasons(train, uneven.held, own)
    assert {name: uneven.metrics[name] for name in expected} == expected
    assert len(own) < len(uneven.written)


def test_responses_are_written_with_what_the_judge_makes_of_each(uneven: Uneven) -> None:
    texts, items = uneven.texts("generated"), uneven.items
    judge = Judge(uneven.viewed("train", "clean"), uneven.texts("train").author, N)
    answers = judge.log_probs(uneven.viewed("generated", "clean")).argmax(axis=1)
    names = items.annotator_names or ()
    given: dict[tuple[int, int], set[str]] = {}
    for i, a, k in zip(uneven.held.item, uneven.held.annotator, uneven.held.label, strict=True):
        given.setdefault((int(i), int(a)), set()).add(items.classes()[k])
    own = [one for one in uneven.written if (one.item, one.target) in given]
    expected = [
        {
            "item": items.name(one.item),
            "target": names[one.target],
            "decoding": str(one.decoding),
            "label": one.label,
            "explanation": one.why,
            "agrees": str(int(one.label in given[one.item, one.target])),
            "judged": names[answer],
        }
        for one, answer in zip(own, answers, strict=True)
    ]
    assert results.read_csv(uneven.folder / "responses.csv") == expected
    assert len(texts.why) == len(expected)


def test_language_model_is_asked_of_generated_and_of_human_explanations(uneven: Uneven) -> None:
    asked = uneven.asked
    assert asked["judge"] == (("a model", N), {"seed": SEED, "device": "there"})
    for k, (name, part) in enumerate((("acc", "generated"), ("human", "test"))):
        llm, shown, items, texts, seed = asked[f"attribution/{name}_llm"]
        assert shown == ["shown", "a judge", uneven.items, uneven.votes, SEED]
        assert (llm, items, seed) == ("a judge", uneven.items, SEED)
        expected = uneven.texts(part)
        assert texts.why == expected.why
        assert texts.item.tolist() == expected.item.tolist()
        assert texts.apart.tolist() == expected.apart.tolist()
        assert uneven.metrics[f"attribution/{name}_llm_bag1"] == (k + 2) / 8


def test_language_model_is_shown_training_explanations_of_each_annotator(uneven: Uneven) -> None:
    """Eight of each where there are as many, in one form; another seed shows others."""
    asked: list[list[str]] = []
    llm: Any = SimpleNamespace(tokens=asked.append)
    shown, again, other = (
        llm_attribution.shown_to(llm, uneven.items, uneven.votes, seed) for seed in (0, 0, 1)
    )
    texts, clean = uneven.texts("train"), uneven.viewed("train", "clean")
    for who, own in enumerate(shown):
        mine = [why for a, why in zip(texts.author, clean, strict=True) if a == who]
        assert len(own) == 8 and not Counter(own) - Counter(mine)
    assert shown == again != other
    # the longest bag of eight that could be asked for fits, or is refused here
    every = uneven.viewed("test", "clean") + [why for own in shown for why in own]
    longest = sorted(every, key=len)[-8:]
    assert asked[0] == [question(shown, longest)]
    few = replace(uneven.votes, **without(uneven.votes, 2))
    assert [len(own) for own in llm_attribution.shown_to(llm, uneven.items, few, 0)] == [8, 8, 0, 8]


def test_language_model_is_asked_few_bags_of_each_annotator_and_decoding_mixed_in_none(
    uneven: Uneven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Annotator 2 has explained nothing to it: never named, though it speaks for them alone."""
    bags_asked: list[list[str]] = []

    def attributed(llm: object, shown: object, bags: list[list[str]]) -> Floats:
        bags_asked.extend(bags)
        return np.tile([0.0, 2.0, 9.0, 1.0], (len(bags), 1))

    monkeypatch.setattr(llm_attribution, "attributed", attributed)
    texts, clean = uneven.texts("generated"), uneven.viewed("generated", "clean")
    others = texts.author != 2
    whys = list(compress(texts.why, others))
    texts = Texts(whys, texts.item[others], texts.author[others], texts.apart[others])
    clean = list(compress(clean, others))
    shown = [["a"], ["b"], [], ["d"]]
    llm: Any = None
    found = llm_attribution.by_llm("x", llm, shown, uneven.items, texts, SEED)
    # a third is annotator 1's
    assert found == {"x_bag1": pytest.approx(1 / 3), "x_bag8": pytest.approx(1 / 3)}
    assert [len(bag) for bag in bags_asked] == [1] * 30 + [8] * 30
    for k, bag in enumerate(bags_asked):
        who = (0, 1, 3)[k // 10 % 3]
        assert any(
            not Counter(bag) - Counter(compress(clean, texts.apart == who + N * d))
            for d in range(DECODINGS)
        )
