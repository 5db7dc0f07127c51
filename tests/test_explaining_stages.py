"""What the stages of learning to write are trained on, what caches depend on, what is written.

The data are small and uneven: inputs, labels and explanations of unequal lengths, interleaved
parts, an annotator with two labels.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from annorun import config, explaining, learned, results, writing
from annorun import run as runner
from annorun.explaining import Explaining
from annorun.method.capo import Capo

Compose = Callable[..., DictConfig]
Build = Callable[..., Explaining]
LR, PREFERENCE_LR = 3e-3, 7e-4
FEW = (
    "method=capo",
    "dataset=explained_table",
    "model_size=tiny",
    "trainer=smoke",
    "trainer.max_steps=7",
    "trainer.val_every=3",
    "trainer.batch_size=5",
    f"trainer.lr={LR}",
    "trainer.schedule=constant",
    "method.module.preference_steps=4",
    f"method.module.preference_lr={PREFERENCE_LR}",
    "method.module.decodings=2",
    "method.module.most_tokens=4",
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANNORUN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def build(compose: Compose, explained: Path) -> Build:
    """Return a function: overrides -> an untrained Explaining of the uneven data."""

    def built(*overrides: str) -> Explaining:
        c = config.plain(compose(*FEW, f"dataset.path='{explained}'", *overrides))
        network: Explaining = runner.training(c, runner.load(c))
        return network

    return built


@pytest.fixture
def unwritten(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Let `explain` train and write nothing; collect what would be evaluated, and how."""
    evaluated: list[dict[str, Any]] = []

    def judge(folder: Path, *what: object, **how: object) -> dict[str, float]:
        evaluated.append({"folder": folder, "what": what, **how})
        return {"test/label_acc": 0.5}

    monkeypatch.setattr(explaining.explained_results, "judge", judge)
    monkeypatch.setattr(Explaining, "write", lambda _: ["what is written"])
    return evaluated


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    path.mkdir()
    return path


def stage_path(one: Explaining, folder: Path) -> Path:
    """Return where the first stage would be cached."""
    paths: list[Path] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learned, "load", lambda path, *_: paths.append(path) or True)
        one._first_stage(folder)
    (path,) = paths
    return path


def weights(one: Explaining) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in one.module.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "trainer.lr=1e-4",
        "trainer.max_steps=8",
        "trainer.batch_size=6",
        "trainer.clip=2.0",
        "trainer.weight_decay=0.5",
        "trainer.schedule=cosine",
        "trainer.precision=bf16-mixed",
        "dataset.max_length=3",
        "dataset.prompt='{text}!'",
    ],
)
def test_first_stage_path_depends_on_training_where_the_weights_are_equal(
    build: Build, folder: Path, override: str
) -> None:
    one, other = build(), build(override)
    other.module.load_state_dict(one.module.state_dict())
    assert stage_path(one, folder) != stage_path(other, folder)


@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("column", ["text", "explanation", "label"])
def test_first_stage_path_depends_on_the_data_of_both_parts(
    build: Build, explained: Path, folder: Path, part: str, column: str
) -> None:
    path = stage_path(build(), folder)
    lines = explained.read_text("utf-8").splitlines()
    place = next(k for k, line in enumerate(lines) if line.endswith(part))
    task, _, label, why, text, _ = lines[place].split(",")
    for k, line in enumerate(lines):
        if line.startswith(f"{task},") and column == "text":
            lines[k] = line.replace(text, text.replace("is", "as"))
    if column == "explanation":
        lines[place] = lines[place].replace(why, why.replace("reads", "write"))
    if column == "label":
        lines[place] = lines[place].replace(f",{label},", f",{'yes' if label == 'no' else 'no'},")
    explained.write_text("\n".join(lines), encoding="utf-8")
    assert stage_path(build(), folder) != path


def test_first_stage_path_depends_on_the_weights_and_on_the_code(
    build: Build, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = build(), build()
    path = stage_path(one, folder)
    assert stage_path(other, folder) == path
    with torch.no_grad():
        other.module.learned()[-1].view(-1)[-1] += 0.01
    assert stage_path(other, folder) != path
    for name, value in (("CODE", "other"), ("torch", type("", (), {"__version__": "0"}))):
        with monkeypatch.context() as patch:
            patch.setattr(learned, name, value)
            assert stage_path(one, folder) != path
    with monkeypatch.context() as patch:
        patch.setattr(explaining, "VERSIONS", ["0", "0"])
        assert stage_path(one, folder) != path
    assert stage_path(one, folder) == path


@pytest.mark.parametrize(
    "overrides",
    [
        ("method.module.loss=ipo", "method.module.beta=0.7", "method.module.anchor=0.9"),
        ("method.module.mask=explanation", "method.module.pairs=different"),
        ("method.module.weights=dissimilarity", "method.module.preference_lr=0.1"),
        ("method.module.preference_steps=0", "method.module.decodings=3"),
    ],
)
def test_first_stage_is_shared_by_all_second_stages(
    build: Build, folder: Path, overrides: tuple[str, ...]
) -> None:
    assert stage_path(build(*overrides), folder) == stage_path(build(), folder)


def test_cached_first_stage_is_that_of_its_key_among_several(build: Build, folder: Path) -> None:
    """Three first stages in one cache; each is read back with its weights and its curve."""
    overrides: tuple[tuple[str, ...], ...] = ((), ("seed=5",), ("trainer.max_steps=2",))
    trained, curves = [], []
    for words in overrides:
        one = build(*words)
        before = weights(one)
        one._first_stage(folder)
        assert not equal(before, weights(one))
        trained.append(weights(one))
        curves.append((folder / "metrics.csv").read_text())
        assert one.steps == one.c["trainer"]["max_steps"]
    assert len(set(curves)) == 3
    for words, expected, curve in zip(overrides, trained, curves, strict=True):
        again = build(*words)
        again._fit = None  # type: ignore[assignment,method-assign]
        again._first_stage(folder)
        assert equal(weights(again), expected)
        assert (folder / "metrics.csv").read_text() == curve
        assert again.steps == again.c["trainer"]["max_steps"]


def test_large_first_stage_is_not_cached(
    build: Build, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = build("trainer.max_steps=1")
    size = sum(value.nbytes for value in learned.state(one.module).values())
    monkeypatch.setattr(explaining, "MOST", size - 1)
    one._first_stage(folder)
    assert not cache.exists()
    monkeypatch.setattr(explaining, "MOST", size)
    build("trainer.max_steps=1")._first_stage(folder)
    assert len(list(cache.glob("stage1-*.safetensors"))) == 1


def plain_scores(one: Explaining, explanation_only: bool = False) -> Tensor:
    """Return the log-probability of each scored response, each a sequence of its own."""
    data, scores = one.data, torch.full((one.data.n_scored,), torch.nan)
    for branch in data.branches:
        for order, vote in enumerate([*branch.own, *branch.others]):
            prompt, response = data.prompt(branch.item, branch.target), data.response(vote)
            if explanation_only:
                n_label = len(data.label[data.votes.label[vote]])
                prompt, response = prompt + response[:n_label], response[n_label:]
            with torch.no_grad():
                logits = one.module.net.lm(torch.tensor([prompt + response])).logits[0]
            table = logits[len(prompt) - 1 : -1].log_softmax(dim=-1)
            scores[branch.first + order] = table.gather(1, torch.tensor(response)[:, None]).sum()
    return scores


@pytest.mark.parametrize("mask", ["all", "explanation"])
def test_reference_is_each_response_scored_alone_without_dropout(build: Build, mask: str) -> None:
    """Of training and validation items; the network is in training mode before and after."""
    one = build(f"method.module.mask={mask}")
    one.module.paired = True
    one.module.eval()
    expected = plain_scores(one, mask == "explanation")
    for part in one.module.modules():
        if hasattr(part, "attention_dropout"):
            part.attention_dropout = 0.5  # type: ignore[assignment]
    one.module.train()
    found = one.reference()
    assert one.module.training and one.module.net.lm.training
    assert expected.isfinite().all() and not found.requires_grad
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_cached_reference_is_that_of_its_weights_mask_and_precision(
    build: Build, cache: Path
) -> None:
    """Five references in one cache; each is read back, and no other."""
    overrides = {
        "plain": (),
        "masked": ("method.module.mask=explanation",),
        "half": ("trainer.precision=bf16-mixed",),
        "float16": (),
        "moved": (),
    }
    state = weights(build())
    scores = {}
    for again in (False, True):
        for name, words in overrides.items():
            one = build(*words)
            one.module.load_state_dict(state)
            one.module.paired = True
            if name == "float16":
                # which the check of a config allows on a GPU alone
                one.c["trainer"]["precision"] = "16-mixed"
            if name == "moved":
                with torch.no_grad():
                    one.module.learned()[0].mul_(1.5)
            if again:
                one.module.scores = None  # type: ignore[assignment,method-assign]
            found = one.reference()
            assert torch.equal(found, scores.setdefault(name, found))
        assert len(list(cache.glob("reference-*.safetensors"))) == 5
    plain = scores.pop("plain")
    assert all((plain - other).abs().max() > 1e-5 for other in scores.values())
    assert all((plain - scores[name]).abs().max() < 0.5 for name in ("half", "float16"))
    assert plain.dtype == scores["half"].dtype == torch.float32


def test_reference_path_depends_on_the_code(
    build: Build, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = build()
    one.module.paired = True
    one.reference()
    monkeypatch.setattr(learned, "CODE", "other")
    one.reference()
    assert len(list(cache.glob("reference-*.safetensors"))) == 2


@pytest.mark.parametrize("loss", ["dpo", "ipo", "listwise", "simpo"])
def test_reference_is_scored_after_the_first_stage_and_only_where_it_is_used(
    build: Build,
    folder: Path,
    loss: str,
    unwritten: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[str] = []
    fit, reference = Explaining._fit, Explaining.reference

    def fitted(self: Explaining, curve: Path, t: dict[str, Any]) -> None:
        events.append(curve.name)
        assert self.module.paired == (curve.name == "preference.csv")
        fit(self, curve, t)

    def scored(self: Explaining) -> Tensor:
        events.append("reference")
        assert self.module.paired
        return reference(self)

    monkeypatch.setattr(Explaining, "_fit", fitted)
    monkeypatch.setattr(Explaining, "reference", scored)
    one = build(f"method.module.loss={loss}")
    one.explain(folder)
    middle = [] if loss == "simpo" else ["reference"]
    assert events == ["metrics.csv", *middle, "preference.csv"]
    assert one.steps == 7 + 4


class Recorded:
    """What two stages were trained on and at, one entry a step or a validation batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.steps: list[tuple[bool, list[int], float]] = []
        self.validations: list[tuple[bool, list[int], float]] = []
        self.optimizers: list[Any] = []
        step, validation = Capo.training_step, Capo.validation_step
        configure, loss = Capo.configure_optimizers, Capo.loss

        def number(module: Capo, batch: dict[str, Tensor]) -> tuple[bool, list[int], float]:
            return module.paired, batch["number"].tolist(), float(loss(module, batch).detach())

        def training_step(module: Capo, batch: dict[str, Tensor]) -> Tensor:
            self.steps.append(number(module, batch))
            return step(module, batch)

        def validation_step(module: Capo, batch: dict[str, Tensor]) -> None:
            self.validations.append(number(module, batch))
            validation(module, batch)

        def configure_optimizers(module: Capo) -> Any:
            self.optimizers.append(configure(module))
            return self.optimizers[-1]

        monkeypatch.setattr(Capo, "training_step", training_step)
        monkeypatch.setattr(Capo, "validation_step", validation_step)
        monkeypatch.setattr(Capo, "configure_optimizers", configure_optimizers)


def items_of(one: Explaining, numbers: list[int]) -> list[int]:
    """Return the items of responses, in the order of the batch, each once."""
    item = {}
    for branch in one.data.branches:
        for order in range(len(branch.own) + len(branch.others)):
            item[branch.first + order] = branch.item
    return list(dict.fromkeys(item[number] for number in numbers))


def test_each_stage_is_trained_on_training_items_at_its_rate_for_its_steps(
    build: Build,
    folder: Path,
    unwritten: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded, one = Recorded(monkeypatch), build()
    metrics = one.explain(folder)
    train, val = (np.flatnonzero(one.items.split == part).tolist() for part in ("train", "val"))
    assert [paired for paired, *_ in recorded.steps] == [False] * 7 + [True] * 4
    orders = []
    for paired in (False, True):
        batches = [items_of(one, numbers) for p, numbers, _ in recorded.steps if p == paired]
        # 12 items in batches of 5: each item once in three steps
        assert [len(batch) for batch in batches[:3]] == [5, 5, 2]
        order = [item for batch in batches[:3] for item in batch]
        assert sorted(order) == train != order
        orders.append(order)
        # three validation items in one batch, after every third step and after the last
        own = [items_of(one, numbers) for p, numbers, _ in recorded.validations if p == paired]
        assert own == [val] * (2 if paired else 3)
    assert orders[0] != orders[1]
    rates = [o["optimizer"].param_groups[0]["lr"] for o in recorded.optimizers]
    assert rates == [LR, PREFERENCE_LR]
    files = {False: "metrics.csv", True: "preference.csv"}
    for paired, file in files.items():
        rows = results.read_csv(folder / file)
        losses = [value for p, _, value in recorded.steps if p == paired]
        last = {3: losses[:3], 6: losses[3:6], 7: losses[6:], 4: losses[3:]}
        assert [int(row["step"]) for row in rows] == ([3, 4] if paired else [3, 6, 7])
        for row in rows:
            mean = np.mean(last[int(row["step"])])
            assert float(row["train/loss"]) == pytest.approx(mean, rel=1e-4)
        validated = [value for p, _, value in recorded.validations if p == paired]
        assert [float(row["val/loss"]) for row in rows] == pytest.approx(validated, rel=1e-4)
    assert one.steps == 11
    # by the definition, from the table: of training items, both directions
    votes, pairs, same = one.votes, 0, 0
    for item in train:
        own = np.flatnonzero(votes.item == item)
        for a in own:
            for b in own:
                if votes.annotator[a] != votes.annotator[b]:
                    pairs += 1
                    same += votes.label[a] == votes.label[b]
    expected = {"pairs/all": pairs, "pairs/same_label": same, "test/label_acc": 0.5}
    assert metrics == expected and 0 < same < pairs
    (evaluated,) = unwritten
    items, others, written = evaluated["what"]
    assert (items, others) == (one.items, one.votes) and written == ["what is written"]
    assert (evaluated["folder"], evaluated["seed"]) == (folder, 0)
    assert (evaluated["encoder"], evaluated["llm"], evaluated["device"]) == (None, None, "cpu")


def test_order_of_training_items_is_drawn_by_the_seed(
    build: Build,
    folder: Path,
    unwritten: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded, orders = Recorded(monkeypatch), []
    for words in ((), ("seed=3",), ("trainer.lr=0.002",)):
        one = build(*words, "method.module.preference_steps=0")
        recorded.steps.clear()
        one.explain(folder)
        orders.append([items_of(one, numbers) for _, numbers, _ in recorded.steps])
    assert orders[0] == orders[2] != orders[1]


def test_weights_move_in_proportion_to_the_rate_of_preference(
    build: Build, folder: Path, unwritten: list[dict[str, Any]]
) -> None:
    """AdamW's first step moves a weight by the rate, whatever the gradient; 0 is no rate at all."""
    first, moved = build(), []
    first._first_stage(folder)
    before = weights(first)
    for rate in (1e-5, 1e-3):
        one = build(f"method.module.preference_lr={rate}", "method.module.preference_steps=1")
        one.explain(folder)
        after = weights(one)
        moved.append(max(float((after[name] - before[name]).abs().max()) for name in before))
    assert moved[0] == pytest.approx(1e-5, rel=0.05)
    assert moved[1] == pytest.approx(1e-3, rel=0.05)


def test_without_preferences_there_is_one_stage(
    build: Build, folder: Path, unwritten: list[dict[str, Any]], cache: Path
) -> None:
    one = build("method.module.preference_steps=0")
    assert one.explain(folder) == {"test/label_acc": 0.5}
    assert one.steps == 7 and not one.module.paired and one.module.reference is None
    assert not (folder / "preference.csv").exists()
    assert not list(cache.glob("reference-*"))


@pytest.mark.parametrize("mask", ["all", "explanation"])
def test_mask_is_of_the_second_stage_alone(build: Build, mask: str) -> None:
    """Both stages score the end of each response; the label is given in the second, if masked."""
    one = build(f"method.module.mask={mask}")
    ids = np.unique([branch.item for own in one.train for branch in own])
    assert len(ids) == 12
    for paired in (False, True):
        one.module.paired = paired
        batch = one.batch(one.train[:3])
        votes = [v for own in one.train[:3] for b in own for v in (b.scored() if paired else b.own)]
        expected = []
        for vote in votes:
            tokens = one.data.response(vote)
            if paired and mask == "explanation":
                tokens = tokens[len(one.data.label[one.data.votes.label[vote]]) :]
            expected += tokens
        assert batch["token"].tolist() == expected


def test_written_text_goes_to_its_item_and_annotator_whatever_the_order_of_writing(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network answers with what it is asked, by whom and how often; texts of unequal length."""
    one, asked = build(), []
    monkeypatch.setattr(writing, "AT_ONCE", 2)

    def write(prompts: list[list[int]], whose: list[int], **how: Any) -> list[list[int]]:
        asked.append(len(prompts))
        assert how == {"end": one.tokenizer.eos_token_id, "most": 4, "temperature": 0.7}
        texts = [
            f" yes  |by {who} of {one.tokenizer.decode(prompt)} "
            for prompt, who in zip(prompts, whose, strict=True)
        ]
        return [one.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]

    one.module.net.write = write  # type: ignore[method-assign]
    written = one.write()
    names = ("ann", "bob", "cy")
    texts = one.items.inputs["text"]
    assert len({len(texts[i]) for i in (1, 7, 13)}) == 3
    prompt = one.c["dataset"]["prompt"]
    assert [tuple(w) for w in written] == [
        (i, a, d, "yes", f"by {a} of {prompt.format(text=texts[i])}\n{names[a]}:")
        for i in (1, 7, 13)
        for a in range(3)
        for d in range(2)
    ]
    assert asked == [2, 2, 2, 2, 1] * 2


def test_text_without_a_bar_is_a_label_alone(build: Build) -> None:
    one = build()

    def write(prompts: list[list[int]], *_: Any, **__: Any) -> list[list[int]]:
        return [one.tokenizer("no | a | b", add_special_tokens=False)["input_ids"]] + [
            one.tokenizer(" unsure ", add_special_tokens=False)["input_ids"]
        ] * (len(prompts) - 1)

    one.module.net.write = write  # type: ignore[method-assign]
    found = {(w.label, w.why) for w in one.write()}
    assert found == {("no", "a | b"), ("unsure", "")}


def test_training_that_diverges_fails(build: Build, folder: Path) -> None:
    one = build("trainer.max_steps=1")
    with torch.no_grad():
        one.module.learned()[0].fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"lower trainer\.lr"):
        one._fit(folder / "metrics.csv", one.c["trainer"])
    assert not (folder / "metrics.csv").exists()
