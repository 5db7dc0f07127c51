"""The meta-learner's EM over a batch of tasks at once, beside one task after another.

`em alone`: forward and backward through J steps on given embeddings. `step`: the whole outer step
with the convolutions and the optimizer, of which the EM is a small part. `J = 10`: the cost of ten
steps against that of one. `difference` is the largest of the answers' log probabilities.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from benchmark_realm import medians, prepare
from torch import Tensor

from annorun.method.episodic import Tasks, log_likelihood
from annorun.method.meta_em import MetaEM
from annorun.objective.prototypes import Priors, em, log_posterior
from annorun.votes import TaskSpec

HEADER = ("figure", "at once", "one by one", "ratio", "difference")


@dataclass(frozen=True)
class Shape:
    """What is measured.

    Attributes:
        n_tasks, way, shots, queries, annotators: of the batch.
        size: numbers of an embedding.
        steps: J.
        pixels: of an image, each way.
        pairs: how often each way is timed.
    """

    n_tasks: int = 16
    way: int = 4
    shots: int = 3
    queries: int = 10
    annotators: int = 5
    size: int = 64
    steps: int = 3
    pixels: int = 28
    pairs: int = 15


def figures(shape: Shape, device: str) -> list[list[str]]:
    """Return a row a figure: seconds of both ways, their ratio, how far the answers differ.

    Raises:
        ConfigError: no such device here.
    """
    prepare(device)
    torch.manual_seed(0)
    rows = []
    support, query = embeddings(shape, device)
    votes, truth = labels(shape, device)

    def alone(steps: int, at_once: bool) -> Callable[[], Tensor]:
        def call() -> Tensor:
            parts = [slice(None)] if at_once else [slice(t, t + 1) for t in range(shape.n_tasks)]
            answers = []
            for part in parts:
                u, q = (x[part].detach().requires_grad_() for x in (support, query))
                found = em(u, votes[part], shape.way, steps=steps, priors=Priors())
                answers.append(log_posterior(q, found))
                (-log_likelihood(answers[-1], truth[part])).backward()  # type: ignore[no-untyped-call]
            return torch.cat(answers).detach()

        return synchronised(call, device)

    rows.append(row("em alone", alone(shape.steps, True), alone(shape.steps, False), shape.pairs))
    model, tasks = learner(shape, device), images(shape, votes, truth, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)

    def step(at_once: bool) -> Callable[[], Tensor]:
        def call() -> Tensor:
            parts = [slice(None)] if at_once else [slice(t, t + 1) for t in range(shape.n_tasks)]
            optimizer.zero_grad()
            for part in parts:
                (model.loss(Tasks(*(v[part] for v in tasks))) / len(parts)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            return torch.zeros(1)

        return synchronised(call, device)

    rows.append(row("step", step(True), step(False), shape.pairs, compare=False))
    ten, one = medians([alone(10, True), alone(1, True)], shape.pairs)
    rows.append(["J = 10 against J = 1", f"{ten:.5f}", f"{one:.5f}", f"{ten / one:.2f}", ""])
    print("  ".join(rows[-1]), flush=True)
    return rows


def row(
    name: str,
    ours: Callable[[], Tensor],
    plain: Callable[[], Tensor],
    pairs: int,
    compare: bool = True,
) -> list[str]:
    """Return the seconds of both, taken in turns, and print them."""
    differs = f"{float((ours() - plain()).abs().max()):.1e}" if compare else ""
    a, b = medians([ours, plain], pairs)
    found = [name, f"{a:.5f}", f"{b:.5f}", f"{b / a:.2f}", differs]
    print("  ".join(found), flush=True)
    return found


def synchronised(call: Callable[[], Tensor], device: str) -> Callable[[], Tensor]:
    """Return a call that ends when the device has."""

    def waited() -> Tensor:
        found = call()
        if device == "cuda":
            torch.cuda.synchronize()
        return found

    return waited


def embeddings(shape: Shape, device: str) -> tuple[Tensor, Tensor]:
    """Return support and queries around a centre for each class."""
    centre = 2 * torch.randn(shape.n_tasks, shape.way, 1, shape.size) / shape.size**0.5
    parts = []
    for n in (shape.shots, shape.queries):
        noise = torch.randn(shape.n_tasks, shape.way, n, shape.size) / shape.size**0.5
        parts.append((centre + noise).flatten(1, 2).to(device))
    return parts[0], parts[1]


def labels(shape: Shape, device: str) -> tuple[Tensor, Tensor]:
    """Return votes, three of ten wrong, and the queries' truth."""
    own = torch.arange(shape.way)
    support = own.repeat_interleave(shape.shots).expand(shape.n_tasks, -1)
    wrong = torch.rand(*support.shape, shape.annotators) < 0.3
    other = (support[..., None] + torch.randint(1, shape.way, wrong.shape)) % shape.way
    votes = torch.where(wrong, other, support[..., None])
    truth = own.repeat_interleave(shape.queries).expand(shape.n_tasks, -1)
    return votes.to(device), truth.to(device)


def images(shape: Shape, votes: Tensor, truth: Tensor, device: str) -> Tasks:
    """Return tasks of drawn images."""
    side = (1, shape.pixels, shape.pixels)
    support = torch.rand(*votes.shape[:2], *side, device=device)
    query = torch.rand(*truth.shape, *side, device=device)
    return Tasks(support, votes, query, truth, torch.arange(shape.n_tasks))


def learner(shape: Shape, device: str) -> MetaEM:
    """Return the method with a fresh network."""
    spec = TaskSpec("image", shape.way, 0, (1, shape.pixels, shape.pixels))
    optimizer = {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.0, "clip": 10.0}
    model = MetaEM(
        spec,
        {"family": "image"},
        {**optimizer, "schedule": "constant", "max_steps": 1},
        seed=0,
        model="em",
        steps=shape.steps,
        covariance="scalar",
        scale=False,
        classes=10.0,
        right=2.0,
        wrong=1.0,
        precision=0.0,
    )
    return model.to(device).train()
