"""CAPO: a language model learns each annotator's way of explaining, by preference over the others'.

Chen et al., arXiv 2605.28802. Only the abstract is known to us: two stages, first the annotators'
own responses (supervised fine-tuning), then pairs to the same input whose chosen response is the
target annotator's and whose rejected one another's, against the frozen first stage.

    stage 1   -log pi(r_a | x, a) a token
    stage 2   loss(h) of `annorun.objective.preference`, + anchor * -log pi(r_a | x, a) a token

What is ours, as the paper's own could not be read:
1. One model for all annotators, whose name stands after the input (`who=token`); `adapter`, an
   adapter an annotator in place of names; `pooled` does not tell them apart, and is a baseline of
   stage 1 alone. The gradient is clipped over all adapters together.
2. The loss and its constants: DPO, beta .1, an anchor of .1.
3. A response is its label, a bar, its explanation; `mask=explanation` scores the explanation given
   the label.

The reference's scores are computed once, before stage 2 (`annorun.explaining`): there is no second
model. With `preference_steps=0` it is supervised fine-tuning (`method=explain_sft`).
"""

from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor

from annorun import net_response
from annorun.kinds import Count, Natural, NonNegative, Positive, Share
from annorun.method.base import constant, cosine
from annorun.objective import preference

Batch = dict[str, Tensor]


class Capo(L.LightningModule):
    """A language model of responses, and what each of its two stages minimises.

    Args:
        network: what `annorun.net_response.build` takes.
        optimizer: `lr`, `betas`, `weight_decay`, `clip`, `schedule`, `max_steps`, of stage 1.
        seed: of weights that are not loaded.
        spec: with the number of annotators.
        who: how annotators are told apart.
        loss: of pairs; listwise sees all responses of a branch at once.
        beta: of the loss; for simpo, of log-probabilities a token.
        margin: of simpo.
        smoothing: of dpo, the share of pairs whose labels are taken to be wrong.
        anchor: weight of the chosen response's likelihood in stage 2.
        mask: what of a response is scored in stage 2.
        pairs: which pairs count, by their labels.
        weights: of pairs; competence: MACE's (labels are names to it, not numbers) of whose
            response is chosen: it weighs targets against each other.
        preference_steps: of stage 2; 0: there is none.
        preference_lr: of stage 2.
        temperature: of what is written.
        most_tokens: of a response.
        decodings: how often each test item is answered, by seeds of its own.
        encoder: a sentence encoder, whose embeddings a second judge sees; None: there is none.
        llm: a language model that judges as well; None: there is none.
    """

    # says to `annorun.run` that it learns and writes responses
    writes = True

    def __init__(
        self,
        network: dict[str, Any],
        optimizer: dict[str, Any],
        seed: int,
        spec: Any = None,
        *,
        who: Literal["pooled", "token", "adapter"],
        loss: Literal["dpo", "ipo", "simpo", "listwise"],
        beta: Positive,
        margin: NonNegative,
        smoothing: Share,
        anchor: NonNegative,
        mask: Literal["all", "explanation"],
        pairs: Literal["all", "same", "different"],
        weights: Literal["none", "dissimilarity", "competence"],
        preference_steps: Natural,
        preference_lr: Positive,
        temperature: NonNegative,
        most_tokens: Count,
        decodings: Count,
        encoder: str | None,
        llm: str | None,
    ):
        super().__init__()
        self.kind, self.beta, self.margin, self.smoothing = loss, beta, margin, smoothing
        self.anchor, self.mask, self.pairs, self.weights, self.who = (
            anchor,
            mask,
            pairs,
            weights,
            who,
        )
        self.preference_steps, self.preference_lr = preference_steps, preference_lr
        self.temperature, self.most_tokens, self.decodings = temperature, most_tokens, decodings
        self.optimizer, self.encoder, self.llm = optimizer, encoder, llm
        self.paired = False
        self.net = net_response.build(network, seed, spec.n_annotators if who == "adapter" else 1)
        # (n_scored,) of the frozen first stage, summed over tokens
        self.reference: Tensor | None = None
        self._validation: list[tuple[float, float]] = []

    def scores(self, batch: Batch) -> tuple[Tensor, Tensor]:  # (R,), (R,)
        """Return each response's summed log-probability and its number of tokens."""
        given = (batch[name] for name in ("tokens", "position", "sees", "row", "place", "whose"))
        logits = self.net(*given)
        n = len(batch["chosen"])
        return preference.response_scores(logits, batch["token"], batch["response"], n)

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of the stage, (): of pairs where `paired`, else of the tokens."""
        total, length = self.scores(batch)
        if not self.paired:
            return -total.sum() / length.sum()
        chosen = batch["chosen"]
        likelihood = -(total[chosen] / length[chosen]).mean()
        return self.preferred(total, length, batch) + self.anchor * likelihood

    def preferred(self, total: Tensor, length: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss of the batch's pairs, (); 0 without any."""
        if self.kind == "simpo":
            ratio = total / length
        else:
            assert self.reference is not None
            ratio = total - self.reference.to(total.device)[batch["number"]]
        if self.kind == "listwise":
            found = preference.listwise(ratio, batch["group"], batch["chosen"], beta=self.beta)
            return found.mean()
        places = batch["pairs"].unbind(dim=1)
        if self.kind == "dpo":
            each = preference.dpo(ratio, *places, beta=self.beta, smoothing=self.smoothing)
        elif self.kind == "ipo":
            each = preference.ipo(ratio / length, *places, beta=self.beta)
        else:
            each = preference.simpo(ratio, *places, beta=self.beta, margin=self.margin)
        weight = batch["weight"]
        return (each * weight).sum() / weight.sum().clamp(min=1e-6)

    def training_step(self, batch: Batch) -> Tensor:
        """One step."""
        loss = self.loss(batch)
        self.log("train/loss", loss.detach(), batch_size=len(batch["chosen"]))
        return loss

    def validation_step(self, batch: Batch) -> None:
        """Collect the loss."""
        n = float(len(batch["chosen"]))
        self._validation.append((float(self.loss(batch)) * n, n))

    def on_validation_epoch_end(self) -> None:
        """Log the mean over the validation items."""
        loss, n = (sum(column) for column in zip(*self._validation, strict=True))
        self._validation.clear()
        self.log("val/loss", loss / n)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient."""
        torch.nn.utils.clip_grad_norm_(self.learned(), self.optimizer["clip"])

    def learned(self) -> list[torch.nn.Parameter]:
        """Return the parameters that learn: all, or the adapters'."""
        return [p for p in self.parameters() if p.requires_grad]

    def configure_optimizers(self) -> Any:
        """AdamW at the rate of the stage, whose steps the schedule is over."""
        o = self.optimizer
        lr = self.preference_lr if self.paired else o["lr"]
        steps = self.preference_steps if self.paired else o["max_steps"]
        decay, betas = o["weight_decay"], tuple(o["betas"])
        adamw = torch.optim.AdamW(self.learned(), lr=lr, betas=betas, weight_decay=decay)
        factor = cosine(steps) if o["schedule"] == "cosine" else constant
        schedule = torch.optim.lr_scheduler.LambdaLR(adamw, factor)
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
