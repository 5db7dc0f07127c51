"""What each head reads of sentences of two clauses (`annorun.dataset.two_clauses`): clauses.csv.

`saliency_first` is the first clause's share of a head's saliency (`annorun.objective.saliency`),
the mean over the test items; `says_first` how often the head answers with the feeling of the first
clause, of the answers that are either clause's. Of the annotators half have 1, half 0. A text that
is cut off before its second clause (`dataset.max_length`) has no saliency.

The metrics are how far apart the heads are: `clauses/saliency_spread` and `clauses/says_spread`,
the greatest less the least, 1 for the annotators; and `clauses/.._p`, the share of 999 shuffles of
the heads within each item whose spread is as large: heads that read alike differ by chance.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from annorun import results
from annorun.dataset.encode import starts
from annorun.method.base import Method
from annorun.net_text import TextEncoder
from annorun.objective.saliency import gradient_times_input
from annorun.votes import Floats, Ints, Items

DRAWS = 999
AT_ONCE = 64


def write(
    folder: Path,
    module: Method,
    tokens: dict[str, Tensor],  # n_items rows each
    tokenizer: Any,
    items: Items,
    test: Ints,  # (n_test,)
    rng: np.random.Generator,
) -> dict[str, float]:
    """Write clauses.csv, a line a head; return the metrics. {} for a network without embeddings."""
    networks = [n for n in module.modules() if isinstance(n, TextEncoder)]
    if not networks or not len(test):
        return {}
    length = tokens["input_ids"].shape[1]
    begins = starts([items.inputs["text"][i] for i in test], tokenizer, length)
    second = np.asarray(items.inputs["second"])[test][:, None]
    first_part = (begins >= 0) & (begins < second)
    parts = np.stack([first_part, begins >= second], axis=-1)  # (n_test, length, 2)
    shares, said = _read(module, networks, tokens, parts, test)
    felt = np.asarray(items.inputs["felt"])[test]
    either = [said == felt[:, [k]] for k in (0, 1)]
    says = np.where(either[0] | either[1], either[0], np.nan)  # (n_test, n_heads)
    lines = [[h, _mean(shares[:, h]), _mean(says[:, h])] for h in range(shares.shape[1])]
    results.write_csv(folder / "clauses.csv", ["head", "saliency_first", "says_first"], lines)
    found = {}
    for name, values in (("saliency", shares), ("says", says)):
        found[f"clauses/{name}_first"] = _mean(values)
        found[f"clauses/{name}_spread"], found[f"clauses/{name}_p"] = spread(values, rng)
    return found


def _read(
    module: Method,
    networks: list[TextEncoder],
    tokens: dict[str, Tensor],
    parts: np.ndarray[Any, Any],
    test: Ints,
) -> tuple[Floats, Ints]:
    """Return the first clause's share of saliency, and the answer, (n_test, n_heads) each."""
    module.eval()
    shares, said = [], []
    for at in np.split(np.arange(len(test)), range(AT_ONCE, len(test), AT_ONCE)):
        inputs = {k: v[test[at]].to(module.device) for k, v in tokens.items()}
        with torch.enable_grad(), embedded(networks) as embeddings:
            logits = module.each(inputs)  # (B, n_heads, K)
            best = logits.max(dim=-1)
            heads = [gradient_times_input(z.sum(), embeddings) for z in best.values.unbind(dim=1)]
        weight = torch.from_numpy(parts[at]).to(heads[0])
        clause = torch.stack([torch.einsum("bl,blc->bc", s, weight) for s in heads], dim=1)
        share = clause[..., 0] / clause.sum(dim=-1).clamp_min(1e-30)
        whole = weight.amax(dim=1).prod(dim=-1, keepdim=True) > 0
        shares.append(share.where(whole, torch.nan).cpu().double())
        said.append(best.indices.cpu())
    return torch.cat(shares).numpy(), torch.cat(said).numpy()


@contextmanager
def embedded(networks: list[TextEncoder]) -> Iterator[list[Tensor]]:
    """Collect what each network's embedding layer gives, as leaves that get a gradient."""
    found: list[Tensor] = []

    def keep(layer: Any, given: Any, out: Tensor) -> Tensor:
        found.append(out.detach().requires_grad_())
        return found[-1]

    hooks = [n.encoder.get_input_embeddings().register_forward_hook(keep) for n in networks]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def spread(values: Floats, rng: np.random.Generator) -> tuple[float, float]:
    """Return the greatest mean of a head less the least, and the share of shuffles with as much.

    Args:
        values: (n_items, n_heads), NaN where there is none.
        rng: draws the shuffles, of the heads within each item.
    """

    def apart(table: Floats) -> float:
        # of a head without a value nothing is known
        n = np.isfinite(table).sum(axis=0)
        means = np.nansum(table, axis=0)[n > 0] / n[n > 0]
        return float(np.ptp(means)) if len(means) else 0.0

    seen = apart(values)
    alike = sum(apart(rng.permuted(values, axis=1)) >= seen - 1e-12 for _ in range(DRAWS))
    return seen, (alike + 1) / (DRAWS + 1)


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
