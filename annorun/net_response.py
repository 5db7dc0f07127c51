"""A causal language model that scores and writes responses: its whole vocabulary counts.

The output matrix is multiplied at the places alone whose next token is asked for: of a sequence
with a long input most places predict nothing that is scored.
"""

from typing import Any

import torch
from torch import Tensor, nn

from annorun import net


class ResponseLM(nn.Module):
    """Logits of chosen places of packed sequences (`annorun.dataset.packing`), and sampling."""

    def __init__(self, lm: Any):
        super().__init__()
        self.lm = lm

    def forward(
        self,
        tokens: Tensor,  # (B, T)
        position: Tensor,  # (B, T)
        sees: Tensor,  # (B, T, T) bool; every token sees one or more
        row: Tensor,  # (N,)
        place: Tensor,  # (N,)
    ) -> Tensor:  # (N, V)
        """Return the logits of the token after each (row, place)."""
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
        *,
        end: int,
        most: int,
        temperature: float,
    ) -> list[list[int]]:
        """Return a response to each prompt, without its end; the global generator draws.

        Args:
            prompts: tokens of each, one or more.
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


def build(network: dict[str, Any], seed: int) -> ResponseLM:
    """Return a language model without dropout, in train mode; see `annorun.net.build`."""
    with net.seeded(seed, "weights"):
        model = ResponseLM(net.causal(network["model"]))
        net.adapt(model, network)
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
