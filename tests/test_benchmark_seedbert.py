"""What SeedBERT's benchmark measures: n members beside one, both of them learning."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def small(script: ModuleType, **keys: int) -> Any:
    return script.Shape(bert=dict(SMALL), batch=4, length=5, texts=8, steps=3, pairs=1, **keys)


def test_every_figure_is_a_ratio_of_seconds(script: ModuleType) -> None:
    rows = script.figures(small(script, members=3), "cpu")
    assert [row[0] for row in rows] == ["training step", "frozen encoder, a whole training"]
    for row in rows:
        ours, one, ratio = (float(cell) for cell in row[1:4])
        assert min(ours, one) > 0 and ratio == pytest.approx(ours / one, rel=0.1)
        assert len(row) == len(script.HEADER) and row[4] == "3"


def test_both_ways_learn(script: ModuleType, tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    BertModel(BertConfig(**SMALL), add_pooling_layer=False).save_pretrained(tmp_path)
    torch.manual_seed(0)
    shape = small(script, members=3)
    for frozen, work in ((False, script.step), (True, script.training)):
        ensemble, one = script.learners(str(tmp_path), 3, frozen)
        for module in (ensemble, one):
            call = work(module, shape, "cpu")
            before = float(call())
            for _ in range(20):
                after = float(call())
            assert after < before
