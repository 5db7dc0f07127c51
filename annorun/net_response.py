"""A causal language model that scores and writes responses: its whole vocabulary counts.

The output matrix is multiplied at the places alone whose next token is asked for: of a sequence
with a long input most places predict nothing that is scored.
"""

from typing import Any

import torch
from torch import Tensor, nn

from annorun import net


class ResponseLM(nn.Module):
    """Logits of chosen places of packed sequences (`annorun.dataset.packing`), and sampling.

    With `apart`, a row is one annotator's, and low-rank adapters of his own act in it. The adapters
    of all stand side by side as one of n times the rank, of which a row sees its annotator's part:
    no gradient of one reaches another's, and one pass serves rows of all.
    """

    def __init__(self, lm: Any):
        super().__init__()
        self.lm = lm
        # whose adapters act in each row of the pass that is under way, (B,)
        self.whose: Tensor | None = None

    def apart(self, n_annotators: int) -> None:
        """Give each annotator his part of every adapter, as many ranks for each."""
        for name, part in self.lm.named_modules():
            if name.endswith("lora_A.default"):
                own = torch.eye(n_annotators, device=part.weight.device)
                own = own.repeat_interleave(part.out_features // n_annotators, dim=1)
                part.register_buffer("own", own, persistent=False)
                part.register_forward_hook(self._part)

    def _part(self, adapter: Any, _: Any, inner: Tensor) -> Tensor:  # (B, T, n_annotators * rank)
        assert self.whose is not None
        part: Tensor = inner * adapter.own[self.whose][:, None].to(inner.dtype)
        return part

    def forward(
        self,
        tokens: Tensor,  # (B, T)
        position: Tensor,  # (B, T)
        sees: Tensor,  # (B, T, T) bool; every token sees one or more
        row: Tensor,  # (N,)
        place: Tensor,  # (N,)
        whose: Tensor | None = None,  # (B,), where adapters are apart
    ) -> Tensor:  # (N, V)
        """Return the logits of the token after each (row, place)."""
        self.whose = whose
        states = self.lm.base_model(
            input_ids=tokens,
            position_ids=position,
            attention_mask=_additive(sees, self._kind(tokens.device.type)),
            use_cache=False,
        ).last_hidden_state
        logits: Tensor = self.lm.get_output_embeddings()(states[row, place])
        return logits

    def _kind(self, device: str) -> torch.dtype:
        """Return what attention computes in: its mask must be of one kind with the states."""
        if torch.is_autocast_enabled(device):
            return torch.get_autocast_dtype(device)
        kind: torch.dtype = self.lm.dtype
        return kind

    @torch.no_grad()
    def write(
        self,
        prompts: list[list[int]],
        whose: list[int] | None = None,
        *,
        end: int,
        most: int,
        temperature: float,
    ) -> list[list[int]]:
        """Return a response to each prompt, without its end; the global generator draws.

        Args:
            prompts: tokens of each, one or more.
            whose: the annotator of each, where adapters are apart.
            end: the token that ends a response.
            most: tokens of a response.
            temperature: of sampling; 0 takes the most probable token each time.
        """
        longest = max(map(len, prompts))
        device = self.lm.device
        # padding stands before, so that all go on at one place
        ids = torch.tensor([[end] * (longest - len(p)) + p for p in prompts], device=device)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        drawn = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        greedy = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
        training = self.training
        self.whose = None if whose is None else torch.tensor(whose, device=device)
        self.eval()
        out = self.lm.generate(
            input_ids=ids,
            attention_mask=mask.to(device),
            max_new_tokens=most,
            eos_token_id=end,
            pad_token_id=end,
            # a model's own, which would be no sampling at this temperature
            repetition_penalty=1.0,
            **(drawn if temperature else greedy),
        )
        self.train(training)
        written = out[:, longest:].tolist()
        return [own[: own.index(end)] if end in own else own for own in written]


def build(network: dict[str, Any], seed: int, n_apart: int = 1) -> ResponseLM:
    """Return a language model without dropout, in train mode; see `annorun.net.build`.

    With `n_apart` above 1, adapters are each of so many annotators' own.
    """
    with net.seeded(seed, "weights"):
        model = ResponseLM(net.causal(network["model"]))
        net.adapt(model, network | {"lora": n_apart * network.get("lora", 0)})
    if n_apart > 1:
        model.apart(n_apart)
    # preferences are against a reference without dropout, and start at it
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        elif hasattr(part, "attention_dropout"):
            part.attention_dropout = 0.0  # type: ignore[assignment]
    return model.train()


def _additive(sees: Tensor, kind: torch.dtype) -> Tensor:
    """Return what attention adds: 0 where a token sees another, else the least number."""
    hidden = torch.zeros(sees.shape, dtype=kind, device=sees.device)
    return hidden.masked_fill(~sees, torch.finfo(kind).min)[:, None]
