"""What the meta-learner's benchmark measures: the same work both ways, and what it prints."""

from types import ModuleType

import pytest


def test_both_ways_give_the_same_answers_and_every_figure_a_ratio(script: ModuleType) -> None:
    rows = script.figures(script.Shape(n_tasks=3, queries=2, pixels=8, pairs=1), "cpu")
    assert [r[0] for r in rows] == ["em alone", "step", "J = 10 against J = 1"]
    assert float(rows[0][4]) < 1e-5
    for row in rows:
        first, second, ratio = (float(cell) for cell in row[1:4])
        assert min(first, second) > 0
        ours_first = row[0].startswith("J")
        wanted = first / second if ours_first else second / first
        assert ratio == pytest.approx(wanted, rel=0.05)
    assert all(len(row) == len(script.HEADER) for row in rows)


def test_votes_are_wrong_as_often_as_it_says(script: ModuleType) -> None:
    import torch

    torch.manual_seed(0)
    shape = script.Shape(n_tasks=200)
    votes, truth = script.labels(shape, "cpu")
    own = torch.arange(4).repeat_interleave(3)[None, :, None]
    assert float((votes != own).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert truth.shape == (200, 40)
