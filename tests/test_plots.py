"""The figure of a run: made, not blank, and with as many panels as there is something to show."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from matplotlib.image import imread

from annorun import results
from annorun.plots import figure, task

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


def test_curves_are_of_their_own_column(tmp_path: Path, drawn: list[Figure]) -> None:
    path = folder(tmp_path / "run", CURVES, learned=True, true=True)
    rows = [[n, n + 0.1, n + 0.2, n + 0.3, n + 0.4] for n in (1, 2)]
    results.write_csv(path / "metrics.csv", CURVES, rows)
    figure(path)
    shown = [
        {line.get_label(): line.get_ydata()[0] for line in axis.lines} for axis in drawn[0].axes[:2]
    ]
    assert shown == [
        {"training": pytest.approx(1.2), "validation": pytest.approx(1.4)},
        {"training": pytest.approx(1.1), "validation": pytest.approx(1.3)},
    ]


def test_annotators_too_near_to_be_read_apart_share_a_name(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    path = folder(tmp_path / "run", CURVES, learned=True, true=True)
    places = {"a": (0.9, 0.9), "b": (0.1, 0.2), "c": (0.85, 0.86), "d": (0.1, 0.3)}
    places["e"] = (0.5, 0.88)
    people = [[name, 5, "", "", y, x] for name, (x, y) in places.items()]
    results.write_csv(path / "annotators.csv", PEOPLE, people)
    figure(path)
    axis = drawn[0].axes[-1]
    assert {t.get_text(): t.xy for t in axis.texts} == {
        "a, c": (0.9, 0.9),
        "b": (0.1, 0.2),
        "d": (0.1, 0.3),
        "e": (0.5, 0.88),
    }
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("true expertise", "learned expertise")


def test_a_task_is_drawn_kind_by_kind_class_by_class(tmp_path: Path, drawn: list[Figure]) -> None:
    """Inside its true class, round a support example the majority's, black where it is tied."""
    header = ("kind", "x", "y", "class", "majority")
    points = [
        *(("support", 0.1, 0.2, 2, 1), ("prototype", 0.5, 0.6, 1, ""), ("query", 0.3, 0.4, 0, "")),
        *(("support", 0.7, 0.8, 1, ""), ("query", 0.9, 1.0, 3, "")),
    ]
    results.write_csv(tmp_path / "task.csv", header, points)
    assert task(tmp_path) == tmp_path / "task.png" and (tmp_path / "task.png").is_file()
    shown = {str(c.get_label()): c for c in drawn[0].axes[0].collections}
    places = {name: c.get_offsets().tolist() for name, c in shown.items()}
    assert places == {
        "query": [[0.3, 0.4], [0.9, 1.0]],
        "support": [[0.1, 0.2], [0.7, 0.8]],
        "prototype": [[0.5, 0.6]],
    }
    inside = {"query": ["C0", "C3"], "support": ["C2", "C1"], "prototype": ["C1"]}
    for name, colours in inside.items():
        drawn_colours = shown[name].get_facecolors()[:, :3]
        np.testing.assert_allclose(drawn_colours, to_rgba_array(colours)[:, :3])
    rings = to_rgba_array(["C1", "black"])
    np.testing.assert_allclose(shown["support"].get_edgecolors(), rings)


def test_each_curve_of_expertise_has_its_annotators_name(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    path = folder(tmp_path / "run", [*CURVES, "annotators/2", "annotators/0"], True, True)
    rows = [[n, 0, 0, 0, 0, 0.2 * n, 0.1 * n] for n in (1, 2)]
    results.write_csv(path / "metrics.csv", [*CURVES, "annotators/2", "annotators/0"], rows)
    figure(path)
    shown = {line.get_label(): line.get_ydata().tolist() for line in drawn[0].axes[2].lines}
    assert shown == {"cy": pytest.approx([0.2, 0.4]), "ann": pytest.approx([0.1, 0.2])}
