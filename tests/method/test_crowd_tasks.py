"""Crowd layers on the support of each task: all at once is each alone, and what they find."""

from typing import Any

import pytest
import torch
from torch import Tensor

from annorun.method.crowd_tasks import EPS, CrowdTasks, OwnAndCommon, by_vote
from annorun.method.episodic import Answers, Tasks
from annorun.method.prototypical import Prototypical
from annorun.method.stacked import for_each, stacked
from annorun.objective import conal, crowd_layer
from annorun.votes import TaskSpec

K = 3
LAYERS = ("crowd_layer", "conal")
STARTS = ("scratch", "prototypical")
SHAPES = {"features": (5,), "image": (1, 8, 8)}


def method(
    layer: str,
    start: str,
    kind: str = "features",
    steps: int = 10,
    lr: float = 1e-2,
    net_lr: float | None = 1e-2,
) -> CrowdTasks:
    """In float64, with running statistics, which are of no one task alone."""
    made = CrowdTasks(
        spec=TaskSpec(kind, K, 0, SHAPES[kind]),
        network={"family": kind},
        optimizer={},
        seed=0,
        layer=layer,
        start=start,
        steps=steps,
        lr=lr,
        net_lr=net_lr,
        apart=1e-5,
    ).double()
    made.net.train()
    with torch.no_grad():
        for _ in range(30):
            made.net(tasks(kind).support[:, :7].flatten(0, 1))
    return made.eval()


def prototypical(made: CrowdTasks) -> Prototypical:
    """Return the prototypical network on majority labels that has the weights of a crowd method."""
    plain = Prototypical(made.spec, {"family": "image"}, {}, 0, "majority", 10.0, 2.0, 1.0).double()
    plain.load_state_dict(made.state_dict())
    return plain.eval()


def tasks(kind: str = "features", n_tasks: int = 3, shots: int = 4, noise: float = 0.3) -> Tasks:
    """Three classes around a place each; four annotators, each wrong in one vote of three."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    centres = 2 * normal(n_tasks, K, *SHAPES[kind])
    truth = torch.arange(K).repeat(n_tasks, shots)
    asked = torch.arange(K).repeat(n_tasks, 5)
    x, q = (
        centres[torch.arange(n_tasks)[:, None], t] + 0.3 * normal(*t.shape, *SHAPES[kind])
        for t in (truth, asked)
    )
    votes = truth[..., None].repeat(1, 1, 4)
    wrong = torch.rand(votes.shape, generator=generator) < noise
    other = torch.randint(1, K, votes.shape, generator=generator)
    return Tasks(x, torch.where(wrong, (votes + other) % K, votes), q, asked, truth[:, 0])


def answer(made: CrowdTasks, given: Tasks) -> Answers:
    """As `annorun.meta_training` asks."""
    with torch.no_grad():
        return made.answer(given)


def close(a: Tensor | None, b: Tensor | None) -> None:
    torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("kind", SHAPES)
def test_a_batch_of_tasks_is_each_task_alone(layer, start, kind):
    """The last task has fewer votes: a mean over all votes of the batch would weigh it less."""
    made, given = method(layer, start, kind, steps=4), tasks(kind)
    given.votes[2, 3:] = -1
    both = answer(made, given)
    for t in range(3):
        alone = answer(made, Tasks(*(part[t : t + 1] for part in given)))
        for name in ("log_probs", "labels", "accuracy"):
            close(getattr(alone, name)[0], getattr(both, name)[t])


@pytest.mark.parametrize("kind", SHAPES)
def test_equal_weights_for_each_task_are_the_network_itself(kind):
    """Scratch: in train mode, by the statistics of its batch; prototypical: in eval mode."""
    net, x = method("conal", "scratch", kind).net, tasks(kind).support
    weights = {name: for_each(3, p.detach()) for name, p in net.named_parameters()}
    own = torch.stack([net.eval()(part) for part in x])
    # or nothing is seen: a network whose statistics are far off answers the same for all
    assert own.std(dim=(0, 1)).max() > 0.1
    close(stacked(net, weights, x, x.shape[1], fixed=True), own)
    by_batch = torch.stack([net.train()(part) for part in x])
    close(stacked(net, weights, x, x.shape[1], fixed=False), by_batch)


def test_queries_are_normalised_by_the_support_and_not_by_each_other():
    net, given = method("conal", "scratch", "image").net, tasks("image")
    weights = {name: for_each(3, p.detach()) for name, p in net.named_parameters()}
    n = given.support.shape[1]
    support = stacked(net, weights, given.support, n, fixed=False)
    both = torch.cat([given.support, given.query], dim=1)
    close(stacked(net, weights, both, n, fixed=False)[:, :n], support)
    few = torch.cat([given.support, given.query[:, :2]], dim=1)
    close(
        stacked(net, weights, few, n, fixed=False)[:, n:],
        stacked(net, weights, both, n, fixed=False)[:, n : n + 2],
    )


def test_the_first_step_is_adam_on_the_loss_of_the_crowd_layer():
    """One step of Adam moves each number by lr g / (|g| + eps), against its gradient.

    From scratch the head starts at zero: p = 1 / K, W = I. The only gradient that is not 0 is the
    head's, in z = head: dL/dz_k = p_k (g_k - sum_j p_j g_j), g = dL/dp, here by autograd.
    """
    made, given = method("crowd_layer", "scratch", steps=1), tasks(n_tasks=1)
    embedded = made.net(given.support[0]).detach()
    weight = torch.zeros(K, made.size, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(K, dtype=torch.float64, requires_grad=True)
    item, who = (given.votes[0] >= 0).nonzero(as_tuple=True)
    loss = crowd_layer.crowd_layer_loss(
        (embedded @ weight.T + bias).softmax(-1)[item],
        who,
        given.votes[0][item, who],
        crowd_layer.identity(4, K).double(),
    )
    moved = [-0.01 * g / (g.abs() + EPS) for g in torch.autograd.grad(loss, (weight, bias))]
    logits = made.net(given.query[0]) @ moved[0].T + moved[1]
    close(answer(made, given).log_probs[0], logits.log_softmax(-1).detach())


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("start", STARTS)
def test_the_order_of_annotators_is_free(layer, start):
    made, given, order = method(layer, start), tasks(), torch.tensor([2, 0, 3, 1])
    found = answer(made, given)
    renamed = answer(made, given._replace(votes=given.votes[..., order]))
    close(renamed.accuracy, found.accuracy[..., order])
    close(renamed.log_probs, found.log_probs)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("start", STARTS)
def test_the_names_of_classes_and_the_order_of_examples_are_free(layer, start):
    made, given = method(layer, start), tasks()
    found, order = answer(made, given), torch.tensor([1, 2, 0])
    renamed = answer(made, given._replace(votes=order[given.votes]))
    close(renamed.log_probs[..., order], found.log_probs)
    close(renamed.accuracy, found.accuracy)
    back = given._replace(support=given.support.flip(1), votes=given.votes.flip(1))
    close(answer(made, back).labels, found.labels.flip(1))


@pytest.mark.parametrize("layer", LAYERS)
def test_votes_that_are_absent_change_nothing(layer):
    """An example without votes, and an annotator without any, weigh nothing.

    CoNAL drives matrices of annotators apart that never vote: that touches no other annotator's,
    and the common one by 1e-5 of a direction.
    """
    made, given = method(layer, "scratch"), tasks()
    given.votes[:, 0] = -1
    found = answer(made, given)
    less = given._replace(support=given.support[:, 1:], votes=given.votes[:, 1:])
    close(answer(made, less).log_probs, found.log_probs)
    nobody = torch.full_like(given.votes[..., :1], -1)
    more = answer(made, given._replace(votes=torch.cat([given.votes, nobody], dim=-1)))
    torch.testing.assert_close(more.log_probs, found.log_probs, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(more.accuracy[:, :4], found.accuracy, atol=1e-3, rtol=1e-3)


def test_a_task_without_votes_stays_at_its_start_and_spoils_no_other():
    made, given = method("crowd_layer", "scratch"), tasks()
    alone = answer(made, Tasks(*(part[:2] for part in given)))
    given.votes[2] = -1
    found = answer(made, given)
    close(found.log_probs[:2], alone.log_probs)
    close(found.log_probs[2].exp(), torch.full((15, K), 1 / K, dtype=torch.float64))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("start", STARTS)
def test_perfect_annotators_teach_an_easy_task(layer, start):
    given = tasks(noise=0.0)
    found = answer(method(layer, start, steps=40), given)
    assert (found.log_probs.argmax(-1) == given.query_truth).float().mean() > 0.95
    assert (found.labels.argmax(-1) == given.votes[..., 0]).float().mean() > 0.95
    assert not found.log_probs.requires_grad


@pytest.mark.parametrize("layer", LAYERS)
def test_one_who_always_says_the_next_class_is_found_out(layer):
    given = tasks(n_tasks=1, noise=0.0)
    given.votes[..., 3] = (given.votes[..., 3] + 1) % K
    found = answer(method(layer, "scratch", steps=150, lr=3e-2), given)
    assert (found.log_probs.argmax(-1) == given.query_truth).float().mean() > 0.95
    assert (found.accuracy[:, 3] < 0.2).all() and (found.accuracy[:, :3] > 0.7).all()


def test_the_meta_trained_network_starts_as_the_prototypical_one():
    """Steps too small to move anything: logits c_k u - |c_k|^2 / 2 against distances to c_k."""
    made, given = (
        method("crowd_layer", "prototypical", "image", steps=1, lr=1e-12, net_lr=0.0),
        tasks("image"),
    )
    other = prototypical(made)
    with torch.no_grad():
        close(made.answer(given).log_probs, other.answer(given).log_probs.double())


def test_the_cached_network_is_the_prototypical_one():
    node: dict[str, Any] = {"_target_": "annorun.method.crowd_tasks.CrowdTasks", "layer": "conal"}
    node |= {"steps": 10, "lr": 1e-2, "apart": 1e-5}
    assert CrowdTasks.learner({**node, "start": "scratch"}) is None
    plain = {"_target_": "annorun.method.prototypical.Prototypical", "labels": "dawid_skene"}
    assert CrowdTasks.learner({**node, "start": "prototypical"}) == Prototypical.learner(plain)


def test_a_meta_trained_embedding_is_kept_unless_asked_otherwise():
    given, found = tasks("image"), []
    for net_lr in (None, 0.0, 1e-2):
        made = method("conal", "prototypical", "image", steps=2, net_lr=net_lr)
        found.append(answer(made, given).log_probs)
    assert torch.equal(found[0], found[1])
    assert (found[0] - found[2]).abs().max() > 1e-3


def test_nothing_is_learned_by_answering_and_practice_is_the_prototypical_networks():
    made, given = method("conal", "prototypical", "image", steps=2), tasks("image")
    before = {name: value.clone() for name, value in made.state_dict().items()}
    answer(made, given)
    for name, value in made.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in made.parameters())
    plain = prototypical(made)
    close(made.loss(given), plain.loss(given))


def test_the_embedding_has_a_rate_of_its_own_which_from_scratch_is_that_of_the_rest():
    given = tasks()
    still = answer(method("crowd_layer", "prototypical", lr=0.05, net_lr=0.0), given)
    hardly = answer(method("crowd_layer", "prototypical", lr=0.05, net_lr=1e-9), given)
    close(hardly.log_probs, still.log_probs)
    rate = answer(method("crowd_layer", "scratch", lr=0.02, net_lr=0.02), given)
    usual = answer(method("crowd_layer", "scratch", lr=0.02, net_lr=None), given)
    assert torch.equal(usual.log_probs, rate.log_probs)
    other = answer(method("crowd_layer", "scratch", lr=0.02, net_lr=0.01), given)
    assert (other.log_probs - rate.log_probs).abs().max() > 1e-3


def test_conal_s_loss_drives_matrices_apart_as_much_as_asked():
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(4, K, generator=generator).softmax(-1)
    embedded = torch.randn(4, 6, generator=generator)
    cast = by_vote(torch.randint(-1, K, (4, 5), generator=generator))
    layer = OwnAndCommon(0.7, seed=3)
    own = layer.initial(5, K, 6)
    own["own"] = own["own"] + torch.rand(own["own"].shape, generator=generator)
    share = layer.share(own, embedded, cast)
    parts = (probs[cast.item], cast.annotator, cast.label, share, own["own"], own["common"])
    wanted = conal.conal_loss(*parts, apart=0.7)
    torch.testing.assert_close(layer.loss(own, probs, embedded, cast), wanted)
    assert (wanted - conal.conal_loss(*parts, apart=0.0)).abs() > 0.1
