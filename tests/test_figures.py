"""Pictures of tables: what is drawn is what the cells say, and it is the sweep files' own keys."""

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from annorun import config
from annorun.errors import ConfigError
from annorun.figures import Spec, bars, crossings, draw, heat, lines, means
from annorun.tables import UNKNOWN, Cell, by_bag

KEYS = ("method", "spam", "x")
# two methods, two rates of spam, x = 9, 10: as text, 10 stands before 9
CELLS = [
    Cell(("m", "0", "10"), (0.1, 0.3), paper=0.5),
    Cell(("m", "0", "9"), (0.4,), paper=0.6),
    Cell(("m", "1", "10"), (0.6,), paper=UNKNOWN),
    Cell(("m", "1", "9"), (), missing=1, paper=0.8),
    Cell(("n", "0", "9"), (0.9,)),
]
LINES = Spec("lines", metrics=["a"], series=["method"], x="x")
HEAT = Spec("heat", metrics=["a"], series=["method"], x="x", y="spam")


def test_means_by_hand() -> None:
    """m at 10: (.2 + .6) / 2, and of the published ones .5 is the only number."""
    ours = means(LINES, KEYS, CELLS, ["method", "x"], lambda c: c.mean)
    assert ours == {
        ("m", "10"): pytest.approx(0.4),
        ("m", "9"): pytest.approx(0.4),
        ("n", "9"): pytest.approx(0.9),
    }
    theirs = means(LINES, KEYS, CELLS, ["method", "x"], lambda c: c.paper)
    assert theirs == {("m", "10"): 0.5, ("m", "9"): pytest.approx(0.7)}


def test_only_some_values_of_a_key() -> None:
    """A number in the sweep file finds its text in the keys."""
    spec = Spec("lines", ["a"], ["method"], "x", only={"spam": [0.0], "method": ["m"]})
    ours = means(spec, KEYS, CELLS, ["x"], lambda c: c.mean)
    assert ours == {("10",): pytest.approx(0.2), ("9",): pytest.approx(0.4)}


def test_lines_stand_at_their_numbers_and_beside_the_published() -> None:
    (axis,) = lines(LINES, KEYS, {"a": CELLS}).axes
    drawn = {str(line.get_label()): line for line in axis.get_lines()}
    assert list(drawn) == ["m", "m: published", "n"]
    assert np.allclose(drawn["m"].get_xydata(), [[9, 0.4], [10, 0.4]])
    assert np.allclose(drawn["m: published"].get_xydata(), [[9, 0.7], [10, 0.5]])
    assert drawn["m"].get_color() == drawn["m: published"].get_color() != drawn["n"].get_color()
    assert (drawn["m"].get_linestyle(), drawn["m: published"].get_linestyle()) == ("-", "--")


def test_a_panel_a_metric_and_value() -> None:
    spec = Spec("lines", ["a", "b"], ["method"], "x", panels="spam", diagonal=True)
    other = [Cell(("m", "0", "9"), (0.7,))]
    picture = lines(spec, KEYS, {"a": CELLS, "b": other})
    assert [axis.get_title() for axis in picture.axes] == ["spam 0", "spam 1"] * 2
    assert [axis.get_ylabel() for axis in picture.axes] == ["a", "", "b", ""]
    # the diagonal is a line in each; the paper has no b, and of spam 1 we have m at 10
    assert [len(axis.get_lines()) for axis in picture.axes] == [4, 3, 2, 1]
    (legend,) = picture.legends
    assert [text.get_text() for text in legend.get_texts()] == ["m", "m: published", "n"]


def test_panels_of_one_metric_fill_rows() -> None:
    """Five in rows of three and two, not of four and one; ten begin with nine before ten."""
    for n_panels, width in ((1, 1), (4, 4), (5, 3), (8, 4), (10, 4)):
        cells = [Cell(("m", str(s), "9"), (0.5,)) for s in reversed(range(1, n_panels + 1))]
        picture = lines(Spec("lines", ["a"], ["method"], "x", panels="spam"), KEYS, {"a": cells})
        assert [a.get_title() for a in picture.axes] == [f"spam {s + 1}" for s in range(n_panels)]
        labelled = [place for place, axis in enumerate(picture.axes) if axis.get_ylabel()]
        assert labelled == list(range(0, n_panels, width))


def test_a_heat_map_has_x_to_the_right_and_y_upwards() -> None:
    picture = heat(HEAT, KEYS, {"a": CELLS})
    left, right = picture.axes[:2]
    assert (left.get_title(), right.get_title()) == ("m", "n")
    shade = left.get_images()[0]
    assert np.allclose(shade.get_array().filled(-1), [[0.4, 0.2], [-1, 0.6]])
    assert shade.origin == "lower"
    assert [t.get_text() for t in left.get_xticklabels()] == ["9", "10"]
    assert [t.get_text() for t in left.get_yticklabels()] == ["0", "1"]
    # one scale for all panels of a metric
    assert shade.get_clim() == right.get_images()[0].get_clim() == (0.2, 0.9)


@pytest.mark.parametrize("spec", [LINES, HEAT], ids=["lines", "heat"])
@pytest.mark.parametrize("cells", [CELLS, []], ids=["cells", "nothing yet"])
def test_a_picture_is_written(spec: Spec, cells: list[Cell], tmp_path: Path) -> None:
    draw(spec, KEYS, {"a": cells}, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_bags_are_the_axis_of_a_judges_curve() -> None:
    """A metric's view and bag become keys; an axis of words is in their order."""
    cells = {
        f"judge/acc_{view}_bag{size}": [Cell((data,), (size / 100,)) for data in ("b", "a")]
        for view in ("raw", "clean")
        for size in (1, 8)
    }
    names, own = by_bag(["dataset"], cells | {"labels/acc": [Cell(("a",), (0.5,))]})
    assert names == ["dataset", "view", "bag"] and list(own) == ["judge/acc"]
    assert own["judge/acc"][0] == Cell(("b", "raw", "1"), (0.01,))
    spec = Spec("lines", ["judge/acc"], ["view"], "bag", panels="dataset")
    picture = lines(spec, names, own)
    assert [axis.get_title() for axis in picture.axes] == ["dataset a", "dataset b"]
    line = picture.axes[0].get_lines()[0]
    assert np.allclose(line.get_xydata(), [[1, 0.01], [8, 0.08]])
    assert picture.axes[0].get_xscale() == "log"


def test_every_picture_of_a_sweep_file_is_of_its_own_table() -> None:
    seen = 0
    for name in config.sweeps():
        sweep = OmegaConf.to_container(OmegaConf.load(config.experiments_dir() / f"{name}.yaml"))
        assert isinstance(sweep, dict)
        for words in sweep.get("figures", {}).values():
            if words["kind"] == "bars":
                continue
            spec, seen = Spec(**words), seen + 1
            metrics = [sweep["metric"]] if isinstance(sweep["metric"], str) else sweep["metric"]
            named = {*spec.series, spec.x, *spec.only} | {k for k in (spec.y, spec.panels) if k}
            keys = sweep["keys"]
            if spec.x == "bag":
                keys, metrics = by_bag(keys, {metric: [] for metric in metrics})
            assert named <= set(keys), name
            assert set(spec.metrics) <= set(metrics), name
            assert bool(spec.y) == (spec.kind == "heat"), name
    assert seen >= 9


def test_lines_cross_where_their_difference_changes_its_sign() -> None:
    """Differences 1 at 0 and -3 at 2: a quarter of the way, at .5; then never below 0 again."""
    one, other = [(0.0, 2.0), (2.0, 1.0), (3.0, 4.0)], [(0.0, 1.0), (2.0, 4.0), (2.5, 9.0)]
    assert crossings(one, other) == [0.5]
    assert crossings(one, one) == crossings(one, []) == []
    # they meet at 1, one above before and below after; and at 1, but never cross
    assert crossings([(0, 1.0), (1, 0.5), (2, 0.0)], [(0, 0.0), (1, 0.5), (2, 1.0)]) == [1]
    assert crossings([(0, 1.0), (1, 0.5), (2, 1.0)], [(0, 0.0), (1, 0.5), (2, 0.0)]) == []
    # at 2 -3, at 3 +1: three quarters of the way
    assert crossings(one, [*other, (3.0, 3.0)]) == pytest.approx([0.5, 2.75])


def rows(p: dict[str, tuple[float, float]], n: dict[str, tuple[int, int]]) -> list[dict[str, str]]:
    cells = {
        i: dict(zip(("p_no", "p_yes", "n_no", "n_yes"), (*p[i], *n[i]), strict=True)) for i in n
    }
    return [{"item": i} | {k: str(v) for k, v in own.items()} for i, own in cells.items()]


def test_bars_are_what_people_said_and_what_each_run_predicts() -> None:
    """Agreed: b (4 of 4), then c (3 of 4), then a (2 of 4); of two, the first and the last."""
    people = {"a": (2, 2), "b": (0, 4), "c": (3, 1)}
    one = rows({"a": (0.9, 0.1), "b": (0.2, 0.8), "c": (0.5, 0.5)}, people)
    other = rows({"a": (0.6, 0.4), "b": (0.3, 0.7), "c": (0.5, 0.5)}, people)
    picture = bars({"m": one, "n": other}, 2)
    shown = {axis.get_title(): [bar.get_height() for bar in axis.patches] for axis in picture.axes}
    assert shown == {
        "b": pytest.approx([0, 1, 0.2, 0.8, 0.3, 0.7]),
        "a": pytest.approx([0.5, 0.5, 0.9, 0.1, 0.6, 0.4]),
    }
    assert [text.get_text() for text in picture.legends[0].get_texts()] == ["people", "m", "n"]
    with pytest.raises(ConfigError, match="nothing has been run"):
        bars({})
    for bad in ({"m": one, "n": other[:2]}, {"m": [{"item": "a", "p_no": "1"}]}):
        with pytest.raises(ConfigError, match="kind=bars"):
            bars(bad)


def test_each_metric_has_its_own_cells_in_every_kind_of_picture() -> None:
    """Of b all is half of a: its panels, its heat map and its crossings are its own."""
    half = [Cell(c.key, tuple(v / 2 for v in c.values)) for c in CELLS]
    picture = lines(Spec("lines", ["a", "b"], ["method"], "x"), KEYS, {"a": CELLS, "b": half})
    ends = [
        {str(line.get_label()): line.get_ydata().tolist() for line in axis.get_lines()}
        for axis in picture.axes
    ]
    assert ends[0]["n"] == [0.9] and ends[1]["n"] == [0.45]
    assert set(ends[1]) == {"m", "n"}
    spec = Spec("heat", ["a", "b"], ["method"], "x", y="spam")
    shades = [axis.get_images() for axis in heat(spec, KEYS, {"a": CELLS, "b": half}).axes]
    top, bottom = (s[0].get_array().filled(-2) for s in (shades[0], shades[2]))
    assert np.allclose(top, [[0.4, 0.2], [-2, 0.6]])
    assert np.allclose(bottom, [[0.2, 0.1], [-2, 0.3]])


def test_a_line_is_marked_where_it_crosses_the_reference() -> None:
    """M less the reference r: of a .1 to -.3 over 0 to 4, at 1; of b -.3 to .1, at 3."""

    def cells(m: tuple[float, float], r: tuple[float, float]) -> list[Cell]:
        ends = [(("m", x), y) for x, y in zip("04", m, strict=True)]
        ends += [(("r", x), y) for x, y in zip("04", r, strict=True)]
        return [Cell(key, (value,)) for key, value in ends]

    found = {"a": cells((0.5, 0.2), (0.4, 0.5)), "b": cells((0.2, 0.6), (0.5, 0.5))}
    spec = Spec(*("lines", ["a", "b"], ["method"], "x"), names={"m": "Method"}, reference=["r"])
    picture = lines(spec, ("method", "x"), found)
    marked = [[text.get_text() for text in axis.texts] for axis in picture.axes]
    assert marked == [["1.00"], ["3.00"]]
    assert [t.get_text() for t in picture.legends[0].get_texts()] == ["Method", "r"]
