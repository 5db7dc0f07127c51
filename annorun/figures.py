"""Pictures of a table: its cells as heat maps, or as lines beside what was published.

Draws cells (rows and expected values), and of runs their files alone. A sweep file names its
pictures under `figures`: FILE: {kind, metrics, series, x, ..}, the keys of Spec; or {kind: bars,
series, items}, distributions that runs predict of single items.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from annorun.errors import ConfigError
from annorun.tables import Cell, Key, word

# Okabe and Ito 2008, told apart by colour-blind readers, too; grey in place of their yellow
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c8c8c")
MARKERS = "osD^vP*X"
GROUPS = ((0, "majority"), (1, "minority"))
WORDS = {
    "annotator_dist.test.0.spammer": "spammers (share of annotators)",
    **dict.fromkeys(("test/acc", "labels/acc"), "accuracy"),
    **dict.fromkeys(("judge/acc", "encoder/acc", "centroid/acc"), "attributed to its author"),
    **dict.fromkeys(("attribution/acc", "imitation/acc"), "attributed: what is written"),
    **dict.fromkeys(("attribution/human", "imitation/human_acc"), "attributed: the humans' own"),
    "bag": "explanations in a bag",
    "test/ece": "ECE",
    "method.module.steps": "EM steps J",
    "method.module.budget": "votes asked for",
    "dataset.divisiveness": "divisiveness (share of items)",
    "annotator_dist.spam.0": "spam (expected share of votes)",
    "annotator_dist.shares.1": "minority (share of annotators)",
    "annotator_dist.per_item": "annotators an item",
    "annotator_dist.most_items": "votes an annotator (at most)",
    **{f"labels/acc_{k}": f"{g} accuracy" for k, g in GROUPS},
    "labels/disagreement": "expected disagreement\n(share of items)",
    "labels/disagreement_argmax": "disagreement of hard labels\n(share of items)",
    "labels/disagreement_true": "true disagreement\n(share of items)",
    "annotators/rand": "adjusted Rand index of the groups",
    "annotators/pearson": "competence correlation",
    **{f"annotators/pearson_{k}": f"competence correlation,\n{g}" for k, g in GROUPS},
}
WIDEST = 4
CROSSING: dict[str, Any] = {"fontsize": 7, "ha": "center", "va": "bottom"}


@dataclass(frozen=True)
class Spec:
    """One picture. What no key of it names is averaged over.

    Attributes:
        kind: heat: a panel a metric and series; lines: a panel a metric and value of `panels`.
        metrics: what is shown.
        series: keys that tell series apart: by panel, or by line.
        x, y: keys of the axes; y of heat alone.
        panels: a key, of lines.
        only: values, by key, that are drawn; all of a key that is not there.
        diagonal: whether x = y is drawn, where both are one quantity.
        names: what values are called in the legend.
        reference: the values of one series; where another line crosses its line, x is shown.
    """

    kind: Literal["heat", "lines"]
    metrics: list[str]
    series: list[str]
    x: str
    y: str = ""
    panels: str = ""
    only: dict[str, list[Any]] = field(default_factory=dict)
    diagonal: bool = False
    names: dict[str, str] = field(default_factory=dict)
    reference: list[Any] = field(default_factory=list)


def draw(spec: Spec, keys: Sequence[str], cells: dict[str, list[Cell]], path: Path) -> None:
    """Write one picture, a PNG, of the cells of each metric; `keys` names their keys' values."""
    picture = (heat if spec.kind == "heat" else lines)(spec, keys, cells)
    save(picture, path)


def save(picture: Figure, path: Path) -> None:
    """Write a picture."""
    FigureCanvasAgg(picture)
    picture.savefig(path, dpi=110)


def means(
    spec: Spec,
    keys: Sequence[str],
    cells: Sequence[Cell],
    axes: Sequence[str],
    value: Callable[[Cell], float | str | None],
) -> dict[Key, float]:
    """Return the mean of what is known of the cells, by the values of some keys."""
    found: dict[Key, list[float]] = {}
    only = {keys.index(k): set(map(word, values)) for k, values in spec.only.items()}
    for cell in cells:
        number = value(cell)
        if isinstance(number, float) and all(cell.key[i] in only[i] for i in only):
            place = tuple(cell.key[keys.index(a)] for a in axes)
            found.setdefault(place, []).append(number)
    return {place: float(np.mean(numbers)) for place, numbers in found.items()}


def heat(spec: Spec, keys: Sequence[str], cells: dict[str, list[Cell]]) -> Figure:
    """Return a row of panels a metric, a panel a series; its colours are ours, not the paper's."""
    axes = (*spec.series, spec.x, spec.y)
    tables = [means(spec, keys, cells[m], axes, lambda c: c.mean) for m in spec.metrics]
    places = dict.fromkeys(place for table in tables for place in table)
    series = list(dict.fromkeys(place[:-2] for place in places))
    xs, ys = _sorted({p[-2] for p in places}), _sorted({p[-1] for p in places})
    picture = Figure(
        figsize=(1.2 + 1.9 * len(series), 0.5 + 1.9 * len(tables)), layout="constrained"
    )
    grid = picture.subplots(len(tables), max(len(series), 1), squeeze=False)
    for row, metric, table in zip(grid, spec.metrics, tables, strict=True):
        # a scale a metric: one may lie within what is a shade of another
        low, high = min(table.values(), default=0), max(table.values(), default=1)
        for axis, one in zip(row, series, strict=False):
            shade = [[table.get((*one, x, y), np.nan) for x in xs] for y in ys]
            image = axis.imshow(
                shade, origin="lower", aspect="auto", vmin=low, vmax=high, cmap="cividis"
            )
            _ticks(axis, xs, ys)
            axis.set_title(_label(one).replace(", ", "\n", 1), fontsize=9)
            axis.label_outer()
        if series:
            picture.colorbar(image, ax=list(row), label=WORDS.get(metric, metric), pad=0.01)
    picture.supxlabel(WORDS.get(spec.x, spec.x), fontsize=10)
    picture.supylabel(WORDS.get(spec.y, spec.y), fontsize=10)
    return picture


def _ticks(axis: Axes, xs: list[str], ys: list[str]) -> None:
    step = 1 + (len(xs) > 8)  # every other of many
    axis.set_xticks(range(0, len(xs), step), xs[::step], fontsize=8)
    axis.set_yticks(range(len(ys)), ys, fontsize=8)


def lines(spec: Spec, keys: Sequence[str], cells: dict[str, list[Cell]]) -> Figure:
    """Return a panel a metric and value of `panels`: our lines, and dashed the published ones."""
    split = [spec.panels] if spec.panels else []
    axes = (*split, *spec.series, spec.x)
    ours = {m: means(spec, keys, cells[m], axes, lambda c: c.mean) for m in spec.metrics}
    paper = {m: means(spec, keys, cells[m], axes, lambda c: c.paper) for m in spec.metrics}
    places = dict.fromkeys(p for t in (*ours.values(), *paper.values()) for p in t)
    series = list(dict.fromkeys(place[len(split) : -1] for place in places))
    values = _sorted({place[0] for place in places}) if split else [""]
    panels = [(metric, value) for metric in spec.metrics for value in values]
    # as even rows as there can be
    n = max(len(values if split else spec.metrics), 1)
    width = -(-n // -(-n // WIDEST))
    height = max(-(-len(panels) // width), 1)
    picture = Figure(figsize=(max(3.4 * width, 5.5), 2.7 * height + 0.8), layout="constrained")
    # panels of one metric stand side by side, to be compared
    grid = picture.subplots(height, width, squeeze=False, sharey=bool(split)).ravel()
    for place, (axis, (metric, value)) in enumerate(zip(grid, panels, strict=False)):
        for number, one in enumerate(series):
            style = {"color": COLOURS[number % len(COLOURS)], "linewidth": 1.4}
            mark = MARKERS[number % len(MARKERS)]
            start = ((value,) if split else ()) + one
            name = _label(tuple(spec.names.get(value, value) for value in one))
            own = {"label": name, "marker": mark, "markersize": 4}
            _line(axis, ours[metric], start, **style, **own)
            theirs = {"label": f"{name}: published", "linestyle": "--"}
            _line(axis, paper[metric], start, **style, **theirs)
            if spec.reference:
                other = (*start[: len(start) - len(one)], *map(word, spec.reference))
                for x in crossings(_points(ours[metric], start), _points(ours[metric], other)):
                    axis.axvline(x, linestyle=":", color=style["color"], linewidth=1, zorder=0)
                    axis.text(x, 1.0, f"{x:.2f}", transform=axis.get_xaxis_transform(), **CROSSING)
        if spec.diagonal:
            axis.axline((0, 0), slope=1, color="0.7", linewidth=1, zorder=0)
        if not split or place % width == 0:
            axis.set_ylabel(WORDS.get(metric, metric))
        axis.set_xlabel(WORDS.get(spec.x, spec.x))
        axis.grid(color="0.92")
        if split:
            axis.set_title(f"{WORDS.get(spec.panels, spec.panels)} {value}", fontsize=9)
        if spec.x == "bag":
            axis.set_xscale("log", base=2)
            axis.xaxis.set_major_formatter("{x:g}")
    for axis in grid[len(panels) :]:
        axis.remove()
    _legend(picture, list(grid))
    return picture


def crossings(
    one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]
) -> list[float]:
    """Return where two lines through points (x, y) cross, between those at the same x."""
    below = dict(other)
    gap = [(x, y - below[x]) for x, y in sorted(one) if x in below]
    found, last = [], (0.0, 0.0)
    for place, (x, here) in enumerate(gap):
        if here * last[1] < 0:
            before, there = gap[place - 1]
            # between two points, or where they met at the one before
            found.append(before + (x - before) * there / (there - here))
        last = (x, here) if here else last
    return found


def _points(table: dict[Key, float], start: Key) -> list[tuple[float, float]]:
    return sorted((float(k[-1]), v) for k, v in table.items() if k[:-1] == start)


def bars(
    series: dict[str, list[dict[str, str]]],  # lines of each run's predictions.csv
    n_items: int = 6,
) -> Figure:
    """Return a panel an item: what people said, and what each run predicts of it.

    The items are evenly spaced from those that people agree about to those that they do not.

    Raises:
        ConfigError: predictions without what people said, or not of the same items.
    """
    if not series:
        raise ConfigError("figures: nothing has been run; allowed with --run, or after it")
    first = next(iter(series.values()))
    classes = [name.removeprefix("n_") for name in first[0] if name.startswith("n_")]
    alike = all([r["item"] for r in rows] == [r["item"] for r in first] for rows in series.values())
    if not classes or not alike:
        raise ConfigError("figures: kind=bars wants runs over the same items, with people's labels")
    said = np.array([[float(r[f"n_{k}"]) for k in classes] for r in first])
    people = said / said.sum(axis=1, keepdims=True)
    agreed = np.argsort(-people.max(axis=1), kind="stable")
    shown = agreed[np.linspace(0, len(agreed) - 1, min(n_items, len(agreed))).round().astype(int)]
    width = min(len(shown), 3)
    height = -(-len(shown) // width)
    picture = Figure(figsize=(3.2 * width, 2.2 * height + 0.6), layout="constrained")
    grid = picture.subplots(height, width, squeeze=False, sharey=True).ravel()
    bar = 0.8 / (len(series) + 1)
    for axis, i in zip(grid, shown, strict=False):
        drawn = {"people": people[i]} | {
            name: np.array([float(rows[i][f"p_{k}"]) for k in classes])
            for name, rows in series.items()
        }
        for n, (name, shares) in enumerate(drawn.items()):
            place = np.arange(len(classes)) + (n - len(series) / 2) * bar
            axis.bar(
                place,
                shares,
                bar,
                label=name,
                color="0.3" if not n else COLOURS[(n - 1) % len(COLOURS)],
            )
        axis.set_xticks(range(len(classes)), classes, fontsize=8)
        axis.set_title(first[i]["item"][:34], fontsize=8)
        axis.set_ylim(0, 1)
    for axis in grid[len(shown) :]:
        axis.remove()
    picture.supylabel("share of the labels", fontsize=9)
    _legend(picture, list(grid))
    return picture


def _line(axis: Axes, table: dict[Key, float], start: Key, **style: Any) -> None:
    points = _points(table, start)
    if points:
        axis.plot(*zip(*points, strict=True), **style)


def _legend(picture: Figure, grid: Sequence[Axes]) -> None:
    handles = [
        pair for axis in grid for pair in zip(*axis.get_legend_handles_labels(), strict=True)
    ]
    unique = {label: handle for handle, label in reversed(handles)}
    names = list(dict.fromkeys(label for _, label in handles))
    # a letter of 9 points, and what stands before a name
    width = max(2.4, 0.6 + 0.075 * max(map(len, names), default=0))
    columns = min(len(names), max(int(picture.get_figwidth() // width), 1)) or 1
    # of many rows, not out of the panels' height
    picture.set_figheight(picture.get_figheight() + 0.2 * max(-(-len(names) // columns) - 3, 0))
    picture.legend(
        [unique[n] for n in names],
        names,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
    )


def _label(series: Key) -> str:
    return ", ".join(dict.fromkeys(name.replace("_", " ") for name in series if name))


def _sorted(values: set[str]) -> list[str]:
    """Return numbers by their size, words by their letters."""
    numbers = all(re.fullmatch(r"-?[0-9.]+(e-?[0-9]+)?", value) for value in values)
    return sorted(values, key=float if numbers else str)
