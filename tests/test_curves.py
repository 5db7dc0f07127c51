"""The rows of metrics.csv: what each is a mean of, and when it comes; the trainer is played."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from annorun.curves import MOST_CURVES, Curves
from annorun.method.base import Method


class Expert(Method):
    """Knows nothing but its annotators."""

    def __init__(self, n_annotators: int):
        object.__setattr__(self, "values", np.arange(n_annotators) / 10)

    def expertise(self) -> np.ndarray:
        return self.values


def play(curves: Curves, steps: int, module: Any, every: int = 0) -> None:
    """Step t has the loss t * t; validation, each `every` steps, the loss 100 t."""
    for t in range(1, steps + 1):
        logged = {"train/loss": t * t, "val/loss": -1.0} | ({"train/acc": t} if t % 2 else {})
        trainer = SimpleNamespace(global_step=t, callback_metrics=logged)
        curves.on_train_batch_end(trainer, module)
        if every and t % every == 0:
            validate(curves, t, module)


def validate(curves: Curves, t: int, module: Any) -> None:
    logged = {"train/loss": 1e9, "val/loss": 100 * t}
    trainer = SimpleNamespace(global_step=t, callback_metrics=logged)
    before = torch.get_rng_state()
    curves.on_validation_start(trainer, module)
    torch.rand(3)
    curves.on_validation_end(trainer, module)
    assert torch.equal(torch.get_rng_state(), before)


def rows(curves: Curves) -> list[dict[str, Any]]:
    header, table = curves.table()
    return [dict(zip(header, row, strict=True)) for row in table]


def test_a_row_is_the_mean_of_the_steps_since_the_one_before_and_its_own_validation() -> None:
    curves, module = Curves(3, 8, has_val=True), Expert(2)
    play(curves, 8, module, every=3)
    assert curves.unrecorded == 2
    validate(curves, 8, module)
    assert curves.unrecorded == 0
    found = rows(curves)
    assert [r["step"] for r in found] == [3, 6, 8]
    assert [r["train/loss"] for r in found] == pytest.approx([14 / 3, 77 / 3, 113 / 2])
    assert [r["val/loss"] for r in found] == [300, 600, 800]
    assert [(r["annotators/0"], r["annotators/1"]) for r in found] == [(0.0, 0.1)] * 3


def test_without_validation_a_row_comes_by_itself() -> None:
    curves = Curves(3, 8, has_val=False)
    play(curves, 8, SimpleNamespace())
    found = rows(curves)
    assert [r["step"] for r in found] == [3, 6]
    assert [r["train/loss"] for r in found] == pytest.approx([14 / 3, 77 / 3])
    assert curves.unrecorded == 2


def test_a_short_run_has_one_row() -> None:
    curves = Curves(50, 4, has_val=False)
    play(curves, 4, SimpleNamespace())
    assert [(r["step"], r["train/loss"]) for r in rows(curves)] == [(4, 30 / 4)]


def test_a_column_that_begins_late_is_empty_before() -> None:
    """The accuracy is a mean over the steps that have one; a row without any has none."""
    curves = Curves(1, 3, has_val=False)
    logged = [{"train/loss": 2.0}, {"train/loss": 4.0, "train/acc": 0.5}]
    for t, values in enumerate(logged, 1):
        trainer = SimpleNamespace(global_step=t, callback_metrics=values)
        curves.on_train_batch_end(trainer, SimpleNamespace())
    assert [r["train/acc"] for r in rows(curves)] == [None, 0.5]
    some = Curves(3, 3, has_val=False)
    play(some, 3, SimpleNamespace())
    assert rows(some)[0]["train/acc"] == pytest.approx(2)


@pytest.mark.parametrize(("n", "shown"), [(MOST_CURVES, True), (MOST_CURVES + 1, False)])
def test_only_a_few_annotators_have_curves(n: int, shown: bool) -> None:
    curves = Curves(2, 2, has_val=False)
    play(curves, 2, Expert(n))
    (row,) = rows(curves)
    people = {k: v for k, v in row.items() if k.startswith("annotators/")}
    assert people == ({f"annotators/{m}": m / 10 for m in range(n)} if shown else {})


def test_the_bar_shows_the_means_of_the_steps_so_far() -> None:
    curves, shown = Curves(3, 8, has_val=False), []
    curves.show = lambda step, values: shown.append((step, values["train/loss"]))
    play(curves, 5, SimpleNamespace())
    assert [step for step, _ in shown] == [1, 2, 3, 4, 5]
    assert [loss for _, loss in shown] == pytest.approx([1, 2.5, 14 / 3, 16, 20.5])
