"""SeedBERT's members beside one BERT: what n of them cost.

`training step`: forward, backward, clipping, AdamW; members side by side. `frozen encoder`: a whole
training, the texts encoded once and `steps` of the heads; one head is `bert`'s. Weights are drawn,
in MiniLM's shape (6 layers of 384); whatever they are, the work is the same.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any

import torch
from benchmark_realm import medians, prepare
from torch import Tensor

from annorun import net_text
from annorun.method.base import Batch, Method
from annorun.method.classifier import Classifier
from annorun.method.seedbert import SeedBert
from annorun.votes import TaskSpec

MINILM: dict[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}
HEADER = ("figure", "members", "one", "ratio", "n")
OPTIMIZER: dict[str, Any] = {
    "lr": 5e-6,
    "betas": (0.9, 0.999),
    "weight_decay": 0.0,
    "clip": 1.0,
    "schedule": "constant",
    "max_steps": 1,
}


@dataclass(frozen=True)
class Shape:
    """What is measured.

    Attributes:
        bert: keys of the encoder's config.
        members: n.
        batch, length: texts of a batch, their tokens.
        texts, steps: of a training with a frozen encoder.
        pairs: how often each way is timed.
    """

    bert: dict[str, Any] = field(default_factory=lambda: dict(MINILM))
    members: int = 5
    batch: int = 16
    length: int = 32
    texts: int = 400
    steps: int = 75
    pairs: int = 9


def figures(shape: Shape, device: str) -> list[list[str]]:
    """Return a row a figure: seconds of the members and of one, and their ratio.

    Raises:
        ConfigError: no such device here.
    """
    prepare(device)
    torch.manual_seed(0)
    rows = []
    with TemporaryDirectory() as folder:
        from transformers import BertConfig, BertModel

        BertModel(BertConfig(**shape.bert), add_pooling_layer=False).save_pretrained(folder)
        for name, frozen, work in (
            ("training step", False, step),
            ("frozen encoder, a whole training", True, training),
        ):
            ways = [work(m, shape, device) for m in learners(folder, shape.members, frozen)]
            ours, one = medians(ways, shape.pairs if not frozen else max(shape.pairs // 3, 1))
            rows.append(
                [name, f"{ours:.4f}", f"{one:.4f}", f"{ours / one:.2f}", str(shape.members)]
            )
            print("  ".join(rows[-1]), flush=True)
    return rows


def learners(folder: str, members: int, frozen: bool) -> list[Method]:
    """Return the ensemble, and one network."""
    spec = TaskSpec("text", 3, 1)
    network = {
        "family": "encoder",
        "model": folder,
        "weights": None,
        "lora": 0,
        "checkpointing": False,
        "pooling": "mean",
        "frozen": frozen,
    }
    keys: dict[str, Any] = {"encoder": "own", "bootstrap": False, "answer": "vote"}
    ensemble = SeedBert(spec, network, OPTIMIZER, 0, members=members, **keys)
    return [ensemble, Classifier(spec, network, OPTIMIZER, 0, target="hard")]


def step(module: Method, shape: Shape, device: str) -> Callable[[], Tensor]:
    """Return a training step."""
    inputs = tokens(shape, shape.batch)
    return stepper(module, {k: v.to(device) for k, v in inputs.items()}, shape.batch, device)


def training(module: Method, shape: Shape, device: str) -> Callable[[], Tensor]:
    """Return a training of the heads, from the texts' tokens."""
    inputs = tokens(shape, shape.texts)
    (encoder,) = module.networks()
    assert isinstance(encoder, net_text.TextEncoder)

    def call() -> Tensor:
        states = net_text.states(encoder, inputs, device)[: shape.batch].to(device)
        one = stepper(module, {"x": states}, shape.batch, device)
        for _ in range(shape.steps):
            loss = one()
        return loss

    return call


def stepper(
    module: Method, inputs: dict[str, Tensor], size: int, device: str
) -> Callable[[], Tensor]:
    """Return a step on one batch: forward, backward, clipping, AdamW."""
    module.to(device).train()
    adam = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], fused=True)
    target = torch.eye(3, device=device)[torch.arange(size, device=device) % 3]
    batch: Batch = {"inputs": inputs, "item": torch.arange(size), "target": target}

    def call() -> Tensor:
        adam.zero_grad()
        loss = module.loss(module(batch["inputs"]), batch)
        loss.backward()  # type: ignore[no-untyped-call]
        module.on_before_optimizer_step(adam)
        adam.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return loss.detach()

    return call


def tokens(shape: Shape, n: int) -> dict[str, Tensor]:
    """Return n texts of drawn tokens."""
    ids = torch.randint(shape.bert["vocab_size"], (n, shape.length))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
