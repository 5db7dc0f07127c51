"""A training: whose numbers are judged, what reaches the network, and which weights answer.

Most tests hand `Training` a method that answers from tables, so that every score can be made from
the item's own row. Texts have unequal lengths, in an order that is no order and not undone by being
done twice; a loader's batch is smaller than the test part.
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertModel

from annorun import clauses, config, head_results, net, net_text, results, run, training
from annorun.dataset import module
from annorun.dataset.encode import prompts
from annorun.dataset.module import CrowdData
from annorun.errors import ConfigError
from annorun.method.base import Batch, Method
from annorun.scores import soft
from annorun.seeds import rng
from annorun.training import Training, refuse_new_classes
from annorun.votes import Items, Posterior, Votes

N, K, M = 23, 3, 4
SPLIT = np.array([["train", "test", "train"][i % 3] for i in range(N)])
TEST = np.flatnonzero(SPLIT == "test")
# of the test items: their order by length is a cycle of eight, its square is not the identity
TEST_LENGTH = [4, 7, 10, 13, 16, 19, 22, 1]
TABLES = np.random.default_rng(8)
TRUTH = TABLES.integers(0, K, N)
OTHER = TABLES.dirichlet(np.ones(K), N)
GROUPS = TABLES.dirichlet(np.ones(K), (N, 2))
HEADS = TABLES.dirichlet(np.ones(K), (N, 5))
DECIDED = TABLES.integers(0, K, N)
RATINGS = TABLES.integers(0, 9, (N, K)).astype(float)
# the rows of VAL of a run that looks every second step: the last is neither's best
VAL = {2: (0.5, 0.6), 4: (0.2, 0.1), 6: (0.9, 0.5), 8: (0.3, 0.3)}


def probs(step: int) -> np.ndarray:
    """What the scripted method answers to every item after so many steps."""
    return np.random.default_rng(96 + step).dirichlet(np.ones(K), N)


class Scripted(Method):
    """Answers from the tables; the steps that it has taken are in its weights."""

    expertise_scale = "accuracy"
    count: Tensor

    def __init__(self, **given: Any):
        super().__init__(**given)
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.batches: list[Batch] = []
        self.losses: list[float] = []

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        found = cross_entropy(logits[batch["row"]], batch["label"])
        if self.training:
            self.batches.append(batch)
            self.losses.append(float(found.detach()))
        return found

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        self.count += 1

    def test_step(self, batch: Batch) -> None:
        self.predicted.append(batch["item"])

    def items(self) -> np.ndarray:
        return torch.cat(self.predicted).numpy()

    def probabilities(self) -> np.ndarray:
        return probs(int(self.count))[self.items()]

    def group_probabilities(self) -> np.ndarray:
        return GROUPS[self.items()]

    def others(self) -> dict[str, np.ndarray]:
        return {"other": OTHER[self.items()]}

    def heads(self) -> np.ndarray:
        return HEADS[self.items()]

    def decided(self) -> np.ndarray:
        return DECIDED[self.items()]

    def numbers(self) -> dict[str, float]:
        return {"train/count": float(self.count)}

    def expertise(self) -> np.ndarray:
        return (float(self.count) + np.arange(M)) / 100


class Judged(Scripted):
    """Is told how it does on validation items."""

    def on_validation_epoch_end(self) -> None:
        self._validation.clear()
        loss, acc = VAL[int(self.count)]
        self.log("val/loss", loss)
        self.log("val/acc", acc)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Batches of three where nothing is learned, and no states of another test."""
    monkeypatch.setattr(module, "MOST_ITEMS", 3)
    training.STATES.clear()
    yield
    training.STATES.clear()


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    return config.plain(config.compose("config", ["dataset=digits", "method=noisy"]))


@pytest.fixture
def c(composed: dict[str, Any]) -> dict[str, Any]:
    """A config of texts, with values that are nobody's default."""
    found = copy.deepcopy(composed)
    found["dataset"] = {"kind": "text", "max_length": 12}
    found["seed"], found["data_seed"] = 5, 3
    found["trainer"] |= {
        **{"max_steps": 8, "val_every": 2, "batch_size": 2, "bucket": 2, "val_share": 0.4},
        **{"lr": 0.003, "betas": [0.7, 0.8], "weight_decay": 0.2, "clip": 0.4},
        "schedule": "constant",
    }
    return found


def texts() -> list[str]:
    length = TABLES_LENGTH.tolist()
    for i, n in zip(TEST, TEST_LENGTH, strict=True):
        length[i] = n
    return ["".join("abcdefgh"[(i + k) % 8] for k in range(n)) for i, n in enumerate(length)]


TABLES_LENGTH = np.random.default_rng(4).integers(1, 20, N)


def crowd(**changes: Any) -> tuple[Items, Votes]:
    """Every item has votes of unequal number; those on test items are held out."""
    draw = np.random.default_rng(2)
    labelled = draw.random((N, M)) < 0.7
    labelled[np.arange(N), draw.integers(0, M, N)] = True
    labelled[TEST[:6], 1:3] = True
    item, annotator = np.nonzero(labelled)
    label = draw.integers(0, K, len(item))
    votes = Votes(item, annotator, label, N, M, K, group=np.array([0, 1, 1, 0]))
    held = votes.on(SPLIT == "test")
    keys: dict[str, Any] = {"inputs": {"text": texts()}, "truth": TRUTH, "held_out": held}
    keys |= {"group_names": ["left", "right"], **changes}
    return Items("text", split=SPLIT, n_classes=K, **keys), votes.on(SPLIT != "test")


def made(c: dict[str, Any], method: type = Scripted, **changes: Any) -> Training:
    def build(node: Any, **given: Any) -> Any:
        return method(**given)

    return Training(c, *crowd(**changes), build)


def by_item(table: np.ndarray, counts: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The soft scores over the test items, each by its own number."""
    places = list(TEST)
    return soft.by_item(table[places], counts[places], labels[places])


def test_the_order_by_length_is_no_order_and_no_swap(c: dict[str, Any]) -> None:
    """Or the tests below would show nothing."""
    data = made(c).data
    order = np.argsort(data.tested)
    assert (data.tested != data.test).all() and (data.test[order] != data.tested).all()
    assert len(list(data.test_dataloader())) == 3 and len(list(data.val_dataloader())) == 2


def test_every_answer_is_judged_against_its_own_items_votes(
    c: dict[str, Any], tmp_path: Path
) -> None:
    own = made(c)
    fitted = own.fit(None, tmp_path)
    assert own.steps == 8
    answers, held = probs(8), own.items.held_out
    np.testing.assert_array_equal(fitted.probs, answers[TEST])
    np.testing.assert_array_equal(fitted.group_probs, GROUPS[TEST])
    np.testing.assert_array_equal(fitted.labels, DECIDED[TEST])
    np.testing.assert_allclose(fitted.expertise, np.arange(8, 12) / 100)
    assert fitted.scale == "accuracy" and fitted.metrics["train/count"] == 8
    expected = {f"test/{k}": v for k, v in by_item(answers, held.counts(), DECIDED).items()}
    certain = OTHER.argmax(axis=1)
    other = by_item(OTHER, held.counts(), certain)
    expected |= {f"test_other/{k}": v for k, v in other.items()}
    expected["test_other/acc"] = np.mean([certain[i] == TRUTH[i] for i in TEST])
    expected["test_other/nll"] = np.mean([-np.log(OTHER[i, TRUTH[i]]) for i in TEST])
    counts = soft.group_counts(held, 2)
    for g, name in enumerate(["left", "right"]):
        voted = [i for i in TEST if counts[i, g].sum()]
        q = counts[voted, g] / counts[voted, g].sum(axis=1, keepdims=True)
        expected[f"test/jsd_{name}"] = soft.jsd(GROUPS[voted, g], q).mean()
    for name, value in expected.items():
        assert fitted.metrics[name] == pytest.approx(value, rel=1e-9), name
    # the label that a method decides is judged, not the most probable one
    likely = by_item(answers, held.counts(), answers.argmax(axis=1))
    assert fitted.metrics["test/voted_acc"] != pytest.approx(likely["voted_acc"])


def test_heads_are_written_by_their_own_items(c: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "by_hand").mkdir()
    own = made(c)
    metrics = own.fit(None, tmp_path).metrics
    expected = head_results.write(
        tmp_path / "by_hand", own.items, TEST, HEADS[TEST], rng(5, "heads")
    )
    assert "annotators/known_nll" in expected
    assert {k: metrics[k] for k in expected} == expected
    written = [(f / "heads.csv").read_text() for f in (tmp_path, tmp_path / "by_hand")]
    assert written[0] == written[1]


@pytest.mark.parametrize("start", ["pretrained", "frozen"])
def test_clauses_are_read_of_the_test_items_tokens(
    c: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    """Also where a frozen encoder's states are what is learned from."""
    handed: list[Any] = []

    def write(*given: Any) -> dict[str, float]:
        handed.extend(given)
        return {"clauses/saliency_first": 0.5}

    monkeypatch.setattr(clauses, "write", write)
    c["model_size"]["start"] = start
    own = made(c, inputs={"text": texts(), "second": [1] * N})
    assert own.fit(None, tmp_path).metrics["clauses/saliency_first"] == 0.5
    folder, method, tokens, tokenizer, items, test, draw = handed
    assert (folder, method, items) == (tmp_path, own.module, own.items)
    expected = net.tokenizer("tiny")(texts()[4], truncation=True, max_length=12)["input_ids"]
    assert tokens["input_ids"][4][: len(expected)].tolist() == expected
    assert tokenizer("ab")["input_ids"] == net.tokenizer("tiny")("ab")["input_ids"]
    assert test.tolist() == TEST.tolist()
    assert draw.random() == rng(5, "clauses").random()


def test_ratings_are_judged_by_their_own_items_and_before_votes(
    c: dict[str, Any], tmp_path: Path
) -> None:
    fitted = made(c, soft=RATINGS).fit(None, tmp_path)
    for name, value in by_item(probs(8), RATINGS, DECIDED).items():
        assert fitted.metrics[f"test/{name}"] == pytest.approx(value, rel=1e-9), name
    # of groups the votes alone know
    assert "test/jsd_left" in fitted.metrics


def test_without_votes_or_truth_nothing_is_judged(c: dict[str, Any], tmp_path: Path) -> None:
    found = made(c, held_out=None, truth=None).fit(None, tmp_path).metrics
    assert not [name for name in found if name.startswith("test")]


def test_the_accuracy_before_training_is_that_of_the_test_items(
    c: dict[str, Any], tmp_path: Path
) -> None:
    """And what was answered then is forgotten."""
    own = made(c)
    own.network["weights"] = "of what it learned beforehand"
    fitted = own.fit(None, tmp_path)
    guess = probs(0).argmax(axis=1)
    right = [guess[i] == TRUTH[i] for i in TEST]
    assert np.mean(right) != np.mean(guess[own.data.tested] == TRUTH[TEST]), "order would be unseen"
    assert fitted.metrics["start/acc"] == pytest.approx(np.mean(right))
    assert 0 < np.mean(right) < 1 and len(fitted.probs) == len(TEST)


@pytest.mark.parametrize(("choose_on", "step"), [("votes", 4), ("gold", 2), ("last", 8)])
def test_the_weights_that_are_asked_for_answer(
    c: dict[str, Any], tmp_path: Path, choose_on: str, step: int
) -> None:
    """Votes: the least loss. Gold: the highest accuracy. A step is seen by what it answers."""
    c["trainer"]["choose_on"] = choose_on
    own = made(c, Judged)
    fitted = own.fit(None, tmp_path)
    assert own.steps == 8
    np.testing.assert_array_equal(fitted.probs, probs(step)[TEST])
    assert fitted.metrics["train/count"] == step
    assert not list(tmp_path.glob("*.ckpt"))
    rows = results.read_csv(tmp_path / "metrics.csv")
    assert {int(r["step"]): (float(r["val/loss"]), float(r["val/acc"])) for r in rows} == {
        step: pytest.approx(values) for step, values in VAL.items()
    }


@pytest.mark.parametrize("val_share", [0.4, 0.0])
def test_curves_are_means_since_the_row_before(
    c: dict[str, Any], tmp_path: Path, val_share: float
) -> None:
    """Three steps a row; the last step has one by itself where a validation follows it."""
    c["trainer"] |= {"max_steps": 7, "val_every": 3, "val_share": val_share}
    own = made(c)
    own.fit(None, tmp_path)
    rows = results.read_csv(tmp_path / "metrics.csv")
    losses, ends = own.module.losses, [3, 6, 7] if val_share else [3, 6]
    assert len(losses) == 7 and [int(r["step"]) for r in rows] == ends
    for row, first, end in zip(rows, [0, 3, 6], ends, strict=False):
        assert float(row["train/loss"]) == pytest.approx(np.mean(losses[first:end]), rel=1e-5)
        people = [float(row[f"annotators/{m}"]) for m in range(M)]
        assert people == pytest.approx([(end + m) / 100 for m in range(M)])
        assert ("val/loss" in row) == bool(val_share)


@pytest.mark.parametrize("steps", [8, 7])
def test_validation_is_over_every_vote_and_item(
    c: dict[str, Any], tmp_path: Path, steps: int
) -> None:
    """Of two batches of three items; at the last step, too, where it is no multiple of two."""
    c["trainer"]["max_steps"] = steps
    own = made(c)
    own.fit(None, tmp_path)
    row, data = results.read_csv(tmp_path / "metrics.csv")[-1], own.data
    assert int(row["step"]) == steps
    own.module.eval()
    losses, right = [], []
    with torch.no_grad():
        for i in data.val:
            logits = own.module(data.batch([i])["inputs"])[0]
            mine = data.votes.label[data.votes.item == i]
            losses += [-float(logits.log_softmax(0)[y]) for y in mine]
            right.append(int(logits.argmax()) == TRUTH[i])
    assert len({int((data.votes.item == i).sum()) for i in data.val}) > 1
    assert float(row["val/loss"]) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(row["val/acc"]) == pytest.approx(np.mean(right))


def test_batches_are_those_of_the_configs_data(c: dict[str, Any], tmp_path: Path) -> None:
    """The validation items are data_seed's, the order is seed's; all of an epoch is learned."""
    own = made(c)
    items, votes = crowd()
    keys = {"batch_size": 2, "val_share": 0.4, "data_seed": 3, "seed": 5, "max_length": 12}
    data = CrowdData(items, votes, tokenizer=net.tokenizer("tiny"), prompt="", bucket=2, **keys)
    assert own.data.inputs["input_ids"].shape == (N, 12)
    assert torch.equal(own.data.inputs["input_ids"], data.inputs["input_ids"])
    assert own.data.train.tolist() == data.train.tolist() and len(data.train) == 9
    assert own.data.val.tolist() == data.val.tolist() and len(data.val) == 6
    own.fit(None, tmp_path)
    # eight steps: an epoch of five and three of the next, each step one batch
    loader = data.train_dataloader()
    expected = [b["item"].tolist() for b in [*loader, *loader][:8]]
    assert [b["item"].tolist() for b in own.module.batches] == expected


def test_the_method_is_made_of_the_configs_values(c: dict[str, Any]) -> None:
    own = made(c).module
    assert own.optimizer == {
        **{"lr": 0.003, "betas": [0.7, 0.8], "weight_decay": 0.2, "clip": 0.4},
        **{"schedule": "constant", "max_steps": 8},
    }
    assert own.hparams["seed"] == 5
    assert (own.spec.n_classes, own.spec.n_annotators, own.spec.n_groups) == (K, M, 2)
    assert own.spec.group == (0, 1, 1, 0)
    alone = net.build(own.hparams["network"], own.spec, 5).state_dict()
    assert all(torch.equal(alone[k], v) for k, v in own.net.state_dict().items())


@pytest.mark.parametrize("key", ["pooling", "lora", "start", "checkpointing"])
def test_the_network_is_made_of_the_configs_values(c: dict[str, Any], key: str) -> None:
    value = {"pooling": "first", "lora": 3, "start": "frozen", "checkpointing": True}[key]
    (c["trainer"] if key == "checkpointing" else c["model_size"])[key] = value
    found = made(c).network
    usual = {"pooling": "mean", "lora": 0, "frozen": False, "checkpointing": False}
    changed = {"frozen": True} if key == "start" else {key: value}
    assert {k: found[k] for k in usual} == usual | changed


def test_what_an_aggregator_gave_reaches_each_items_batch(
    c: dict[str, Any], tmp_path: Path
) -> None:
    draw = np.random.default_rng(6)
    target = draw.dirichlet(np.ones(K), N)
    by_group = draw.integers(-1, K, (N, 2))
    confusion = draw.dirichlet(np.ones(K), (M, K))
    own = made(c)
    own.fit(target, tmp_path, by_group, confusion)
    assert len(own.module.batches) == 8
    for batch in own.module.batches:
        item = batch["item"].numpy()
        np.testing.assert_allclose(batch["target"], target[item], rtol=1e-6)
        assert batch["group_target"].tolist() == by_group[item].tolist()
    np.testing.assert_allclose(own.data.confusion, confusion, rtol=1e-6)
    # what is fitted next has nothing of it
    own.fit(None, tmp_path)
    assert (own.data.target, own.data.group_target, own.data.confusion) == (None, None, None)


@pytest.mark.parametrize("family", ["encoder", "seq2seq"])
def test_a_question_is_pairs_for_an_encoder_and_the_configs_prompt_for_others(
    c: dict[str, Any], family: str
) -> None:
    prompt = "Ask {question} of {options}:"
    c["dataset"] = {"kind": "choice", "prompt": prompt, "max_length": 60}
    c["model_size"] |= {"family": family, "start": "scratch"}
    inputs = {
        "question": [f"which{'?' * (i % 5)}" for i in range(N)],
        "options": [["a" * (i % 7 + 1), "b", "cc"] for i in range(N)],
    }
    items = Items("choice", inputs, SPLIT, K, truth=TRUTH)
    own = Training(c, items, crowd()[1], lambda node, **given: Scripted(**given))
    ids = own.data.inputs["input_ids"]
    tokenizer = net.tokenizer("tiny")
    if family == "encoder":
        assert ids.shape[:2] == (N, K)
        row = tokenizer("which??", "aaa")["input_ids"]
        assert ids[2, 0, : len(row)].tolist() == row
    else:
        row = tokenizer(prompts(items, prompt)[2])["input_ids"]
        assert ids[2, : len(row)].tolist() == row
        assert tokenizer.decode(row[:-1]) == "Ask which?? of (a) aaa (b) b (c) cc:"


def states(c: dict[str, Any], **changes: Any) -> Tensor:
    """What a training of frozen texts learns from; checked against its own network."""
    own = made(c, **changes)
    encoder = own.module.networks()[0].eval()
    with torch.no_grad():
        for i in range(N):
            n = int(own.tokens["attention_mask"][i].sum())
            one = {k: v[i : i + 1, :n] for k, v in own.tokens.items()}
            torch.testing.assert_close(own.data.inputs["x"][i], encoder.state(**one)[0])
    assert set(own.data.inputs) == {"x"}
    return own.data.inputs["x"]


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Two encoders with the tiny tokenizer."""
    for name in "ab":
        torch.manual_seed(ord(name))
        bert = BertModel(BertConfig(**net.TINY_BERT), add_pooling_layer=False)
        bert.save_pretrained(tmp_path / name)
        net.tokenizer("tiny").save_pretrained(tmp_path / name)
    return [str(tmp_path / name) for name in "ab"]


@pytest.mark.parametrize("change", ["pooling", "seed", "texts", "max_length", "model"])
def test_frozen_states_are_those_of_their_own_network_and_texts(
    c: dict[str, Any], folders: list[str], change: str
) -> None:
    """After a run with another pooling, seed, model or other texts; the same are encoded once."""
    c["model_size"]["start"] = "frozen"
    if change == "model":
        c["model_size"]["encoder"] = folders[0]
    first = states(c)
    assert states(c) is first
    changes: dict[str, Any] = {}
    if change == "pooling":
        c["model_size"]["pooling"] = "first"
    elif change == "seed":
        c["seed"] = 6
    elif change == "texts":
        changes = {"inputs": {"text": [text[::-1] for text in texts()]}}
    elif change == "max_length":
        c["dataset"]["max_length"] = 7
    else:
        c["model_size"]["encoder"] = folders[1]
    assert not torch.allclose(states(c, **changes), first)


def test_a_loaded_encoders_states_serve_every_seed(
    c: dict[str, Any], folders: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    c["model_size"] |= {"start": "frozen", "encoder": folders[0]}
    first = states(c)
    c["seed"] = 6
    monkeypatch.setattr(net_text, "states", None)
    assert states(c) is first


def test_a_frozen_encoder_ends_as_it_began_and_its_head_does_not(
    c: dict[str, Any], tmp_path: Path
) -> None:
    c["model_size"]["start"] = "frozen"
    own = made(c)
    before = copy.deepcopy(own.module.net.state_dict())
    own.fit(None, tmp_path)
    for name, value in own.module.net.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("head."), name


def test_what_is_asked_for_and_cannot_be_is_refused(c: dict[str, Any]) -> None:
    class Wants(Scripted):
        needs_validation = True

    class Confused(Scripted):
        needs_confusion = True

    c["trainer"]["val_share"] = 0.0
    made(c)
    with pytest.raises(ConfigError, match="method=noisy: wants validation items, and of 15"):
        made(c, Wants)
    c["trainer"]["choose_on"] = "votes"
    with pytest.raises(ConfigError, match="choose_on=votes: of 15 training items val_share=0"):
        made(c)
    c["trainer"] |= {"val_share": 0.4, "choose_on": "last"}
    made(c, Wants)
    none = Posterior(np.full((N, K), 1 / K), np.ones(M))
    some = Posterior(none.probs, none.accuracy, confusion=np.full((M, K, K), 1 / K))
    for posterior in (None, none):
        with pytest.raises(ConfigError, match="gives no confusion matrices"):
            made(c, Confused).refuse(posterior)
        made(c).refuse(posterior)
    made(c, Confused).refuse(some)


def test_classes_that_nobody_could_learn_are_refused() -> None:
    """One class in common is enough; an unknown truth is none."""

    def items(*truth: int) -> Items:
        split = np.array(["train", "train", "test", "test"])
        return Items("features", {"x": np.zeros((4, 1))}, split, 4, truth=np.array(truth))

    refuse_new_classes(items(0, 1, 1, 2), "noisy")
    refuse_new_classes(items(-1, -1, 1, 2), "noisy")
    for truth in ((0, 1, 2, 3), (0, -1, -1, 3)):
        with pytest.raises(ConfigError, match="method=noisy: no class of the test part is in"):
            refuse_new_classes(items(*truth), "noisy")


def test_run_build_makes_the_method_that_the_config_names(c: dict[str, Any]) -> None:
    c["method"]["module"] = {"_target_": "annorun.method.classifier.Classifier", "target": "soft"}
    own = Training(c, *crowd(), run.build)
    assert type(own.module).__name__ == "Classifier" and own.module.target == "soft"


@pytest.mark.parametrize(
    ("family", "start", "target", "model", "taught"),
    [
        ("seq2seq", "pretrained", "annorun.dataset.synthetic_qa.synthetic_qa", "tiny", True),
        ("seq2seq", "scratch", "annorun.dataset.synthetic_qa.synthetic_qa", "tiny", False),
        ("encoder", "pretrained", "annorun.dataset.synthetic_qa.synthetic_qa", "tiny", False),
        ("seq2seq", "pretrained", "annorun.dataset.piqa.piqa", "tiny", False),
        ("seq2seq", "pretrained", "annorun.dataset.synthetic_qa.synthetic_qa", "t5-small", False),
    ],
)
def test_only_the_tiny_t5_knows_something_and_only_of_its_own_questions(
    c: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    start: str,
    target: str,
    model: str,
    taught: bool,
) -> None:
    asked = []

    def weights(n_classes: int, prompt: str) -> Path:
        asked.append((n_classes, prompt))
        return Path("learned.safetensors")

    monkeypatch.setattr("annorun.pretrain.tiny_weights", weights)
    own = object.__new__(Training)
    c["model_size"] |= {"start": start, "seq2seq": model}
    c["dataset"] = {"_target_": target, "prompt": "{question} {options}"}
    own.c, own.items = c, crowd()[0]
    assert own._weights(family) == ("learned.safetensors" if taught else None)
    assert asked == ([(K, "{question} {options}")] if taught else [])
