"""Main figures of the documentation are recomputed from experiments/measured.

A claim is a pattern of the text, in which each `#` stands for a number, and a function that
computes these numbers from the measured rows. A changed sentence, number or CSV fails.
"""

import re
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest

from annorun import config, results
from annorun.scores.significance import corrected_resampled_t, holm, sign_flip

Row = dict[str, str]
ROOT = Path(__file__).parents[1]
NUMBER = r"[-+]?\d*\.?\d+"
# test items per training item: 1 fold of 5, of the others a tenth for validation
TEST_SHARE = 1 / (4 * 0.9)
ACC, JSD = "test/acc", "test/soft_jsd"
SPAM = ("0", "0.05", "0.1", "0.15", "0.2", "0.25")


def prose() -> str:
    """Return the README and what stands under docs/, with single spaces."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return " ".join(" ".join(path.read_text("utf-8") for path in paths).split())


def rows(name: str, **values: str) -> list[Row]:
    """Return the measured rows whose columns have these values; `__` stands for a dot."""
    wanted = {key.replace("__", "."): value for key, value in values.items()}
    found = [
        row
        for row in results.read_csv(config.experiments_dir() / "measured" / f"{name}.csv")
        if wanted.items() <= row.items()
    ]
    assert found, (name, values)
    return found


def column(metric: str, name: str, **values: str) -> list[float]:
    """Return a metric of these rows, without those that do not have it."""
    return [float(row[metric]) for row in rows(name, **values) if row[metric]]


def average(metric: str, name: str, **values: str) -> float:
    return mean(column(metric, name, **values))


def spread(metric: str, name: str, **values: str) -> float:
    return stdev(column(metric, name, **values))


def groups(name: str, metric: str, *keys: str, **values: str) -> dict[tuple[str, ...], list[float]]:
    """Return a metric's values by the values of the keys."""
    found: dict[tuple[str, ...], list[float]] = {}
    for row in rows(name, **values):
        found.setdefault(tuple(row[key] for key in keys), []).append(float(row[metric]))
    return found


def synthetic(metric: str, method: str, imputation: str = "") -> float:
    name = "nutmeg_competence" if metric.startswith("annotators") else "nutmeg_baselines"
    return average(metric, name, method=method, method__aggregator__imputation=imputation)


def nutmeg_row(imputation: str, method: str = "nutmeg") -> list[float]:
    """Labels of the majority and of the minority, correlation of competence."""
    metrics = ("labels/acc_0", "labels/acc_1", "annotators/pearson")
    return [synthetic(metric, method, imputation) for metric in metrics]


def disagreement(imputation: str, spam: str, metric: str = "labels/disagreement") -> float:
    """Return the largest error over divisiveness of a mean over data seeds."""
    cells: dict[str, list[float]] = {}
    for row in rows(
        "nutmeg_disagreement",
        method__aggregator__imputation=imputation,
        annotator_dist__spam__0=spam,
    ):
        error = float(row[metric]) - float(row["labels/disagreement_true"])
        cells.setdefault(row["dataset.divisiveness"], []).append(error)
    return max(abs(mean(errors)) for errors in cells.values())


def disagreement_row(spam: str) -> list[float]:
    return [disagreement(i, spam) for i in ("released", "naive_bayes", "joint")]


def disagreement_by_argmax() -> list[float]:
    """Return the least and largest over the rates of spam, for each imputation."""
    metric, found = "labels/disagreement_argmax", []
    for imputation in ("naive_bayes", "joint", "released"):
        errors = [disagreement(imputation, spam, metric) for spam in SPAM]
        found += [min(errors), max(errors)]
    return found


def one_truth() -> list[float]:
    """Return joint's largest distance to MACE; what naive Bayes loses of the minority, of all."""

    def labels(method: str, imputation: str, spam: str, metric: str = "labels/acc") -> float:
        return average(
            metric,
            "nutmeg_no_disagreement",
            method=method,
            method__aggregator__imputation=imputation,
            annotator_dist__spam__0=spam,
        )

    joint = [abs(labels("mace", "", spam) - labels("nutmeg", "joint", spam)) for spam in SPAM]
    lost = [
        labels("mace", "", "0.25", metric) - labels("nutmeg", "naive_bayes", "0.25", metric)
        for metric in ("labels/acc_1", "labels/acc")
    ]
    return [max(joint), *lost]


def downstream(metric: str, other: str) -> list[float]:
    """Return NUTMEG less another method, for each attribute."""
    cells = groups("nutmeg_downstream", metric, "method", "dataset.attribute")
    attributes = sorted({attribute for _, attribute in cells})
    return [mean(cells["nutmeg", a]) - mean(cells[other, a]) for a in attributes]


def least_p_of_attributes() -> list[float]:
    p = [
        sign_flip(np.array(downstream(metric, other)), rng=np.random.default_rng(0))
        for metric in ("test/jsd", "test/f1")
        for other in ("majority", "majority_by_group", "individual", "mace")
    ]
    return [min(p)]


def behind_majorities() -> list[float]:
    """Mean difference to majority and majority_by_group, behind for all; individual, ahead."""
    majority, by_group, individual = (
        downstream("test/jsd", o) for o in ("majority", "majority_by_group", "individual")
    )
    assert min(*majority, *by_group) > 0 > max(individual)
    assert mean(majority) == pytest.approx(mean(by_group), abs=5e-4)
    return [mean(majority), -mean(individual)]


def hs_brexit(metric: str) -> list[float]:
    order = ("majority_by_group", "individual", "majority", "nutmeg", "mace")
    return [average(metric, "nutmeg_hs_brexit", method=method) for method in order]


def hs_brexit_ranks() -> list[float]:
    """Return NUTMEG's place by divergence, least first, of how many, and by F1, highest first."""
    divergence, f1 = hs_brexit("test/jsd"), hs_brexit("test/f1")
    return [
        sorted(divergence).index(divergence[3]) + 1,
        len(divergence),
        sorted(f1, reverse=True).index(f1[3]) + 1,
    ]


def questions() -> list[float]:
    """How far behind oracle at most; least and largest gain; largest error of expertise."""
    name, data = "realm_questions", {"dataset": "openbookqa"}
    oracle = average(ACC, name, method="oracle", **data)
    realm, noisy = (
        [
            average(ACC, name, method=m, noise=noise, **data)
            for noise in ("uniform", "asymmetric", "systematic")
        ]
        for m in ("realm", "noisy")
    )
    gains = [100 * (ours - theirs) for ours, theirs in zip(realm, noisy, strict=True)]
    error = max(column("annotators/max_error", name, method="realm", **data))
    return [100 * (oracle - min(realm)), min(gains), max(gains), error]


def gains_by_size() -> list[float]:
    name = "realm_sizes"
    of = {
        "mini": {"model_size": "mini", "model_size__family": "auto"},
        "tiny": {"model_size": "tiny"},
    }
    return [
        average(ACC, name, method="realm", **of[size])
        - average(ACC, name, method="noisy", **of[size])
        for size in ("mini", "tiny")
    ]


def sentiment_deviations() -> list[float]:
    name = "sentiment_polarity"
    methods = {row["method"] for row in rows(name)}
    accuracy = max(spread(ACC, name, method=m) for m in methods)
    with_reliability = {row["method"] for row in rows(name) if row["annotators/pearson"]}
    return [accuracy, max(spread("annotators/pearson", name, method=m) for m in with_reliability)]


METHOD_KEYS = (
    "method",
    "method.episodes.pseudo",
    "method.module.labels",
    "method.module.classifier",
    "method.module.layer",
    "method.module.start",
)
EM = {"method": "meta_em", "method__episodes__pseudo": "True"}
EM_RIGHT = {"method": "meta_em", "method__episodes__pseudo": "False"}
MAJORITY = {
    "method": "prototypical",
    "method__module__labels": "majority",
    "method__episodes__pseudo": "False",
}
DAWID_SKENE = {**MAJORITY, "method__module__labels": "dawid_skene"}
CROWD_LAYER = {"method__module__layer": "crowd_layer", "method__module__start": "prototypical"}


def lead(one: dict[str, str], two: dict[str, str], metric: str = ACC, **values: str) -> float:
    """Return by how many points one is ahead of two in Omniglot's table."""
    name = "meta_em_table1a"
    ours, theirs = (average(metric, name, **{**who, **values}) for who in (one, two))
    return 100 * (ours - theirs)


def right_labels() -> list[float]:
    by_split = [lead(EM_RIGHT, EM, data_seed=seed) for seed in "012"]
    return [lead(EM_RIGHT, EM), min(by_split), max(by_split)]


def lead_over_best_baseline() -> list[float]:
    """Return meta_em's lead over the best of the others: mean, by split, at 1 shot, pairs led."""
    cells = groups("meta_em_table1a", ACC, *METHOD_KEYS)
    key = max((k for k in cells if k[0] != "meta_em"), key=lambda k: mean(cells[k]))
    best = {name.replace(".", "__"): value for name, value in zip(METHOD_KEYS, key, strict=True)}
    by_split = [lead(EM, best, data_seed=seed) for seed in "012"]
    pairs = [
        lead(EM, best, method__episodes__shots=n, data_seed=seed) for n in "135" for seed in "012"
    ]
    at_one = lead(EM, best, method__episodes__shots="1")
    return [lead(EM, best), min(by_split), max(by_split), at_one, sum(p > 1e-6 for p in pairs)]


def n_behind_meta_em() -> int:
    """Return how many of the other methods meta_em is ahead of on average over shots."""
    cells = groups("meta_em_table1a", ACC, *METHOD_KEYS)
    ours = mean(cells["meta_em", "True", "", "", "", ""])
    return sum(ours > mean(other) for other in cells.values())


def lead_by_annotators(other: dict[str, str]) -> list[float]:
    return [lead(EM_RIGHT, other)] + [lead(EM_RIGHT, other, f"test_r{n}/acc") for n in (3, 5, 7)]


def acquire() -> list[float]:
    """Return how far entropy is behind random, in points, after 6, 12 and 24 votes."""
    name = "meta_em_acquire"
    return [
        100
        * (
            average(ACC, name, method__module__acquire="random", method__module__budget=budget)
            - average(ACC, name, method__module__acquire="entropy", method__module__budget=budget)
        )
        for budget in ("6", "12", "24")
    ]


def capo_gains(metric: str, data: str) -> float:
    name = "capo_attribution"
    return 100 * (
        average(metric, name, method="capo", dataset=data)
        - average(metric, name, method="explain_sft", dataset=data)
    )


def styles() -> list[float]:
    name, metric = "capo_styles", "attribution/acc_clean_bag1"
    human = "attribution/human_clean_bag1"
    of = [
        {"method": "explain_sft", "steps": "600"},
        {"method": "explain_sft", "steps": "700"},
        {"method": "capo"},
    ]
    found = [average(human, name), spread(human, name, method="capo")]
    for who in of:
        found += [average(metric, name, **who), spread(metric, name, **who)]
    return found


def by_fold(method: str, metric: str, name: str = "seedbert_table4") -> np.ndarray:
    """Return a metric by repeat and fold: by the column of folds, or else by the order of rows."""
    own = rows(name, method=method)
    at = [
        (
            row["data_seed"],
            row.get("dataset.fold") or sum(r["data_seed"] == row["data_seed"] for r in own[:i]),
        )
        for i, row in enumerate(own)
    ]
    return np.array([float(own[i][metric]) for i in sorted(range(len(own)), key=lambda i: at[i])])


def seedbert_beside(other: str, metric: str, scale: float = 1.0) -> list[float]:
    """Return the difference, its p, and that after Holm over all comparisons of the metric."""
    others = sorted({row["method"] for row in rows("seedbert_table4")} - {"seedbert"})
    difference = {o: by_fold("seedbert", metric) - by_fold(o, metric) for o in others}
    p = [corrected_resampled_t(difference[o], TEST_SHARE) for o in others]
    at = others.index(other)
    return [scale * float(difference[other].mean()), p[at], holm(p)[at]]


def digits_row(noise: str) -> list[float]:
    """Return mean and deviation over seeds; the oracle reads no vote."""
    found = []
    for method in ("oracle", "realm", "noisy", "majority", "dawid_skene"):
        where = {"method": method, "noise": "uniform" if method == "oracle" else noise}
        found += [average(ACC, "digits", **where), spread(ACC, "digits", **where)]
    return found


def questions_row(start: str, n_train: str, noise: str) -> list[float]:
    """Return accuracies of the methods on generated questions, and the largest error of expertise.

    Before them the accuracy before training, where the start is pretrained.
    """
    where = {"model_size__start": start, "dataset__n_train": n_train}
    row = [average("start/acc", "synthetic_qa", **where)] if start == "pretrained" else []
    for method in ("oracle", "realm", "noisy"):
        cell = {**where, "method": method, "noise": "uniform" if method == "oracle" else noise}
        row += [average(ACC, "synthetic_qa", **cell), spread(ACC, "synthetic_qa", **cell)]
    cell = {**where, "method": "realm", "noise": noise}
    return [*row, max(column("annotators/max_error", "synthetic_qa", **cell))]


def realm_lead(name: str, **values: str) -> list[float]:
    """Return the least and the greatest lead of realm over noisy of the same seeds, in points."""
    settings = [
        k for k in rows(name)[0] if "/" not in k and k not in ("method", "steps", "seconds")
    ]
    cells = groups(name, ACC, *settings, "method", **values)
    leads = [
        100 * (cells[key][0] - cells[(*key[:-1], "noisy")][0])
        for key in cells
        if key[-1] == "realm"
    ]
    return [min(leads), max(leads)]


def labelme_expertise() -> list[float]:
    """Return REALM's mean error of expertise, its correlation, and that of the majority vote."""
    of = {"realm": "annotators/mae", "majority": "annotators/pearson"}
    error, majority = (average(metric, "labelme", method=m) for m, metric in of.items())
    return [error, average("annotators/pearson", "labelme", method="realm"), majority]


# a pattern of the text, `#` for a number; the numbers from the rows
CLAIMS: list[tuple[str, Callable[[], list[float]]]] = [
    ("| uniform | # ± # | # ± # | # ± # | # ± # | # ± # |", lambda: digits_row("uniform")),
    (
        "Its estimated expertise is off by # on average and correlates with the annotators' "
        "accuracy by # (reliability by majority vote: #)",
        labelme_expertise,
    ),
    (
        "| pretrained | 2200 | uniform | # | # ± # | # ± # | # ± # | # |",
        lambda: questions_row("pretrained", "2200", "uniform"),
    ),
    (
        "| pretrained | 3000 | uniform | # | # ± # | # ± # | # ± # | # |",
        lambda: questions_row("pretrained", "3000", "uniform"),
    ),
    (
        "| random weights | 2200 | uniform | | # ± # | # ± # | # ± # | # |",
        lambda: questions_row("scratch", "2200", "uniform"),
    ),
    (
        "`realm` leads `noisy` of the same seeds by # points or more in all 36 pairs",
        lambda: realm_lead("synthetic_qa", model_size__start="pretrained")[:1],
    ),
    (
        "# to # points of the same seeds with one expert",
        lambda: realm_lead("realm_pools", annotator_dist="one_expert"),
    ),
    (
        "with Dist. 3, # to # with two experts of three",
        lambda: realm_lead("realm_pools", annotator_dist="two_experts"),
    ),
    ("| mace | # | # | .994, .506 | # | .489 |", lambda: nutmeg_row("", "mace")),
    ("| nutmeg, exact, joint | # | **#** | | **#** | |", lambda: nutmeg_row("joint")),
    ("naive Bayes (default) | # | # | | # | |", lambda: nutmeg_row("naive_bayes")),
    ("| .2 | # | # | # |", lambda: disagreement_row("0.2")),
    ("| .25 | # | # | # |\n\nNaive Bayes, the default, is", lambda: disagreement_row("0.25")),
    (
        "largest error is # to # with naive Bayes, # to # with `joint` and # to # as released",
        disagreement_by_argmax,
    ),
    (
        "`joint` equals MACE to #; at spam .25 naive Bayes, which has to estimate from few votes "
        "that the groups agree, loses # of the minority's labels and # of all",
        one_truth,
    ),
    ("four pairs, and the least p of a sign-flip test is #", least_p_of_attributes),
    (
        "for all four attributes (by # on average) and ahead of individual for all four (by #)",
        behind_majorities,
    ),
    ("NUTMEG is #th of # by divergence and #nd by F1", hs_brexit_ranks),
    ("| divergence | # | # | # | # | # |", lambda: hs_brexit("test/jsd")),
    ("| F1 | # | # | # | # | # |", lambda: hs_brexit("test/f1")),
    (
        "within # points of `oracle` and # to # above `noisy`, and its largest error of expertise "
        "is # or less",
        questions,
    ),
    ("the larger gains more (# against #)", gains_by_size),
    ("are # or less for accuracy and # or less for the correlation", sentiment_deviations),
    (
        "`meta_em` gains # points, on each of the three splits (# to #)",
        right_labels,
    ),
    (
        "the crowd layer after prototypical meta-training leads by # points",
        lambda: [lead(CROWD_LAYER, EM, method__episodes__shots="1")],
    ),
    (
        "is # points on average (# to # by split), # at 1 shot, and positive in # of the 9 pairs",
        lead_over_best_baseline,
    ),
    ("ahead of the other # baselines on average over shots", lambda: [float(n_behind_meta_em())]),
    (
        "is # points ahead of the majority vote (#, #, # with 3, 5, 7 annotators)",
        lambda: lead_by_annotators(MAJORITY),
    ),
    ("and # ahead of Dawid-Skene (#, #, #)", lambda: lead_by_annotators(DAWID_SKENE)),
    ("The table is # rows", lambda: [len(rows("meta_em_table1a"))]),
    ("by # points after 6 votes, # after 12 and # after 24", acquire),
    (
        "`capo` gains # points on Paraphrase, three quarters of what fine-tuning lacks to the "
        "humans, and # on VariErr",
        lambda: [
            capo_gains("attribution/acc_clean_bag1", data) for data in ("paraphrase", "varierr")
        ],
    ),
    (
        "sees as much (#, #)",
        lambda: [
            capo_gains("attribution/acc_unseen_bag1", data) for data in ("paraphrase", "varierr")
        ],
    ),
    (
        "in # ± # of the human explanations, in # ± # of those after fine-tuning (# ± # after as "
        "many steps as both stages have), in **#** ± # of `capo`'s",
        styles,
    ),
    ("**not shown**: # points, p # (#)", lambda: seedbert_beside("bert", ACC, 100)),
    ("by accuracy # points, p # (#)", lambda: seedbert_beside("ldl", ACC, 100)),
    ("BERT's probabilities (JSD #, p # (#))", lambda: seedbert_beside("bert", JSD)),
]


def tolerance(number: str) -> float:
    """Return half a unit of the last digit; what lies half-way may be rounded either way."""
    return 0.501 * 10.0 ** -len(number.partition(".")[2])


def in_text(pattern: str) -> list[str]:
    """Return the numbers of the one place that has the pattern."""
    parts = [re.escape(part) for part in " ".join(pattern.split()).split("#")]
    found = list(re.finditer(f"({NUMBER})".join(parts), prose()))
    assert len(found) == 1, f"{len(found)} places have: {pattern}"
    return list(found[0].groups())


@pytest.mark.parametrize(("pattern", "compute"), CLAIMS, ids=[text for text, _ in CLAIMS])
def test_number_in_the_text_is_that_of_the_measured_rows(
    pattern: str, compute: Callable[[], list[float]]
) -> None:
    numbers, computed = in_text(pattern), compute()
    assert len(numbers) == len(computed)
    for number, value in zip(numbers, computed, strict=True):
        assert abs(float(number) - value) <= tolerance(number), (number, value)
