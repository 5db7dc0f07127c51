"""The generated questions: answerable, distinct, and apart from what is learned beforehand."""

from collections import Counter

import numpy as np
import pytest

from annorun.dataset import synthetic_qa as qa
from annorun.errors import ConfigError
from annorun.seeds import rng


def read(data_seed: int = 0, **keys):
    items, votes = qa.synthetic_qa(rng=rng(data_seed, "dataset"), **keys)
    assert votes is None
    return items


def meaning() -> dict[str, tuple[str, str, bool]]:
    """Word -> (sort, noun of its topic, has the property), derived from the order of words()."""
    found, at = {}, 0
    table = qa.words().tolist()
    for sort, have, lack in zip(qa.SORTS, qa.HAVE, qa.LACK, strict=True):
        for noun, _ in qa.TOPICS:
            for place in range(have + lack):
                found[table[at]] = (sort, noun, place < have)
                at += 1
    assert at == len(table) == len(found), "a word stands for one thing"
    return found


@pytest.mark.parametrize("k", [2, 3, 4, 5, 6])
def test_exactly_one_option_has_the_property_and_it_is_the_truth(k: int) -> None:
    words = meaning()
    items = read(n_classes=k, n_train=300, n_test=100)
    for question, options, truth in zip(
        items.inputs["question"], items.inputs["options"], items.truth, strict=True
    ):
        assert len(set(options)) == k
        sorts, nouns, has = zip(*(words[w] for w in options), strict=True)
        assert len(set(sorts)) == 1 and set(nouns) == {question.split()[1]}
        assert sum(has) == 1 and has[truth]


def option_sets(items, split: str) -> list[frozenset[str]]:
    return [
        frozenset(o)
        for o, s in zip(items.inputs["options"], items.split, strict=True)
        if s == split
    ]


def test_no_question_is_met_twice_or_beforehand() -> None:
    table = qa.words()
    clean = qa.clean_questions(np.random.default_rng(0), 20_000, 4)
    beforehand = {frozenset(table[o].tolist()) for o in clean.options}
    assert len(beforehand) > 4_000
    for data_seed in (0, 1, 987_654):
        items = read(data_seed)
        train, test = option_sets(items, "train"), option_sets(items, "test")
        assert len(set(train)) == len(train) == (items.split == "train").sum()
        assert not set(train) & set(test)
        assert not (set(train) | set(test)) & beforehand


def test_the_clean_part_is_the_share_that_is_named_whatever_the_order_of_options() -> None:
    drawn = qa.candidates(np.random.default_rng(1), 40_000, 4, sort=2)
    mark = qa.option_hash(drawn.options)
    assert qa.is_clean(mark).mean() == pytest.approx(qa.CLEAN_SHARE, abs=0.01)
    turned = qa.option_hash(drawn.options[:, [2, 0, 3, 1]])
    assert (mark == turned).all()


def test_shares_and_balance_are_exact() -> None:
    words = meaning()
    items = read(n_train=1000, n_test=400, familiar=0.5, rare=0.1)
    for split, n in (("train", 1000), ("test", 400)):
        chosen = items.split == split
        sorts = Counter(
            words[o[0]][0] for o, c in zip(items.inputs["options"], chosen, strict=True) if c
        )
        assert sorts == {"familiar": 0.5 * n, "unfamiliar": 0.4 * n, "rare": 0.1 * n}
        assert np.bincount(items.truth[chosen], minlength=4) == pytest.approx(n / 4, rel=0.2)


def test_data_seed_moves_the_questions_and_repeats_them() -> None:
    assert read(3).inputs == read(3).inputs
    assert read(3).inputs != read(4).inputs


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"n_classes": 1}, "allowed is 2 to 6"),
        ({"n_classes": 7}, "allowed is 2 to 6"),
        ({"familiar": 0.8, "rare": 0.3}, "more than 1 together"),
        ({"n_classes": 2, "n_train": 9000}, "allowed is fewer"),
    ],
)
def test_what_cannot_be_had_is_refused(keys: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read(**keys)
