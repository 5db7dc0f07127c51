"""One run, by `run(compose(...))`: its row, its files, and what each of the two seeds moves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from annorun import check, config, results
from annorun.errors import ConfigError
from annorun.run import load, run

Compose = Callable[..., DictConfig]
KEYS = {
    *("id", "name", "status", "choices", "overrides", "seed", "data_seed", "metrics", "steps"),
    *("seconds", "peak_memory_mb", "device", "versions", "commit", "dirty"),
}
SMOKE = ["dataset=digits", "trainer=smoke", "noise=systematic"]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[dict[str, Any], Path]]:
    """Return a function: overrides -> row and folder of a short run on digits, run once each."""
    known: dict[tuple[str, ...], tuple[dict[str, Any], Path]] = {}

    def go(*overrides: str) -> tuple[dict[str, Any], Path]:
        if overrides not in known:
            root = tmp_path_factory.mktemp("runs")
            row = run(config.compose("config", [*SMOKE, f"out_root={root}", *overrides]))
            (path,) = root.rglob("row.json")
            known[overrides] = row, path.parent
        return known[overrides]

    return go


Smoke = Callable[..., tuple[dict[str, Any], Path]]


def test_the_row_is_the_contract(smoke: Smoke) -> None:
    row, folder = smoke()
    assert set(row) == KEYS
    assert row == json.loads((folder / "row.json").read_text())
    assert (row["status"], row["seed"], row["data_seed"], row["device"]) == ("done", 0, 0, "cpu")
    assert list(row["choices"]) == list(check.GROUPS)
    assert row["choices"]["noise"] == "systematic"
    assert row["steps"] == 20
    assert row["seconds"] > 0
    assert row["peak_memory_mb"] > 50
    assert {"torch", "lightning", "numpy", "annorun"} <= set(row["versions"])
    assert all(isinstance(v, float) and np.isfinite(v) for v in row["metrics"].values())
    wanted = {"test/acc", "test/macro_f1", "test/nll", "test/ece", "annotators/mae"}
    assert wanted <= set(row["metrics"])


def test_the_files_are_there_and_read_back(smoke: Smoke) -> None:
    row, folder = smoke()
    assert {p.name for p in folder.iterdir()} == {
        *("row.json", "config.yaml", "metrics.csv", "annotators.csv", "predictions.csv"),
        "figure.png",
    }
    saved = config.plain(OmegaConf.load(folder / "config.yaml"))  # type: ignore[arg-type]
    assert results.identity(saved) == row["id"]
    assert results.folder(saved, row["id"]) == folder
    curves = results.read_csv(folder / "metrics.csv")
    assert [r["step"] for r in curves] == ["10", "20"]
    assert {"train/loss", "train/acc", "val/loss", "val/acc", "annotators/2"} <= set(curves[0])
    predictions = results.read_csv(folder / "predictions.csv")
    assert len(predictions) == round(0.3 * 1797)
    right = np.mean([r["label"] == r["truth"] for r in predictions])
    assert right == pytest.approx(row["metrics"]["test/acc"])
    assert sum(float(v) for k, v in predictions[0].items() if k[:2] == "p_") == pytest.approx(1)
    people = results.read_csv(folder / "annotators.csv")
    assert [r["votes"] for r in people] == ["1258"] * 3
    # accuracy .9 and .1 among K = 10 are mixtures (a - .1) / .9
    assert [float(r["true_expertise"]) for r in people] == pytest.approx([8 / 9, 0, 0])


def test_the_same_seed_gives_the_same_row_to_the_bit(smoke: Smoke) -> None:
    (one, first), (two, second) = smoke(), smoke("name=again")
    assert one["metrics"] == two["metrics"]
    assert one["id"] == two["id"]
    for name in ("predictions.csv", "metrics.csv", "annotators.csv"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_another_seed_gives_another_result_on_the_same_data(smoke: Smoke) -> None:
    (one, first), (two, second) = smoke(), smoke("seed=1")
    assert one["metrics"]["test/nll"] != two["metrics"]["test/nll"]

    def items(folder: Path) -> list[tuple[str, str]]:
        return [(r["item"], r["truth"]) for r in results.read_csv(folder / "predictions.csv")]

    assert items(first) == items(second)


def test_data_seed_alone_moves_the_data(compose: Compose) -> None:
    def crowd(*overrides: str) -> Any:
        return load(config.plain(compose("dataset=digits", *overrides)))

    def same(one: Any, two: Any) -> tuple[bool, bool]:
        votes = [
            np.column_stack((c.votes.item, c.votes.annotator, c.votes.label)) for c in (one, two)
        ]
        return bool((one.items.split == two.items.split).all()), np.array_equal(*votes)

    base = crowd()
    assert same(base, crowd()) == (True, True)
    for override in ("seed=1", "method=noisy", "trainer=smoke", "trainer.batch_size=8"):
        assert same(base, crowd(override)) == (True, True), override
    assert same(base, crowd("data_seed=1")) == (False, False)
    # another pool or noise moves the votes and leaves the split
    assert same(base, crowd("annotator_dist=spread")) == (True, False)
    assert same(base, crowd("noise=systematic")) == (True, False)


def test_a_vote_is_only_on_training_items(compose: Compose) -> None:
    crowd = load(config.plain(compose("dataset=digits")))
    assert set(crowd.items.split[crowd.votes.item]) == {"train"}
    assert len(np.unique(crowd.votes.item)) == (crowd.items.split == "train").sum()


@pytest.mark.parametrize("method", ["oracle", "noisy", "majority", "dawid_skene"])
def test_every_baseline_runs(smoke: Smoke, method: str) -> None:
    row, folder = smoke(f"method={method}", "trainer.max_steps=3", "annotator_dist=two_experts")
    assert row["steps"] == 3
    assert (folder / "labels.csv").is_file() == (method in ("majority", "dawid_skene"))
    if method == "majority":
        # two of three are right with .9 each: a majority is right more often than one alone
        assert row["metrics"]["labels/acc"] > 0.87


def test_the_oracle_learns_from_the_truth_alone(smoke: Smoke) -> None:
    """Other votes on the same items leave its answers to the bit, and move those of the noisy."""
    pools = ("annotator_dist=two_experts", "annotator_dist=one_expert")
    for method, alike in (("oracle", True), ("noisy", False)):
        words = (f"method={method}", "trainer.max_steps=3")
        one, other = ((smoke(*words, p)[1] / "predictions.csv").read_bytes() for p in pools)
        assert (one == other) == alike, method


@pytest.mark.parametrize("choose_on", ["votes", "gold"])
def test_the_best_weights_are_read_back(smoke: Smoke, choose_on: str) -> None:
    """A rate so high that training goes up and down: the row is that of a run to its best step."""
    wild = ("trainer.lr=0.01", "trainer.schedule=constant", "trainer.val_every=3")
    row, folder = smoke(*wild, "trainer.max_steps=36", f"trainer.choose_on={choose_on}")
    assert not list(folder.glob("*.ckpt"))
    curves = results.read_csv(folder / "metrics.csv")
    assert len(curves) == 12
    losses = [float(c["val/loss"]) for c in curves]
    scores = [float(c["val/acc"]) for c in curves]
    best = losses.index(min(losses)) if choose_on == "votes" else scores.index(max(scores))
    assert best < 11, "the last is the best: this case shows nothing"
    until, _ = smoke(*wild, f"trainer.max_steps={curves[best]['step']}")
    last, _ = smoke(*wild, "trainer.max_steps=36")
    assert row["metrics"]["test/nll"] == until["metrics"]["test/nll"]
    assert row["metrics"]["test/nll"] != last["metrics"]["test/nll"]


def test_soft_labels_are_not_hard_ones(smoke: Smoke) -> None:
    """Three votes that differ: the shares teach other weights than the most frequent label."""
    hard, soft = (
        smoke("method=majority", f"method.module.target={t}")[0] for t in ("hard", "soft")
    )
    assert hard["metrics"]["labels/acc"] == soft["metrics"]["labels/acc"]
    assert hard["metrics"]["test/nll"] != soft["metrics"]["test/nll"]


def test_dropout_depends_on_the_seed(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of the global generator at the first step, before anything is drawn."""
    import torch

    from annorun.method.base import Method
    from annorun.seeds import child

    states = []
    step = Method.training_step

    def first(self: Method, batch: Any) -> Any:
        states.append((torch.initial_seed(), torch.get_rng_state()))
        return step(self, batch)

    monkeypatch.setattr(Method, "training_step", first)
    for seed in (0, 3):
        run(compose(*SMOKE, f"seed={seed}", "trainer.max_steps=1", "trainer.val_every=1"))
    for seed, (initial, state) in zip((0, 3), states, strict=True):
        assert initial == child(seed, "dropout")
        fresh = torch.Generator().manual_seed(initial)
        assert torch.equal(fresh.get_state(), state)


def test_the_curves_reach_the_last_step(smoke: Smoke) -> None:
    _, folder = smoke("trainer.max_steps=7", "trainer.val_every=5")
    curves = results.read_csv(folder / "metrics.csv")
    assert [row["step"] for row in curves] == ["5", "7"]
    assert all(row["val/acc"] and row["train/loss"] for row in curves)


def test_a_diverged_run_fails(smoke: Smoke) -> None:
    with pytest.raises(FloatingPointError, match="training diverged"):
        smoke("method=noisy", "trainer.lr=1e30")


def test_an_aggregation_has_a_row_and_no_network(compose: Compose, table: Path) -> None:
    row = run(compose("dataset=table", f"dataset.path={table}", "method=majority"))
    assert set(row) == KEYS
    assert (row["steps"], row["device"], row["metrics"]["labels/converged"]) == (0, "cpu", 1.0)
    assert not any(k.startswith("test/") for k in row["metrics"])


def test_the_labels_of_a_table_by_hand(compose: Compose, table: Path, tmp_path: Path) -> None:
    """ann and bob agree everywhere, so the majority is theirs: item i has label i mod 2."""
    run(compose("dataset=table", f"dataset.path={table}", "method=majority"))
    (path,) = tmp_path.rglob("labels.csv")
    labels = {r["item"]: (r["label"], float(r["p_1"])) for r in results.read_csv(path)}
    assert {k: v[0] for k, v in labels.items()} == {f"t{i}": str(i % 2) for i in range(8)}
    assert labels["t1"] == ("1", 1.0)
    assert labels["t3"] == ("1", pytest.approx(2 / 3))


def test_gold_in_a_table_is_scored(compose: Compose, tmp_path: Path) -> None:
    path = tmp_path / "gold.csv"
    rows = [
        ("a", "x", 1, 1),
        ("a", "y", 1, 1),
        ("b", "x", 0, 1),
        ("b", "y", 0, 1),
        ("c", "x", 0, ""),
    ]
    text = "".join(f"{','.join(map(str, row))}\n" for row in rows)
    path.write_text("task,worker,label,gold\n" + text)
    row = run(compose("dataset=table", f"dataset.path={path}", "method=majority"))
    assert row["metrics"]["labels/acc"] == 0.5


@pytest.mark.parametrize("method", ["majority", "dawid_skene"])
def test_shuffled_rows_give_the_same_files_to_the_bit(
    compose: Compose, tmp_path: Path, method: str
) -> None:
    rng = np.random.default_rng(0)
    rows = [f"t{i},w{w},{rng.integers(3)}" for i in range(40) for w in range(4)]
    written = []
    for k in range(2):
        path = tmp_path / f"{k}.csv"
        path.write_text("\n".join(["task,worker,label", *rows]) + "\n")
        rng.shuffle(rows)
        root = tmp_path / f"runs{k}"
        words = ["dataset=table", f"dataset.path={path}", f"method={method}", f"out_root={root}"]
        run(config.compose("config", words))
        (folder,) = (p.parent for p in root.rglob("row.json"))
        written.append({n: (folder / n).read_bytes() for n in ("labels.csv", "annotators.csv")})
    assert written[0] == written[1]
    assert len(results.read_csv(folder / "labels.csv")) == 40


def test_what_the_data_get_wrong_is_refused_before_the_folder_is_made(
    compose: Compose, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("task,worker,label\na,x,1\na,x,0\n")
    with pytest.raises(ConfigError, match="line 3"):
        run(compose("dataset=table", f"dataset.path={path}"))
    assert not (tmp_path / "runs").exists()


def test_run_checks_a_config_that_was_never_checked(compose: Compose) -> None:
    cfg = OmegaConf.create(OmegaConf.to_container(compose("dataset=digits")))
    cfg.trainer.lr = -1
    with pytest.raises(ConfigError, match=r"trainer\.lr=-1"):
        run(cfg)


def test_an_alias_of_something_else_is_refused_by_its_own_module(
    monkeypatch: pytest.MonkeyPatch, compose: Compose
) -> None:
    """The source says `digits`; at run time the name leads to another package's function."""
    from scipy.special import logsumexp

    import annorun.dataset.digits

    for other in (logsumexp, print):
        monkeypatch.setattr(annorun.dataset.digits, "digits", other)
        with pytest.raises(ConfigError, match="not allowed"):
            run(compose("dataset=digits", "method=majority", "model_size=none"))


def test_groups_are_written_and_scored(compose: Compose) -> None:
    words = ["dataset=subpopulation_items", "dataset.n_items=60", "dataset.divisiveness=.5"]
    cfg = compose(*words, "method.aggregator.n_restarts=2", "annotator_dist.most_items=12")
    row = run(cfg)
    names = {"labels/acc", "labels/acc_0", "labels/acc_1", "labels/disagreement"}
    assert names | {"labels/disagreement_true", "annotators/pearson_0"} <= row["metrics"].keys()
    folder = next(Path(cfg.out_root).rglob("row.json")).parent
    labels = results.read_csv(folder / "labels.csv")
    assert [sum(r["group"] == g for r in labels) for g in ("", "0", "1")] == [60, 60, 60]
    groups = [r["group"] for r in results.read_csv(folder / "annotators.csv")]
    assert sorted(set(groups)) == ["0", "1"]
    assert groups.count("0") == 24
    # simulated votes need no report on who voted
    assert not (folder / "report.md").exists()


@pytest.mark.parametrize(
    ("method", "words"),
    [
        # found out while the file is read, and while the votes are aggregated
        ("nutmeg", "needs groups, and the data have none"),
        ("lfc", "wants two classes"),
    ],
)
def test_a_refused_aggregation_leaves_nothing(
    compose: Compose, tmp_path: Path, method: str, words: str
) -> None:
    path = tmp_path / "votes.csv"
    rows = [f"t{i},w{w},{(i + w) % 3}" for i in range(6) for w in range(3)]
    path.write_text("\n".join(["task,worker,label", *rows]) + "\n")
    cfg = compose("dataset=table", f"dataset.path={path}", f"method={method}")
    with pytest.raises(ConfigError, match=words):
        run(cfg)
    assert not list((tmp_path / "runs").rglob("*.*"))


def test_a_table_gets_a_report(compose: Compose, table: Path) -> None:
    cfg = compose("dataset=table", f"dataset.path={table}")
    row = run(cfg)
    assert 0 < row["metrics"]["agreement/krippendorff_alpha"] < 1
    text = next(Path(cfg.out_root).rglob("report.md")).read_text(encoding="utf-8")
    assert "24 votes of 3 annotators on 8 items" in text


def test_controls_reach_the_aggregator(compose: Compose, tmp_path: Path) -> None:
    """Everybody votes 0 on the controls, whose label is 1; who knows nothing of them refuses."""
    path = tmp_path / "votes.csv"
    rows = [f"t{i},w{w},0,{1 if i < 2 else ''}" for i in range(4) for w in range(3)]
    path.write_text("\n".join(["task,worker,label,control", *rows]) + "\n")
    words = ["dataset=table", f"dataset.path={path}"]
    cfg = compose(*words, "method=mace")
    run(cfg)
    file = next(Path(cfg.out_root).rglob("labels.csv"))
    assert [r["label"] for r in results.read_csv(file)][:2] == ["1", "1"]
    with pytest.raises(ConfigError, match="uses no control items"):
        run(compose(*words, "method=majority"))
