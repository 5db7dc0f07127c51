"""`annorun.fit`: any table in memory, the answers of a run, and every fault at once."""

import doctest
import subprocess
import sys

import numpy as np
import pytest

import annorun
from annorun import frame as module
from annorun.aggregation.dawid_skene import dawid_skene
from annorun.errors import ConfigError
from annorun.signature import Parameter
from annorun.votes import Posterior, Votes, group_labels, hard_labels

FRAME = {
    "task": ["q2", "q1", "q1", "q2", "q3", "q1", "q3"],
    "worker": ["ann", "bob", "ann", "cy", "cy", "cy", "bob"],
    "label": ["no", "yes", "yes", "no", "yes", "no", "yes"],
    "note": [None] * 7,
}


def faults(frame, method="majority", **keys):
    with pytest.raises(ConfigError) as error:
        annorun.fit(frame, method, **keys)
    return error.value.faults


def test_answers_are_by_name():
    got = annorun.fit(FRAME, "majority")
    assert got.labels == {"q1": "yes", "q2": "no", "q3": "yes"}
    assert (got.tasks, got.workers) == (["q1", "q2", "q3"], ["ann", "bob", "cy"])
    assert got.classes == ["no", "yes"]
    np.testing.assert_allclose(got.probs, [[1 / 3, 2 / 3], [1, 0], [0, 1]])
    assert got.accuracy == pytest.approx({"ann": 5 / 6, "bob": 5 / 6, "cy": 7 / 9})
    assert got.groups is None


def test_is_the_aggregator_on_sorted_names():
    votes = Votes([1, 0, 0, 1, 2, 0, 2], [0, 1, 0, 2, 2, 2, 1], [0, 1, 1, 0, 1, 0, 1], 3, 3, 2)
    got = annorun.fit(FRAME, "dawid_skene", smoothing=0.5)
    assert (got.probs == dawid_skene(votes, smoothing=0.5).probs).all()


def test_pandas_a_dict_and_shuffled_rows_are_one():
    pandas = pytest.importorskip("pandas")
    base = annorun.fit(FRAME, "dawid_skene")
    table = pandas.DataFrame(FRAME)
    for same in (table, table.sample(frac=1, random_state=0), table.astype("category")):
        got = annorun.fit(same, "dawid_skene")
        assert (got.probs == base.probs).all()
        assert (got.labels, got.accuracy) == (base.labels, base.accuracy)


def test_numbers_stay_numbers():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(
        {"task": [10, 10, 9, 9], "worker": [1, 2, 1, 2], "label": [0, 0, 1, 1]}
    )
    got = annorun.fit(table, "majority")
    assert got.labels == {9: 1, 10: 0} and type(next(iter(got.labels))) is int
    mixed = {"task": [1, "a"], "worker": ["w", "w"], "label": [True, False]}
    assert annorun.fit(mixed, "majority").labels == {1: True, "a": False}


def test_a_seed_decides_ties_and_restarts(monkeypatch):
    tie = {"task": [1, 1], "worker": ["a", "b"], "label": ["x", "y"]}
    drawn = [annorun.fit(tie, "majority", seed=seed).labels[1] for seed in range(30)]
    assert set(drawn) == {"x", "y"}
    assert drawn == [annorun.fit(tie, "majority", seed=seed).labels[1] for seed in range(30)]
    one, two, other = (annorun.fit(FRAME, "mace", seed=s, n_restarts=2) for s in (0, 0, 1))
    assert one.posterior.restarts == two.posterior.restarts != other.posterior.restarts


def test_groups_by_their_names(monkeypatch):
    """The subpopulation of each worker reaches the aggregator; NaN rows have no label."""
    seen = []

    def grouped(votes):
        seen.append(votes.group.tolist())
        probs = np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.7, 0.3], [np.nan, np.nan]], [[0, 1]] * 2])
        return Posterior(probs[:, 0], np.ones(3), group_probs=probs)

    monkeypatch.setattr("annorun.aggregation.majority.majority", grouped)
    old = ["young" if worker == "bob" else "old" for worker in FRAME["worker"]]
    # backwards, bob comes first: rows are not in the order of the names
    table = {key: cells[::-1] for key, cells in {**FRAME, "subpopulation": old}.items()}
    got = annorun.fit(table, "majority")
    assert seen == [[0, 1, 0]]
    assert got.groups == {
        "old": {"q1": "no", "q2": "no", "q3": "yes"},
        "young": {"q1": "yes", "q3": "yes"},
    }


def test_ties_are_drawn_as_in_a_run():
    tie = {"task": [1, 1, 2, 2], "worker": ["a", "b"] * 2, "label": ["x", "y"] * 2}
    got = annorun.fit(tie, "majority", seed=3)
    drawn = hard_labels(got.probs, rng=module.rng(3, "ties"))
    assert list(got.labels.values()) == [got.classes[k] for k in drawn]


@pytest.mark.parametrize("missing", [None, float("nan"), "", [1]])
def test_missing_cells_are_counted_by_column(missing):
    found = faults({**FRAME, "worker": [missing, "bob", "ann", missing, "cy", "cy", "bob"]})
    assert len(found) == 1
    assert "column worker: 2 cells are missing" in found[0] and "row 0" in found[0]


def test_pandas_words_for_missing():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(FRAME)
    table.loc[2, "label"] = pandas.NA
    table["task"] = pandas.Series([pandas.NaT, *FRAME["task"][1:]], dtype=object)
    assert [text.split(":")[0] for text in faults(table)] == ["column task", "column label"]


def test_all_faults_at_once():
    broken = {
        "task": ["q1", "q1", "q2", None, "q1"],
        "worker": ["ann", "ann", "ann", "bob", "ann"],
        "label": ["no", "yes", "no", "no", "no"],
        "subpopulation": ["old", "old", "young", "old", "old"],
    }
    found = faults(broken, "dawid_skene", smoothin=1, rng=0)
    assert found[0].startswith("dawid_skene.smoothin: unknown key; allowed: max_iter, tol, smoo")
    assert found[0].endswith("did you mean 'smoothing'?")
    assert found[1].startswith("dawid_skene.rng: unknown key")
    assert found[2].startswith("column task: 1 cells")
    assert (
        "rows: 2, the first is row 1 (task 'q1', worker 'ann'): the worker labelled the" in found[3]
    )
    assert "row 2 (task 'q2', worker 'ann'): the worker has another subpopulation" in found[4]
    assert len(found) == 5


def test_columns_and_method_that_are_not_there():
    found = faults({"task": ["a"], "Worker": ["b"], "votes": [1]}, "dawid_skeen")
    assert "unknown; allowed: agreement, " in found[0] and "majority" in found[0]
    assert found[0].endswith("did you mean 'dawid_skene'?")
    assert "no column 'worker'; there are: task, Worker, votes; did you mean 'Worker'?" in found
    assert len(found) == 3
    for name in ("frame", "spam", "os", ""):
        assert f"method={name}: unknown" in faults(FRAME, name)[0]


def test_a_key_without_a_default_must_be_given(monkeypatch):
    told = {"votes": Parameter(None, True), "needed": Parameter(None, True)}
    monkeypatch.setattr(module, "parameters", lambda target: told)
    assert faults(FRAME) == ["majority.needed: missing; it must be given"]


def test_tables_without_enough_in_them():
    assert faults({"task": [], "worker": [], "label": []}) == ["no votes: the table has no row"]
    assert "differ in length" in faults({**FRAME, "task": ["q"]})[0]
    assert "at least 2 classes" in faults({**FRAME, "label": ["x"] * 7})[0]


@pytest.mark.parametrize(
    ("method", "key", "value", "words"),
    [
        ("nutmeg", "estep", "foo", "one of exact, released"),
        ("nutmeg", "imputation", "foo", "one of none, "),
        ("mace", "inference", "VB", "one of vb, em"),
        ("mace", "tol", -1, "0 or more"),
        ("mace", "n_restarts", 0, "1 or more"),
        ("mace", "alpha", 0, "above 0"),
        ("dawid_skene", "smoothing", -1, "0 or more"),
        ("nutmeg_inferred", "most_groups", 0, "1 or more"),
        ("glad", "variance", 0, "above 0"),
    ],
)
def test_values_are_held_to_the_signature(method, key, value, words):
    (found,) = faults(FRAME, method, **{key: value})
    assert found.startswith(f"{method}.{key}={value!r}: allowed is ") and words in found


@pytest.mark.parametrize("known", [{"q1": 1}, ["yes"] * 3, [float("nan")] * 3, [0, 1, 1]])
def test_controls_come_from_the_column_alone(known):
    (found,) = faults(FRAME, "mace", known=known)
    assert "mace.known: unknown key; allowed is a column 'control'" in found


def test_numpy_values_are_values():
    keys = {"n_restarts": np.int64(2), "class_prior": np.array([1.0, 2.0])}
    assert len(annorun.fit(FRAME, "mace", **keys).posterior.restarts) == 2


@pytest.mark.parametrize("none", [None, "", float("nan")])
def test_a_control_is_told_to_the_aggregator(none):
    """q3 has two votes for yes; a control says perhaps, for which nobody voted."""
    control = [none, none, none, none, "perhaps", none, none]
    got = annorun.fit({**FRAME, "control": control}, "dawid_skene")
    assert got.classes == ["no", "perhaps", "yes"] and got.labels["q3"] == "perhaps"
    votes = Votes([1, 0, 0, 1, 2, 0, 2], [0, 1, 0, 2, 2, 2, 1], [0, 2, 2, 0, 2, 0, 2], 3, 3, 3)
    assert (got.probs == dawid_skene(votes, known=np.array([-1, -1, 1])).probs).all()
    empty = annorun.fit({**FRAME, "control": [none] * 7}, "majority")
    assert empty.labels["q3"] == "yes"


def test_controls_that_contradict_or_are_of_no_use():
    control = [None, "yes", "no", None, "yes", None, "yes"]
    (found,) = faults({**FRAME, "control": control}, "mace")
    assert "rows: 1, the first is row 2 (task 'q1', worker 'ann'): the task has another" in found
    (found,) = faults({**FRAME, "control": ["no", *[None] * 6]})
    assert found.startswith("method=majority: uses no control items, and the data have some; all")
    (found,) = faults({**FRAME, "control": [[1], *[None] * 6]}, "mace")
    assert "column control: 1 cells cannot be names, the first in row 0 ([1])" in found


def test_a_column_that_is_there_twice():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(FRAME)
    twice = pandas.concat([table, table[["label"]]], axis=1)
    assert faults(twice) == ["column label: is there 2 times; one is allowed"]


def test_blanks_at_an_end():
    (found,) = faults({**FRAME, "label": ["no", "yes ", *FRAME["label"][2:]]})
    assert found.startswith("column label: 1 cells, the first in row 1: 'yes ' has blanks at an")


def test_true_and_one_are_not_one_class():
    (found,) = faults({**FRAME, "label": [True, 1, 0, 0, 1, 0, 1]})
    assert found.startswith("column label: holds both numbers and True or False")
    control = [1, *[None] * 6]
    (found,) = faults({**FRAME, "label": [True, False] * 3 + [True], "control": control}, "mace")
    assert found.startswith("column label: holds both")


def test_importing_annorun_is_cheap():
    code = "import annorun, sys; annorun.__version__; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    with pytest.raises(AttributeError, match="nosuch"):
        annorun.nosuch  # noqa: B018


def test_docstring_example():
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0


def test_ties_of_groups_and_starts_are_drawn_as_in_a_run(monkeypatch):
    """Each from its child of the seed, whatever is drawn from the others."""
    seen = []

    def tied(votes, *, rng, known, **_):
        seen.append(rng.random())
        return Posterior(np.full((40, 2), 0.5), np.ones(2), group_probs=np.full((40, 2, 2), 0.5))

    monkeypatch.setattr("annorun.aggregation.mace.mace", tied)
    table = {"task": [*range(40)] * 2, "worker": ["a"] * 40 + ["b"] * 40, "label": [0, 1] * 40}
    got = annorun.fit(table, "mace", seed=3)
    assert seen == [module.rng(3, "aggregator").random()]
    drawn = group_labels(got.posterior, rng=module.rng(3, "group_ties"))
    assert [[*labels.values()] for labels in got.groups.values()] == drawn.T.tolist()
    labels = hard_labels(got.probs, rng=module.rng(3, "ties"))
    assert [*got.labels.values()] == labels.tolist()


def test_inferred_groups_have_numbers_also_where_the_table_has_names(monkeypatch):
    def inferred(votes):
        probs = np.eye(2)[[[0, 1], [1, 0], [1, 1]]]
        return Posterior(probs[:, 0], np.ones(3), group_probs=probs, group=np.array([1, 0, 0]))

    monkeypatch.setattr("annorun.aggregation.majority.majority", inferred)
    got = annorun.fit({**FRAME, "subpopulation": ["old"] * 7}, "majority")
    assert got.groups == {
        0: {"q1": "no", "q2": "yes", "q3": "yes"},
        1: {"q1": "yes", "q2": "no", "q3": "yes"},
    }
