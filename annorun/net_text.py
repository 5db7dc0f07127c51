"""How a transformer answers: every network here maps a batch's tokens to K logits.

Language models answer with K tokens (restricted softmax, REALM Eq. 2): of the output matrix only
the K rows of these tokens are multiplied, at one position. The full vocabulary's logits, which a
model's own `forward` returns, are most of the step of a small model.
"""

import sys
from typing import Any

import torch
from torch import Tensor, nn


class AnswerRows(nn.Module):
    """The rows of the output matrix that belong to the answers.

    Where output and input share their embeddings they are read from there. Else they are a
    parameter of their own, and the rest of the matrix, which would get no gradient, is dropped.

    Args:
        head: the language model's output layer.
        embeddings: its input layer.
        ids: the answers' tokens, K.
    """

    ids: Tensor

    def __init__(self, head: nn.Linear, embeddings: nn.Embedding, ids: list[int]):
        super().__init__()
        self.register_buffer("ids", torch.tensor(ids), persistent=False)
        tied = head.weight is embeddings.weight
        self.bias = None if head.bias is None else nn.Parameter(head.bias.detach()[ids].clone())
        self.weight = None if tied else nn.Parameter(head.weight.detach()[ids].clone())

    def forward(
        self,
        state: Tensor,  # (batch, d)
        embeddings: nn.Module,
    ) -> Tensor:  # (batch, K)
        """Return the K logits, float32 whatever the trainer's precision: in bfloat16 they tie."""
        # not by its forward: Gemma's scales
        whole: Any = embeddings
        rows = whole.weight[self.ids] if self.weight is None else self.weight
        with torch.autocast(state.device.type, enabled=False):
            return nn.functional.linear(state.to(rows.dtype), rows, self.bias)


class AnswerT5(nn.Module):
    """T5 as a classifier: the logits of the K answer tokens at the first decoder position."""

    def __init__(self, t5: Any, ids: list[int]):
        super().__init__()
        self.answers = AnswerRows(t5.lm_head, t5.shared, ids)
        # T5 1.1 and Flan-T5 do not scale what they multiply with the output matrix
        scaled = getattr(t5.config, "scale_decoder_outputs", t5.config.model_type == "umt5")
        self.scale = t5.model_dim**-0.5 if scaled else 1.0
        t5.lm_head = None
        self.t5 = t5

    def forward(
        self,
        input_ids: Tensor,  # (batch, length)
        attention_mask: Tensor,  # (batch, length)
    ) -> Tensor:  # (batch, K)
        """Return the K logits."""
        encoded = self.t5.encoder(input_ids=input_ids, attention_mask=attention_mask)
        first = torch.full_like(input_ids[:, :1], self.t5.config.decoder_start_token_id)
        decoded = self.t5.decoder(
            input_ids=first,
            encoder_hidden_states=encoded.last_hidden_state,
            encoder_attention_mask=attention_mask,
            use_cache=False,
        )
        state = decoded.last_hidden_state[:, 0] * self.scale
        logits: Tensor = self.answers(state, self.t5.shared)
        return logits


class AnswerLM(nn.Module):
    """A causal language model as a classifier: the K answer tokens after the prompt's last one."""

    def __init__(self, lm: Any, ids: list[int]):
        super().__init__()
        embeddings = lm.get_input_embeddings()
        self.answers = AnswerRows(lm.get_output_embeddings(), embeddings, ids)
        self.lm = lm.base_model
        # some have no end
        self.positions: int = getattr(lm.config, "max_position_embeddings", sys.maxsize)

    def forward(
        self,
        input_ids: Tensor,  # (batch, length), padded on the right
        attention_mask: Tensor,  # (batch, length)
    ) -> Tensor:  # (batch, K)
        """Return the K logits."""
        out = self.lm(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        last = attention_mask.sum(dim=1) - 1
        state = out.last_hidden_state[torch.arange(len(last), device=last.device), last]
        logits: Tensor = self.answers(state, self.lm.get_input_embeddings())
        return logits


class TextEncoder(nn.Module):
    """One state of each text, the first token's or the mean over its tokens, and a linear layer.

    A pair of texts is told apart by the separator alone: no segments are given.
    """

    def __init__(self, encoder: Any, n_outputs: int, pooling: str):
        super().__init__()
        self.encoder, self.pooling = encoder, pooling
        # some have no end
        self.positions: int = getattr(encoder.config, "max_position_embeddings", sys.maxsize)
        self.head = nn.Linear(encoder.config.hidden_size, n_outputs)

    def state(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map tokens, (..., length), to (..., d)."""
        *leading, length = input_ids.shape
        ids, mask = input_ids.view(-1, length), attention_mask.view(-1, length)
        # lengths beyond 256 are no bfloat16
        states: Tensor = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        if self.pooling == "first":
            return states[:, 0].view(*leading, -1)
        weight = mask.unsqueeze(-1).to(states.dtype)
        return ((states * weight).sum(dim=1) / weight.sum(dim=1)).view(*leading, -1)

    def forward(
        self,
        input_ids: Tensor | None = None,  # (batch, length)
        attention_mask: Tensor | None = None,  # (batch, length)
        x: Tensor | None = None,  # (batch, d), states that `states` made once for all
    ) -> Tensor:  # (batch, K)
        """Return the K logits, from tokens or from states."""
        if x is None:
            assert input_ids is not None and attention_mask is not None
            x = self.state(input_ids, attention_mask)
        with torch.autocast(x.device.type, enabled=False):
            logits: Tensor = self.head(x.to(self.head.weight.dtype))
        return logits


class ChoiceEncoder(TextEncoder):
    """One score for each pair of a question and an option; tokens are (batch, K, length)."""

    def forward(
        self,
        input_ids: Tensor | None = None,  # (batch, K, length)
        attention_mask: Tensor | None = None,  # (batch, K, length)
        x: Tensor | None = None,  # (batch, K, d)
    ) -> Tensor:  # (batch, n_outputs * K)
        """Return the K scores, of each of the head's outputs in turn."""
        scores = super().forward(input_ids, attention_mask, x)
        return scores.transpose(1, 2).flatten(1)


@torch.no_grad()
def states(net: TextEncoder, inputs: dict[str, Tensor], device: str, size: int = 64) -> Tensor:
    """Return the states of all texts, (n_items, d), in eval mode; the network stays as it was.

    For questions with K options, (n_items, K, d).
    """
    length = inputs["attention_mask"].sum(dim=-1)
    longest = length if length.dim() == 1 else length.amax(dim=1)
    found, training = torch.empty(*length.shape, net.head.in_features), net.training
    net.eval().to(device)
    # texts of like length together: the least padding
    for index in torch.split(longest.argsort(), size):
        cut = {k: v[index, ..., : int(longest[index].max())] for k, v in inputs.items()}
        found[index] = net.state(**{k: v.to(device) for k, v in cut.items()}).float().cpu()
    net.train(training).cpu()
    return found
