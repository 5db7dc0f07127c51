"""Which network a config calls for, and every pair that is refused, each with its own line."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from annorun import config
from annorun.check_network import ALL, FAMILIES, family, network_faults

CONF = config.conf_dir()
NAME = {"method": "some", "dataset": "data", "model_size": "size"}
KINDS = {"choice": "choice", "text": "text", "image": "image", "features": "features"}


def size(name: str, **changes: Any) -> dict[str, Any]:
    found = OmegaConf.to_container(OmegaConf.load(CONF / "model_size" / f"{name}.yaml"))
    assert isinstance(found, dict)
    return found | changes  # type: ignore[return-value]


def composed(
    kind: str = "choice",
    network: dict[str, Any] | None = None,
    trainer: dict[str, Any] | None = None,
    method: dict[str, Any] | None = None,
    provides: tuple[str, ...] = ("truth",),
) -> dict[str, Any]:
    """A config in which nothing is wrong, less what the test changes."""
    own = {"accepts": list(KINDS), "needs": [], "aggregator": None, "module": {"_target_": "a.b"}}
    cpu = {"accelerator": "cpu", "precision": "32-true", "checkpointing": False}
    cpu |= {"choose_on": "last", "val_share": 0.1}
    return {
        "method": own | (method or {}),
        "dataset": {"kind": kind, "provides": list(provides)},
        "model_size": network or size("tiny"),
        "trainer": cpu | (trainer or {}),
    }


@pytest.mark.parametrize(
    ("name", "kind", "used"),
    [
        ("tiny", "choice", "seq2seq"),
        ("mini", "choice", "encoder"),  # it names no T5
        ("small", "choice", "seq2seq"),
        ("base", "choice", "seq2seq"),
        ("large", "choice", "seq2seq"),
        ("tiny", "text", "encoder"),
        ("mini", "text", "encoder"),
        ("base", "text", "encoder"),
        ("tiny", "image", "image"),
        ("tiny", "features", "features"),
        *(("none", kind, None) for kind in KINDS),
        # there is none, and the line that says so names the first
        ("small", "text", "encoder"),
        ("mini", "image", "image"),
    ],
)
def test_auto_is_the_first_of_the_kinds_families_that_the_size_names(name, kind, used) -> None:
    assert family(composed(kind, size(name))) == used
    assert size(name)["family"] == "auto"


def test_a_family_that_is_asked_for_is_taken_and_without_a_module_there_is_none() -> None:
    for asked in ALL:
        assert family(composed("choice", size("tiny", family=asked))) == asked
    assert family(composed(method={"module": None})) is None
    only = dict.fromkeys(ALL) | {"causal": "tiny"}
    assert family(composed("choice", size("tiny", **only))) == "causal"


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_of_a_kind_goes_with_tiny_and_no_other_does(kind: str) -> None:
    for asked in ALL:
        found = network_faults(composed(kind, size("tiny", family=asked)), NAME)
        assert bool(found) == (asked not in FAMILIES[kind])


CAUSAL = {"family": "causal"}
ENCODER = {"family": "encoder"}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"network": size("none")},
            "model_size=size: method=some is a network; allowed is a size that names one, such as "
            "tiny",
        ),
        (
            {"kind": "votes"},
            "model_size=size: dataset=data has votes and no inputs; allowed is model_size=none",
        ),
        (
            {"network": size("tiny", family="image")},
            "model_size.family=image: data of kind choice want seq2seq or encoder or causal",
        ),
        (
            {"kind": "text", "network": size("tiny", **CAUSAL)},
            "model_size.family=causal: data of kind text want encoder",
        ),
        (
            {"kind": "explain", "network": size("tiny", family="encoder")},
            "model_size.family=encoder: data of kind explain want causal",
        ),
        (
            {"network": size("mini", family="seq2seq")},
            "model_size=size: names no seq2seq network, which dataset=data wants; allowed is "
            "model_size=tiny or model_size.seq2seq=NAME",
        ),
        (
            {"kind": "text", "network": size("small")},
            "model_size=size: names no encoder network, which dataset=data wants; allowed is "
            "model_size=tiny or model_size.encoder=NAME",
        ),
        (
            {"network": size("tiny", start="frozen")},
            "model_size.start=frozen: is for encoders; dataset=data has a seq2seq network",
        ),
        (
            {"network": size("tiny", start="frozen", **CAUSAL)},
            "model_size.start=frozen: is for encoders; dataset=data has a causal network",
        ),
        (
            {"network": size("small", start="scratch")},
            "model_size.start=scratch: google/flan-t5-small comes with its weights; allowed is "
            "pretrained",
        ),
        (
            {"network": size("tiny", start="scratch", causal="a/folder", **CAUSAL)},
            "model_size.start=scratch: a/folder comes with its weights; allowed is pretrained",
        ),
        (
            {"kind": "image", "network": size("tiny", lora=4)},
            "model_size.lora=4: adapts transformers, not image; allowed: 0",
        ),
        (
            {"network": size("tiny", lora=4, start="frozen", **ENCODER)},
            "model_size.lora=4: nothing learns in a frozen encoder; allowed: 0",
        ),
        (
            {"trainer": {"precision": "16-mixed", "accelerator": "gpu"}},
            "trainer.precision=16-mixed: T5 overflows in float16; allowed is 32-true or bf16-mixed",
        ),
        (
            {"trainer": {"precision": "16-mixed"}, "network": size("tiny", **CAUSAL)},
            "trainer.precision=16-mixed: a CPU has none; allowed is 32-true or bf16-mixed",
        ),
        (
            {"kind": "features", "trainer": {"checkpointing": True}},
            "trainer.checkpointing=true: is for transformers, not features; allowed: false",
        ),
        (
            {"trainer": {"choose_on": "votes", "val_share": 0.0}},
            "trainer.choose_on=votes: wants validation items; allowed is last, or a "
            "trainer.val_share above 0",
        ),
        (
            {"trainer": {"choose_on": "gold"}, "provides": ("votes",)},
            "trainer.choose_on=gold: the data have no truth; allowed is last or votes",
        ),
    ],
)
def test_every_refusal_is_one_line(changes: dict[str, Any], line: str) -> None:
    assert network_faults(composed(**changes), NAME) == [line]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"network": size("tiny", lora=4)},
        {"network": size("mini", lora=4, **CAUSAL)},
        {"network": size("mini", start="frozen")},
        {"kind": "text", "network": size("mini", start="frozen")},
        {"network": size("tiny", start="scratch")},
        {"kind": "image", "network": size("tiny", start="scratch")},
        {"trainer": {"checkpointing": True}, "network": size("tiny", **ENCODER)},
        {"trainer": {"precision": "bf16-mixed"}},
        {
            "trainer": {"precision": "16-mixed", "accelerator": "gpu"},
            "network": size("tiny", **CAUSAL),
        },
        {"trainer": {"choose_on": "gold"}},
        {"trainer": {"choose_on": "votes"}, "provides": ("votes",)},
        # an aggregator alone does without
        {"network": size("none"), "method": {"aggregator": {"_target_": "a.b"}}},
    ],
)
def test_what_goes_together(changes: dict[str, Any]) -> None:
    assert network_faults(composed(**changes), NAME) == []


def test_faults_of_size_and_trainer_come_together() -> None:
    wrong = composed(
        network=size("tiny", start="frozen", lora=2), trainer={"precision": "16-mixed"}
    )
    found = network_faults(wrong, NAME)
    assert [line.split(":")[0] for line in found] == [
        "model_size.start=frozen",
        "model_size.lora=2",
        "trainer.precision=16-mixed",
    ]
