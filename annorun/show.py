"""What a person sees: a bar while a network learns, a short table at the end, and the folder."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from annorun import results

MOST_ANNOTATORS = 12
WORDS = {
    "test/acc": "accuracy",
    "test/macro_f1": "macro-F1",
    "test/nll": "NLL",
    "test/ece": "ECE",
    "test/jsd": "JSD to each group (nats)",
    "test/f1": "F1 of each group's majority",
    "test/soft_jsd": "JSD to all votes (nats)",
    "support/acc": "accuracy of the support's labels",
    "start/acc": "accuracy before training",
    "labels/acc": "accuracy of the aggregated labels",
    "labels/macro_f1": "macro-F1 of the aggregated labels",
    "labels/iterations": "iterations",
    "labels/disagreement": "expected disagreement of the groups",
    "labels/disagreement_true": "true disagreement of the groups",
    "agreement/krippendorff_alpha": "Krippendorff's alpha",
    "agreement/mean_cohen_kappa": "Cohen's kappa, mean over pairs",
    "judge/acc_clean_bag1": "author told from one explanation",
    "judge/acc_clean_bag8": "author told from eight",
    "judge/acc_label_bag1": "author told from the label alone",
    "attribution/acc_clean_bag1": "target told from what is written",
    "attribution/human_clean_bag1": "author told from the humans' own",
    "test/label_acc": "labels that the target gave",
    "test/malformed": "responses without a label",
    "annotators/groups": "groups found",
    "annotators/rand": "adjusted Rand index of the groups",
    "annotators/mae": "mean error of expertise",
    "annotators/pearson": "correlation of expertise",
}


@contextmanager
def bar(steps: int) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """Yield a function (step, running means) that moves a bar; no terminal: a line a tenth."""
    if not sys.stdout.isatty():
        yield _lines(steps)
        return
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[words]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("training", total=steps, words="")
        yield lambda step, means: progress.update(task, completed=step, words=_words(means))


def _lines(steps: int) -> Callable[[int, dict[str, float]], None]:
    start = time.perf_counter()
    tenth = max(steps // 10, 1)

    def show(step: int, means: dict[str, float]) -> None:
        if step % tenth == 0 or step == steps:
            seconds = time.perf_counter() - start
            print(f"step {step}/{steps}  {_words(means)}  {seconds:.0f} s", flush=True)

    return show


def _words(means: dict[str, float]) -> str:
    return "  ".join(f"{key.split('/')[1]} {value:.3f}" for key, value in means.items())


def finished(row: dict[str, Any], folder: Path, cached: bool = False) -> None:
    """Print the end of a run: scores, annotators, where the files are."""
    # names are the user's: nothing in them is markup
    console = Console(soft_wrap=True, markup=False, emoji=False)
    choices = row["choices"]
    title = " ".join(choices[g] for g in ("method", "dataset", "noise", "annotator_dist"))
    table = Table(title=f"{title}, seed {row['seed']}", title_justify="left")
    table.add_column("score")
    table.add_column("value", justify="right")
    for key, words in WORDS.items():
        if key in row["metrics"]:
            value = row["metrics"][key]
            whole = key.endswith(("iterations", "groups"))
            table.add_row(words, f"{value:.0f}" if whole else f"{value:.3f}")
        for group in sorted(k for k in row["metrics"] if k.startswith(f"{key}_")):
            if key.endswith("/acc"):
                name = group.removeprefix(f"{key}_")
                table.add_row(f"  group {name}", f"{row['metrics'][group]:.3f}")
    for key in sorted(k for k in row["metrics"] if k.startswith("test_") and k.endswith("/acc")):
        part = key.removeprefix("test_").removesuffix("/acc")
        if part[0] == "r" and part[1:].isdigit():
            table.add_row(f"  {part[1:]} annotators", f"{row['metrics'][key]:.3f}")
        elif part[0] == "m" and part[1:].isdigit():
            table.add_row(f"  mixture {part[1:]}", f"{row['metrics'][key]:.3f}")
    if table.row_count:
        console.print(table)
    _annotators(console, folder)
    if row["metrics"].get("labels/converged") == 0.0:
        console.print(
            "the aggregator stopped before it had converged: raise its max_iter or n_iter"
        )
    done = (
        "finished before; not run again (mode=force runs it)"
        if cached
        else f"{row['seconds']:.0f} s"
    )
    console.print(f"{done}: {folder}", highlight=False)
    console.print("  " + "  ".join(sorted(p.name for p in folder.iterdir())), highlight=False)


def _annotators(console: Console, folder: Path) -> None:
    path = folder / "annotators.csv"
    rows = results.read_csv(path) if path.is_file() else []
    known = any(r["true_expertise"] for r in rows)
    # those of a task are gone with it
    if not any(r["expertise"] for r in rows) or any(r["task"] for r in rows):
        return
    table = Table(title="annotators", title_justify="left")
    for name in ("annotator", "votes", "expertise", *(["true"] if known else [])):
        table.add_column(name, justify="left" if name == "annotator" else "right")
    for r in rows[:MOST_ANNOTATORS]:
        cells = [r["annotator"], r["votes"], _short(r["expertise"])]
        table.add_row(*cells, *([_short(r["true_expertise"])] if known else []))
    console.print(table)
    if len(rows) > MOST_ANNOTATORS:
        console.print(f"and {len(rows) - MOST_ANNOTATORS} more in annotators.csv")


def _short(number: str) -> str:
    return f"{float(number):.3f}" if number else ""
