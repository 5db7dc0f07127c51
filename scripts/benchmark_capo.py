"""CAPO's second stage beside plain pairwise DPO: four annotators an input, a response scored once.

Plain: each pair is two sequences of input, annotator and response, padded to the longest, so an
input with four annotators is read 24 times, of which 16 differ. `step`: forward, backward, clip,
AdamW, on the same pairs with the reference's scores at hand; logits at the responses' places alone
in both ways. `step, second model`: plain asks a frozen second model for these scores in each step.
`weights`: MiB of both networks' parameters. The network is drawn, a Llama; the words are drawn, as
many an annotator as in Paraphrase (LeWiDi 2025: 12.6, 7.4, 15.9, 9.1).
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from benchmark_realm import medians, prepare
from torch import Tensor, nn

from annorun.dataset.responses import Responses
from annorun.method.capo import Batch, Capo
from annorun.votes import Items, Votes

LLAMA: dict[str, Any] = {
    "vocab_size": 16384,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "intermediate_size": 1024,
}
WORDS = (12.6, 7.4, 15.9, 9.1)
N = len(WORDS)
HEADER = ("figure", "ours", "plain", "ratio", "n")
METHOD: dict[str, Any] = {
    "who": "token",
    "loss": "dpo",
    "beta": 0.1,
    "margin": 0.0,
    "smoothing": 0.0,
    "anchor": 0.1,
    "mask": "all",
    "pairs": "all",
    "weights": "none",
    "preference_steps": 1,
    "preference_lr": 5e-5,
    "temperature": 0.7,
    "most_tokens": 1,
    "decodings": 1,
    "encoder": None,
    "llm": None,
}
OPTIMIZER: dict[str, Any] = {
    "lr": 5e-5,
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
        llama: keys of the network's config.
        items: inputs of a batch.
        words: of an input.
        pairs: how often each way is timed.
    """

    llama: dict[str, Any] = field(default_factory=lambda: dict(LLAMA))
    items: int = 4
    words: int = 60
    pairs: int = 9


LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
DIGITS = str.maketrans("abcdefghijklmnop", "0123456789abcdef")


class Numbers:
    """A tokenizer of texts whose words are hexadecimal numbers by the letters a to p."""

    eos_token_id, bos_token_id = 0, None

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """Return the token of each word."""
        own = [word.rstrip(":").translate(DIGITS) for word in text.split() if word.islower()]
        return {"input_ids": [int(word, 16) for word in own]}


class Plain(nn.Module):
    """DPO on pairs, each response of a pair a sequence of its own."""

    def __init__(self, lm: Any, data: Responses, module: Capo):
        super().__init__()
        self.lm = lm
        self.beta, self.anchor = module.beta, module.anchor
        ids, starts, numbers = [], [], []
        for b in data.branches:
            number = {v: b.first + k for k, v in enumerate(b.scored())}
            for vote in b.pairs.T.ravel().tolist():
                before = data.prompt(b.item, b.target)
                ids.append([*before, *data.response(vote)])
                starts.append(len(before))
                numbers.append(number[vote])
        longest = max(map(len, ids))
        self.ids = torch.tensor([own + [0] * (longest - len(own)) for own in ids])
        self.mask = torch.tensor([[1] * len(own) + [0] * (longest - len(own)) for own in ids])
        told = torch.arange(longest) >= torch.tensor(starts)[:, None]
        self.row, self.at = (told & (self.mask == 1)).nonzero(as_tuple=True)
        self.number = torch.tensor(numbers)
        # of a branch: the chosen ones, then the rejected ones
        chosen = [[True] * len(b.pairs) + [False] * len(b.pairs) for b in data.branches]
        self.chosen = torch.tensor([one for own in chosen for one in own])
        # they go to the device with the network, once
        for name in ("ids", "mask", "row", "at", "chosen"):
            self.register_buffer(name, self.__dict__.pop(name))

    def scores(self, lm: Any) -> Tensor:  # (2P,)
        """Return the summed log-probability of each response of each pair."""
        states = lm.base_model(
            input_ids=self.ids, attention_mask=self.mask, use_cache=False
        ).last_hidden_state
        logits = lm.get_output_embeddings()(states[self.row, self.at - 1])
        told = logits.float().log_softmax(dim=1)
        each = told.gather(1, self.ids[self.row, self.at][:, None])[:, 0]
        total: Tensor = each.new_zeros(len(self.ids)).index_add(0, self.row, each)
        return total

    def loss(self, reference: Tensor) -> Tensor:  # reference (2P,) -> ()
        """Return the mean loss of the pairs, and the anchor."""
        total = self.scores(self.lm)
        ratio = total - reference
        h = self.beta * (ratio[self.chosen] - ratio[~self.chosen])
        length = torch.bincount(self.row)[self.chosen]
        return (
            -nn.functional.logsigmoid(h).mean() - self.anchor * (total[self.chosen] / length).mean()
        )


def figures(shape: Shape, device: str) -> list[list[str]]:
    """Return a row a figure: ours, plain, and how many times more plain takes.

    Raises:
        ConfigError: no such device here.
    """
    prepare(device)
    ours, plain, batch = both(shape, device)
    assert ours.reference is not None
    known = ours.reference[plain.number].to(device)
    frozen = copy.deepcopy(plain.lm).eval().requires_grad_(False)

    def asked() -> Tensor:
        with torch.no_grad():
            reference = plain.scores(frozen)
        return plain.loss(reference)

    ways = [
        step(ours, lambda: ours.loss(batch), ours, device),
        step(plain, lambda: plain.loss(known), ours, device),
        step(plain, asked, ours, device),
    ]
    one, pairs, second = medians(ways, shape.pairs)
    held = [sum(p.nbytes for p in m.parameters()) / 2**20 for m in (ours, plain, frozen)]
    rows = []
    for name, a, b in (
        ("step, s", one, pairs),
        ("step, second model, s", one, second),
        ("weights, MiB", held[0], held[1] + held[2]),
    ):
        rows.append([name, f"{a:.4f}", f"{b:.4f}", f"{b / a:.2f}", str(shape.items)])
        print("  ".join(rows[-1]), flush=True)
    return rows


def both(shape: Shape, device: str) -> tuple[Capo, Plain, Batch]:
    """Return the two ways with the same weights, and our batch of the same pairs."""
    from transformers import LlamaConfig, LlamaForCausalLM

    data = responses(shape)
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        LlamaForCausalLM(LlamaConfig(**shape.llama)).save_pretrained(folder)
        network = {"family": "causal", "model": folder, "lora": 0, "checkpointing": False}
        ours = Capo(network, OPTIMIZER, 0, **METHOD).to(device)
    ours.paired = True
    arrays = data.batch(data.branches, paired=True, explanation_only=False)
    batch = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    with torch.no_grad():
        ours.reference = ours.scores(batch)[0].cpu()
    return ours, Plain(copy.deepcopy(ours.net.lm), data, ours).to(device), batch


def responses(shape: Shape) -> Responses:
    """Return drawn inputs, each explained by four annotators of the lengths above."""
    rng = np.random.default_rng(0)

    def text(words: int) -> str:
        drawn = rng.integers(2, shape.llama["vocab_size"], words)
        return " ".join(f"{n:x}".translate(LETTERS) for n in drawn)

    item, annotator = np.repeat(np.arange(shape.items), N), np.tile(np.arange(N), shape.items)
    label = rng.integers(2, size=len(item))
    why = tuple(text(max(1, rng.poisson(WORDS[a]))) for a in annotator)
    votes = Votes(item, annotator, label, shape.items, N, 2, explanation=why)
    inputs = {"text": np.array([text(shape.words) for _ in range(shape.items)])}
    split = np.full(shape.items, "train")
    items = Items("explain", inputs, split, 2, class_names=("a", "b"), annotator_names="abcd")
    return Responses(
        items,
        votes,
        Numbers(),
        prompt="{text}",
        who="token",
        max_length=shape.words,
        pairs="all",
        weights="none",
    )


def step(
    module: nn.Module, loss: Callable[[], Tensor], ours: Capo, device: str
) -> Callable[[], Tensor]:
    """Return a training step: forward, backward, clipping, AdamW."""
    module.train()
    learned = [p for p in module.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(learned, lr=ours.preference_lr, weight_decay=0.0, fused=True)

    def call() -> Tensor:
        adam.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learned, ours.optimizer["clip"])
        adam.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return value.detach()

    return call
