"""The parts of a run, without a network: whose truth, seed and scale each takes and hands on."""

import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig

from annorun import config, noise, results
from annorun import run as runner
from annorun.annotator_dist import types
from annorun.errors import ConfigError
from annorun.run import Crowd, aggregate, execute, load, run
from annorun.scores import summary
from annorun.scores.recovery import recovery
from annorun.seeds import rng
from annorun.votes import Items, Posterior, Votes, group_labels, hard_labels

Compose = Callable[..., DictConfig]
# 7 items; 1, 3, 5 and 6 are train, of classes 0, 0, 2, 0
SPLIT = np.array(["test", "train", "test", "train", "test", "train", "train"])
TRUTH = np.array([2, 0, 1, 0, 1, 2, 0])
ITEMS = Items(
    *("features", {}, np.where(np.arange(7) == 2, "val", SPLIT), 3),
    truth=TRUTH,
    held_out=Votes([0], [0], [1], 7, 1, 3),  # type: ignore[arg-type]
    names=list("abcdefg"),
    class_names=["no", "yes", "so"],
    annotator_names=["ann"],
    group_names=["all"],
)


def columns(votes: Votes) -> list[list[int]]:
    return np.column_stack((votes.item, votes.annotator, votes.label)).tolist()


@pytest.mark.parametrize(
    "overrides",
    [
        ["dataset=subpopulation_items", "dataset.n_items=60"],
        ["dataset=digits", "noise=confusion", "annotator_dist=expert_hammer_spammer"],
    ],
    ids=["groups", "types"],
)
def test_a_pool_that_is_drawn_hangs_on_the_data_seed_alone(
    compose: Compose, overrides: list[str]
) -> None:
    one, same, other = (
        load(config.plain(compose(*overrides, seed)))
        for seed in ("seed=0", "seed=1", "data_seed=1")
    )
    assert one.accuracy is not None and same.accuracy is not None and other.accuracy is not None
    assert one.accuracy.tolist() == same.accuracy.tolist()
    assert columns(one.votes) == columns(same.votes)
    assert one.accuracy.tolist() != other.accuracy.tolist()
    assert not one.real


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Let `digits` be ITEMS; return what every other target is given, by its name."""
    seen: dict[str, dict[str, Any]] = {}
    build = runner.build

    def built(node: dict[str, Any], **arguments: Any) -> Any:
        name = node["_target_"].rpartition(".")[2]
        seen[name] = arguments
        return (ITEMS, None) if name == "digits" else build(node, **arguments)

    monkeypatch.setattr(runner, "build", built)
    return seen


def test_simulated_votes_are_of_the_training_items(
    compose: Compose, given: dict[str, dict[str, Any]]
) -> None:
    """Four of seven items, three of class 0, one of class 2; matrices that differ by class."""
    words = ["dataset=digits", "noise=confusion", "annotator_dist=class_spammer", "data_seed=3"]
    shares = "{expert: 0.0, hammer: 0.0, spammer: 0.0, class_spammer: 1.0}"
    c = config.plain(compose(*words, "seed=9", f"annotator_dist.train={shares}"))
    crowd = load(c)
    train = np.array([1, 3, 5, 6])
    assert given["types"]["n_items"] == 4 and given["types"]["n_classes"] == 3
    keys = {k: v for k, v in c["annotator_dist"].items() if k != "_target_"}
    pool = types(n_classes=3, rng=rng(3, "pool"), **keys)
    drawn = noise.confusion(truth=TRUTH[train], pool=pool, n_classes=3, rng=rng(3, "noise"))
    assert crowd.votes.dense()[train].tolist() == drawn.dense().tolist()
    assert set(crowd.votes.item.tolist()) == {1, 3, 5, 6} and crowd.votes.n_items == 7
    assert pool.confusion is not None and crowd.accuracy is not None
    right = pool.confusion.diagonal(axis1=1, axis2=2)
    assert crowd.accuracy == pytest.approx(0.75 * right[:, 0] + 0.25 * right[:, 2])
    # the mean over the classes would say something else of somebody
    assert np.abs(crowd.accuracy - right.mean(axis=1)).max() > 0.05


def test_simulated_annotators_have_no_names_and_no_votes_of_others(
    compose: Compose, given: dict[str, dict[str, Any]]
) -> None:
    crowd = load(config.plain(compose("dataset=digits")))
    assert crowd.items.annotator_names is crowd.items.group_names is crowd.items.held_out is None
    # the items keep theirs
    assert crowd.items.names == ITEMS.names and crowd.items.class_names == ITEMS.class_names


def test_of_a_plugins_noise_the_accuracy_is_counted(
    compose: Compose,
    given: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first annotator is always right, the second on the first two of four items."""
    source = """
        from annorun.votes import Votes

        def half(*, truth, pool, n_classes, rng):
            wrong = [0, 0, 1, 1]
            label = [*truth, *((t + w) % n_classes for t, w in zip(truth, wrong))]
            return Votes([*range(4)] * 2, [0] * 4 + [1] * 4, label, 4, 2, n_classes)
        """
    (tmp_path / "plugged_noise.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(tmp_path)
    c = config.plain(compose("dataset=digits"))
    crowd = load(c | {"noise": {"_target_": "plugged_noise.half"}})
    assert crowd.accuracy is not None and crowd.accuracy.tolist() == [1, 0.5]


def test_of_real_votes_the_accuracy_is_counted_where_the_truth_is_there(
    compose: Compose, tmp_path: Path
) -> None:
    """x is right in 2 of 3, y in 1 of 2; the gold label of d is not there."""
    path = tmp_path / "gold.csv"
    rows = ["a,x,1,1", "b,x,0,0", "c,x,1,0", "d,x,0,", "a,y,0,1", "b,y,0,0"]
    path.write_text("\n".join(["task,worker,label,gold", *rows]) + "\n")
    words = ["dataset=table", f"dataset.path={path}"]
    crowd = load(config.plain(compose(*words)))
    assert crowd.real and crowd.accuracy is not None
    assert crowd.accuracy.tolist() == pytest.approx([2 / 3, 1 / 2])
    assert load(config.plain(compose(*words, "dataset.gold=none"))).accuracy is None
    cfg = compose(*words, "method=majority")
    row = run(cfg)
    (file,) = Path(cfg.out_root).rglob("annotators.csv")
    shown = results.read_csv(file)
    assert [float(r["true_expertise"]) for r in shown] == pytest.approx([2 / 3, 1 / 2])
    errors = [abs(float(r["expertise"]) - float(r["true_expertise"])) for r in shown]
    assert row["metrics"]["annotators/mae"] == pytest.approx(np.mean(errors))


# three annotators, the first two of group 0; votes on items 5, 3, 1 and 6 (a tie)
VOTES = Votes(
    *map(
        np.array,
        ([5, 5, 5, 3, 3, 1, 6, 6], [0, 1, 2, 0, 2, 1, 0, 1], [2, 2, 0, 1, 1, 0, 0, 2]),
    ),
    *(7, 3, 3),
    group=np.array([0, 0, 1]),
)
PROBS = np.full((7, 3), 1 / 3)
PROBS[[5, 3, 1, 6]] = [[0.25, 0, 0.75], [0, 1, 0], [1, 0, 0], [0.5, 0, 0.5]]
PLANTED = np.array([0.9, 0.6, 0.5])


def settings(target: str = "hard", method: str = "mace") -> dict[str, Any]:
    """Return what `execute` reads of a config; the two seeds differ."""
    node = {"episodes": None, "module": {"target": target}}
    return {"method": node, "seed": 3, "data_seed": 5, "choices": {"method": method}}


class Network:
    """Answers what it was told, and remembers what it was given."""

    steps, device = 7, "odd"

    def __init__(self, **answers: Any) -> None:
        nothing = dict.fromkeys(("group_probs", "expertise", "labels"))
        answers = {"probs": np.eye(3), "scale": "accuracy", "metrics": {}} | nothing | answers
        self.answers = SimpleNamespace(**answers)

    def fit(self, *arguments: Any) -> Any:
        self.given = arguments
        return self.answers

    def refuse(self, posterior: Posterior | None) -> None:
        pass


def ties() -> Posterior:
    """Return a posterior of many ties, so that no generator but one draws its labels."""
    probs = np.concatenate([PROBS, np.full((60, 3), 1 / 3)])
    both = np.stack([probs, np.roll(probs, 1, axis=1)], axis=1)
    return Posterior(probs, np.ones(3), group_probs=both, confusion=np.full((3, 3, 3), 1 / 3))


def crowd(votes: Votes = VOTES, real: bool = False, n: int = 7, **names: Any) -> Crowd:
    split = np.concatenate([SPLIT, np.full(n - 7, "train")])
    truth = np.concatenate([TRUTH, np.zeros(n - 7, dtype=np.int64)])
    items = Items(*("features", {}, split, 3), truth=truth, **names)
    return Crowd(items, replace(votes, n_items=n), PLANTED, real)


@pytest.mark.parametrize("target", ["hard", "soft"])
def test_a_network_learns_the_aggregated_labels_of_its_items(tmp_path: Path, target: str) -> None:
    posterior, network = ties(), Network()
    execute(settings(target), crowd(n=67), posterior, network, tmp_path)
    learned, folder, by_group, confusion = network.given
    labels = hard_labels(posterior.probs, rng=rng(3, "ties"))
    assert learned.tolist() == (posterior.probs if target == "soft" else np.eye(3)[labels]).tolist()
    drawn = group_labels(posterior, rng=rng(3, "group_ties"))
    assert drawn is not None and by_group.tolist() == drawn.tolist()
    assert (folder, confusion) == (tmp_path, posterior.confusion)


def test_without_an_aggregator_a_network_learns_from_the_votes(tmp_path: Path) -> None:
    network = Network()
    execute(settings("annotators"), crowd(), None, network, tmp_path)
    assert network.given == (None, tmp_path, None, None)
    assert not (tmp_path / "labels.csv").exists()


def test_ties_in_labels_csv_are_drawn_by_the_runs_seed(tmp_path: Path) -> None:
    """Every one of 67 items is voted on and tied, for all and in each group."""
    item = np.arange(67)
    votes = Votes(item, item % 3, item % 3, 67, 3, 3, group=VOTES.group)
    posterior = replace(ties(), probs=np.full((67, 3), 1 / 3))
    posterior = replace(posterior, group_probs=np.full((67, 2, 3), 1 / 3))
    one = replace(crowd(n=67), votes=votes)
    execute(settings(), one, posterior, None, tmp_path)
    shown = [int(r["label"]) for r in results.read_csv(tmp_path / "labels.csv")]
    labels = hard_labels(posterior.probs, rng=rng(3, "ties"))
    by_group = group_labels(posterior, rng=rng(3, "group_ties"))
    assert by_group is not None and shown == [*labels, *by_group[:, 0], *by_group[:, 1]]


def test_groups_are_called_by_their_names_in_every_file(tmp_path: Path) -> None:
    both = np.stack([PROBS, np.roll(PROBS, 1, axis=1)], axis=1)
    one = replace(crowd(group_names=["young", "old"]), accuracy=PLANTED)
    metrics = execute(settings(), one, Posterior(PROBS, PLANTED, group_probs=both), None, tmp_path)
    lines = results.read_csv(tmp_path / "labels.csv")
    # item 3 is of class 1 for the young, and of the next for the old
    assert {r["group"]: r["label"] for r in lines if r["item"] == "3"} == {
        "": "1",
        "young": "1",
        "old": "2",
    }
    people = results.read_csv(tmp_path / "annotators.csv")
    assert [r["group"] for r in people] == ["young", "young", "old"]
    assert metrics["annotators/mae_young"] == metrics["annotators/mae_old"] == 0


def test_inferred_groups_are_those_of_the_files(tmp_path: Path) -> None:
    """Found: the first annotator alone, against the names of the groups in the data."""
    both = np.stack([PROBS, np.roll(PROBS, 1, axis=1)], axis=1)
    told = Posterior(PROBS, PLANTED - 0.1, group_probs=both, group=np.array([1, 0, 0]))
    one = crowd(group_names=["young", "old"])
    metrics = execute(settings(), one, told, None, tmp_path)
    people = results.read_csv(tmp_path / "annotators.csv")
    assert [r["group"] for r in people] == ["1", "0", "0"]
    assert {r["group"] for r in results.read_csv(tmp_path / "labels.csv")} == {"", "0", "1"}
    # how well annotators were recovered is told by the data's groups, also where one was found
    alone = replace(told, group_probs=both[:, :1], group=np.zeros(3, dtype=np.int64))
    for found in (metrics, execute(settings(), one, alone, None, tmp_path)):
        shown = {key: value for key, value in found.items() if key.startswith("annotators/mae_")}
        assert shown == pytest.approx({"annotators/mae_young": 0.1, "annotators/mae_old": 0.1})


def test_answers_are_held_against_the_truth_of_the_test_items(tmp_path: Path) -> None:
    """Items 0, 2 and 4 are test, of classes 2, 1 and 1; the answers are right in the last two."""
    probs = np.array([[0.5, 0.25, 0.25], [0.0, 0.75, 0.25], [0.25, 0.75, 0.0]])
    metrics = execute(settings("annotators"), crowd(), None, Network(probs=probs), tmp_path)
    assert metrics["test/acc"] == pytest.approx(2 / 3)
    assert metrics["test/nll"] == pytest.approx(-np.log([0.25, 0.75, 0.75]).mean())
    shown = results.read_csv(tmp_path / "predictions.csv")
    assert [(r["item"], r["label"], r["truth"]) for r in shown] == [
        *(("0", "0", "2"), ("2", "1", "1"), ("4", "1", "1")),
    ]


def test_labels_by_a_rule_stand_in_place_of_the_most_probable(tmp_path: Path) -> None:
    """Three ties, all decided for class 1, which is right in two: no tie counts a third."""
    rule = Network(probs=np.full((3, 3), 1 / 3), labels=np.array([1, 1, 1]))
    metrics = execute(settings("annotators"), crowd(), None, rule, tmp_path)
    assert metrics["test/acc"] == pytest.approx(2 / 3)
    # class 1: 2 * 2 / (2 * 2 + 1), class 2 is never said
    assert metrics["test/macro_f1"] == pytest.approx((4 / 5 + 0) / 2)
    shown = results.read_csv(tmp_path / "predictions.csv")
    assert [r["label"] for r in shown] == ["1", "1", "1"]


# (3 a - 1) / 2 of .9, .6 and .5
MIXTURE = np.array([0.85, 0.4, 0.25])


@pytest.mark.parametrize(
    ("posterior", "network", "learned", "planted"),
    [
        (Posterior(PROBS, np.array([0.8, 0.7, 0.1])), None, [0.8, 0.7, 0.1], PLANTED),
        (
            Posterior(PROBS, np.ones(3), competence=np.array([0.7, 0.2, 0.3])),
            *(None, [0.7, 0.2, 0.3], MIXTURE),
        ),
        (
            None,
            Network(expertise=np.array([0.3, 0.5, 0.1]), scale="mixture"),
            *([0.3, 0.5, 0.1], MIXTURE),
        ),
        # a network's is the last word, on its scale
        (
            Posterior(PROBS, np.ones(3), competence=np.array([0.7, 0.2, 0.3])),
            Network(expertise=np.array([0.3, 0.5, 0.1])),
            *([0.3, 0.5, 0.1], PLANTED),
        ),
        (Posterior(PROBS, np.array([0.8, 0.7, 0.1])), Network(), [0.8, 0.7, 0.1], PLANTED),
    ],
    ids=["accuracy", "competence", "network", "network after competence", "no expertise"],
)
def test_expertise_and_its_truth_are_on_one_scale(
    tmp_path: Path,
    posterior: Posterior | None,
    network: Network | None,
    learned: list[float],
    planted: np.ndarray,
) -> None:
    metrics = execute(settings(), crowd(), posterior, network, tmp_path)
    shown = results.read_csv(tmp_path / "annotators.csv")
    assert [float(r["expertise"]) for r in shown] == pytest.approx(learned)
    assert [float(r["true_expertise"]) for r in shown] == pytest.approx(planted)
    assert [r["votes"] for r in shown] == ["3", "3", "2"]
    wanted = recovery(np.array(learned), planted)
    assert {k: metrics[k] for k in wanted} == pytest.approx(wanted)
    # of each group by itself
    assert metrics["annotators/mae_1"] == pytest.approx(abs(learned[2] - planted[2]))


def test_an_aggregators_numbers_are_metrics(tmp_path: Path) -> None:
    told = Posterior(PROBS, PLANTED, numbers={"heads/weight": 0.25})
    assert execute(settings(), crowd(), told, None, tmp_path)["heads/weight"] == 0.25


def test_real_votes_have_agreement_and_a_report_of_their_own(tmp_path: Path) -> None:
    """The intervals are drawn, from the run's seed: three annotators, one of whom guesses."""
    item, annotator = np.divmod(np.arange(120), 3)
    guess = np.random.default_rng(0).integers(3, size=120)
    votes = Votes(item, annotator, np.where(annotator < 2, item % 3, guess), 40, 3, 3)
    one = replace(crowd(real=True, n=40), votes=votes)
    told = Posterior(np.full((40, 3), 1 / 3), PLANTED)
    metrics = execute(settings(method="agreement"), one, told, None, tmp_path)
    wanted = summary.of_agreement(votes, ["0", "1", "2"], rng=rng(3, "agreement"))
    assert {key: metrics[key] for key in wanted} == wanted and np.isfinite([*wanted.values()]).all()
    text = (tmp_path / "report.md").read_text()
    assert "agreement with others" in text and "120 votes of 3 annotators on 40 items" in text
    execute(settings(method="mace"), one, told, None, tmp_path)
    assert "| estimated accuracy |" in (tmp_path / "report.md").read_text()


def test_answers_that_are_no_numbers_end_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FloatingPointError, match="training diverged"):
        execute(settings(), crowd(), None, Network(probs=np.full((3, 3), np.nan)), tmp_path)
    monkeypatch.setattr(runner, "build", lambda *_, **__: Posterior(PROBS * np.nan, PLANTED))
    node = {"aggregator": {"_target_": "annorun.aggregation.mace.mace"}}
    with pytest.raises(FloatingPointError, match="aggregator"):
        aggregate({"method": node, "seed": 0}, crowd())


def test_an_aggregator_draws_from_the_runs_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    told = Posterior(PROBS, PLANTED)
    monkeypatch.setattr(runner, "build", lambda _, **given: seen.append(given) or told)
    node = {"aggregator": {"_target_": "annorun.aggregation.mace.mace"}}
    one = crowd(known=np.array([-1, 0, -1, -1, -1, -1, -1]))
    assert aggregate({"method": node, "seed": 3, "data_seed": 5}, one) is told
    assert seen[0]["rng"].random() == rng(3, "aggregator").random()
    assert seen[0]["votes"] is one.votes and seen[0]["known"] is one.items.known


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let no part of a run do its work; return what to change: what they answer or raise."""
    script: dict[str, Any] = {"metrics": {"a": 0.5}, "aggregate": None, "network": Network()}

    def answer(name: str) -> Any:
        if isinstance(script[name], BaseException):
            raise script[name]
        return script[name]

    def executed(*arguments: Any) -> Any:
        folder = arguments[-1]
        script["state"] = results.state(folder), (folder / "config.yaml").is_file()
        return answer("metrics")

    monkeypatch.setattr(runner, "load", lambda _: None)
    monkeypatch.setattr(runner, "training", lambda *_: answer("network"))
    monkeypatch.setattr(runner, "aggregate", lambda *_: answer("aggregate"))
    monkeypatch.setattr(runner, "execute", executed)
    return script


def test_a_row_comes_last_and_holds_numbers_alone(
    compose: Compose, scripted: dict[str, Any]
) -> None:
    nothing = {"b": np.nan, "c": np.inf, "d": -np.inf}
    scripted["metrics"] = {"a": np.float64(0.5), "zero": 0.0, **nothing}
    row = run(compose("dataset=digits", "seed=3", "data_seed=5"))
    assert scripted["state"] == ("absent", True)
    assert row["metrics"] == {"a": 0.5, "zero": 0.0}
    assert (row["device"], row["steps"], row["seed"], row["data_seed"]) == ("odd", 7, 3, 5)


@pytest.mark.parametrize(
    ("part", "error", "trace"),
    [
        ("aggregate", RuntimeError("out of luck"), True),
        ("aggregate", ConfigError("out of luck"), False),
        # beyond this the folder is there
        ("metrics", ConfigError("out of luck"), True),
        ("metrics", KeyboardInterrupt("out of luck"), True),
    ],
)
def test_what_fails_leaves_its_error_and_a_refusal_nothing(
    compose: Compose,
    scripted: dict[str, Any],
    tmp_path: Path,
    part: str,
    error: BaseException,
    trace: bool,
) -> None:
    scripted[part] = error
    with pytest.raises(type(error), match="out of luck"):
        run(compose("dataset=digits"))
    files = [path.read_text() for path in (tmp_path / "runs").rglob("error.txt")]
    assert len(files) == trace and all("out of luck" in text for text in files)
    assert not list((tmp_path / "runs").rglob("row.json"))


def test_a_network_may_refuse_what_was_aggregated(
    compose: Compose, scripted: dict[str, Any], tmp_path: Path
) -> None:
    told = Posterior(PROBS, PLANTED)

    def refuse(posterior: Posterior | None) -> None:
        assert posterior is told
        raise ConfigError("no confusion matrices")

    scripted["aggregate"] = told
    scripted["network"].refuse = refuse
    with pytest.raises(ConfigError, match="no confusion matrices"):
        run(compose("dataset=digits"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("part", ["aggregate", "metrics"])
def test_a_forced_run_that_fails_leaves_no_row_of_an_earlier_one(
    compose: Compose, scripted: dict[str, Any], tmp_path: Path, part: str
) -> None:
    run(compose("dataset=digits"))
    (path,) = (tmp_path / "runs").rglob("row.json")
    scripted[part] = RuntimeError("out of luck")
    # without force it is not run
    assert run(compose("dataset=digits"))["metrics"] == {"a": 0.5}
    with pytest.raises(RuntimeError):
        run(compose("dataset=digits", "mode=force"))
    assert results.state(path.parent) == "failed" and not path.exists()
    scripted |= {"aggregate": None, "metrics": {"a": 0.75}}
    assert run(compose("dataset=digits"))["metrics"] == {"a": 0.75}
    assert {p.name for p in path.parent.iterdir()} == {"row.json", "config.yaml"}
