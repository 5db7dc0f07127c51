"""What a person sees while a run trains and at its end: its numbers, each by its name."""

import re
from pathlib import Path
from typing import Any

import pytest

from annorun import results, show

CHOICES = {"method": "realm", "dataset": "digits", "noise": "uniform", "annotator_dist": "spread"}
PEOPLE = ("annotator", "votes", "group", "task", "expertise", "true_expertise")


def printed(
    folder: Path, capsys: pytest.CaptureFixture[str], cached: bool = False, **metrics: float
) -> tuple[str, dict[str, list[str]]]:
    """Return what is printed, and the cells of its tables by the first of their line."""
    row: dict[str, Any] = {"choices": CHOICES, "seed": 3, "data_seed": 5, "seconds": 12.4}
    show.finished(row | {"metrics": metrics}, folder, cached)
    text = capsys.readouterr().out
    lines = [line.split("│") for line in text.splitlines() if "│" in line]
    return text, {cells[1].strip(): [c.strip() for c in cells[2:-1]] for cells in lines}


def test_each_score_stands_beside_its_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {"test/acc": 0.8125, "test/nll": 1.5, "labels/iterations": 17.0, "x/other": 9.0}
    text, cells = printed(tmp_path, capsys, **metrics)
    assert cells == {"accuracy": ["0.812"], "NLL": ["1.500"], "iterations": ["17"]}
    assert "realm digits uniform spread, seed 3" in text
    assert f"12 s: {tmp_path}" in text and "not run again" not in text
    assert "not run again" in printed(tmp_path, capsys, cached=True, **metrics)[0]


def test_groups_annotators_and_mixtures_have_lines_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {
        **{"labels/acc": 0.75, "labels/acc_old": 0.5, "labels/acc_young": 0.25},
        # of other scores than the accuracy no group is shown
        **{"annotators/pearson": 0.9, "annotators/pearson_old": 0.8},
        **{"test_r5/acc": 0.6, "test_m2/acc": 0.7, "test_r5_m2/acc": 0.1, "test_rest/acc": 0.2},
    }
    _, cells = printed(tmp_path, capsys, **metrics)
    assert cells == {
        **{"accuracy of the aggregated labels": ["0.750"], "group old": ["0.500"]},
        **{"group young": ["0.250"], "correlation of expertise": ["0.900"]},
        **{"5 annotators": ["0.600"], "mixture 2": ["0.700"]},
    }


def test_only_an_end_before_convergence_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "stopped before it had converged"
    assert words in printed(tmp_path, capsys, **{"labels/converged": 0.0})[0]
    assert words not in printed(tmp_path, capsys, **{"labels/converged": 1.0})[0]
    assert words not in printed(tmp_path, capsys)[0]


def test_annotators_are_shown_as_in_their_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fourteen, of which twelve are shown; names are no markup, and no number is an empty cell."""
    names = ["[red]ann", *(f"w{n}" for n in range(1, 14))]
    rows = [[n, 10 + k, "", "", k / 100, 0.9 - k / 100] for k, n in enumerate(names)]
    rows[1][4:] = [None, None]
    results.write_csv(tmp_path / "annotators.csv", PEOPLE, rows)
    text, cells = printed(tmp_path, capsys)
    assert cells["[red]ann"] == ["10", "0.000", "0.900"]
    assert cells["w1"] == ["11", "", ""] and cells["w11"] == ["21", "0.110", "0.790"]
    assert "w12" not in cells and "and 2 more in annotators.csv" in text
    assert "annotators.csv" in text.splitlines()[-1]
    # without a true one there is no such column
    results.write_csv(tmp_path / "annotators.csv", PEOPLE, [["ann", 5, "", "", 0.25, None]])
    assert printed(tmp_path, capsys)[1]["ann"] == ["5", "0.250"]


@pytest.mark.parametrize("row", [["ann", 5, "", "", None, 0.5], ["ann", 5, "", 3, 0.25, 0.5]])
def test_annotators_of_a_task_or_without_expertise_are_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: list[Any]
) -> None:
    results.write_csv(tmp_path / "annotators.csv", PEOPLE, [row])
    assert "ann" not in printed(tmp_path, capsys)[1]


def test_training_shows_every_tenth_and_the_last_step(capsys: pytest.CaptureFixture[str]) -> None:
    with show.bar(25) as step:
        for n in range(1, 26):
            step(n, {"train/loss": n / 10, "train/acc": 0.5})
    shown = capsys.readouterr().out.splitlines()
    assert [re.sub(r"  \d+ s$", "", line) for line in shown] == [
        f"step {n}/25  loss {n / 10:.3f}  acc 0.500" for n in [*range(2, 25, 2), 25]
    ]
