"""scripts/check_measured.py: measured rows against configs, one row run anew, marks in headers."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from annorun import config

SCRIPTS = Path(__file__).parents[1] / "scripts"
MEASURED = config.experiments_dir() / "measured"
SWEEP = """
defaults:
  - config
  - override dataset: subpopulation_items
  - override method: majority
  - override noise: spam
  - override annotator_dist: subpopulations
  - override model_size: none
  - _self_
name: small
also: null
keys: [dataset.divisiveness]
metric: [labels/acc_0, labels/acc_1]
dataset:
  n_items: 60
annotator_dist:
  spam: [0.2, 0.2]
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      dataset.divisiveness: 0.4,1
      data_seed: 0,1
"""
Check = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, script: ModuleType) -> Path:
    """Return an experiments/ folder with one sweep file and its four measured rows."""
    folder = tmp_path_factory.mktemp("small") / "experiments"
    folder.mkdir()
    (folder / "small.yaml").write_text(SWEEP)
    arguments = ["reproduce_table.py", "small", "--run", "--measured"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "experiments_dir", lambda: folder)
        patch.setattr(sys, "argv", [*arguments, f"out_root={folder.parent / 'out'}"])
        assert script.reproduce_table.main() == 0
    return folder


@pytest.fixture
def experiments(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the folder in which row 2 is the cheapest."""
    folder = tmp_path / "experiments"
    shutil.copytree(small, folder)
    monkeypatch.setattr(config, "experiments_dir", lambda: folder)
    for number, seconds in enumerate((0.4, 0.1, 0.2, 0.3), 1):
        edit(folder, number, {"seconds": str(seconds)})
    return folder


@pytest.fixture
def check(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Check:
    """Return a function: words -> exit code, what is printed; the row is run in this process."""
    # where the script finds the benchmarks' columns
    monkeypatch.syspath_prepend(str(SCRIPTS))

    execute = script.execute

    def called(*words: str, apart: bool = False) -> tuple[int, str]:
        # a process of its own costs seconds
        here = execute if apart else lambda text, cache, seconds: script.one(text)
        monkeypatch.setattr(script, "execute", here)
        monkeypatch.setattr(sys, "argv", ["check_measured.py", *words])
        code = script.main()
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return called


def table(folder: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header's comments and the cells of all other lines of small.csv."""
    lines = (folder / "measured" / "small.csv").read_text().splitlines()
    return [x for x in lines if x[0] == "#"], [x.split(",") for x in lines if x[0] != "#"]


def write(folder: Path, comments: list[str], cells: list[list[str]]) -> None:
    text = "\n".join([*comments, *(",".join(row) for row in cells), ""])
    (folder / "measured" / "small.csv").write_text(text)


def edit(folder: Path, number: int, values: dict[str, str]) -> None:
    """Change cells of a row."""
    comments, cells = table(folder)
    for name, value in values.items():
        cells[number][cells[0].index(name)] = value
    write(folder, comments, cells)


def mark(folder: Path, *lines: str) -> None:
    """Add lines to the header."""
    comments, cells = table(folder)
    write(folder, [*comments, *lines], cells)


def cell(folder: Path, number: int, name: str) -> str:
    _, cells = table(folder)
    return cells[number][cells[0].index(name)]


def moved(folder: Path, number: int, name: str, by: int) -> str:
    """Return a metric of a row that lies so many units of the last digit nearer to .5."""
    value = float(cell(folder, number, name))
    return f"{value + (by if value < 0.5 else -by) / 10_000:.4f}"


def test_the_cheapest_row_is_reproduced(experiments: Path, check: Check) -> None:
    code, text = check(apart=True)
    acc = cell(experiments, 2, "labels/acc_0")
    assert code == 0
    assert (
        f"small: ok: row 2 (dataset.divisiveness=0.4 data_seed=1); stored labels/acc_0 {acc}, "
        in text
    )
    assert f"obtained {acc}" in text
    assert text.endswith("1 files: 1 ok; 0 rows wait by their mark\n")


@pytest.mark.parametrize("metric", ["labels/acc_0", "labels/acc_1"])
def test_one_changed_digit_is_stale(experiments: Path, check: Check, metric: str) -> None:
    right, wrong = cell(experiments, 2, metric), moved(experiments, 2, metric, 1)
    edit(experiments, 2, {metric: wrong})
    code, text = check("small")
    assert code == 1
    assert "small: stale: row 2 (dataset.divisiveness=0.4 data_seed=1); " in text
    assert f"; {metric} stored {wrong}, obtained {right}; 1 of 2 metrics" in text
    assert "1 files: 1 stale" in text


def test_a_metric_that_is_not_obtained_and_other_steps_are_stale(
    experiments: Path, check: Check
) -> None:
    edit(experiments, 2, {"labels/acc_1": "", "steps": "9"})
    mark(experiments, "# tolerance: labels/*=1.0 -- hardware")
    code, text = check()
    assert code == 1
    assert "labels/acc_1 stored none, obtained " in text
    assert "steps stored 9, obtained 0" in text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"data_seed": "7"}, "data_seed=7) matches 0 configs of the sweep"),
        ({"dataset.divisiveness": "0.5"}, "row 3 (method=majority "),
        ({"method": "mace"}, "matches 0 configs of the sweep"),
    ],
)
def test_a_row_of_other_settings_has_no_config(
    experiments: Path, check: Check, values: dict[str, str], words: str
) -> None:
    edit(experiments, 3, values)
    code, text = check()
    assert code == 1
    assert "small: fault: row 3 (" in text and words in text


def test_a_file_without_a_sweep_file_is_a_fault(experiments: Path, check: Check) -> None:
    (experiments / "small.yaml").unlink()
    code, text = check()
    assert code == 1
    assert "small: fault: there is no experiments/small.yaml" in text


def test_a_header_of_another_table_is_a_fault(experiments: Path, check: Check) -> None:
    comments, cells = table(experiments)
    write(experiments, [c.replace(" small", " large") for c in comments], cells)
    code, text = check()
    assert code == 1
    assert "its command is not python scripts/reproduce_table.py small" in text


def test_overrides_of_the_command_are_part_of_the_configs(experiments: Path, check: Check) -> None:
    comments, cells = table(experiments)
    comments[0] += " annotator_dist.spam=[0.9,0.2]"
    write(experiments, comments, cells)
    code, text = check()
    assert code == 1
    assert "labels/acc_0 stored " in text


def test_a_seed_that_follows_the_data_seed_is_of_each_row(experiments: Path, check: Check) -> None:
    sweep = SWEEP.replace("name: small", "name: small\nseed: ${data_seed}")
    (experiments / "small.yaml").write_text(sweep)
    for number in (2, 4):
        edit(experiments, number, {"seed": "1"})
    assert "small: fault: " not in check()[1]
    edit(experiments, 4, {"seed": "0"})
    assert "small: fault: row 4 (" in check()[1]


def test_a_row_of_two_configs_is_a_fault(experiments: Path, check: Check) -> None:
    """The second file's runs differ in a value that no column names."""
    other = SWEEP.replace("n_items: 60", "n_items: 80")
    (experiments / "part.yaml").write_text(other)
    (experiments / "small.yaml").write_text(SWEEP.replace("also: null", "also: [part]"))
    code, text = check()
    assert code == 1
    assert "small: fault: row 1 (" in text and "matches 2 configs" in text
    # the same runs under two names are one
    (experiments / "part.yaml").write_text(SWEEP)
    assert check()[0] == 0


def test_equal_rows_are_a_fault(experiments: Path, check: Check) -> None:
    edit(experiments, 3, {"dataset.divisiveness": "0.4"})
    code, text = check()
    assert code == 1
    assert "small: fault: 2 rows are method=majority " in text


def test_columns_that_the_script_does_not_write_are_a_fault(
    experiments: Path, check: Check
) -> None:
    comments, cells = table(experiments)
    write(experiments, comments, [[*row[1:], row[0]] for row in cells])
    code, text = check()
    assert code == 1
    assert "small: fault: its columns are dataset," in text


@pytest.mark.parametrize("word", ["command", "commit", "machine"])
def test_a_header_that_lacks_a_line_is_a_fault(experiments: Path, check: Check, word: str) -> None:
    comments, cells = table(experiments)
    write(experiments, [c for c in comments if f"# {word}: " not in c], cells)
    code, text = check()
    assert code == 1
    assert f"small: fault: its header has no {word}\n" in text


def test_marked_rows_wait_and_the_cheapest_other_is_run(experiments: Path, check: Check) -> None:
    edit(experiments, 2, {"labels/acc_0": "0.1234"})
    mark(experiments, "# waiting: dataset.divisiveness=0.4|0.5 data_seed=1 -- compared later")
    code, text = check()
    assert code == 0
    assert "small: ok: row 3 (" in text
    assert "1 rows wait by their mark" in text


def test_a_file_that_waits_is_not_run(experiments: Path, check: Check) -> None:
    edit(experiments, 2, {"labels/acc_0": "0.1234"})
    mark(experiments, "# waiting: all -- compared later")
    code, text = check()
    assert code == 0
    assert "small: waiting: all 4 rows" in text
    assert "1 files: 1 waiting; 4 rows wait by their mark" in text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("# waiting: data_seed=1", "has no reason"),
        ("# waiting: all -- ", "has no reason"),
        ("# waiting: seeds=1 -- later", "seeds=1 is no COLUMN=VALUE"),
        ("# waiting: labels/acc_0=1.0000 -- later", "is no COLUMN=VALUE"),
        ("# waiting: data_seed=5 -- later", "no row is so"),
        ("# tolerance: labels/acc_0=0.1", "has no reason"),
        ("# tolerance: test/*=0.1 -- hardware", "is no METRIC_PATTERN=NUMBER"),
        ("# tolerance: labels/*=much -- hardware", "is no METRIC_PATTERN=NUMBER"),
    ],
)
def test_a_mark_that_says_nothing_is_a_fault(
    experiments: Path, check: Check, line: str, words: str
) -> None:
    mark(experiments, line)
    code, text = check()
    assert code == 1
    assert "small: fault: " in text and words in text


@pytest.mark.parametrize(("by", "code"), [(5, 0), (6, 1)])
def test_a_tolerance_ends_where_it_says(
    experiments: Path, check: Check, by: int, code: int
) -> None:
    edit(experiments, 2, {"labels/acc_1": moved(experiments, 2, "labels/acc_1", by)})
    mark(experiments, "# tolerance: labels/acc_[1]=0.0005 -- hardware")
    assert check()[0] == code
    # of the other metric there is none
    edit(experiments, 2, {"labels/acc_0": moved(experiments, 2, "labels/acc_0", 1)})
    assert check()[0] == 1


def test_rows_over_the_limit_are_named_and_run_with_all(experiments: Path, check: Check) -> None:
    for number in (1, 2, 3, 4):
        edit(experiments, number, {"seconds": str(60 + number)})
    code, text = check()
    assert code == 0
    assert "small: left out: its cheapest row costs 61 s, over 60 s" in text
    code, text = check("--all")
    assert code == 0
    assert "small: ok: row 1 (" in text


def test_rows_that_are_not_run_in_time_are_a_fault(experiments: Path, check: Check) -> None:
    code, text = check("--minutes", "0.0001")
    assert code == 1
    assert "small: fault: row 2 (" in text and "not begun in time" in text


def test_a_run_that_outlasts_the_time_is_ended(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    with pytest.raises(script.subprocess.TimeoutExpired):
        script.execute("", tmp_path, 0.2)


def test_a_run_that_is_refused_is_a_fault(experiments: Path, check: Check) -> None:
    comments, cells = table(experiments)
    comments[0] += " annotator_dist.per_item=60 annotator_dist.most_items=1000"
    write(experiments, comments, cells)
    code, text = check()
    assert code == 1
    assert "small: fault: annotator_dist.per_item=60: " in text


def test_a_run_that_fails_is_a_fault(
    experiments: Path, check: Check, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script.OmegaConf, "to_yaml", lambda cfg: "method: [")
    code, text = check(apart=True)
    assert code == 1
    assert "small: fault: row 2 (" in text


def test_data_that_nobody_has_are_skipped_with_their_reason(
    experiments: Path, check: Check, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    head = "defaults: [config, override dataset: labelme, override method: majority, _self_]"
    sweep = SWEEP[SWEEP.index("name: small") :].replace("  n_items: 60", "  path: nowhere")
    sweep = sweep.replace("annotator_dist:\n  spam: [0.2, 0.2]\n", "")
    (experiments / "small.yaml").write_text(
        f"{head}\n{sweep}".replace("dataset.divisiveness: 0.4,1", "seed: 0")
    )
    monkeypatch.delenv("ANNORUN_DATA", raising=False)
    code, text = check()
    assert code == 0
    assert "small: skipped: no data: dataset.path=nowhere: no such file or folder" in text
    monkeypatch.setenv("ANNORUN_DATA", str(tmp_path))
    code, text = check()
    assert code == 1
    assert "small: fault: dataset.path=nowhere" in text


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["large"], "annorun: large: no such measured file; allowed: small"),
        (["--minutes", "0"], "annorun: --minutes 0.0: allowed is a number above 0"),
    ],
)
def test_unusable_arguments(experiments: Path, check: Check, words: list[str], fault: str) -> None:
    code, text = check(*words)
    assert code == 2
    assert fault in text


TIMES = (
    ("benchmark_realm", "figure,ours,plain,ratio,difference"),
    ("aggregation", "tool,votes,seconds,peak_mib,accuracy,iterations,passes"),
)


@pytest.mark.parametrize(("name", "columns"), TIMES)
def test_a_file_of_times_is_read_and_not_run(
    experiments: Path, check: Check, name: str, columns: str
) -> None:
    path = experiments / "measured" / f"{name}.csv"
    shutil.copy(MEASURED / path.name, path)
    text = path.read_text()
    assert check(name) == (
        0,
        f"{name}: ok: times: header and keys\n1 files: 1 ok; 0 rows wait by their mark\n",
    )
    row = text.splitlines()[-1]
    faults = {
        # of other figures
        "rows are ": f"{text}{row}0\n",
        "the script writes": text.replace(
            columns, columns.replace("ours", "us").replace("tool", "x")
        ),
        "no machine": text.replace("# machine: ", "# "),
        "its command is not": text.replace("scripts/benchmark.py", "scripts/other.py"),
    }
    for words, changed in faults.items():
        assert changed != text
        path.write_text(changed)
        code, printed = check(name)
        assert code == 1 and words in printed


def test_a_stage_costs_what_the_most_expensive_row_that_shares_it_costs(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 1 of `a` took its network from the cache; row 2 of `b` has trained it."""
    monkeypatch.setattr(script, "shared_stage", lambda c: c["stage"])
    stages = {"a": ["net", None], "b": ["other", "net"]}
    cells = {n: [script.Cell("", [], {"stage": s}) for s in own] for n, own in stages.items()}
    seconds = {"a": ["3", "5"], "b": ["7", "90"]}
    stored = {
        n: script.Stored(n, [], [], [{"seconds": s} for s in own]) for n, own in seconds.items()
    }
    assert script.costs(cells, stored) == ({"a": [90.0, 5.0], "b": [7.0, 90.0]}, True)
    only = {"a": cells["a"][1:]}
    stored["a"].rows.pop(0)
    assert script.costs(only, stored) == ({"a": [5.0]}, False)


TASKS = ["dataset=digits", "noise=confusion", "annotator_dist=expert_hammer_spammer"]
TASKS += ["trainer=episodes"]
WRITERS = ["dataset=synthetic_styles", "model_size=tiny", "trainer.max_steps=3"]


def test_runs_share_a_stage_where_one_of_them_may_take_it_from_the_other(
    script: ModuleType,
) -> None:
    def stage(*words: str) -> str | None:
        return script.shared_stage(config.plain(config.compose("config", list(words))))

    network = stage(*TASKS, "method=meta_em")
    assert network and network == stage(*TASKS, "method=meta_em", "method.module.acquire=entropy")
    assert network == stage(*TASKS, "method=meta_em", "seed=1", "method.episodes.shots=1")
    assert network != stage(*TASKS, "method=meta_em", "trainer.max_steps=9")
    assert network != stage(*TASKS, "method=prototypical")
    assert stage(*TASKS, "method=shallow") is None
    first = stage(*WRITERS, "method=capo")
    assert first and first == stage(*WRITERS, "method=explain_sft", "seed=1")
    assert first != stage(*WRITERS, "method=explain_sft", "method.module.who=pooled")
    assert stage(*WRITERS, "method=explain_prompt") is None
    frozen = ["dataset=two_clauses", "model_size=tiny", "model_size.start=frozen"]
    encodings = stage(*frozen, "method=bert")
    assert encodings and encodings == stage(*frozen, "method=seedbert", "dataset.fold=1")
    assert encodings != stage(*frozen, "method=bert", "dataset.feelings=adjacent")
    assert stage("dataset=digits") is None
