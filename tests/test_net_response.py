"""A language model that writes: its temperature, its own settings, its modes."""

from collections import Counter
from typing import Any

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaAttention

from annorun import net, net_response
from annorun.net_response import ResponseLM

NETWORK: dict[str, Any] = {"family": "causal", "model": "tiny"}
PROMPTS = [[5, 6, 9, 7], [7], [8, 8]]


@pytest.fixture
def lm() -> ResponseLM:
    return net_response.build(NETWORK, 0)


def drawn(lm: ResponseLM, temperature: float, n: int = 1, most: int = 6) -> list[list[int]]:
    torch.manual_seed(0)
    return lm.write(PROMPTS * n, end=1, most=most, temperature=temperature)


def test_cold_writing_is_the_most_probable_and_warmth_spreads(lm: ResponseLM) -> None:
    """The first tokens of 600 draws, against the softmax at each temperature."""
    greedy = drawn(lm, 0.0)
    assert drawn(lm, 1e-4) == greedy
    with torch.no_grad():
        logits = lm.lm(torch.tensor([PROMPTS[0]])).logits[0, -1].double() * 6
        lm.lm.get_output_embeddings().weight.mul_(6)
    found = {}
    for temperature in (0.5, 2.0):
        first = [own[0] if own else 1 for own in drawn(lm, temperature, 600, most=1)[::3]]
        found[temperature] = first
        probs = torch.softmax(logits / temperature, dim=-1)
        top = probs.topk(3).indices.tolist()
        counts = Counter(first)
        for token in top:
            assert counts[token] / 600 == pytest.approx(float(probs[token]), abs=0.08)
    # no token is left out: more of them than the 50 likest that are transformers' default
    assert len(set(found[2.0])) > 60


def test_models_own_settings_of_sampling_are_not_used(lm: ResponseLM) -> None:
    expected = [drawn(lm, temperature) for temperature in (0.0, 1.0)]
    settings = lm.lm.generation_config
    settings.do_sample, settings.top_k, settings.top_p = True, 1, 0.01
    settings.repetition_penalty, settings.temperature = 50.0, 9.0
    assert [drawn(lm, temperature) for temperature in (0.0, 1.0)] == expected
    assert expected[0] != expected[1]


def test_writing_is_without_dropout_and_ends_in_the_mode_that_it_began_in(lm: ResponseLM) -> None:
    expected = drawn(lm.eval(), 0.0)
    assert not lm.training
    for part in lm.modules():
        if hasattr(part, "attention_dropout"):
            part.attention_dropout = 0.9  # type: ignore[assignment]
    assert drawn(lm.train(), 0.0) == expected and lm.training


def test_network_is_built_in_training_mode_without_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that scores are alike in training and evaluation, whatever a model comes with."""
    causal = net.causal

    def dropping(model: str) -> Any:
        lm = causal(model)
        lm.more = torch.nn.Dropout(0.4)
        return lm

    monkeypatch.setattr(net, "causal", dropping)
    monkeypatch.setitem(net.TINY_LLAMA, "attention_dropout", 0.3)
    lm = net_response.build(NETWORK | {"lora": 2, "checkpointing": False}, 0, n_apart=3)
    assert lm.training and all(part.training for part in lm.modules())
    for kind in (torch.nn.Dropout, LlamaAttention):
        assert any(isinstance(part, kind) for part in lm.modules())
    rates = [part.p for part in lm.modules() if isinstance(part, torch.nn.Dropout)]
    rates += [part.attention_dropout for part in lm.modules() if isinstance(part, LlamaAttention)]
    assert not any(rates)
    shapes = {tuple(p.shape) for name, p in lm.named_parameters() if "lora_A" in name}
    assert {rank for rank, _ in shapes} == {6}
