"""What every method over tasks must do, whatever its formula; a new one is a row by its YAML."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from annorun import config, run
from annorun.method.episodic import Episodic, Tasks
from annorun.method.prototypical import Labelled
from annorun.objective import votes_em
from annorun.objective.prototypes import Priors
from annorun.votes import TaskSpec

NODES = {
    p.stem: method["module"]
    for p in sorted((config.conf_dir() / "method").glob("*.yaml"))
    if (method := OmegaConf.to_container(OmegaConf.load(p))).get("episodes")
}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in NODES),
    ("meta_em", {"model": "variational", "precision": 1.0}),
    ("meta_em", {"model": "gated"}),
    ("meta_em", {"covariance": "identity", "scale": True}),
    ("meta_em", {"acquire": "entropy", "budget": 2}),
    ("prototypical", {"labels": "dawid_skene"}),
    ("maml", {"first_order": False}),
    ("shallow", {"classifier": "random_forest"}),
    ("crowd_tasks", {"layer": "conal"}),
    ("crowd_tasks", {"start": "prototypical"}),
]
SPEC = TaskSpec(kind="image", n_classes=3, n_annotators=0, input_shape=(1, 8, 8))
OPTIMIZER = {
    "lr": 1e-3,
    "betas": (0.9, 0.999),
    "weight_decay": 0.0,
    "clip": 10.0,
    "schedule": "constant",
    "max_steps": 10,
}


@pytest.fixture(params=VARIANTS, ids=lambda v: "-".join([v[0], *map(str, v[1].values())]))
def node(request: pytest.FixtureRequest) -> dict[str, Any]:
    name, changed = request.param
    return {**NODES[name], **changed}


def build(node: dict[str, Any], seed: int = 0) -> Episodic:
    built: Episodic = run.build(
        node, spec=SPEC, network={"family": "image"}, optimizer=dict(OPTIMIZER), seed=seed
    )
    return built


def easy(n_tasks: int = 2, seed: int = 0) -> Tasks:
    """Images of three far patterns, three annotators of whom one errs on the first example."""
    draw = torch.Generator().manual_seed(seed)
    pattern = 3 * torch.randn(n_tasks, 3, 1, 8, 8, generator=draw)
    support_truth = torch.arange(3).repeat_interleave(2).expand(n_tasks, -1).contiguous()
    query_truth = torch.arange(3).repeat_interleave(4).expand(n_tasks, -1).contiguous()
    pick = torch.arange(n_tasks)[:, None]
    support, query = (
        pattern[pick, truth] + 0.1 * torch.randn(*truth.shape, 1, 8, 8, generator=draw)
        for truth in (support_truth, query_truth)
    )
    votes = support_truth[..., None].repeat(1, 1, 3)
    votes[:, 0, 2] = 1
    return Tasks(support, votes, query, query_truth, torch.arange(n_tasks))


def hard(seed: int) -> Tasks:
    """One to three easy tasks whose queries are noise, so that some answers are wrong."""
    tasks = easy(1 + seed, seed)
    draw = torch.Generator().manual_seed(seed)
    return tasks._replace(query=torch.randn(tasks.query.shape, generator=draw))


def test_battery_sees_every_method() -> None:
    assert set(NODES) == {"crowd_tasks", "maml", "meta_em", "prototypical", "shallow"}


LABELLED = sorted(name for name, node in NODES.items() if "labels" in node)
OTHER_PRIOR = {"classes": 0.7, "right": 0.3, "wrong": 0.2}


def test_the_prior_of_dawid_skene_is_meta_em_s_unless_a_key_says_other() -> None:
    assert LABELLED == ["maml", "prototypical", "shallow"]
    meta_em = {key: NODES["meta_em"][key] for key in OTHER_PRIOR}
    assert meta_em == {key: Priors()._asdict()[key] for key in OTHER_PRIOR}
    for name in LABELLED:
        assert {key: NODES[name][key] for key in OTHER_PRIOR} == meta_em, name


@pytest.mark.parametrize("name", LABELLED)
def test_each_pseudo_count_reaches_dawid_skene_and_no_majority_vote(name: str) -> None:
    votes = torch.randint(-1, 3, (2, 6, 3), generator=torch.Generator().manual_seed(0))
    node = {**NODES[name], "labels": "dawid_skene"}
    default = build(node)
    assert isinstance(default, Labelled)
    wanted = votes_em.dawid_skene(votes, 3, Priors(10.0, 2.0, 1.0))
    torch.testing.assert_close(default.believed(votes), wanted)
    for key, value in OTHER_PRIOR.items():
        other = build({**node, key: value})
        assert isinstance(other, Labelled)
        counts = {"classes": 10.0, "right": 2.0, "wrong": 1.0, key: value}
        changed = votes_em.dawid_skene(votes, 3, Priors(**counts))
        assert (changed.probs - wanted.probs).abs().max() > 1e-3
        torch.testing.assert_close(other.believed(votes), changed)
        # both answer with one network
        assert type(other).learner({**node, key: value}) == type(other).learner(node)
    majority = build({**NODES[name], **OTHER_PRIOR})
    assert isinstance(majority, Labelled)
    torch.testing.assert_close(majority.believed(votes), votes_em.majority(votes, 3))


@pytest.mark.parametrize("labels", ["majority", "dawid_skene"])
@pytest.mark.parametrize("name", LABELLED)
def test_target_tasks_are_learned_from_hard_labels_and_report_the_soft_ones(
    name: str, labels: str
) -> None:
    node = {**NODES[name], "labels": labels, **OTHER_PRIOR}
    module = build(node).eval()
    assert isinstance(module, Labelled)
    votes = torch.randint(-1, 3, (2, 6, 3), generator=torch.Generator().manual_seed(1))
    tasks = easy()._replace(votes=votes)
    with torch.no_grad():
        found = module.answer(tasks)
        hard_labels = votes_em.hard(module.believed(votes).probs).float()
        torch.testing.assert_close(found.log_probs, module.from_labels(tasks, hard_labels))
    torch.testing.assert_close((found.labels, found.accuracy), tuple(module.believed(votes)))
    assert found.votes is None


def test_easy_tasks_are_answered_and_probabilities_sum_to_one(node: dict[str, Any]) -> None:
    tasks = easy()
    method = build(node)
    if method.learner(node) is not None:
        adam = torch.optim.Adam(method.parameters(), lr=3e-3)
        for step in range(30):
            adam.zero_grad()
            method.loss(easy(seed=1 + step)).backward()  # type: ignore[no-untyped-call]
            adam.step()
    method.eval()
    with torch.no_grad():
        answers = method.answer(tasks)
    assert answers.log_probs.shape == (2, 12, 3)
    total = answers.log_probs.exp().sum(dim=-1)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-5, rtol=0)
    right = (answers.log_probs.argmax(dim=-1) == tasks.query_truth).float().mean()
    assert right > 0.7
    if answers.accuracy is not None:
        assert answers.accuracy.shape == (2, 3)
    if answers.labels is not None:
        assert answers.labels.shape == (2, 6, 3)


def test_no_true_class_reaches_an_answer(node: dict[str, Any]) -> None:
    tasks = easy()
    method = build(node).eval()
    with torch.no_grad():
        first = method.answer(tasks).log_probs
        blind = tasks._replace(
            query_truth=torch.full_like(tasks.query_truth, -1),
        )
        again = method.answer(blind).log_probs
    torch.testing.assert_close(again, first, atol=1e-6, rtol=0)


def test_a_query_does_not_change_the_answer_to_another(node: dict[str, Any]) -> None:
    """But for the choice of votes, and MAML's batch statistics, which its paper has."""
    if node.get("acquire") or node["_target_"].endswith("Maml"):
        pytest.skip("it looks at the queries, without their classes")
    tasks = easy()
    method = build(node).eval()
    with torch.no_grad():
        first = method.answer(tasks).log_probs
        half = method.answer(
            tasks._replace(query=tasks.query[:, :5], query_truth=tasks.query_truth[:, :5])
        )
    torch.testing.assert_close(half.log_probs, first[:, :5], atol=1e-4, rtol=0)


def test_who_has_no_vote_in_a_task_changes_nothing(node: dict[str, Any]) -> None:
    """Real tasks differ in how many annotate them: those of a batch are padded."""
    if node.get("acquire"):
        pytest.skip("the first votes are drawn among all annotators")
    tasks = easy()
    nobody = torch.full((2, 6, 2), -1)
    more = tasks._replace(votes=torch.cat([tasks.votes, nobody], dim=2))
    method = build(node).eval()
    with torch.no_grad():
        first, padded = method.answer(tasks), method.answer(more)
    torch.testing.assert_close(padded.log_probs, first.log_probs, atol=1e-5, rtol=0)


def test_a_training_task_is_alone_in_its_batch(node: dict[str, Any]) -> None:
    """Batch normalisation is over one task, however many a step has."""
    method = build(node)
    if method.learner(node) is None:
        pytest.skip("it does not learn from training tasks")
    tasks = easy(3)
    # what a parameter starts from may answer all alike
    torch.nn.init.normal_(next(p for p in method.parameters() if p.dim() > 1), std=0.3)
    both = method.train().practise(tasks)
    alone = method.practise(Tasks(*(v[:1] for v in tasks)))
    torch.testing.assert_close(alone, both[:1], atol=1e-5, rtol=0)


def test_every_trainable_parameter_gets_a_finite_gradient(node: dict[str, Any]) -> None:
    method = build(node)
    if method.learner(node) is None:
        pytest.skip("it does not learn from training tasks")
    method.loss(easy()).backward()  # type: ignore[no-untyped-call]
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            moved = bool(parameter.grad.abs().sum() > 0)
            # a shift before batch normalisation does nothing
            bias_of_convolution = name.startswith("net.") and name.endswith("bias")
            assert moved or bias_of_convolution, name


def test_same_seed_same_weights_other_seed_others(node: dict[str, Any]) -> None:
    first, same, other = (build(node, seed).state_dict() for seed in (0, 0, 1))
    if not first:
        pytest.skip("no weights")
    assert all(torch.equal(first[k], same[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_it_trains_and_its_checkpoint_reads_back(node: dict[str, Any], tmp_path: Path) -> None:
    """The validation after the last step is of these weights, by `practise` in eval mode."""
    method = build(node)
    if method.learner(node) is None:
        pytest.skip("it does not learn from training tasks")
    batches = DataLoader([hard(seed) for seed in range(3)], batch_size=None)  # type: ignore[arg-type]
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=3,
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
    )
    before = {k: v.clone() for k, v in method.state_dict().items()}
    trainer.fit(method, batches, batches)
    assert any(not torch.equal(before[k], v) for k, v in method.state_dict().items())
    method.eval()
    with torch.no_grad():
        shown = [(method.practise(batch), batch.query_truth) for batch in map(hard, range(3))]
    right = torch.cat([(p.argmax(-1) == truth).float().flatten() for p, truth in shown])
    loss = torch.cat([-p.gather(-1, truth[..., None]).flatten() for p, truth in shown])
    torch.testing.assert_close(trainer.callback_metrics["val/acc"], right.mean())
    torch.testing.assert_close(trainer.callback_metrics["val/loss"], loss.mean())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = type(method).load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(again.answer(easy()).log_probs, method.answer(easy()).log_probs)
