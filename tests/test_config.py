"""conf/ and experiments/: every file passes the check, says its source, and pairs with code."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

import annorun
from annorun import check, cli, config
from annorun.errors import ConfigError

Compose = Callable[..., DictConfig]
CONF, EXPERIMENTS = config.conf_dir(), config.experiments_dir()
PACKAGE = Path(annorun.__file__).parent
OPTIONS = {group: sorted(p.stem for p in (CONF / group).glob("*.yaml")) for group in check.GROUPS}
ALL = [(group, option) for group, options in OPTIONS.items() for option in options]
# what an option needs beside it
BESIDE = {
    ("method", "realm"): ["dataset=digits"],
    ("dataset", "table"): ["dataset.path={table}"],
    ("dataset", "explained_table"): ["dataset.path={table}"],
    ("method", "signal"): ["dataset=synthetic_styles"],
    **{
        ("method", name): ["dataset=synthetic_styles", "model_size=tiny"]
        for name in ("capo", "explain_prompt", "explain_sft")
    },
    ("model_size", "mini"): ["dataset=popquorn"],
    ("annotator_dist", "real"): ["dataset=table", "dataset.path={table}"],
    ("model_size", "none"): ["dataset=digits", "method=majority"],
    ("method", "majority_by_group"): ["dataset=subpopulation_items"],
    ("method", "nutmeg"): ["dataset=subpopulation_items"],
    ("method", "individual"): ["dataset=popquorn"],
    ("noise", "spam"): ["dataset=subpopulation_items"],
    ("annotator_dist", "subpopulations"): ["dataset=subpopulation_items"],
    ("noise", "confusion"): ["dataset=digits", "annotator_dist=expert_hammer_spammer"],
    **{
        ("annotator_dist", name): ["dataset=digits", "noise=confusion"]
        for name in ("expert_hammer_spammer", "pair_flip", "class_spammer")
    },
    **{
        ("dataset", name): ["method=meta_em"]
        for name in ("omniglot", "omniglot_turned", "miniimagenet")
    },
    **{
        ("method", name): [
            "dataset=digits",
            "noise=confusion",
            "annotator_dist=expert_hammer_spammer",
        ]
        for name in ("meta_em", "prototypical", "maml", "shallow", "crowd_tasks")
    },
    ("model_size", "small"): ["dataset=synthetic_qa"],
    ("model_size", "base"): ["dataset=synthetic_qa"],
    ("model_size", "large"): ["dataset=synthetic_qa"],
}
# keys that name or wire something, and hold no value of a paper
STRUCTURAL = {
    *("_target_", "kind", "provides", "accepts", "needs", "aggregator", "module", "out_root"),
    *("accelerator", "precision", "family", "seq2seq", "encoder", "image", "features", "start"),
    "project",
}


def test_there_are_as_many_files_as_groups_list() -> None:
    folders = sorted(p.name for p in CONF.iterdir() if p.is_dir())
    assert folders == sorted(check.GROUPS)
    assert len(list(CONF.rglob("*.yaml"))) == len(ALL) + 1 >= 28
    assert all(OPTIONS.values())


@pytest.fixture
def data_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set ANNORUN_DATA to a folder with an empty place for each data set.

    The check asks only whether the place is there.
    """
    for file in (CONF / "dataset").glob("*.yaml"):
        for name in re.findall(r"{oc\.env:ANNORUN_DATA,data}/(\S+)", file.read_text("utf-8")):
            place = tmp_path / name
            (place.parent if place.suffix else place).mkdir(parents=True, exist_ok=True)
            if place.suffix:
                place.touch()
    monkeypatch.setenv("ANNORUN_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("group", "option"), ALL)
def test_every_option_passes_the_check(
    group: str, option: str, compose: Compose, table: Path, data_folders: Path
) -> None:
    beside = BESIDE.get((group, option), [] if group == "dataset" else ["dataset=digits"])
    beside = [o.format(table=table) for o in beside]
    cfg = compose(f"{group}={option}", *beside)
    assert cfg.choices[group] == option
    assert OmegaConf.is_readonly(cfg)


def test_every_experiment_is_a_multirun() -> None:
    names = config.sweeps()
    assert len(names) == len(list(EXPERIMENTS.glob("*.yaml"))) >= 2
    for name in names:
        own = OmegaConf.load(EXPERIMENTS / f"{name}.yaml")
        assert own.hydra.mode == "MULTIRUN", name
        assert set(own.keys() & {"smoke", "keys", "metric"}) == {"smoke", "keys", "metric"}, name
        assert set(own.get("also") or []) <= set(names), name


def each_value(cells: list[list[str]]) -> list[list[str]]:
    """Return cells that hold every pair of groups and every override of the others."""
    seen: set[object] = set()
    chosen = []
    for cell in cells:
        groups = tuple(o for o in cell if o.split("=")[0] in check.GROUPS)
        if not {groups, *cell} <= seen:
            seen |= {groups, *cell}
            chosen.append(cell)
    return chosen


@pytest.mark.parametrize("name", config.sweeps())
def test_an_experiments_values_pass_the_check(name: str, data_folders: Path) -> None:
    """Its smoke cells are checked where they are run."""
    cells = each_value(cli.cells(name, []))
    with config.loader() as known:
        for cell in cells:
            cfg, faults = config.compose_cell(known, name, cell)
            assert cfg is not None and not faults and not config.faults(cfg), cell


@pytest.mark.parametrize(
    "path", sorted(CONF.rglob("*.yaml")), ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_every_value_says_where_it_comes_from(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    first = next(line for line in text.splitlines() if not line.startswith("# @package"))
    assert re.match(r"# \w", first), "the first comment is the option's line in --help"
    for line in text.split("\nhydra:")[0].splitlines():
        value = re.match(r"\s*(\w+): (?P<value>[^#]*[^#\s])\s*(#\s*(?P<source>.+))?$", line)
        if value and value[1] not in STRUCTURAL and not line.startswith(("name: ", "    - ")):
            commented = value["source"] or value["value"] in ("null", "none", "csv", "wandb")
            assert commented, f"{path.name}: {line!r} has no source"


@pytest.mark.parametrize("stem", OPTIONS["method"])
def test_a_method_names_its_file(stem: str) -> None:
    node = OmegaConf.load(CONF / "method" / f"{stem}.yaml")
    targets = [part._target_.split(".")[1:3] for part in (node.aggregator, node.module) if part]
    assert all((PACKAGE / folder / f"{file}.py").is_file() for folder, file in targets)
    another = {
        **dict.fromkeys(("oracle", "noisy", "bert", "ldl"), "classifier"),
        "individual": "multi_task",
        **dict.fromkeys(("bagging", "shared_encoder"), "seedbert"),
        "explain_sft": "capo",
    }
    if stem in another:
        assert ["method", another[stem]] in targets
    else:
        # a network may start from another method's aggregator
        (folder,) = [folder for folder, file in targets if file == stem]
        assert folder in ("method", "aggregation")


def test_the_defaults() -> None:
    base = OmegaConf.load(CONF / "config.yaml")
    chosen = {k: v for d in base.defaults if not isinstance(d, str) for k, v in d.items()}
    assert {g: chosen[g] for g in check.GROUPS} == {
        "method": "realm",
        "dataset": "synthetic_qa",
        "noise": "uniform",
        "annotator_dist": "one_expert",
        "model_size": "tiny",
        "trainer": "cpu",
        "logger": "none",
    }
    assert base.out_root == "runs"
    assert (base.seed, base.data_seed, base.mode) == (0, 0, "cached")


def test_every_trainer_has_the_same_keys() -> None:
    files = [OmegaConf.load(CONF / "trainer" / f"{o}.yaml") for o in OPTIONS["trainer"]]
    assert len({tuple(sorted(f.keys())) for f in files}) == 1


def test_help_lists_every_group_and_option() -> None:
    text = cli.help_text()
    for group, option in ALL:
        section = text.split(f"\n{group}\n")[1].split("\n\n")[0]
        assert re.search(rf"^ [ *]{option} +\w", section, re.M), (group, option)
    for name in config.sweeps():
        assert re.search(rf"^  {name} +\w", text, re.M), name
    starred = re.findall(r"^ \*(\w+)", text, re.M)
    assert starred == ["realm", "synthetic_qa", "uniform", "one_expert", "tiny", "cpu", "none"]


def test_data_with_votes_bring_their_noise_pool_and_size(compose: Compose, table: Path) -> None:
    cfg = compose("dataset=table", f"dataset.path={table}")
    brought = {g: cfg.choices[g] for g in ("noise", "annotator_dist", "model_size")}
    assert brought == {"noise": "none", "annotator_dist": "real", "model_size": "none"}
    assert compose("dataset=table", f"dataset.path={table}", "method=majority").choices.method == (
        "majority"
    )


def test_the_command_line_wins_over_what_the_data_bring(compose: Compose, tmp_path: Path) -> None:
    path = f"dataset.path={tmp_path}"
    assert compose("dataset=labelme", path).choices.annotator_dist == "real"
    for order in (["dataset=labelme", "noise=uniform"], ["noise=uniform", "dataset=labelme"]):
        cfg = compose(*order, path, "annotator_dist=spread")
        assert (cfg.choices.noise, cfg.choices.annotator_dist) == ("uniform", "spread")


def test_compose_gives_every_fault(compose: Compose) -> None:
    with pytest.raises(ConfigError) as error:
        compose("dataset=digits", "method=reelm", "seed=-1")
    assert len(error.value.faults) == 2


def test_overrides_and_choices_are_in_the_config(compose: Compose) -> None:
    cfg = compose("dataset=digits", "seed=3")
    assert cfg.overrides[1:] == ["dataset=digits", "seed=3"]
    assert list(cfg.choices) == list(check.GROUPS)
    assert cfg.seed == 3


def test_cells_of_a_sweep_file() -> None:
    cells = cli.cells("realm_table1", [])
    assert len(cells) == len({tuple(c) for c in cells}) == 3 * 5 * 2 * 3 * 5
    first = {"model_size=small", "dataset=arc", "method=realm", "noise=uniform"}
    assert first | {"annotator_dist=spread", "seed=4"} <= set(cells[14])


def test_the_command_line_replaces_a_sweeps_values_and_adds_to_them() -> None:
    cells = cli.cells("realm_table1", ["seed=7", "method=noisy", "trainer.lr=0.1,0.2", "name=x"])
    assert len(cells) == 3 * 5 * 3 * 2
    for cell in cells:
        assert [o for o in cell if o.startswith("seed=")] == ["seed=7"]
        assert [o for o in cell if o.startswith("method=")] == ["method=noisy"]
        assert "name=x" in cell
    assert {o for cell in cells for o in cell if "lr" in o} == {"trainer.lr=0.1", "trainer.lr=0.2"}


def test_cells_of_ranges_and_globs() -> None:
    assert cli.cells("config", ["seed=range(1,4)"]) == [["seed=1"], ["seed=2"], ["seed=3"]]
    assert cli.cells("config", ["method=glob(*)"]) == [[f"method={m}"] for m in OPTIONS["method"]]


def test_a_bad_seed_hides_behind_no_good_one() -> None:
    found = cli.faults_in_command("config", ["dataset=digits", "seed=0,-1,x"], multirun=True)
    assert [line.split(":")[0] for line in found] == ["seed=-1", "seed=x"]


def shell(*words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "annorun", *words],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_sweep_file_is_found_from_another_folder_and_shown(tmp_path: Path) -> None:
    done = shell("-cn", "realm_pools", "--cfg", "job", "dataset=digits", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = OmegaConf.create(done.stdout)
    assert (shown.name, shown.dataset.kind) == ("realm_pools", "image")
    assert list(tmp_path.iterdir()) == []


def test_flags_may_stand_between_overrides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["annorun", "dataset=digits", "--cfg", "job", "seed=3"])
    cli.main()
    assert OmegaConf.create(capsys.readouterr().out).seed == 3
    assert list(tmp_path.iterdir()) == []


PLUGIN = '''
from torch.nn import functional as F

from annorun.method.base import Batch, Method


class Plain(Method):
    """Learns every vote; has no constructor of its own."""

    def loss(self, logits, batch: Batch):
        return F.cross_entropy(logits[batch["row"]], batch["label"])
'''
PLUGIN_YAML = """# Plain: a method from outside
accepts: [choice, features, image]
needs: [votes]
aggregator: null
module:
  _target_: outsider.plain.Plain
"""


@pytest.fixture
def outsider(tmp_path: Path) -> Path:
    """Return a folder that holds an installed package which registers itself as a plugin."""
    site = tmp_path / "site"
    info = site / "outsider-1.0.dist-info"
    conf = site / "outsider" / "conf" / "method"
    for folder in (info, conf):
        folder.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outsider\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[annorun.plugins]\noutsider = outsider\n")
    (site / "outsider" / "__init__.py").write_text("")
    (site / "outsider" / "plain.py").write_text(PLUGIN)
    (conf / "plain.yaml").write_text(PLUGIN_YAML)
    return site


def test_a_method_from_an_outside_package_runs(outsider: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    words = ("method=plain", "dataset=digits", "trainer=smoke")
    refused = shell(*words, cwd=here)
    assert refused.returncode == 2
    assert "method=plain: no such option" in refused.stderr
    done = shell(*words, cwd=here, PYTHONPATH=str(outsider))
    assert done.returncode == 0, done.stderr
    folders = [p.parent.name for p in here.rglob("row.json")]
    assert len(folders) == 1
    assert folders[0].startswith("plain-digits-uniform-one_expert-tiny-s0-")
    unknown = shell(*words, "+method.module.rate=1", cwd=here, PYTHONPATH=str(outsider))
    assert unknown.returncode == 2
    assert "method.module.rate=1: unknown key" in unknown.stderr
    assert (
        "plain                  Plain: a method from outside"
        in shell("--help", cwd=here, PYTHONPATH=str(outsider)).stdout
    )
