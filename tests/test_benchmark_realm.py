"""scripts/benchmark.py realm: our step is the plain one to rounding; figures are written."""

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from annorun import config

SCRIPTS = Path(__file__).parents[1] / "scripts"
SMALL = {
    "vocab_size": 50,
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 32,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.1,
    "decoder_start_token_id": 0,
}
# votes of each prompt, and its tokens: the others are padding
COUNTS, LENGTHS = (3, 0, 1, 2, 3), (7, 4, 1, 5, 6)


def norm(self: Any, state: torch.Tensor) -> Any:
    """T5LayerNorm, less its float32: in float64 it would round each row's gradient to 1e-7."""
    return self.weight * state * torch.rsqrt(state.square().mean(-1, True) + self.variance_epsilon)


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    # a dataclass looks for its module there, and `benchmark` for its neighbour
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def realm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr("transformers.models.t5.modeling_t5.T5LayerNorm.forward", norm)
    return load("benchmark_realm", monkeypatch)


def small(realm: ModuleType, tied: bool) -> Any:
    keys = SMALL if tied else SMALL | {"tie_word_embeddings": False}
    return realm.Shape(t5=keys, n_prompts=2, length=6, ids=(9, 3, 30, 41), pairs=2)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_the_step_is_the_plain_one(realm: ModuleType, tied: bool) -> None:
    """Loss and every gradient, in float64; prompts with 0 to 3 votes, and padding."""
    shape = small(realm, tied)
    ours, plain = (module.double() for module in realm.both(shape))
    batch = realm.batch(shape, COUNTS, LENGTHS)
    assert (plain.t5.lm_head.weight is plain.t5.shared.weight) == tied
    assert (ours.net.answers.weight is None) == tied
    assert plain.t5.config.scale_decoder_outputs == tied
    found = realm.differences(ours, plain, batch)
    parts = {"loss", "omega", "embeddings", "encoder", "decoder"}
    assert set(found) == parts | (set() if tied else {"output matrix"})
    assert max(found.values()) < 1e-10
    # there was something to compare: a gradient everywhere, to every row of which a token was seen
    gradients = realm._gradients(ours, plain)
    assert len(gradients) == len(list(plain.parameters()))
    assert all(g.abs().max() > 1e-4 for part, g, _ in gradients if part in ("omega", "embeddings"))
    if not tied:
        moved = plain.t5.lm_head.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist()
        assert moved == sorted(shape.ids)


def test_a_step_that_is_not_the_plain_one_is_seen(realm: ModuleType) -> None:
    """Each fault in our way alone shows in the parts that it reaches."""
    shape = small(realm, tied=False)
    batch = realm.batch(shape, COUNTS, LENGTHS)

    def differences(fault: str) -> dict[str, float]:
        ours, plain = (module.double() for module in realm.both(shape))
        with torch.no_grad():
            if fault == "omega":
                ours.omega[0] += 0.1
            if fault == "row":
                ours.net.answers.weight[[0, 1]] = ours.net.answers.weight[[1, 0]]
            if fault == "scale":
                ours.net.scale = 0.25
            if fault == "mask":
                forward = ours.net.forward
                ours.net.forward = lambda input_ids, attention_mask: forward(
                    input_ids, torch.ones_like(attention_mask)
                )
        found: dict[str, float] = realm.differences(ours, plain, batch)
        return found

    assert max(differences("").values()) < 1e-10
    for fault in ("omega", "row", "scale", "mask"):
        found = differences(fault)
        assert min(found.values()) > 1e-5, (fault, found)


def test_the_plain_loss_by_hand(realm: ModuleType) -> None:
    """Logits 0 and rho = 3/4: among the vocabulary pi = 1/50, among the answers 1/4.

    p = 3/4 * 1/50 + 1/4 * 1/4 = .0775; restricted p = 1/4, whatever rho.
    """
    shape = small(realm, tied=False)
    _, plain = realm.both(shape)
    with torch.no_grad():
        plain.t5.lm_head.weight.zero_()
        plain.omega.fill_(math.log(3))
    rows = realm.rows(realm.batch(shape, COUNTS, LENGTHS))
    full = plain.loss(rows, restricted=False).item()
    restricted = plain.loss(rows, restricted=True).item()
    assert full == pytest.approx(-math.log(0.0775), abs=1e-6)
    assert restricted == pytest.approx(math.log(4), abs=1e-6)


def test_where_every_token_is_an_answer_both_softmaxes_are_one(realm: ModuleType) -> None:
    """In an order of their own: the label's token, not the label, is looked up."""
    keys = SMALL | {"vocab_size": 5, "tie_word_embeddings": False}
    shape = realm.Shape(t5=keys, ids=(4, 2, 0, 1, 3))
    plain = realm.both(shape)[1].eval()
    rows = realm.rows(realm.batch(shape, COUNTS, LENGTHS))
    full, restricted = (plain.loss(rows, restricted=r).item() for r in (False, True))
    assert full == pytest.approx(restricted, abs=1e-6)


def test_the_plain_way_has_a_row_a_vote(realm: ModuleType) -> None:
    batch = realm.batch(small(realm, tied=True), COUNTS, LENGTHS)
    rows = realm.rows(batch)
    assert rows["attention_mask"].sum(dim=1).tolist() == [7, 7, 7, 1, 5, 5, 6, 6, 6]
    assert torch.equal(rows["input_ids"][3], batch["inputs"]["input_ids"][2])
    assert rows["label"] is batch["label"] and rows["annotator"] is batch["annotator"]
    # padding is token 0, and nothing else is
    assert torch.equal(rows["input_ids"] > 0, rows["attention_mask"] > 0)


def test_medians_take_turns(realm: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each goes once a turn, the first to go changes; two turns of warm-up are not counted."""
    went, now = "", 0.0
    seconds = {"a": [99, 99, 1.0, 5.0, 2.0], "b": [99, 99, 7.0, 3.0, 4.0]}

    def call(name: str) -> None:
        nonlocal went, now
        now += seconds[name][went.count(name)]
        went += name

    monkeypatch.setattr(realm.time, "perf_counter", lambda: now)
    monkeypatch.setattr(realm, "WARM", 2)
    assert realm.medians([lambda: call("a"), lambda: call("b")], 3) == [2.0, 4.0]
    assert went == "baabbaabba"


def test_adamw_moves_both_ways_alike(realm: ModuleType) -> None:
    """One step from the same weights and a loss without dropout: the same omega, to rounding."""
    shape = small(realm, tied=False)
    ours, plain = realm.both(shape)
    before = ours.omega.detach().clone()
    batch = realm.batch(shape, COUNTS, LENGTHS)
    first, second = realm.steps(ours.eval(), plain.eval(), batch, "cpu", adamw=True)
    full, plain.loss = plain.loss, lambda rows, restricted: full(rows, True)
    first()
    second()
    assert torch.allclose(ours.omega, plain.omega, atol=1e-6)
    assert not torch.allclose(ours.omega, before, atol=0.01)
    start = realm.both(shape)[1]
    for name in ("t5.shared.weight", "t5.encoder.block.0.layer.1.DenseReluDense.wo.weight"):
        moved = plain.get_parameter(name) - start.get_parameter(name)
        mine = ours.net.get_parameter(name) - start.get_parameter(name)
        assert torch.allclose(moved, mine, atol=1e-5) and moved.abs().max() > 2e-4


def test_the_command(
    realm: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is printed is what is written, under a header; the differences are of float32."""
    (tmp_path / "measured").mkdir()
    monkeypatch.setattr(config, "experiments_dir", lambda: tmp_path)
    shape = small(realm, tied=False)
    monkeypatch.setattr(realm, "Shape", lambda: shape)
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "realm", "--measured"])
    assert load("benchmark", monkeypatch).main() == 0
    comments, lines = [], []
    for line in (tmp_path / "measured" / "benchmark_realm.csv").read_text().splitlines():
        (comments if line.startswith("#") else lines).append(line)
    assert comments[0] == "# command: python scripts/benchmark.py realm --measured"
    assert comments[1].startswith("# commit: ") and "torch 2" in comments[2]
    header, *rows = [line.split(",") for line in (row.replace(", ", " ") for row in lines)]
    assert header == list(realm.HEADER)
    times, same = [r[1:] for r in rows if r[3]], [r for r in rows if r[4]]
    assert len(times) == 3 and len(times) + len(same) == len(rows)
    for ours, plain, ratio, none in times:
        assert float(ratio) == pytest.approx(float(plain) / float(ours), rel=0.1) and not none
    assert {r[0] for r in same} >= {"loss", "omega", "output matrix"}
    assert all(float(r[4]) <= 1e-5 for r in same)
    printed = capsys.readouterr().out
    assert all(r[4] in printed for r in same)


def test_no_such_device(
    realm: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "realm", "--device", "cuda"])
    assert load("benchmark", monkeypatch).main() == 2
    assert capsys.readouterr().err.strip().endswith("allowed is cpu")
