"""Language models that answer with K tokens: what the whole model gives them, at one position."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MT5Config,
    MT5ForConditionalGeneration,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    UMT5Config,
    UMT5ForConditionalGeneration,
)

from annorun import net
from annorun.errors import ConfigError
from annorun.net_text import AnswerLM, AnswerRows, AnswerT5
from annorun.votes import TaskSpec

SPEC = TaskSpec(kind="choice", n_classes=4, n_annotators=3)
TEXTS = ["Which one? (a) x (b) y (c) z (d) w", "Short? (a) 1 (b) 2 (c) 3 (d) 4"]
# the byte-level tokenizer has three tokens before the bytes
IDS = [ord(letter) + 3 for letter in "abcd"]
TRUTH = torch.tensor([2, 0])
START = torch.zeros(2, 1, dtype=torch.long)
VOCABULARY, WIDTH = 384, 16
SMALL = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
SMALL |= {"num_attention_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
ASKED = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3).long()}


def tokens(texts: list[str]) -> dict[str, Tensor]:
    found = net.tokenizer("tiny")(texts, padding=True, return_tensors="pt")
    return {k: found[k] for k in ("input_ids", "attention_mask")}


def saved_t5(folder: Path, tied: bool) -> T5ForConditionalGeneration:
    """Save a T5 (tied, scaled) or a Flan-T5 (gated, an output matrix of its own, not scaled)."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=WIDTH,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        dropout_rate=0.0,
        decoder_start_token_id=0,
        feed_forward_proj="relu" if tied else "gated-gelu",
        scale_decoder_outputs=tied,
    )
    t5 = T5ForConditionalGeneration(config)
    if not tied:
        t5.lm_head.weight = nn.Parameter(torch.randn(VOCABULARY, WIDTH))
    t5.save_pretrained(folder)
    net.tokenizer("tiny").save_pretrained(folder)
    return t5


def saved_llama(folder: Path, tied: bool) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        tie_word_embeddings=tied,
    )
    lm = LlamaForCausalLM(config)
    with torch.no_grad():
        # drawn as they are, all logits are near zero
        for parameter in lm.parameters():
            parameter.mul_(10 if parameter.dim() > 1 else 1)
    lm.save_pretrained(folder)
    net.tokenizer("tiny").save_pretrained(folder)
    return lm


def built(family: str, folder: Path) -> nn.Module:
    return net.build({"family": family, "model": str(folder), "weights": None}, SPEC, seed=0)


def same_gradients(model: nn.Module, whole: nn.Module, inner: dict[str, Tensor]) -> None:
    """Of every weight but the output matrix; that of the K rows, where they are their own."""
    theirs = {name: p.grad for name, p in whole.named_parameters()}
    output = theirs.pop("lm_head.weight", None)
    assert theirs.keys() == inner.keys()
    for name, gradient in theirs.items():
        assert torch.allclose(inner[name], gradient, atol=1e-5), name
    if output is None:
        assert model.answers.weight is None
    else:
        assert torch.allclose(model.answers.weight.grad, output[IDS], atol=1e-5)
        assert output[IDS].abs().sum() > 0
        output[IDS] = 0
        assert not output.any(), "the rows that were dropped learn nothing"


@pytest.mark.parametrize("tied", [True, False])
def test_t5_answers_and_learns_as_the_whole_model_does(tied: bool, tmp_path: Path) -> None:
    """Eq. 2, from a saved folder: logits of K tokens at the first decoder position, gradients."""
    whole, model, batch = saved_t5(tmp_path, tied), built("seq2seq", tmp_path), tokens(TEXTS)
    expected = whole(**batch, decoder_input_ids=START).logits[:, 0, IDS]
    logits = model(**batch)
    assert torch.allclose(logits, expected, atol=1e-5)
    assert expected.std() > 0.1
    for answers in (logits, expected):
        nn.functional.cross_entropy(answers, TRUTH).backward()
    prefix = "t5."
    inner = {k.removeprefix(prefix): p.grad for k, p in model.named_parameters() if prefix in k}
    same_gradients(model, whole, inner)
    met = {0, *IDS, *batch["input_ids"].flatten().tolist()}
    rest = [i for i in range(VOCABULARY) if i not in met]
    assert not model.t5.shared.weight.grad[rest].any()
    assert model.t5.shared.weight.grad[IDS].any()


@pytest.mark.parametrize("tied", [True, False])
def test_a_causal_model_answers_and_learns_as_the_whole_one_does(
    tied: bool, tmp_path: Path
) -> None:
    """The logits after the last token of each text, which padding on the right does not move."""
    whole, model, batch = saved_llama(tmp_path, tied), built("causal", tmp_path), tokens(TEXTS)
    last = batch["attention_mask"].sum(dim=1) - 1
    assert last[0] != last[1]
    expected = whole(**batch).logits[torch.arange(2), last][:, IDS]
    logits = model(**batch)
    assert torch.allclose(logits, expected, atol=1e-5)
    assert expected.std() > 0.1
    for answers in (logits, expected):
        nn.functional.cross_entropy(answers, TRUTH).backward()
    theirs = {name.removeprefix("model."): name for name, _ in whole.named_parameters()}
    inner = {theirs[k.removeprefix("lm.")]: p.grad for k, p in model.lm.named_parameters()}
    same_gradients(model, whole, inner)


def test_a_causal_models_answer_depends_on_its_own_tokens_alone(tmp_path: Path) -> None:
    saved_llama(tmp_path, tied=True)
    model, batch = built("causal", tmp_path).eval(), tokens(TEXTS)
    together = model(**batch)
    for k, text in enumerate(TEXTS):
        assert torch.allclose(together[k], model(**tokens([text]))[0], atol=1e-5)
    # whatever stands in the padding
    more = {
        "input_ids": nn.functional.pad(batch["input_ids"], (0, 9), value=77),
        "attention_mask": nn.functional.pad(batch["attention_mask"], (0, 9)),
    }
    assert torch.allclose(together, model(**more), atol=1e-5)
    other = tokens([TEXTS[0][:-1] + "v", TEXTS[1]])
    moved = model(**other)
    assert not torch.allclose(together[0], moved[0], atol=1e-3)
    assert torch.allclose(together[1], moved[1], atol=1e-5)


def test_a_causal_models_answers_are_letters_after_a_blank(tmp_path: Path) -> None:
    """Where a blank and a letter are one token, that is what follows a prompt."""
    saved_llama(tmp_path, tied=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", letter) for letter in "dcba"]
    known = {piece: i for i, piece in enumerate([*alphabet, *map("".join, merges), "<end>"])}
    inner = Tokenizer(models.BPE(known, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>")
    own.save_pretrained(tmp_path)
    ids = built("causal", tmp_path).answers.ids.tolist()
    assert ids == [known[f"Ġ{letter}"] for letter in "abcd"]


def test_rows_of_their_own_are_all_that_stays_of_an_output_matrix(tmp_path: Path) -> None:
    """V rows become K: (V - K) d weights fewer; tied, nothing is kept twice."""
    for tied in (True, False):
        whole = saved_llama(tmp_path / str(tied), tied)
        size = sum(p.numel() for p in whole.parameters())
        model = AnswerLM(copy.deepcopy(whole), IDS)
        fewer = 0 if tied else (VOCABULARY - len(IDS)) * WIDTH
        assert sum(p.numel() for p in model.parameters()) == size - fewer


def test_rows_by_hand() -> None:
    """Rows 3 and 1 of a matrix times (1, 2): 3 * 1 + 30 * 2 = 63 and 1 * 1 + 10 * 2 = 21."""
    embeddings, head = nn.Embedding(4, 2), nn.Linear(2, 4, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]))
        embeddings.weight.copy_(2 * head.weight)
    state = torch.tensor([[1.0, 2.0]])
    assert AnswerRows(head, embeddings, [3, 1])(state, embeddings).tolist() == [[63, 21]]
    head.weight = embeddings.weight
    assert AnswerRows(head, embeddings, [3, 1])(state, embeddings).tolist() == [[126, 42]]


def test_fewer_answers_are_the_first_of_them(tmp_path: Path) -> None:
    """As pretraining's early stages set them."""
    saved_t5(tmp_path, tied=True)
    model, batch = built("seq2seq", tmp_path).eval(), tokens(TEXTS)
    all_four = model(**batch)
    model.answers.ids = model.answers.ids[:2]
    assert torch.allclose(model(**batch), all_four[:, :2], atol=1e-6)


def test_what_answers_is_no_part_of_the_state(tmp_path: Path) -> None:
    """A tied model's state is the model's own; its rows are not written a second time."""
    whole = saved_t5(tmp_path, tied=True)
    names = {k.removeprefix("t5.") for k in built("seq2seq", tmp_path).state_dict()}
    assert names == set(whole.state_dict()) - {"lm_head.weight"}


def test_a_bias_of_the_output_layer_counts() -> None:
    torch.manual_seed(0)
    lm = PhiForCausalLM(PhiConfig(**SMALL)).eval()
    torch.nn.init.normal_(lm.lm_head.bias)
    expected = lm(**ASKED).logits[:, -1, [10, 12]]
    assert torch.allclose(
        AnswerLM(copy.deepcopy(lm), [10, 12]).eval()(**ASKED), expected, atol=1e-5
    )


def test_rows_are_the_matrix_and_not_what_an_input_layer_makes_of_it() -> None:
    """Gemma 3 multiplies its embeddings by sqrt(d), and not its output matrix."""
    torch.manual_seed(0)
    lm = Gemma3ForCausalLM(Gemma3TextConfig(**SMALL, num_key_value_heads=1, head_dim=8)).eval()
    expected = lm(**ASKED).logits[:, -1, [10, 12]]
    assert torch.allclose(
        AnswerLM(copy.deepcopy(lm), [10, 12]).eval()(**ASKED), expected, atol=1e-5
    )


@pytest.mark.parametrize(
    ("config", "whole"),
    [(MT5Config, MT5ForConditionalGeneration), (UMT5Config, UMT5ForConditionalGeneration)],
)
def test_relatives_of_t5_answer_as_they_do(config: Any, whole: Any) -> None:
    torch.manual_seed(0)
    t5 = whole(
        config(
            vocab_size=50,
            d_model=16,
            d_kv=8,
            d_ff=16,
            num_layers=1,
            num_heads=2,
            decoder_start_token_id=0,
        )
    ).eval()
    expected = t5(**ASKED, decoder_input_ids=torch.zeros(1, 1, dtype=torch.long)).logits[
        :, 0, [10, 12]
    ]
    assert torch.allclose(
        AnswerT5(copy.deepcopy(t5), [10, 12]).eval()(**ASKED), expected, atol=1e-5
    )


@pytest.mark.parametrize(
    ("whole", "config", "why"),
    [
        (GraniteForCausalLM, GraniteConfig(**SMALL, logits_scaling=8.0), "logits_scaling"),
        (Gemma2ForCausalLM, Gemma2Config(**SMALL, head_dim=8), "final_logit_softcapping"),
        (BertForMaskedLM, BertConfig(**SMALL), "reads both ways"),
    ],
)
def test_what_would_answer_otherwise_is_refused(
    whole: Any, config: Any, why: str, tmp_path: Path
) -> None:
    whole(config).save_pretrained(tmp_path)
    net.tokenizer("tiny").save_pretrained(tmp_path)
    network = {"family": "causal", "model": str(tmp_path), "weights": None}
    with pytest.raises(ConfigError, match=f"cannot be loaded .*{why}") as error:
        net.build(network, SPEC, seed=0)
    assert len(error.value.faults) == 1


def test_an_encoder_that_wants_a_decoder_is_refused(tmp_path: Path) -> None:
    saved_t5(tmp_path, tied=True)
    network = {"family": "encoder", "model": str(tmp_path), "pooling": "mean", "frozen": False}
    with pytest.raises(ConfigError, match="is no encoder alone"):
        net.build(network, SPEC, seed=0)
