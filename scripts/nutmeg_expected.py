"""The NUTMEG authors' figure data as experiments/expected/nutmeg_*.csv.

    python scripts/nutmeg_expected.py FOLDER

FOLDER holds the CSVs of results/figure_data in github.com/jonathanivey/NUTMEG (MIT licence).
"""

import sys
from pathlib import Path

from annorun import config, results

METHODS = {
    "Majority Vote": "majority",
    "D&S": "dawid_skene",
    "BCC": "bcc",
    "LFC": "lfc",
    "MACE": "mace",
    "NUTMEG": "nutmeg",
    "majority": "majority",
    "majority_subpop": "majority_by_group",
    "individual": "individual",
}
VARIANT = ("method", "method.aggregator.estep", "method.aggregator.imputation")
# our keys, and the authors' columns
GRID = {
    "annotator_dist.spam.0": "spamming_rate",
    "dataset.divisiveness": "divisiveness_rate",
}
SIZE = {
    "annotator_dist.shares.1": "subpopulation_size",
    "annotator_dist.per_item": "annotations_per_item",
}
BOTH = {"labels/acc_0": "majority_accuracy", "labels/acc_1": "minority_accuracy"}
TABLES = {
    "nutmeg_baselines": (
        "4.1: accuracy of the majority's and of the minority's labels, one draw a cell.",
        "exp1_comparison.csv",
        GRID | BOTH,
    ),
    # the authors' columns of majority and minority are of other annotators: mask and estimates
    # differ in order
    "nutmeg_competence": (
        "4.2: correlation with the true spam; undefined, and not here, without spam.",
        "competence_correlation.csv",
        GRID | {"annotators/pearson": "competence_correlation"},
    ),
    "nutmeg_disagreement": (
        "figure 5: the share of items whose most probable labels differ, and the true share.",
        "disagreement_estimate.csv",
        GRID
        | {
            "labels/disagreement_argmax": "estimated_divisiveness",
            "labels/disagreement_true": "true_divisiveness",
        },
    ),
    "nutmeg_subpopulation_size": (
        "figure 6: accuracy of the small group's labels.",
        "subpopulation_size.csv",
        SIZE | {"labels/acc_1": "accuracy"},
    ),
    "nutmeg_extra_annotators": (
        "figure data, `Naive`; of `Variable` no script is published, and it is not here.",
        "additional_annotators.csv",
        SIZE | BOTH,
    ),
}


def row(given: dict[str, str], columns: dict[str, str]) -> list[str]:
    """Return one line of ours; the method is NUTMEG where the authors' file names none."""
    if "annotation_budget" in given:
        # 500 items
        given["annotations_per_item"] = str(float(given["annotation_budget"]) / 500)
    method = METHODS[given.get("method", "NUTMEG")]
    steps = ["released"] * 2 if method == "nutmeg" else [""] * 2
    return [method, *steps, *(f"{round(float(given[c]), 5):g}" for c in columns.values())]


def downstream(folder: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of section 6: means over the categories of an attribute."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for given in results.read_csv(folder / "downstream_model_comparison.csv"):
        # of the two texts, the one whose ratings are public
        if given["task"] == "popquorn_offensiveness":
            key = (given["subpopulation"], METHODS[given["method"]])
            found.setdefault(key, []).append((float(given["mean_jsd"]), float(given["f1"])))
    means = {
        key: [sum(column) / len(values) for column in zip(*values, strict=True)]
        for key, values in found.items()
    }
    rows = [[*key, *(f"{value:.5g}" for value in mean)] for key, mean in means.items()]
    return ["dataset.attribute", "method", "test/jsd", "test/f1"], rows


def main(folder: Path) -> None:
    """Convert every file that a sweep stands beside."""
    for name, (about, file, columns) in TABLES.items():
        known = [
            given
            for given in results.read_csv(folder / file)
            # a correlation that is undefined is empty
            if all(given.values()) and given.get("labeling_method") != "Variable"
        ]
        write(name, about, file, [*VARIANT, *columns], [row(given, columns) for given in known])
    about = (
        "6: offensiveness, means over the categories. Their `individual` is judged with\n"
        "# predictions and items in different orders (annorun/method/multi_task.py)."
    )
    write("nutmeg_downstream", about, "downstream_model_comparison.csv", *downstream(folder))


def write(name: str, about: str, file: str, header: list[str], rows: list[list[str]]) -> None:
    """Write one file, with where it is from."""
    path = config.experiments_dir() / "expected" / f"{name}.csv"
    results.write_csv(path, header, rows)
    head = (
        f"# NUTMEG {about}\n"
        f"# From {file} of the authors' figure data, github.com/jonathanivey/NUTMEG\n"
        "# (MIT licence, Copyright (c) 2025 Jonathan Ivey), by scripts/nutmeg_expected.py;\n"
        "# NUTMEG is their released code's.\n"
    )
    path.write_text(head + path.read_text("utf-8"), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
