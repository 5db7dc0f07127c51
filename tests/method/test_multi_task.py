"""One head for each group, for all, or for each annotator: what each learns, and who speaks."""

from dataclasses import replace
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from annorun import config, run
from annorun.dataset.module import CrowdData
from annorun.errors import ConfigError
from annorun.method.multi_task import MultiTask
from annorun.scores import soft
from annorun.training import Training
from annorun.votes import Items, TaskSpec, Votes

GROUP = (0, 0, 1, 0)
SPEC = TaskSpec("features", n_classes=2, n_annotators=4, input_shape=(3,), n_groups=2, group=GROUP)
OPTIMIZER = {
    **{"lr": 0.02, "betas": (0.9, 0.999), "weight_decay": 0.1, "clip": 1.0},
    **{"schedule": "constant", "max_steps": 200},
}
NETWORK = {"family": "features", "model": "tiny", "weights": None}
N_TRAIN, N_TEST = 12, 6


def build(target: str, spec: TaskSpec = SPEC) -> MultiTask:
    return MultiTask(spec, NETWORK, dict(OPTIMIZER), 0, target)


def opposed_data() -> CrowdData:
    """Group 0 (annotators 0, 1) says the class, group 1 (annotator 2) the other; 3 says nothing."""
    n = N_TRAIN + N_TEST
    truth = np.arange(n) % 2
    x = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32) * 0.1
    x += (4 * truth - 2)[:, None]
    item = np.repeat(np.arange(N_TRAIN), 3)
    annotator = np.tile([0, 1, 2], N_TRAIN)
    label = np.where(annotator == 2, 1 - truth[item], truth[item])
    votes = Votes(item, annotator, label, n, 4, 2, group=np.array(GROUP))
    split = np.where(np.arange(n) < N_TRAIN, "train", "test")
    keys = {"batch_size": 8, "val_share": 0.25, "data_seed": 0, "seed": 0}
    data = CrowdData(
        Items("features", {"x": x}, split, 2), votes, tokenizer=None, prompt="", **keys
    )
    data.target = torch.eye(2)[torch.from_numpy(truth)]
    data.group_target = torch.from_numpy(np.stack([truth, 1 - truth], axis=1))
    return data


def trainer(folder: Path, steps: int) -> L.Trainer:
    return L.Trainer(
        **{"accelerator": "cpu", "max_steps": steps, "max_epochs": -1, "logger": False},
        **{"enable_checkpointing": False, "enable_progress_bar": False},
        **{"enable_model_summary": False, "default_root_dir": folder, "num_sanity_val_steps": 0},
    )


@pytest.mark.parametrize(("target", "heads"), [("groups", 2), ("hard", 1), ("annotators", 4)])
def test_heads_and_the_loss_by_a_loop_over_them(target: str, heads: int) -> None:
    data, module = opposed_data(), build(target).eval()
    data.group_target[3, 1] = -1
    batch = data.batch(data.train.tolist())
    logits = module(batch["inputs"])
    assert logits.shape == (len(data.train), heads, 2)
    dense = torch.from_numpy(data.votes.dense())
    columns = {"groups": data.group_target, "hard": data.target.argmax(1)[:, None]}
    label = columns.get(target, dense)[data.train]
    expected = sum(
        cross_entropy(logits[label[:, h] >= 0, h], label[label[:, h] >= 0, h])
        for h in range(heads)
        if (label[:, h] >= 0).any()
    )
    torch.testing.assert_close(module.loss(logits, batch), expected)


def test_heads_are_linear_maps_of_one_state_and_a_masked_one_gets_no_gradient() -> None:
    """Row 2 h + k of the last layer is class k of head h: annotator 3 has no vote."""
    data, module = opposed_data(), build("annotators")
    batch = data.batch(data.train.tolist())
    module.loss(module(batch["inputs"]), batch).backward()
    gradient = module.net.layers[-1].weight.grad.view(4, 2, -1).abs().sum((1, 2))
    assert (gradient[:3] > 0).all() and gradient[3] == 0


@pytest.mark.parametrize("target", ["groups", "annotators"])
def test_opposed_groups_are_both_learned(target: str, tmp_path: Path) -> None:
    """Two annotators say the class and one the other: all together answer (2 p + p') / 3."""
    data, module = opposed_data(), build(target)
    fitted = trainer(tmp_path, 80)
    fitted.fit(module, data)
    fitted.test(module, data, verbose=False)
    groups = module.group_probabilities()
    truth = np.arange(N_TRAIN, N_TRAIN + N_TEST) % 2
    assert groups.shape == (N_TEST, 2, 2)
    assert (groups[:, 0].argmax(1) == truth).all() and (groups[:, 1].argmax(1) == 1 - truth).all()
    np.testing.assert_allclose(groups.sum(axis=2), 1, atol=1e-6)
    # annotator 3 is of group 0 and has no vote: who says nothing counts for nothing
    expected = np.einsum("g,ngk->nk", np.array([2, 1]) / 3, groups)
    np.testing.assert_allclose(module.probabilities(), expected, atol=1e-6)
    metrics = fitted.validate(module, data, verbose=False)[0]
    assert metrics["val/loss"] < 0.3


def test_one_head_answers_for_all_groups(tmp_path: Path) -> None:
    data, module = opposed_data(), build("hard")
    fitted = trainer(tmp_path, 5)
    fitted.fit(module, data)
    fitted.test(module, data, verbose=False)
    for g in range(2):
        assert np.array_equal(module.group_probabilities()[:, g], module.probabilities())


def test_a_groups_answer_is_the_mean_of_its_annotators_who_voted() -> None:
    module = build("annotators")
    p = torch.tensor([0.1, 0.4, 0.9, 0.6])
    module.predicted.append(torch.stack([1 - p, p], dim=-1)[None])
    assert module.group_probabilities()[0, :, 1] == pytest.approx([1.1 / 3, 0.9])
    module.seen[:] = torch.tensor([True, True, False, False])
    # nobody of group 1 has voted: the mean of all who have
    assert module.group_probabilities()[0, :, 1] == pytest.approx([0.25, 0.25])
    assert module.probabilities()[0, 1] == pytest.approx(0.25)


def test_groups_are_needed_where_each_has_a_head_and_nowhere_else() -> None:
    plain = TaskSpec("features", n_classes=2, n_annotators=4, input_shape=(3,))
    with pytest.raises(ConfigError, match="have no groups; allowed is annotators"):
        build("groups", plain)
    module = build("annotators", plain)
    assert module.group_probabilities() is None and module.probabilities().shape == (0, 2)


def test_a_checkpoint_knows_how_many_speak_through_a_groups_head(tmp_path: Path) -> None:
    data, module = opposed_data(), build("groups")
    fitted = trainer(tmp_path, 3)
    fitted.fit(module, data)
    fitted.save_checkpoint(tmp_path / "last.ckpt")
    again = MultiTask.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert again.size.tolist() == [2, 1]


def test_a_checkpoint_knows_who_has_learned(tmp_path: Path) -> None:
    data, module = opposed_data(), build("annotators")
    fitted = trainer(tmp_path, 3)
    fitted.fit(module, data)
    fitted.save_checkpoint(tmp_path / "last.ckpt")
    again = MultiTask.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert again.seen.tolist() == [True, True, True, False] and again.spec == module.spec


@pytest.fixture
def texts() -> tuple[Items, Votes]:
    """Texts of a or b; two groups that read them the other way; a val split of its own."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 30)
    text = [" ".join(rng.choice([f"{'ab'[t]}{i}" for i in range(3)], 4)) for t in truth]
    split = np.repeat(["train", "val", "test"], 10)
    item, annotator = np.repeat(np.arange(30), 2), np.tile([0, 1], 30)
    votes = Votes(item, annotator, truth[item] ^ annotator, 30, 2, 2, group=np.array([0, 1]))
    held = votes.on((split == "test") & (np.arange(30) != 25))
    names = ["left", "right"]
    items = Items("text", {"text": text}, split, 2, held_out=held, group_names=names)
    return items, votes.on(split != "test")


@pytest.mark.parametrize("start", ["pretrained", "frozen"])
def test_texts_end_to_end_and_scored_on_held_out_votes(
    start: str, texts: tuple[Items, Votes], tmp_path: Path
) -> None:
    items, votes = texts
    c = config.plain(config.compose("config", ["dataset=digits"]))
    c["dataset"] = {"kind": "text", "max_length": 16}
    c["model_size"]["start"] = start
    c["trainer"] |= {"max_steps": 30, "lr": 0.01, "choose_on": "votes", "val_every": 10}
    c["method"]["module"] = {
        "_target_": "annorun.method.multi_task.MultiTask",
        "target": "annotators",
    }
    training = Training(c, items, votes, run.build)
    assert training.data.train.tolist() == list(range(10))
    assert training.data.val.tolist() == list(range(10, 20))
    assert ("x" in training.data.inputs) == (start == "frozen")
    fitted = training.fit(None, tmp_path)
    assert fitted.group_probs.shape == (10, 2, 2)
    q = soft.shares(soft.group_counts(items.held_out, 2))
    seen = [k for k in range(10) if k != 5]
    for g, name in enumerate(items.group_names):
        expected = soft.jsd(fitted.group_probs[seen, g], q[20:, g][seen]).mean()
        assert fitted.metrics[f"test/jsd_{name}"] == pytest.approx(expected, rel=1e-9)
    # each item has one yes and one no
    distance = np.abs(fitted.probs[seen] - 0.5).sum(axis=1).mean()
    assert fitted.metrics["test/soft_manhattan"] == pytest.approx(distance, rel=1e-9)
    assert fitted.metrics["test/jsd"] < 0.15 or start == "frozen"


@pytest.mark.parametrize("target", ["annotators", "hard"])
def test_a_head_that_learns_one_vote_refuses_several_labels(
    target: str, texts: tuple[Items, Votes]
) -> None:
    """A table of annotators and items has one place for each: the other labels would be lost."""
    items, votes = texts
    several = replace(votes, multi_label=True)
    c = config.plain(config.compose("config", ["dataset=digits"]))
    c["dataset"] = {"kind": "text", "max_length": 16}
    c["method"]["module"] = {
        "_target_": "annorun.method.multi_task.MultiTask",
        "target": target,
    }
    if target == "hard":
        assert Training(c, items, several, run.build).data.votes.multi_label
    else:
        with pytest.raises(ConfigError, match="head learns one label an item, the data have"):
            Training(c, items, several, run.build)


def test_a_text_is_cut_at_max_length_and_that_must_fit_the_network(
    texts: tuple[Items, Votes],
) -> None:
    items, votes = texts
    c = config.plain(config.compose("config", ["dataset=digits"]))
    c["dataset"] = {"kind": "text", "max_length": 7}
    assert Training(c, items, votes, run.build).data.inputs["input_ids"].shape == (30, 7)
    c["dataset"]["max_length"] = 513
    with pytest.raises(ConfigError, match=r"dataset.max_length=513: allowed is at most 512"):
        Training(c, items, votes, run.build)


# five annotators of three groups; heads are theirs, or the groups', or one
MANY = TaskSpec(
    "features", n_classes=3, n_annotators=5, input_shape=(4,), n_groups=3, group=(2, 0, 1, 0, 2)
)


def answered(target: str, n_heads: int) -> tuple[MultiTask, np.ndarray]:
    """A method that has answered seven items, and its heads' probabilities."""
    module = build(target, MANY)
    heads = np.random.default_rng(0).dirichlet(np.ones(3), (7, n_heads))
    module.predicted = [torch.from_numpy(heads[:4]), torch.from_numpy(heads[4:])]
    return module, heads


def test_annotators_who_never_spoke_count_nowhere() -> None:
    """Group 0 is annotators 1 and 3, of whom 1 is silent; group 2's 4 is, too."""
    module, heads = answered("annotators", 5)
    module.seen[:] = torch.tensor([True, False, True, True, False])
    np.testing.assert_allclose(module.heads(), heads)
    np.testing.assert_allclose(module.probabilities(), heads[:, [0, 2, 3]].mean(axis=1))
    np.testing.assert_allclose(module.group_probabilities(), heads[:, [3, 2, 0]])
    module.seen[1] = True
    found = module.group_probabilities()
    np.testing.assert_allclose(found[:, 0], heads[:, [1, 3]].mean(axis=1))


def test_a_groups_head_speaks_for_its_annotators() -> None:
    """Sizes 2, 1, 2, and a head that has learned nothing has no say."""
    module, heads = answered("groups", 3)
    module.size[:] = torch.tensor([2.0, 1.0, 2.0])
    module.seen[:] = torch.tensor([True, True, False])
    np.testing.assert_allclose(module.group_probabilities(), heads)
    expected = (2 * heads[:, 0] + heads[:, 1]) / 3
    np.testing.assert_allclose(module.probabilities(), expected, rtol=1e-6)


def test_answers_in_training_are_the_mean_of_probabilities_not_of_logits() -> None:
    module = build("annotators", MANY)
    module.seen[:] = torch.tensor([True, False, True, True, False])
    logits = 3 * torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(0))
    expected = logits[:, [0, 2, 3]].softmax(dim=-1).mean(dim=1)
    torch.testing.assert_close(module.answers(logits), expected)


def test_a_head_that_spoke_once_has_spoken() -> None:
    """A later batch without its annotator's votes takes nothing back."""
    module = build("annotators", MANY)
    for annotator in (1, 4):
        batch = {
            **{"item": torch.tensor([3, 9]), "row": torch.tensor([1])},
            **{"annotator": torch.tensor([annotator]), "label": torch.tensor([2])},
        }
        module.on_train_batch_end(None, batch, 0)
        assert module.weight(batch) == 2
    assert module.seen.tolist() == [False, True, False, False, True]


def test_logits_of_a_head_stand_together() -> None:
    """Output 3 h + k is class k of head h."""
    module = build("annotators", MANY).eval()
    inputs = {"x": torch.randn(2, 4, generator=torch.Generator().manual_seed(0))}
    flat = module.net(**inputs)
    logits = module(inputs)
    for h in range(5):
        assert torch.equal(logits[:, h], flat[:, 3 * h : 3 * h + 3])
