"""Pretraining of the tiny T5: its weights before fine-tuning, the same for every run.

It stands for what Flan-T5 knows of the paper's questions: an informed model that is far from done.
It learns the clean part of `synthetic_qa`, which no run ever sees, and of that the familiar words
only; so it answers most of the familiar questions, guesses the others, and starts between 65 and
70 % on K = 4. First it learns to compare (two options, few words), then to choose among K: from
K options at once it finds nothing in a reasonable time.

The weights for the default questions (`SHIPPED`) are a file of the package, written by `ship`:
training from another rounding (another processor's vector instructions, another number of threads,
another version of torch) ends in other weights, whose fine-tuning differs by some points. For other
questions they are trained at the first call, on one thread, and cached in `${ANNORUN_CACHE}` or
~/.cache/annorun; a file's name holds a hash of all that they depend on.
"""

import copy
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_model
from torch import Tensor, nn

from annorun import net, net_text
from annorun.dataset import encode as encoding
from annorun.dataset import synthetic_qa as qa
from annorun.dataset.module import encode, trim
from annorun.seeds import rng
from annorun.votes import Items, TaskSpec

# a constant of the recipe, not a run's seed: every run starts from the same point
SEED = 0
STAGES = ((200, 2, 0.25), (100, 2, 1.0), (1200, None, 1.0))  # steps, options (None: K), vocabulary
BATCH, LR, WARMUP = 32, 1e-3, 50
LOOK, MOST_LOOKS = 25, 8  # steps between questions of how far it is
TARGET, NEAR, HELD_OUT = 0.675, 0.02, 2000
SHARES = (0.57, 0.38, 0.05)  # of familiar, unfamiliar and rare words, as in the run's defaults
# K and prompt of conf/dataset/synthetic_qa.yaml, and their weights
SHIPPED = (4, "{question} {options}")
FILE = Path(__file__).with_name("tiny_t5.safetensors")
# what rounding depends on beside the versions and the processor
SOURCES = (__file__, qa.__file__, net.__file__, net_text.__file__, encoding.__file__)


def tiny_weights(n_classes: int, prompt: str) -> Path:
    """Return the file of the tiny T5's weights for K options, training them where none is there."""
    if (n_classes, prompt) == SHIPPED:
        return FILE
    parts = [n_classes, prompt, net.TINY_T5, torch.__version__, version("transformers")]
    parts.append(torch.backends.cpu.get_cpu_capability())
    parts += [Path(f).read_text("utf-8") for f in SOURCES]
    mark = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("ANNORUN_CACHE") or "~/.cache/annorun").expanduser()
    path = cache / f"tiny-t5-k{n_classes}-s{SEED}-{mark}.safetensors"
    if not path.is_file():
        print("pretraining the tiny T5 (once, about half a minute, cached)", flush=True)
        model, start = pretrain(n_classes, prompt, SEED)
        cache.mkdir(parents=True, exist_ok=True)
        # another process may be doing the same: the last rename wins, with equal content
        with tempfile.NamedTemporaryFile(dir=cache, suffix=".part", delete=False) as part:
            save_model(model, part.name)  # T5 shares its embeddings
        os.replace(part.name, path)
        print(f"its accuracy on fresh questions is {start:.3f}; cached in {path}", flush=True)
    return path


def ship() -> None:
    """Train the weights for the default questions and write the package's file anew."""
    model, start = pretrain(*SHIPPED, SEED)
    save_model(model, str(FILE), {"accuracy": f"{start:.4f}", "torch": torch.__version__})


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: how a sum is split changes its rounding."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def pretrain(n_classes: int, prompt: str, seed: int) -> tuple[nn.Module, float]:
    """Return the network and its accuracy on held-out clean questions.

    Raises:
        RuntimeError: it never came near the accuracy that it is meant to start from.
    """
    spec = TaskSpec(kind="choice", n_classes=n_classes, n_annotators=0)
    network = {"family": "seq2seq", "model": "tiny", "weights": None}
    with one_thread():
        model: Any = net.build(network, spec, seed)
        answers = model.answers.ids.clone()
        adamw = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01, fused=True)
        warm = torch.optim.lr_scheduler.LinearLR(adamw, 1 / WARMUP, total_iters=WARMUP)
        draw = rng(seed, "pretraining")
        held = held_out(n_classes, prompt)
        best, state, looks = 0.0, model.state_dict(), 0
        for steps, few, vocabulary in STAGES:
            k = few or n_classes
            model.answers.ids = answers[:k]
            for _ in range(0, steps, LOOK):
                batch = qa.clean_questions(draw, LOOK * BATCH, k, vocabulary=vocabulary)
                right = learn(model, adamw, warm, tensors(batch, prompt))
                if few is not None:
                    if right > 0.99:
                        break
                # what it would be with guesses at the other words: not yet worth a look
                elif SHARES[0] * right + (1 - SHARES[0]) / k > TARGET - NEAR:
                    now, looks = accuracy(model, *held), looks + 1
                    if abs(now - TARGET) < abs(best - TARGET):
                        best, state = now, copy.deepcopy(model.state_dict())
                    if abs(now - TARGET) < NEAR or looks == MOST_LOOKS:
                        break
    if abs(best - TARGET) > 0.1:
        raise RuntimeError(f"pretraining of the tiny T5 ended at {best:.3f}, not near {TARGET}")
    model.answers.ids = answers
    model.load_state_dict(state)
    return model, best


def learn(
    model: nn.Module,
    adamw: torch.optim.Optimizer,
    warm: torch.optim.lr_scheduler.LRScheduler,
    data: tuple[dict[str, Tensor], Tensor],
) -> float:
    """Take a step a batch; return how many were answered right before their own step."""
    inputs, truth = data
    right = 0
    for first in range(0, len(truth), BATCH):
        part = slice(first, first + BATCH)
        logits = model(**trim({k: v[part] for k, v in inputs.items()}))
        loss = nn.functional.cross_entropy(logits, truth[part])
        adamw.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        warm.step()
        right += int((logits.argmax(dim=1) == truth[part]).sum())
    return right / len(truth)


@torch.no_grad()
def accuracy(model: nn.Module, inputs: dict[str, Tensor], truth: Tensor) -> float:
    """Return the share of right answers."""
    model.eval()
    parts = [slice(i, i + 250) for i in range(0, len(truth), 250)]
    guess = [model(**trim({k: v[p] for k, v in inputs.items()})).argmax(dim=1) for p in parts]
    model.train()
    return float((torch.cat(guess) == truth).double().mean())


def held_out(n_classes: int, prompt: str) -> tuple[dict[str, Tensor], Tensor]:
    """Return clean questions that mix the sorts of words as a run's test questions do."""
    draw = rng(SEED, "held-out")
    parts = [
        qa.clean_questions(draw, round(share * HELD_OUT), n_classes, sort)
        for sort, share in enumerate(SHARES)
    ]
    return tensors(qa.join(parts), prompt)


def tensors(questions: qa.Questions, prompt: str) -> tuple[dict[str, Tensor], Tensor]:
    """Return the network's inputs and the right answers."""
    n = len(questions.gold)
    items = Items("choice", questions.text(), np.full(n, "train"), questions.options.shape[1])
    return encode(items, net.tokenizer("tiny"), prompt), torch.from_numpy(questions.gold)
