"""Runs that learn to write explanations: files, metrics, the cached reference, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig

from annorun import config, explaining, llm_attribution, results
from annorun.errors import ConfigError
from annorun.method.capo import Capo
from annorun.run import run

Compose = Callable[..., DictConfig]
FEW = [
    "method=capo",
    "dataset=synthetic_styles",
    "dataset.n_items=40",
    "model_size=tiny",
    "trainer=smoke",
    "trainer.max_steps=4",
    "trainer.val_every=2",
    "trainer.batch_size=2",
    "method.module.preference_steps=2",
    "method.module.decodings=2",
    "method.module.most_tokens=8",
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANNORUN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_run_writes_responses_and_judges_them(
    compose: Compose, cache: Path, tmp_path: Path
) -> None:
    row = run(compose(*FEW))
    found = row["metrics"]
    assert row["steps"] == 6
    assert {"attribution/acc_clean_bag1", "attribution/human_reduced_bag1"} <= set(found)
    assert {"imitation/margin_none_bag1", "test/label_acc", "test/malformed"} <= set(found)
    assert found["pairs/all"] > found["pairs/same_label"] > 0
    (folder,) = (tmp_path / "runs" / "default").iterdir()
    names = {path.name for path in folder.iterdir()}
    assert {"responses.csv", "metrics.csv", "preference.csv", "annotators.csv"} <= names
    rows = results.read_csv(folder / "responses.csv")
    # 4 test items, 4 annotators, twice
    assert len(rows) == 32 and {r["target"] for r in rows} == {"Ann1", "Ann2", "Ann3", "Ann4"}
    assert len(list(cache.glob("reference-*.safetensors"))) == 1


def test_the_reference_is_scored_once_and_a_second_run_reads_it(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same row without one call for scores: what is kept is what was found."""
    first = run(compose(*FEW))["metrics"]
    asked = []

    def reference(self: explaining.Explaining) -> object:
        before = Capo.scores

        def never(*_: object) -> None:
            asked.append(1)

        monkeypatch.setattr(Capo, "scores", never)
        try:
            return own(self)
        finally:
            monkeypatch.setattr(Capo, "scores", before)

    own = explaining.Explaining.reference
    monkeypatch.setattr(explaining.Explaining, "reference", reference)
    again = run(compose(*FEW, "mode=force"))["metrics"]
    assert again == first and not asked


def test_without_a_second_stage_there_are_no_pairs(compose: Compose, cache: Path) -> None:
    row = run(compose(*["method=explain_sft", *FEW[1:8], *FEW[9:]]))
    assert row["steps"] == 4
    assert not any(name.startswith("pairs/") for name in row["metrics"])
    # the stage itself, and no scores
    assert {path.name.partition("-")[0] for path in cache.iterdir()} == {"stage1"}


def test_pairs_that_the_data_do_not_have_are_refused(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    from annorun.dataset.responses import Responses

    monkeypatch.setattr(Responses, "_is_pair", lambda *_: False)
    with pytest.raises(ConfigError, match="pairs=all: no training item has two"):
        run(compose(*FEW))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["method.module.loss=listwise", "method.module.pairs=same"], "listwise has no pairs"),
        (["method.module.who=pooled"], "no response is preferred"),
        (["method.module.who=adapter"], "want a rank; allowed is model_size.lora=16"),
    ],
)
def test_keys_that_would_do_nothing_are_refused(
    compose: Compose, words: list[str], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        run(compose(*FEW, *words))


def test_preference_starts_at_the_reference(compose: Compose, tmp_path: Path) -> None:
    """Without an anchor the first step's loss is log 2, whatever the first stage has learned."""
    given = ["method.module.preference_steps=1", "method.module.anchor=0", "trainer.val_every=1"]
    run(compose(*FEW, *given))
    (curve,) = (tmp_path / "runs").rglob("preference.csv")
    (first,) = results.read_csv(curve)
    assert float(first["train/loss"]) == pytest.approx(np.log(2), abs=1e-6)


def test_preferences_begin_with_the_first_stage_that_is_there(
    compose: Compose, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fine-tuning has learned is not learned again, and the row is the same to the bit."""
    alone = run(compose(*FEW))["metrics"]
    (tmp_path / "runs").rename(tmp_path / "before")
    for path in cache.iterdir():
        path.unlink()
    run(compose(*FEW, "method=explain_sft", "method.module.preference_steps=0"))
    assert len(list(cache.glob("stage1-*.safetensors"))) == 1
    fitted = []
    before = explaining.Explaining._fit

    def fit(self: explaining.Explaining, curve: Path, t: dict[str, Any]) -> None:
        fitted.append(curve.name)
        before(self, curve, t)

    monkeypatch.setattr(explaining.Explaining, "_fit", fit)
    row = run(compose(*FEW))
    assert fitted == ["preference.csv"] and row["metrics"] == alone and row["steps"] == 6
    curves = [next((tmp_path / "runs").rglob(f"{k}*/metrics.csv")) for k in ("capo", "explain")]
    assert curves[0].read_text() == curves[1].read_text()


def test_a_first_stage_is_of_its_network_and_of_its_training_items(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[explaining.Explaining] = []
    before = explaining.Explaining.explain
    monkeypatch.setattr(
        explaining.Explaining,
        "explain",
        lambda one, folder: kept.append(one) or before(one, folder),
    )
    run(compose(*FEW))
    (one,) = kept
    one.module.paired = False
    first = one._hash("x")
    assert one._hash("x") == first != one._hash("y")
    one.val.insert(0, one.train.pop())
    assert one._hash("x") != first
    one.train.append(one.val.pop(0))
    assert one._hash("x") == first
    one.module.net.lm.config.rope_theta = 7.0
    assert one._hash("x") != first


def test_each_stage_has_a_log_of_its_own(compose: Compose, tmp_path: Path) -> None:
    run(compose(*FEW, "logger=csv"))
    found = sorted(p.parent.name for p in (tmp_path / "runs").rglob("csv/metrics.csv"))
    assert len(found) == 2


def test_half_precision_goes_through_both_stages(compose: Compose) -> None:
    row = run(compose(*FEW, "trainer.precision=bf16-mixed"))
    assert row["steps"] == 6


def test_each_annotator_has_adapters_of_his_own(compose: Compose, cache: Path) -> None:
    """Both stages go through; what is kept of the first is four adapters in the place of one."""
    sizes = []
    for who in ("token", "adapter"):
        row = run(compose(*FEW, "model_size.lora=2", f"method.module.who={who}"))
        assert row["steps"] == 6
        sizes.append({p.name: p.stat().st_size for p in cache.glob("stage1-*.safetensors")})
    (one,) = sizes[0].values()
    (each,) = (sizes[1][name] for name in sizes[1].keys() - sizes[0].keys())
    # names and shapes stand in the file, too
    assert 2.5 * one < each < 4 * one


def test_other_judges_are_asked_beside_the_one_on_characters(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a bag of each annotator and size, instead of ten
    monkeypatch.setattr(llm_attribution, "FEW", 1)
    given = ["method.module.encoder=tiny", "method.module.llm=tiny", "dataset.n_items=80"]
    plain = run(compose(*FEW, "dataset.n_items=80"))["metrics"]
    found = run(compose(*FEW, *given))["metrics"]
    assert {k: found[k] for k in plain} == plain
    more = set(found) - set(plain)
    for name in ("acc_encoder_bag1", "human_encoder_bag8", "macro_f1_encoder", "acc_llm_bag1"):
        assert f"attribution/{name}" in more
    assert all(0 <= found[name] <= 1 for name in more)


@pytest.mark.parametrize("key", ["encoder", "llm"])
def test_a_judge_that_is_not_there_is_named_before_anything_is_learned(
    compose: Compose, key: str, tmp_path: Path
) -> None:
    with pytest.raises(
        ConfigError, match=rf"method\.module\.{key}: nobody/nothing cannot be loaded"
    ):
        run(compose(*FEW, f"method.module.{key}=nobody/nothing"))
    with pytest.raises(ConfigError, match=rf"method\.module\.{key}=/nowhere: no config.json"):
        run(compose(*FEW, f"method.module.{key}=/nowhere"))
    assert not (tmp_path / "runs").exists()


def test_a_refusal_after_something_was_written_is_a_failed_run(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConfigError("too long after all")

    monkeypatch.setattr(explaining.explained_results, "judge", refuse)
    with pytest.raises(ConfigError, match="too long after all"):
        run(compose(*FEW))
    (folder,) = (tmp_path / "runs" / "default").iterdir()
    assert results.state(folder) == "failed"


def test_the_best_weights_are_not_kept(compose: Compose) -> None:
    with pytest.raises(ConfigError, match="choose_on=votes: each stage ends"):
        run(compose(*FEW, "trainer.choose_on=votes"))


def test_a_classifier_writes_nothing(compose: Compose) -> None:
    with pytest.raises(ConfigError, match="writes no explanations"):
        run(compose("method=majority", *FEW[1:8]))


@pytest.mark.slow
def test_preference_goes_beyond_fine_tuning_and_keeps_the_labels(tmp_path: Path) -> None:
    """One split of the sweep capo_styles: 10 points or more, where fine-tuning is at .5 to .8."""
    found = {}
    for method in ("explain_sft", "capo"):
        given = [f"method={method}", "data_seed=0", f"out_root='{tmp_path}'"]
        found[method] = run(config.compose("capo_styles", given))["metrics"]
    plain, preferred = (m["attribution/acc_clean_bag1"] for m in found.values())
    assert 0.5 < plain < 0.8
    assert preferred > plain + 0.1
    labels = [m["test/label_acc"] for m in found.values()]
    assert labels[1] > labels[0] - 0.05
