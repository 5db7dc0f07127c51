"""What pairs weigh, which first stage is whose, and data that nobody can be told from."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig

from annorun import config, explaining
from annorun import run as runner
from annorun.errors import ConfigError
from annorun.run import run
from annorun.votes import Votes

Compose = Callable[..., DictConfig]
FEW = [
    "method=capo",
    "dataset=synthetic_styles",
    "dataset.n_items=40",
    "model_size=tiny",
    "trainer=smoke",
    "trainer.max_steps=4",
    "trainer.batch_size=2",
    "method.module.preference_steps=2",
]


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[explaining.Explaining]:
    """Return what runs have built; they neither learn nor write."""
    built: list[explaining.Explaining] = []
    monkeypatch.setattr(
        explaining.Explaining,
        "explain",
        lambda one, _: built.append(one) or {"test/label_acc": 1.0},
    )
    return built


def test_pairs_are_weighed_by_the_competence_of_whose_response_is_chosen(
    compose: Compose, kept: list[explaining.Explaining]
) -> None:
    run(compose(*FEW, "method.module.weights=competence"))
    (one,) = kept
    competence = one._weights()
    assert competence.shape == (4,) and len(set(competence.tolist())) == 4
    for branch in one.data.branches:
        assert (branch.weight == competence[branch.target]).all()


def test_one_annotator_is_refused(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = compose(*FEW)
    crowd = runner.load(config.plain(cfg))
    votes = crowd.votes
    lone = Votes(
        votes.item[votes.annotator == 1],
        votes.annotator[votes.annotator == 1],
        votes.label[votes.annotator == 1],
        votes.n_items,
        votes.n_annotators,
        votes.n_classes,
        explanation=tuple(
            why for why, a in zip(votes.explanation or (), votes.annotator, strict=True) if a == 1
        ),
    )
    monkeypatch.setattr(runner, "load", lambda _: replace(crowd, votes=lone))
    with pytest.raises(ConfigError, match="fewer than two annotators explain training items"):
        run(cfg)


def test_pooled_and_apart_are_two_first_stages_even_where_their_weights_and_tokens_are_equal(
    compose: Compose, kept: list[explaining.Explaining]
) -> None:
    for who, rank in (("pooled", 8), ("adapter", 2)):
        words = (f"method.module.who={who}", f"model_size.lora={rank}")
        run(compose(*FEW, *words, "method.module.preference_steps=0"))
    pooled, apart = kept
    # one annotator an item: packing does not tell them apart
    for one in kept:
        one.train, one.val = [own[:1] for own in one.train], [own[:1] for own in one.val]
        one.module.paired = False
    states = [one.module.state_dict() for one in kept]
    assert states[0].keys() == states[1].keys()
    apart.module.load_state_dict(states[0])
    assert pooled._hash("x") != apart._hash("x")


def test_competence_is_of_several_labels_too(
    compose: Compose, kept: list[explaining.Explaining], tmp_path: Path
) -> None:
    """Who labels at random is trusted least; of an annotator without training items, the mean."""
    rng, lines = np.random.default_rng(0), ["task,worker,label,explanation,text,split"]
    for task in range(60):
        part = "train" if task < 40 else "val" if task < 50 else "test"
        truth = "abc"[task % 3]
        for worker, right in (("p", 0.95), ("q", 0.9), ("r", 0.0)):
            label = truth if rng.random() < right else "abc"[rng.integers(3)]
            lines.append(f"{task},{worker},{label},so it is,text {task},{part}")
        if task >= 40:
            lines.append(f"{task},s,{truth},so it is,text {task},{part}")
    # several labels: a second one, of one task
    lines.append("0,p,b,so it is,text 0,train")
    path = tmp_path / "said.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    data = ["dataset=explained_table", f"dataset.path={path}"]
    given = [word for word in FEW if not word.startswith("dataset")]
    run(compose(given[0], *data, *given[1:], "method.module.weights=competence"))
    assert kept[0].votes.multi_label
    p, q, r, s = kept[0]._weights()
    assert r < min(p, q) - 0.2 and s == pytest.approx(np.mean([p, q, r]))
