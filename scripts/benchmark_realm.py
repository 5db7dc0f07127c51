"""REALM's step beside the plain way to write it: how much faster, and the same to rounding.

Ours is `annorun.method.realm.Realm` as a run has it: a prompt is encoded once, however many votes
it has, and of the output matrix only the answers' rows are multiplied. The plain way: one row per
annotation, the model's own `forward`, the label's probability among the whole vocabulary. With the
restricted softmax in its place (REALM Eq. 2) it must give our loss and our gradients.

Weights are drawn, in Flan-T5-small's shape; whatever they are, the work is the same.
"""

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from annorun import net
from annorun.errors import ConfigError
from annorun.method.realm import Realm
from annorun.net_text import AnswerT5
from annorun.votes import TaskSpec

FLAN_SMALL: dict[str, Any] = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 1024,
    "num_layers": 8,
    "num_decoder_layers": 8,
    "num_heads": 6,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.1,
    # not tied, as of T5 1.1: what the output matrix multiplies is not scaled
    "tie_word_embeddings": False,
    "decoder_start_token_id": 0,
}
HEADER = ("figure", "ours", "plain", "ratio", "difference")
N_ANNOTATORS = 5
ADAMW: dict[str, Any] = {"lr": 3e-4, "betas": (0.9, 0.999), "weight_decay": 0.01}
SCHEDULE: dict[str, Any] = {"clip": 1.0, "schedule": "constant", "max_steps": 1}
EXPERTISE_LR = 0.08
WARM = 3

Batch = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """What is measured.

    Attributes:
        t5: keys of the model's config; untied where `tie_word_embeddings` is False.
        n_prompts, length, labels: prompts of a batch, their tokens, the votes of each.
        ids: the answers' tokens; a, b, c, d in Flan-T5's vocabulary.
        pairs: how often each way is timed.
    """

    t5: dict[str, Any] = field(default_factory=lambda: FLAN_SMALL)
    n_prompts: int = 16
    length: int = 64
    labels: int = 3
    ids: tuple[int, ...] = (9, 115, 75, 26)
    pairs: int = 15


class Plain(nn.Module):
    """One row per annotation through the model's own forward.

    Args:
        t5: the language model.
        ids: the answers' tokens.
        omega: (n_annotators,) the logit of each expertise.
    """

    def __init__(self, t5: Any, ids: Sequence[int], omega: Tensor):
        super().__init__()
        self.t5, self.ids = t5, torch.tensor(ids)
        self.omega = nn.Parameter(omega.clone())

    def loss(self, rows: Batch, restricted: bool) -> Tensor:
        """Return REALM Eq. 3, (): over the K answers' tokens alone, or over the vocabulary."""
        start = torch.full_like(rows["input_ids"][:, :1], self.t5.config.decoder_start_token_id)
        logits = self.t5(
            input_ids=rows["input_ids"],
            attention_mask=rows["attention_mask"],
            decoder_input_ids=start,
            use_cache=False,
        ).logits[:, 0]
        ids = self.ids.to(logits.device)
        token = ids[rows["label"]]
        if restricted:
            logits, token = logits[:, ids], rows["label"]
        pi = torch.softmax(logits, dim=-1).gather(1, token[:, None])[:, 0]
        rho = torch.sigmoid(self.omega)[rows["annotator"]]
        return -torch.log(rho * pi + (1 - rho) / len(ids)).mean()


def language_model(keys: dict[str, Any]) -> Any:
    """Return a T5 with drawn weights; transformers 5 ties it, so an untied head is put in."""
    from transformers import T5Config, T5ForConditionalGeneration

    t5 = T5ForConditionalGeneration(T5Config(**keys))
    if not keys.get("tie_word_embeddings", True):
        head = torch.randn(t5.lm_head.weight.shape) * t5.model_dim**-0.5
        t5.lm_head.weight = nn.Parameter(head)
    return t5


def both(shape: Shape) -> tuple[Realm, Plain]:
    """Return our method and the plain one with the same weights, drawn from seed 0."""
    with net.seeded(0, "benchmark"):
        t5, omega = language_model(shape.t5), torch.randn(N_ANNOTATORS)
    spec = TaskSpec(kind="choice", n_classes=len(shape.ids), n_annotators=N_ANNOTATORS)
    network = {"family": "seq2seq", "model": "tiny", "weights": None}
    ours = Realm(spec, network, ADAMW | SCHEDULE, 0, EXPERTISE_LR, 0.5)
    ours.net = AnswerT5(copy.deepcopy(t5), list(shape.ids))
    with torch.no_grad():
        ours.omega.copy_(omega)
    return ours, Plain(t5, shape.ids, omega)


def batch(
    shape: Shape,
    counts: Sequence[int],  # votes of each prompt
    lengths: Sequence[int],  # tokens of each prompt
) -> Batch:
    """Return a batch as `annorun.dataset.module` makes them; its tokens and votes are drawn."""
    draw = torch.Generator().manual_seed(0)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    tokens = torch.randint(2, shape.t5["vocab_size"], mask.shape, generator=draw)
    n = sum(counts)
    return {
        "inputs": {"input_ids": tokens * mask, "attention_mask": mask},
        "row": torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
        "annotator": torch.randint(N_ANNOTATORS, (n,), generator=draw),
        "label": torch.randint(len(shape.ids), (n,), generator=draw),
    }


def rows(batch: Batch) -> Batch:
    """Return the same votes as the plain way has them: each with a copy of its prompt."""
    copies = {k: v[batch["row"]] for k, v in batch["inputs"].items()}
    return copies | {k: batch[k] for k in ("annotator", "label")}


def _loss(ours: Realm, batch: Batch) -> Tensor:
    # not ours(...), which makes float32 of its logits: a test compares in float64
    return ours.loss(ours.net(**batch["inputs"]), batch)


def differences(ours: Realm, plain: Plain, batch: Batch) -> dict[str, float]:
    """Return how far our loss and gradients are from those of the plain, restricted way.

    Dropout is off. Of a gradient: the greatest difference in a tensor over the tensor's greatest
    entry, the worst tensor of each part. A tensor whose gradient is nothing but rounding (with one
    position, the decoder's own attention has nothing to choose) is held against its part's.
    """
    for module in (ours, plain):
        module.eval().zero_grad(set_to_none=True)
    a, b = _loss(ours, batch), plain.loss(rows(batch), restricted=True)
    torch.autograd.backward([a, b])
    found = {"loss": float((a - b).detach().abs() / b.detach().abs())}
    parts: dict[str, list[tuple[float, float]]] = {}
    for part, mine, other in _gradients(ours, plain):
        gap = float((mine - other).abs().max())
        parts.setdefault(part, []).append((gap, float(other.abs().max())))
    for part, tensors in parts.items():
        most = max(size for _, size in tensors)
        noise = 10 * torch.finfo(b.dtype).eps * most
        found[part] = max(gap / (size if size > noise else most) for gap, size in tensors)
    return found


def _gradients(ours: Realm, plain: Plain) -> list[tuple[str, Tensor, Tensor]]:
    """Return (part, ours, plain) of every parameter; a parameter without a gradient has zeros."""
    answer: Any = ours.net
    others = dict(plain.t5.named_parameters())
    found = [("omega", _gradient(ours.omega), _gradient(plain.omega))]
    for name, parameter in answer.t5.named_parameters():
        found.append((_part(name), _gradient(parameter), _gradient(others.pop(name))))
    if others:
        # all that is left: the output matrix; we hold its answers' rows
        whole = _gradient(others.pop("lm_head.weight"))
        mine = torch.zeros_like(whole)
        mine[answer.answers.ids] = _gradient(answer.answers.weight)
        found.append(("output matrix", mine, whole))
    assert not others
    return found


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _part(name: str) -> str:
    return {"shared": "embeddings"}.get(name.split(".")[0], name.split(".")[0])


def prepare(device: str) -> None:
    """Take one thread; raise ConfigError where there is no such device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: there is no such device here; allowed is cpu")
    torch.set_num_threads(1)


def medians(calls: Sequence[Callable[[], Any]], pairs: int) -> list[float]:
    """Return the median seconds of each call; they take turns, and in who begins."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(WARM + pairs):
        for k in list(range(len(calls)))[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            calls[k]()
            if turn >= WARM:
                seconds[k].append(time.perf_counter() - start)
    return [statistics.median(s) for s in seconds]


def steps(
    ours: Realm, plain: Plain, batch: Batch, device: str, adamw: bool
) -> list[Callable[[], Any]]:
    """Return a training step of each way: forward, backward and, if asked, AdamW."""
    copies = rows(batch)
    kinds: list[tuple[nn.Module, Callable[[], Tensor]]] = [
        (ours, lambda: _loss(ours, batch)),
        (plain, lambda: plain.loss(copies, restricted=False)),
    ]
    optimizers = [ours.configure_optimizers()["optimizer"], _adamw(plain)] if adamw else []

    def step(k: int) -> None:
        module, loss = kinds[k]
        module.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        if adamw:
            optimizers[k].step()
        if device == "cuda":
            torch.cuda.synchronize()

    return [lambda: step(0), lambda: step(1)]


def _adamw(plain: Plain) -> torch.optim.Optimizer:
    """Return the optimizer that `Realm` has, over the plain way's parameters."""
    omega = {"params": [plain.omega], "lr": EXPERTISE_LR, "weight_decay": 0.0}
    return torch.optim.AdamW([{"params": plain.t5.parameters()}, omega], **ADAMW, fused=True)


def figures(shape: Shape, device: str) -> list[list[str]]:
    """Return the rows under HEADER: three ratios of times, then the differences.

    Raises:
        ConfigError: no such device here.
    """
    prepare(device)
    ours, plain = both(shape)
    ours.to(device).train()
    plain.to(device).train()
    full, single = (
        _to(batch(shape, [n] * shape.n_prompts, [shape.length] * shape.n_prompts), device)
        for n in (shape.labels, 1)
    )
    found = []
    # AdamW last: it moves the weights
    same = differences(ours, plain, full)
    ours.train()
    plain.train()
    for what, votes, adamw in (
        (f"step, {shape.labels} labels a prompt", full, False),
        ("step, one label a prompt", single, False),
        (f"step and AdamW, {shape.labels} labels a prompt", full, True),
    ):
        a, b = medians(steps(ours, plain, votes, device, adamw), shape.pairs)
        found.append([what, f"{a:.4f}", f"{b:.4f}", f"{b / a:.2f}", ""])
        print("  ".join(found[-1]), flush=True)
    return found + [[part, "", "", "", f"{gap:.1e}"] for part, gap in same.items()]


def _to(batch: Batch, device: str) -> Batch:
    moved = {k: v.to(device) for k, v in batch.items() if k != "inputs"}
    return moved | {"inputs": {k: v.to(device) for k, v in batch["inputs"].items()}}
