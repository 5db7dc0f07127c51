"""Networks: K logits, train mode, float32, and answers that are single tokens."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from annorun import net
from annorun.errors import ConfigError
from annorun.votes import TaskSpec

CHOICE = TaskSpec(kind="choice", n_classes=4, n_annotators=3)
TINY = {"family": "seq2seq", "model": "tiny", "weights": None}


@pytest.fixture
def prompts() -> dict[str, torch.Tensor]:
    texts = ["Which one? (a) x (b) y (c) z (d) w", "Short? (a) 1 (b) 2 (c) 3 (d) 4"]
    return dict(net.tokenizer("tiny")(texts, padding=True, return_tensors="pt"))


def test_answers_are_the_restricted_softmax_of_the_first_decoder_position(prompts) -> None:
    """Eq. 2: the full softmax, renormalised over the K answer tokens."""
    model = net.build(TINY, CHOICE, seed=0).eval()
    restricted = torch.softmax(model(**prompts), dim=1)
    start = torch.zeros(2, 1, dtype=torch.long)
    full = torch.softmax(model.t5(**prompts, decoder_input_ids=start).logits[:, 0], dim=1)
    answers = full[:, [ord(c) + 3 for c in "abcd"]]
    assert torch.allclose(restricted, answers / answers.sum(1, keepdim=True), atol=1e-6)


def test_padding_does_not_change_an_answer(prompts) -> None:
    model = net.build(TINY, CHOICE, seed=0).eval()
    length = int(prompts["attention_mask"][1].sum())
    alone = {k: v[1:, :length] for k, v in prompts.items()}
    assert torch.allclose(model(**prompts)[1], model(**alone)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("network", "shape", "kind"),
    [
        (TINY, (), "choice"),
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


def test_t5s_own_vocabulary_has_one_distinct_token_an_answer(data: Path, tmp_path: Path) -> None:
    """realm.md 4.3: the K ids are single and distinct in the real SentencePiece of T5."""
    source = data / "t5_tokenizer" / "spiece.model"
    if not source.is_file():
        pytest.skip("no T5 vocabulary")
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
    tokenizer = net.tokenizer(str(tmp_path))
    ids = net.answer_ids(tokenizer, 5)
    assert tokenizer.convert_ids_to_tokens(ids) == list("abcde")
