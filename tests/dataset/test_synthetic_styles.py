"""The generated pairs: parts, labels and styles are as planted."""

import numpy as np
import pytest

from annorun.dataset import synthetic_styles as styles
from annorun.errors import ConfigError
from annorun.votes import Items, Votes


def generated(seed: int = 0, **changes: float) -> tuple[Items, Votes]:
    given = {"n_items": 300, "strength": 1.0, "error": 0.0} | changes
    return styles.synthetic_styles(rng=np.random.default_rng(seed), **given)


def test_parts_and_votes() -> None:
    items, votes = generated()
    assert [int((items.split == part).sum()) for part in ("train", "val", "test")] == [240, 30, 30]
    assert len(set(items.inputs["text"])) == 300
    assert len(votes) == 270 * 4 and items.held_out is not None and len(items.held_out) == 120


def test_whoever_is_certain_says_what_it_must() -> None:
    """Without errors the label is yes from the annotator's own number of shared words on."""
    items, votes = generated()
    for i, who, label, why in zip(
        votes.item, votes.annotator, votes.label, votes.explanation or (), strict=True
    ):
        first, second = (line.split() for line in items.inputs["text"][i].split("\n"))
        same = [a == b for a, b in zip(first, second, strict=True)]
        assert label == (sum(same) >= styles.FROM[who])
        aspect = next(k for k in range(3) if why.startswith(styles.ASPECTS[who][k]))
        # the reason fits the label where there is one that does
        if any(s == bool(label) for s in same):
            assert same[aspect] == bool(label)
        assert why.split()[1] == (styles.ALIKE if same[aspect] else styles.DIFFERENT)[who]
        assert why.endswith(styles.ENDS[who])


@pytest.mark.parametrize(("strength", "expected"), [(0.0, 0.25), (0.5, 0.625), (1.0, 1.0)])
def test_a_part_of_the_style_is_ones_own_so_often(strength: float, expected: float) -> None:
    """s + (1 - s) / 4."""
    _, votes = generated(n_items=1000, strength=strength)
    words = [[a for own in styles.ASPECTS[k] for a in (own,)] for k in range(4)]
    own = [
        why.split()[0] in words[who]
        for who, why in zip(votes.annotator, votes.explanation or (), strict=True)
    ]
    assert np.mean(own) == pytest.approx(expected, abs=0.03)


def test_errors_turn_labels() -> None:
    right, wrong = generated(error=0.0)[1], generated(error=0.5)[1]
    assert right.counts()[:, 1].sum() < wrong.counts()[:, 1].sum()


def test_the_data_seed_draws_all() -> None:
    one, again, other = (generated(seed)[0].inputs["text"] for seed in (0, 0, 1))
    assert one == again != other


@pytest.mark.parametrize("n_items", [9, 5000])
def test_more_pairs_than_there_are_are_refused(n_items: int) -> None:
    with pytest.raises(ConfigError, match="allowed is 10 to 4096"):
        generated(n_items=n_items)
