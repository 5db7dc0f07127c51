"""The figure of a run: made, not blank, and with as many panels as there is something to show."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from annorun import results
from annorun.plots import figure

CURVES = ["step", "train/loss", "train/acc", "val/loss", "val/acc"]
PEOPLE = ["annotator", "votes", "group", "task", "expertise", "true_expertise"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Return the list that figures are appended to when they are saved."""
    found: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *arguments: object, **more: object) -> None:
        found.append(self)
        save(self, *arguments, **more)

    monkeypatch.setattr(Figure, "savefig", keep)
    return found


def folder(path: Path, curves: list[str], learned: bool, true: bool) -> Path:
    path.mkdir()
    rows = [[step, *(0.1 + step / 50 for _ in curves[1:])] for step in (10, 20, 30)]
    results.write_csv(path / "metrics.csv", curves, rows)
    people = [
        [name, 5, "", "", 0.3 + i / 5 if learned else None, 0.2 + i / 5 if true else None]
        for i, name in enumerate(["ann", "#2", "cy"])
    ]
    results.write_csv(path / "annotators.csv", PEOPLE, people)
    return path


@pytest.mark.parametrize(
    ("moving", "learned", "true", "panels"),
    [
        (True, True, True, 4),
        (True, True, False, 3),
        (False, True, True, 3),
        (False, False, True, 2),
    ],
)
def test_panels(
    tmp_path: Path, drawn: list[Figure], moving: bool, learned: bool, true: bool, panels: int
) -> None:
    curves = [*CURVES, *(f"annotators/{m}" for m in range(3))] if moving else CURVES
    path = figure(folder(tmp_path / "run", curves, learned, true))
    picture = imread(path)
    assert path.name == "figure.png"
    assert picture.shape[0] > 200
    # not blank: every panel's part of the picture has ink in it
    for part in np.array_split(picture[..., :3], panels, axis=1):
        assert (part < 0.5).any()
    axes = drawn[0].axes
    assert len(axes) == panels
    assert all(axis.lines for axis in axes)
    np.testing.assert_allclose(axes[0].lines[0].get_xydata(), [[10, 0.3], [20, 0.5], [30, 0.7]])


def test_points_are_learned_against_true(tmp_path: Path, drawn: list[Figure]) -> None:
    figure(folder(tmp_path / "run", CURVES, learned=True, true=True))
    points = drawn[0].axes[-1].collections[0].get_offsets()
    np.testing.assert_allclose(points, [[0.2, 0.3], [0.4, 0.5], [0.6, 0.7]])
    assert [t.get_text() for t in drawn[0].axes[-1].texts] == ["ann", "#2", "cy"]


def test_a_run_too_short_for_a_curve(tmp_path: Path) -> None:
    path = folder(tmp_path / "run", CURVES, learned=False, true=False)
    results.write_csv(path / "metrics.csv", CURVES, [])
    assert figure(path).is_file()


def test_a_column_that_is_not_there_is_left_out(tmp_path: Path, drawn: list[Figure]) -> None:
    figure(folder(tmp_path / "run", CURVES[:3], learned=False, true=False))
    assert [len(axis.lines) for axis in drawn[0].axes] == [1, 1]


def test_curves_keep_their_names_and_names_are_no_formulas(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    """The first annotator has no expertise: the curves of the others are not renamed."""
    path = folder(tmp_path / "run", [*CURVES, "annotators/1"], learned=True, true=True)
    people = [["idle", 0, "", "", None, 0.5], [r"$\\foo$ [x", 5, "", "", 0.4, 0.4]]
    results.write_csv(path / "annotators.csv", PEOPLE, people)
    figure(path)
    legend = drawn[0].axes[2].get_legend()
    assert [t.get_text() for t in legend.get_texts()] == [r"$\\foo$ [x"]
