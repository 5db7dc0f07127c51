"""Pictures of a finished run, from the files in its folder."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from annorun import results

Row = dict[str, str]


def figure(folder: Path) -> Path:
    """Draw figure.png: learning curves, and learned against true expertise where both are known."""
    curves = results.read_csv(folder / "metrics.csv")
    everybody = results.read_csv(folder / "annotators.csv")
    annotators = [r for r in everybody if r["expertise"]]
    moving = [k for k in (curves[0] if curves else {}) if k.startswith("annotators/")]
    panels = 2 + bool(moving) + any(r["true_expertise"] for r in annotators)
    # no pyplot: nothing global, and no window, in a process that runs many cells
    picture = Figure(figsize=(3.6 * panels, 3.2), layout="constrained")
    FigureCanvasAgg(picture)
    axes = iter(picture.subplots(1, panels, squeeze=False)[0])
    _curves(next(axes), curves, {"train/acc": "training", "val/acc": "validation"}, "accuracy")
    _curves(next(axes), curves, {"train/loss": "training", "val/loss": "validation"}, "loss")
    if moving:
        labels = {k: everybody[int(k.split("/")[1])]["annotator"] for k in moving}
        _curves(next(axes), curves, labels, "learned expertise", legend=len(moving) <= 8)
    if any(r["true_expertise"] for r in annotators):
        _against(next(axes), [r for r in annotators if r["true_expertise"]])
    path = folder / "figure.png"
    picture.suptitle(folder.name, fontsize=8)
    picture.savefig(path, dpi=120)
    return path


def task(folder: Path) -> Path:
    """Draw task.png: one target task in the embedding, as the method sees it."""
    rows = results.read_csv(folder / "task.csv")
    picture = Figure(figsize=(5.2, 4.2), layout="constrained")
    FigureCanvasAgg(picture)
    axis = picture.subplots()
    marks: dict[str, dict[str, Any]] = {
        "query": {"marker": ".", "s": 30, "alpha": 0.45, "linewidths": 0},
        "support": {"marker": "o", "s": 70},
        "prototype": {"marker": "*", "s": 320},
    }
    for kind, how in marks.items():
        own = [r for r in rows if r["kind"] == kind]
        places = [float(r["x"]) for r in own], [float(r["y"]) for r in own]
        colours = [f"C{r['class']}" for r in own]
        # round a support example, what most annotators called it
        said = [f"C{r['majority']}" if r["majority"] else "black" for r in own]
        edge = {"support": said, "prototype": "black"}.get(kind)
        if kind != "query":
            how |= {"edgecolors": edge, "linewidths": 2}
        axis.scatter(*places, c=colours, label=kind, **how)
    legend = axis.legend(frameon=False, fontsize=8)
    for handle in legend.legend_handles:
        handle.set(facecolor="0.5", edgecolor="0.5")  # type: ignore[union-attr]
    axis.set_xlabel("first principal component")
    axis.set_ylabel("second principal component")
    axis.set_title("filled: true class; ring: the majority's, black if tied", fontsize=8)
    path = folder / "task.png"
    picture.savefig(path, dpi=120)
    return path


def _curves(
    axis: Axes, rows: list[Row], labels: dict[str, str], what: str, legend: bool = True
) -> None:
    for key, label in labels.items():
        points = [(float(r["step"]), float(r[key])) for r in rows if r.get(key)]
        if points:
            axis.plot(*zip(*points, strict=True), label=label)
    axis.set_xlabel("step")
    axis.set_ylabel(what)
    if what != "loss":
        axis.set_ylim(-0.02, 1.02)
    if legend and axis.lines:
        title = "annotator" if what == "learned expertise" else None
        for text in axis.legend(frameon=False, fontsize=8, title=title).get_texts():
            # names are the user's: a dollar in them is a dollar
            text.set_parse_math(False)


def _against(axis: Axes, rows: list[Row]) -> None:
    true = [float(r["true_expertise"]) for r in rows]
    axis.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    many = len(rows) > 100
    size, alpha = (6, 0.2) if many else (24, 1.0)
    learned = [float(r["expertise"]) for r in rows]
    axis.scatter(true, learned, s=size, alpha=alpha, linewidths=0 if many else None, zorder=3)
    if len(rows) <= 8:
        for place, names in _together(rows).items():
            side, shift = ("right", -6) if place[0] > 0.5 else ("left", 6)
            text = axis.annotate(
                ", ".join(names), place, xytext=(shift, 4), textcoords="offset points", ha=side
            )
            text.set_parse_math(False)
    axis.set_xlabel("true expertise")
    axis.set_ylabel("learned expertise")
    axis.set_xlim(-0.04, 1.04)
    axis.set_ylim(-0.04, 1.04)


def _together(rows: list[Row]) -> dict[tuple[float, float], list[str]]:
    """Return the names at each place; those too near to be read apart share one."""
    found: dict[tuple[float, float], list[str]] = {}
    for r in rows:
        x, y = float(r["true_expertise"]), float(r["expertise"])
        near = next((p for p in found if abs(p[0] - x) < 0.1 and abs(p[1] - y) < 0.06), (x, y))
        found.setdefault(near, []).append(r["annotator"])
    return found
