"""Texts in the config: what is refused, and what makes two runs the same."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from annorun import config, results
from annorun.errors import ConfigError

REPLACED = [
    "method.module._target_=annorun.method.multi_task.MultiTask",
    "~method.module.expertise_lr",
    "~method.module.expertise_start",
]


def plain(folder: Path, *overrides: str) -> dict:
    # whatever the methods' files say of texts, here they take them
    given = ["dataset=popquorn", f"dataset.path='{folder}'", "method.accepts=[text]", *overrides]
    return config.plain(config.compose("config", given))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["dataset.max_length=0"], "dataset.max_length=0: allowed is an integer, 1 or more"),
        (["model_size.pooling=last"], "model_size.pooling=last: allowed is one of first, mean"),
        (["model_size=mini", "model_size.start=scratch"], "comes with its weights"),
        (["model_size=small"], "names no encoder network"),
        (
            [*REPLACED, "+method.module.target=groups"],
            "has no aggregator to learn from; allowed is annotators",
        ),
    ],
)
def test_what_texts_cannot_be_combined_with(
    overrides: list[str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        plain(tmp_path, *overrides)
    assert any(words in fault for fault in error.value.faults), error.value.faults


@pytest.mark.parametrize(("dataset", "used"), [("digits", "image"), ("synthetic_qa", "seq2seq")])
def test_only_encoders_can_be_frozen(dataset: str, used: str) -> None:
    words = rf"start=frozen: is for encoders; dataset={dataset} has a {used} network"
    with pytest.raises(ConfigError, match=words):
        config.compose("config", [f"dataset={dataset}", "model_size.start=frozen"])


def test_pooling_and_freezing_make_another_run_for_texts_and_pooling_for_nothing_else(
    tmp_path: Path,
) -> None:
    first, mean, frozen = (
        results.identity(plain(tmp_path, f"model_size.pooling={p}", f"model_size.start={s}"))
        for p, s in (("first", "pretrained"), ("mean", "pretrained"), ("mean", "frozen"))
    )
    assert len({first, mean, frozen}) == 3
    digits = [
        results.identity(OmegaConf.to_container(config.compose("config", given), resolve=True))
        for given in (["dataset=digits"], ["dataset=digits", "model_size.pooling=first"])
    ]
    assert digits[0] == digits[1]
