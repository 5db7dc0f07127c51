"""Rows to a table: mean and deviation by hand, what is missing, what was published."""

import csv
import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from annorun import config, tables
from annorun.results import write_csv
from annorun.scores.significance import corrected_resampled_t
from annorun.tables import UNKNOWN, Cell, collect, compare, key_of, lines, markdown, published, word

KEYS = ("method", "annotator_dist")


def done(folder: Path, **metrics: float) -> Path:
    folder.mkdir(parents=True)
    (folder / "row.json").write_text(json.dumps({"metrics": metrics}))
    return folder


def failed(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "error.txt").write_text("Traceback")
    return folder


def test_mean_and_sample_deviation_by_hand() -> None:
    """.6, .7, .9: mean 2.2/3; squares of deviations sum to .14/3, over n - 1 = 2: .07/3."""
    cell = Cell(("a",), (0.6, 0.7, 0.9), paper=0.5)
    assert cell.mean == pytest.approx(2.2 / 3)
    assert cell.std == pytest.approx((0.07 / 3) ** 0.5)
    assert cell.difference == pytest.approx(2.2 / 3 - 0.5)


def test_one_run_has_no_deviation_and_none_has_no_mean() -> None:
    assert (Cell(("a",), (0.5,)).std, Cell(("a",), (0.5,)).mean) == (None, 0.5)
    assert (Cell(("a",)).mean, Cell(("a",), paper=0.5).difference) == (None, None)
    assert Cell(("a",), (0.5,), paper=UNKNOWN).difference is None


def test_a_partial_sweep_gives_a_partial_table(tmp_path: Path) -> None:
    runs = [
        (("realm", "spread"), done(tmp_path / "a", **{"test/acc": 0.8})),
        (("realm", "spread"), done(tmp_path / "b", **{"test/acc": 0.6})),
        (("realm", "spread"), failed(tmp_path / "c")),
        (("realm", "spread"), tmp_path / "never begun"),
        (("noisy", "spread"), tmp_path / "nor this"),
        (("noisy", "spread"), done(tmp_path / "d", **{"test/nll": 0.6})),
    ]
    expected = {("realm", "spread"): 0.75, ("oracle", "spread"): 0.9, ("x", "y"): UNKNOWN}
    cells = collect(runs, "test/acc", expected)
    assert [c.key[0] for c in cells] == ["realm", "noisy", "oracle", "x"]
    assert (cells[0].values, cells[0].missing, cells[0].failed) == ((0.8, 0.6), 1, 1)
    # done, but without the metric: counted as missing, never as a number
    assert (cells[1].values, cells[1].missing, cells[1].failed) == ((), 2, 0)
    assert cells[0].difference == pytest.approx(-0.05)
    text = lines(cells)
    assert text[0] == [
        "realm",
        "spread",
        "0.7000",
        "0.1414",
        "",
        "2",
        "1",
        "1",
        "0.7500",
        "-0.0500",
    ]
    assert text[1] == ["noisy", "spread", "", "", "", "0", "2", "0", "", ""]
    assert text[2] == ["oracle", "spread", "", "", "", "0", "0", "0", "0.9000", ""]
    assert text[3][-2:] == [UNKNOWN, ""]


def test_a_run_that_two_sweep_files_ask_for_counts_once(tmp_path: Path) -> None:
    folder = done(tmp_path / "a", **{"test/acc": 0.8})
    cells = collect([(("realm", "x"), folder), (("realm", "x"), folder)], "test/acc", {})
    assert cells[0].values == (0.8,)


def test_a_zero_is_a_value(tmp_path: Path) -> None:
    folder = done(tmp_path / "a", **{"test/acc": 0.0})
    (cell,) = collect([(("realm", "x"), folder)], "test/acc", {("realm", "x"): 0.0})
    assert lines([cell])[0][2:] == ["0.0000", "", "", "1", "0", "0", "0.0000", "+0.0000"]


def test_published_values(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "# origin\n# more\nmethod,annotator_dist,value\nrealm,spread,0.5\nnoisy,spread,\n"
    )
    assert published(path, KEYS) == {("realm", "spread"): 0.5, ("noisy", "spread"): UNKNOWN}
    assert published(tmp_path / "none.csv", KEYS) == {}


def test_keys_are_options_and_the_paths_of_values() -> None:
    config = {
        "choices": {"method": "nutmeg"},
        "dataset": {"divisiveness": 0.0, "name": None},
        "annotator_dist": {"spam": [0.1, 0.25]},
        "method": {"aggregator": {"estep": "exact"}, "module": None},
    }
    names = {
        "method": "nutmeg",
        "dataset.divisiveness": "0",
        "annotator_dist.spam.1": "0.25",
        "method.aggregator.estep": "exact",
        # not there: of another method, below a node that is null, null itself
        "method.aggregator.imputation": "",
        "method.module.target": "",
        "dataset.name": "",
    }
    assert key_of(config, list(names)) == tuple(names.values())


def test_numbers_are_one_whatever_their_digits() -> None:
    assert [word(v) for v in (1, 1.0, 0.10, "0.10", True, None)] == (
        ["1", "1", "0.1", "0.10", "True", ""]
    )


def test_large_integers_keep_every_digit() -> None:
    assert word(20261121) == "20261121"


GRID = "method,x,a,b\nm,0,0.1,0.5\nm,1,0.4,\nn,0,0.7,1\n"


def test_published_values_of_several_metrics(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("# origin\n" + GRID)
    keys = ["method", "x"]
    assert published(path, keys, "a") == {("m", "0"): 0.1, ("m", "1"): 0.4, ("n", "0"): 0.7}
    assert published(path, keys, "b") == {("m", "0"): 0.5, ("m", "1"): UNKNOWN, ("n", "0"): 1.0}
    # neither the metric nor a column `value`; a key that the file does not have
    assert published(path, keys, "c") == {}
    assert published(path, [*keys, "z"], "a") == {}


def test_under_fewer_keys_a_published_cell_is_a_mean_as_ours_is(tmp_path: Path) -> None:
    """m: (.1 + .4) / 2 published, (.2 + .6) / 2 ours; of b one of two is not known."""
    path = tmp_path / "t.csv"
    path.write_text(GRID)
    expected = published(path, ["method"], "a")
    assert expected == {("m",): pytest.approx(0.25), ("n",): 0.7}
    assert published(path, ["method"], "b") == {("m",): UNKNOWN, ("n",): 1.0}
    runs = [(("m",), done(tmp_path / str(x), a=x)) for x in (0.2, 0.6)]
    (cell, _) = collect(runs, "a", expected)
    assert (cell.mean, cell.difference) == (pytest.approx(0.4), pytest.approx(0.15))


def test_every_expected_file_reads() -> None:
    folder = config.experiments_dir() / "expected"
    files = sorted(folder.glob("*.csv"))
    assert len(files) >= 6
    for path in files:
        sweep = OmegaConf.load(config.experiments_dir() / f"{path.stem}.yaml")
        header = next(x for x in path.read_text().splitlines() if not x.startswith("#"))
        keys = list(sweep["keys"])
        names, values = header.split(",")[: len(keys)], header.split(",")[len(keys) :]
        assert names == keys
        single = isinstance(sweep.metric, str)
        assert values and set(values) <= ({"value"} if single else set(sweep.metric))
        n_rows = len([x for x in path.read_text().splitlines() if x and not x.startswith("#")]) - 1
        for metric in values:
            found = published(path, keys, metric)
            assert len(found) == n_rows, f"{path}: a cell is there twice"
            assert all(v == UNKNOWN or 0 <= float(v) <= 1 for v in found.values())


# means of the authors' figure data over their grid, computed apart from the conversion
MEANS = {
    ("nutmeg_baselines", "labels/acc_1"): {"nutmeg": 0.813, "mace": 0.506, "majority": 0.543},
    ("nutmeg_baselines", "labels/acc_0"): {"nutmeg": 0.994, "bcc": 0.994, "lfc": 0.994},
    ("nutmeg_competence", "annotators/pearson"): {"nutmeg": 0.805, "mace": 0.489},
}


@pytest.mark.parametrize(("name", "metric"), MEANS)
def test_what_was_converted_has_the_papers_means(name: str, metric: str) -> None:
    path = config.experiments_dir() / "expected" / f"{name}.csv"
    found = published(path, ["method"], metric)
    for method, value in MEANS[name, metric].items():
        assert found[(method,)] == pytest.approx(value, abs=5.1e-4)


def test_markdown_is_well_formed() -> None:
    text = markdown(["a", "long name"], [["x", ""], ["yy", "z" * 12]]).splitlines()
    assert len(text) == 4
    assert len({len(line) for line in text}) == 1
    assert all(line.startswith("| ") and line.endswith(" |") for line in text)
    assert all(line.count("|") == 3 for line in text)
    assert set(text[1]) == set("|- ")


def test_a_csv_of_the_lines_reads_back() -> None:
    cells = lines([Cell(("realm", "spread"), (0.5, 0.7), paper=0.25)])
    out = io.StringIO()
    csv.writer(out).writerows([[*KEYS, *tables.HEADER], *cells])
    (row,) = csv.DictReader(io.StringIO(out.getvalue()))
    assert float(row["ours"]) == 0.6
    assert float(row["difference"]) == pytest.approx(0.35)
    assert row["seeds"] == "2"


def test_runs_are_compared_in_pairs(tmp_path: Path) -> None:
    """b less a, by seed: .1, .2, .3, one sign, p = 2 / 2^3; the run without a pair is out."""
    runs = []
    for method, values in {"a": (0.1, 0.2, 0.3, 0.9), "b": (0.2, 0.4, 0.6), "c": ()}.items():
        for seed, value in enumerate(values):
            folder = done(tmp_path / f"{method}{seed}", acc=value)
            row = json.loads((folder / "row.json").read_text())
            (folder / "row.json").write_text(json.dumps(row | {"seed": seed, "data_seed": 0}))
            runs.append((("x", method), folder))
    found = compare(runs, ["dataset", "method"], "acc", {"method": "b"})
    assert found == [["acc", "b - a", "+0.2000", "3 runs", "0.2500", "0.2500", ""]]
    assert compare(runs, ["dataset", "method"], "acc", {"method": "nobody"}) == []
    assert compare(runs, ["dataset", "method"], "nll", {"method": "b"}) == []


def test_folds_are_compared_fold_by_fold(tmp_path: Path) -> None:
    """b less a over two repeats of two folds: .1 to .4; under another regime .1 more."""
    runs = []
    for place in itertools.product("ab", ("short", "long"), (0, 1), (0, 1)):
        method, regime, repeat, fold = place
        value = (method == "b") * (0.1 + 0.2 * repeat + 0.1 * fold + 0.1 * (regime == "long"))
        folder = done(tmp_path / "".join(map(str, place)), acc=value)
        row = json.loads((folder / "row.json").read_text())
        (folder / "row.json").write_text(json.dumps(row | {"seed": 0, "data_seed": repeat}))
        runs.append(((regime, method, str(fold)), folder))
    p = corrected_resampled_t(np.array([0.1, 0.2, 0.3, 0.4]), 0.25)
    q = corrected_resampled_t(np.array([0.2, 0.3, 0.4, 0.5]), 0.25)
    keys = ["regime", "method", "fold"]
    found = compare(runs, keys, "acc", {"method": "b"}, folds="fold", test_share=0.25)
    assert [row[1:5] for row in found] == [
        ["b - a (short)", "+0.2500", "4 folds", f"{p:.4f}"],
        ["b - a (long)", "+0.3500", "4 folds", f"{q:.4f}"],
    ]


def test_runs_over_tasks_are_compared_task_by_task(tmp_path: Path) -> None:
    """Two tasks under two mixtures: with shots x, b less a is .2 and .4; with y .4 and .8.

    A task counts once, at the mean over both shots: .3 and .6.
    """
    runs = []
    for key, accuracies in {
        ("x", "b", "1"): (0.5, 0.9, 0.7, 0.9),
        ("x", "a", ""): (0.5, 0.6, 0.3, 0.4),
        ("y", "b", "1"): (0.5, 0.9, 0.7, 0.9),
        ("y", "a", ""): (0.1, 0.1, 0.3, 0.1),
        ("x", "a", "1"): (0.0, 0.0, 0.0, 0.0),
    }.items():
        folder = done(tmp_path / "".join(key), **{"test/acc": float(np.mean(accuracies))})
        row = json.loads((folder / "row.json").read_text())
        (folder / "row.json").write_text(json.dumps(row | {"seed": 0, "data_seed": 0}))
        lines = [(3, m, t, accuracies[2 * m + t]) for m in (0, 1) for t in (0, 1)]
        write_csv(folder / "tasks.csv", ("annotators", "mixture", "task", "acc"), lines)
        runs.append((key, folder))
    found = compare(runs, ["shots", "method", "own"], "test/acc", {"method": "b", "own": "1"})
    assert [row[1:4] for row in found] == [
        ["b 1 - a", "+0.4500", "2 tasks"],
        ["b 1 - a 1", "+0.7500", "2 tasks"],
    ]


def test_runs_that_write_are_compared_item_by_item(tmp_path: Path) -> None:
    """Of item q1 b is told in both answers and a in one, of q2 both in none: +.5 and 0."""
    runs = []
    for method, judged in {"a": ("x", "y", "y", "y"), "b": ("x", "x", "y", "y")}.items():
        for data in ("one", "two"):
            shown = judged if data == "one" else judged[::-1]
            name = "attribution/acc_clean_bag1"
            folder = done(tmp_path / f"{method}{data}", **{name: 0.5, "test/label_acc": 1.0})
            row = json.loads((folder / "row.json").read_text())
            (folder / "row.json").write_text(json.dumps(row | {"seed": 0, "data_seed": 0}))
            header = ("item", "target", "agrees", "judged")
            lines = [
                (item, "x", int(method == "b"), own)
                for item, own in zip(("q1", "q1", "q2", "q2"), shown, strict=True)
            ]
            write_csv(folder / "responses.csv", header, lines)
            runs.append(((data, method), folder))
    keys = ["data", "method"]
    found = compare(runs, keys, "attribution/acc_clean_bag1", {"method": "b"})
    # each data set by itself, though its items may be called alike
    assert [row[1:4] for row in found] == [
        ["b - a (one)", "+0.2500", "2 items"],
        ["b - a (two)", "+0.2500", "2 items"],
    ]
    # of two items, both resampled means .5 or 0 in a quarter of the draws
    assert [row[-1] for row in found] == ["+0.0000 to +0.5000"] * 2
    labels = compare(runs, keys, "test/label_acc", {"method": "b"})
    assert [row[2] for row in labels] == ["+1.0000"] * 2


def test_an_item_under_several_seeds_is_one_item(tmp_path: Path) -> None:
    """The same answers once more say no more: as many pairs, the same p and interval."""
    name, found = "attribution/acc_clean_bag1", []
    for n_seeds in (1, 3):
        runs = []
        for method, seed in itertools.product("ab", range(n_seeds)):
            folder = done(tmp_path / f"{n_seeds}{method}{seed}", **{name: 0.5})
            row = json.loads((folder / "row.json").read_text())
            (folder / "row.json").write_text(json.dumps(row | {"seed": seed, "data_seed": 0}))
            lines = [(k, "x", 1, "x" if method == "b" or k % 3 else "y") for k in range(9)]
            write_csv(folder / "responses.csv", ("item", "target", "agrees", "judged"), lines)
            runs.append(((method,), folder))
        found += compare(runs, ["method"], name, {"method": "b"})
    assert found[0] == found[1] and found[0][2:4] == ["+0.3333", "9 items"]
