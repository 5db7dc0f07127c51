"""The report's page and the agreement numbers of a row."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from annorun import report
from annorun.aggregation.agreement import agreement
from annorun.aggregation.majority import majority
from annorun.chance import chance
from annorun.scores import summary
from annorun.scores.agreement import fleiss_kappa, krippendorff_alpha, mean_cohen_kappa
from annorun.seeds import rng
from annorun.votes import Items, Posterior, Votes


def items(n_items: int, n_classes: int = 2, **names: object) -> Items:
    return Items("votes", {}, np.full(n_items, "train"), n_classes, **names)  # type: ignore[arg-type]


def page(
    folder: Path, votes: Votes, posterior: Posterior | None = None, **names: object
) -> dict[str, str]:
    """Return the text below each heading."""
    posterior = posterior or majority(votes)
    classes = items(votes.n_items, votes.n_classes, **names).classes()
    metrics = summary.of_agreement(votes, classes, rng=rng(0, "agreement")) | {"labels/acc": 0.5}
    labels = posterior.probs.argmax(axis=1)
    report.write(
        folder, items(votes.n_items, votes.n_classes, **names), votes, posterior, labels, metrics
    )
    parts = (folder / "report.md").read_text(encoding="utf-8").split("\n## ")
    return dict(part.split("\n\n", 1) for part in parts)


def crowd() -> Votes:
    """40 items, truth i mod 2 (item 39: nobody); 12 annotators, 2 guess, 1 says 0 to everything."""
    generator = np.random.default_rng(0)
    item, annotator = np.divmod(np.arange(39 * 12), 12)
    label = np.where(annotator < 9, item % 2, generator.integers(2, size=len(item)))
    label[annotator == 11] = 0
    return Votes(item, annotator, label, 40, 12, 2)


def test_the_numbers_are_those_of_the_coefficients() -> None:
    votes = crowd()
    found = summary.of_agreement(votes, ["0", "1"], rng=rng(0, "x"))
    alpha = krippendorff_alpha(votes.counts(), rng=rng(0, "x"))
    names = ("krippendorff_alpha", "fleiss_kappa", "mean_cohen_kappa")
    assert set(found) == {f"agreement/{n}{e}" for n in names for e in ("", "_low", "_high")}
    assert [found[f"agreement/krippendorff_alpha{e}"] for e in ("", "_low", "_high")] == [*alpha]
    for name, value in {
        "fleiss_kappa": fleiss_kappa(votes.counts(), rng=rng(0, "x")).value,
        "mean_cohen_kappa": mean_cohen_kappa(votes, rng=rng(0, "x")).value,
    }.items():
        low, high = (found[f"agreement/{name}_{end}"] for end in ("low", "high"))
        assert low < found[f"agreement/{name}"] == value < high


def several() -> Votes:
    """Annotators 0 and 1 say no to 12 items, and yes beside it: both to 0 to 3, one to 4 and 5."""
    both = [(i, a, 0) for i in range(12) for a in (0, 1)]
    both += [(i, a, 1) for i in range(4) for a in (0, 1)] + [(4, 0, 1), (5, 1, 1)]
    return Votes(*np.array(both).T, 12, 2, 2, multi_label=True)


def test_several_labels_an_item_have_a_kappa_each(tmp_path: Path) -> None:
    """Of no: all give it, none. Of yes: P = 10/12, shares 5/12 each, E = (25 + 49) / 144."""
    found = summary.of_agreement(several(), ["no", "yes"], rng=rng(0, "x"))
    chance_of_both = (25 + 49) / 144
    kappa = (10 / 12 - chance_of_both) / (1 - chance_of_both)
    assert np.isnan(found["agreement/cohen_kappa_no"])
    assert found["agreement/cohen_kappa_yes"] == pytest.approx(kappa)
    assert found["agreement/mean_cohen_kappa"] == pytest.approx(kappa)
    text = page(tmp_path, several(), class_names=["no", "yes"])["Do the annotators agree?"]
    assert "several labels" in text and f"| yes | {kappa:.3f}" in text


def test_votes_are_counted(tmp_path: Path) -> None:
    text = page(tmp_path, crowd())["# Report of the votes"]
    assert "468 votes of 12 annotators on 39 items, 2 classes." in text
    assert (
        "12.0 votes an item (fewest 12, most 12). Items without a vote, left out below: 1." in text
    )


def test_guessers_are_named_and_the_good_are_not(tmp_path: Path) -> None:
    """Half the items are of each class: chance is 1/2, and a tenth of the way to 1 is 0.55.

    The standard error of 39 votes is at most 0.08: 0.3 stays below 0.55 by two of them.
    """
    accuracy = np.array([1.0, *[0.9] * 8, 0.3, 0.56, 0.2])
    posterior = Posterior(np.eye(2)[np.arange(40) % 2], accuracy)
    names = [f"a{k}" for k in range(12)]
    text = page(tmp_path, crowd(), posterior, annotator_names=names)["Who is reliable?"]
    assert "| a0 | 39 | 1.000 | 0.500 |" in text
    assert "| a11 | 39 | 0.200 | 0.513 |" in text
    assert "**2 of 12 look like guessing**" in text and text.endswith(": a9 (39), a11 (39).\n")
    # five from each end
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| a")]
    assert rows == [f"| {n}" for n in "annotator a0 a1 a2 a3 a4 a7 a8 a10 a9 a11".split()]
    nobody = Posterior(posterior.probs, np.full(12, 0.9))
    assert "Nobody looks like guessing" in page(tmp_path, crowd(), nobody)["Who is reliable?"]


def test_chance_by_hand() -> None:
    """Classes 3/4, 1/4; an annotator with labels 0 0 0 1 gets (3 * 3/4 + 1/4) / 4 = 5/8."""
    votes = Votes([0, 1, 2, 3], [0, 0, 0, 0], [0, 0, 0, 1], 4, 2, 2)  # type: ignore[arg-type]
    np.testing.assert_allclose(chance(votes, majority(votes)), [5 / 8, 0])


def test_contested_items_come_least_sure_first(tmp_path: Path) -> None:
    item, annotator = np.divmod(np.arange(40), 4)
    label = (annotator < item % 3).astype(int)  # shares of label 1: 0, 1/4, 1/2
    votes = Votes(item, annotator, label, 10, 4, 2)
    text = page(tmp_path, votes, class_names=["no", "yes"])["Which items are contested?"]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    assert [row[0] for row in rows] == [f"| {i}" for i in (2, 5, 8, 1, 4, 7)]
    assert rows[0][1:] == ["no 50%, yes 50%", "no", "0.500 |"]
    assert rows[-1][1:] == ["no 75%, yes 25%", "no", "0.750 |"]
    assert "not sure of 6 of 10 items" in text


def test_at_most_twenty_contested_items(tmp_path: Path) -> None:
    item, annotator = np.divmod(np.arange(100), 2)
    text = page(tmp_path, Votes(item, annotator, annotator, 50, 2, 2))
    contested = text["Which items are contested?"]
    assert contested.count("\n| ") == 1 + 1 + 20 and "not sure of 50 of 50" in contested
    sure = page(tmp_path, Votes(item, annotator, item % 2, 50, 2, 2))
    assert "None: the aggregator is sure" in sure["Which items are contested?"]


def test_a_label_of_nine_tenths_is_not_contested(tmp_path: Path) -> None:
    votes = Votes([0, 1], [0, 0], [0, 0], 2, 1, 2)  # type: ignore[arg-type]
    posterior = Posterior(np.array([[0.9, 0.1], [0.89, 0.11]]), np.ones(1))
    text = page(tmp_path, votes, posterior)["Which items are contested?"]
    assert "not sure of 1 of 2 items" in text and "0.890" in text


def test_class_balance(tmp_path: Path) -> None:
    votes = Votes([0, 0, 0, 1], [0, 1, 2, 0], [1, 1, 0, 1], 2, 3, 2)  # type: ignore[arg-type]
    text = page(tmp_path, votes, class_names=["no", "yes"])["How are the classes balanced?"]
    assert "| yes | 2 | 100.0% | 75.0% |\n| no | 0 | 0.0% | 25.0% |" in text


@pytest.mark.parametrize(
    ("alpha", "low", "shared", "words"),
    [
        (0.9, 0.8, 30, "agree well"),
        (0.9, 0.67, 30, "agree fairly"),
        (0.9, 0.5, 30, "agree little"),
        (0.3, -0.1, 30, "cannot be told from chance"),
        (0.9, 0.8, 29, "Items with two votes or more: 29, too few to tell"),
        (np.nan, np.nan, 0, "not defined"),
    ],
)
def test_one_sentence_says_what_the_lower_end_means(
    alpha: float, low: float, shared: int, words: str
) -> None:
    assert words in report._meaning(alpha, low, shared)


def test_few_votes_or_a_wide_error_accuse_nobody(tmp_path: Path) -> None:
    """0.45 of 39 votes has a standard error of 0.08; 19 votes say nothing at all."""
    votes = crowd()
    near = Posterior(majority(votes).probs, np.array([*[0.9] * 11, 0.45]))
    assert "Nobody looks like guessing." in page(tmp_path, votes, near)["Who is reliable?"]
    kept = np.flatnonzero((votes.annotator < 11) | (votes.item < 19))
    few = replace(
        votes, item=votes.item[kept], annotator=votes.annotator[kept], label=votes.label[kept]
    )
    none = replace(near, accuracy=np.array([*[0.9] * 11, 0.0]))
    text = page(tmp_path, few, none)["Who is reliable?"]
    assert "Nobody looks like guessing. With fewer than 20 votes, not judged: 1." in text


def test_agreement_judges_nobody(tmp_path: Path) -> None:
    votes = crowd()
    told = replace(agreement(votes), accuracy=np.zeros(12))
    labels = told.probs.argmax(axis=1)
    report.write(tmp_path, items(40), votes, told, labels, {}, method="agreement")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| agreement with others |" in text
    assert "guessing" not in text and "estimated accuracy" not in text


def test_chance_is_of_the_own_group() -> None:
    """Group 0 sees class 0 only, group 1 class 1 on its one item; both annotators say 0."""
    votes = Votes([0, 1, 0], [0, 0, 1], [0, 0, 0], 2, 2, 2, np.array([0, 1]))  # type: ignore[arg-type]
    own = np.array([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [np.nan, np.nan]]])
    posterior = Posterior(np.full((2, 2), 0.5), np.ones(2), group_probs=own)
    np.testing.assert_allclose(chance(votes, posterior), [1, 0])
    inferred = replace(posterior, group=np.array([0, 0]))
    np.testing.assert_allclose(chance(votes, inferred), [1, 1])


def test_not_converging_is_said(tmp_path: Path) -> None:
    votes = crowd()
    heading = "Can the labels be trusted?"
    counted = majority(votes)
    assert "nothing to converge" in page(tmp_path, votes)[heading]
    done = replace(counted, trace=(1.0, 2.0))
    assert "as it should, after 2 iterations" in page(tmp_path, votes, done)[heading]
    cut = replace(done, converged=False)
    text = page(tmp_path, votes, cut)[heading]
    assert "**The aggregator had not converged after 2" in text and "50.0% right" in text


def test_disagreement_of_groups(tmp_path: Path) -> None:
    votes = crowd()
    told = replace(majority(votes), disagreement=np.array([0.5, 0.0] * 19 + [np.nan, 1.0]))
    text = page(tmp_path, votes, told)["Which items are contested?"]
    assert "do not share one truth on 25% of the items" in text


def test_names_cannot_break_the_tables(tmp_path: Path) -> None:
    votes = Votes([0, 0], [0, 1], [0, 1], 1, 2, 2)  # type: ignore[arg-type]
    names = ["a|b\n<x>", "y" * 100]
    text = page(tmp_path, votes, names=names[:1], annotator_names=names, class_names=names)
    assert "| a\\|b \\<x\\> | 1 |" in text["Who is reliable?"]
    assert f"| {'y' * 57}... | 1 |" in text["Who is reliable?"]


@pytest.mark.parametrize("columns", [([], [], []), ([0, 1], [0, 1], [1, 1])])
def test_next_to_nothing_voted(tmp_path: Path, columns: tuple[list[int], ...]) -> None:
    votes = Votes(*columns, 3, 2, 2)  # type: ignore[arg-type]
    text = page(tmp_path, votes, agreement(votes))
    assert "not defined" in text["Do the annotators agree?"]
    assert "Nothing is known of any annotator" in text["Who is reliable?"]
    assert "nan" not in "".join(text.values())


def test_guessers_stand_by_their_votes_and_the_share_is_of_votes(tmp_path: Path) -> None:
    """Three guess of five, with 30, 60 and 45 of 315 votes; who has 19 votes is not judged."""
    given = [90, 30, 60, 45, 90, 19]
    columns = [(i, a, i % 2) for a, n in enumerate(given) for i in range(100 - n, 100)]
    votes = Votes(*np.array(columns).T, 100, 6, 2)
    posterior = Posterior(np.eye(2)[np.arange(100) % 2], np.array([0.9, 0.1, 0.2, 0.3, 0.9, 0.0]))
    names = ["good", "few", "most", "some", "fine", "new"]
    text = page(tmp_path, votes, posterior, annotator_names=names)["Who is reliable?"]
    assert "**3 of 5 look like guessing**" in text
    # 135 of 334
    assert "they gave 40% of the votes" in text
    assert "By number of votes: most (60), some (45), few (30). With fewer than 20 votes" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert [row.split(" | ")[:3] for row in rows] == [
        *(["| good", "90", "0.900"], ["| fine", "90", "0.900"], ["| some", "45", "0.300"]),
        *(["| most", "60", "0.200"], ["| few", "30", "0.100"], ["| new", "19", "0.000"]),
    ]


def test_unvoted_items_stand_in_no_list(tmp_path: Path) -> None:
    """Items 0 and 3 have no vote, 2 has one; 1 and 4 are contested, each by its own votes."""
    item, annotator = [1, 1, 1, 2, 4, 4, 4, 4], [0, 1, 2, 0, 0, 1, 2, 3]
    votes = Votes(item, annotator, [0, 0, 1, 1, 1, 1, 1, 0], 5, 4, 2)  # type: ignore[arg-type]
    probs = np.array([[0.5, 0.5], [0.6, 0.4], [0.05, 0.95], [0.5, 0.5], [0.3, 0.7]])
    posterior = Posterior(probs, np.ones(4), disagreement=np.array([1.0, 0.2, 0.4, 1.0, 0.6]))
    text = page(tmp_path, votes, posterior, names=list("vwxyz"), class_names=["no", "yes"])
    head = text["# Report of the votes"]
    assert "8 votes of 4 annotators on 3 items" in head
    assert "Items with one vote, of no use to agreement: 1. Items without a vote" in head
    assert head.strip().endswith("left out below: 2.")
    contested = text["Which items are contested?"]
    rows = [line for line in contested.splitlines() if line.startswith("| ")][2:]
    assert rows == [
        "| w | no 67%, yes 33% | no | 0.600 |",
        "| z | yes 75%, no 25% | yes | 0.700 |",
    ]
    assert "not sure of 2 of 3 items" in contested and "one truth on 40% of the items" in contested
    balance = text["How are the classes balanced?"]
    assert "| yes | 2 | 66.7% | 62.5% |\n| no | 1 | 33.3% | 37.5% |" in balance
    assert "Items with two votes or more: 2, too few" in text["Do the annotators agree?"]


def test_the_interval_is_shown_from_its_lower_end(tmp_path: Path) -> None:
    votes = crowd()
    found = summary.of_agreement(votes, ["0", "1"], rng=rng(0, "agreement"))
    low, high = (found[f"agreement/krippendorff_alpha_{end}"] for end in ("low", "high"))
    text = page(tmp_path, votes)["Do the annotators agree?"]
    value = found["agreement/krippendorff_alpha"]
    assert f"| Krippendorff's alpha | {value:.3f} | {low:.3f} to {high:.3f} |" in text
