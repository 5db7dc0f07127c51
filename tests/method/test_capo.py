"""CAPO's two stages: losses against plain pairs, their start; an adapter an annotator."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from annorun import net, net_response
from annorun.dataset.responses import Responses
from annorun.dataset.synthetic_styles import synthetic_styles
from annorun.method.capo import Capo
from annorun.votes import TaskSpec

OPTIMIZER = {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.0, "clip": 1.0}
OPTIMIZER |= {"schedule": "constant", "max_steps": 10}
KEYS: dict[str, Any] = {
    "who": "token",
    "loss": "dpo",
    "beta": 0.1,
    "margin": 0.5,
    "smoothing": 0.0,
    "anchor": 0.0,
    "mask": "all",
    "pairs": "all",
    "weights": "none",
    "preference_steps": 5,
    "preference_lr": 1e-3,
    "temperature": 0.7,
    "most_tokens": 20,
    "decodings": 1,
    "encoder": None,
    "llm": None,
}


def built(seed: int = 0, **changes: Any) -> Capo:
    network = {"family": "causal", "model": "tiny", "lora": 0, "checkpointing": False}
    return Capo(network, OPTIMIZER, seed, TaskSpec("explain", 2, 4), **(KEYS | changes))


def responses(who: str = "token") -> Responses:
    items, votes = synthetic_styles(
        rng=np.random.default_rng(0), n_items=10, strength=0.5, error=0.0
    )
    return Responses(
        items,
        votes,
        net.tokenizer("tiny"),
        prompt="{text}",
        who=who,
        max_length=60,
        pairs="all",
        weights="none",
    )


def batch(data: Responses, paired: bool = True, n: int = 8, **how: bool) -> dict[str, Tensor]:
    how = {"explanation_only": False} | how
    found = data.batch(data.branches[:n], paired=paired, **how)
    return {name: torch.from_numpy(array) for name, array in found.items()}


def alone(module: Capo, prompt: list[int], response: list[int]) -> Tensor:
    """Return log pi(response | prompt) of one sequence by itself."""
    tokens = torch.tensor([prompt + response])
    table = torch.log_softmax(module.net.lm(tokens).logits[0].float(), dim=-1)
    return sum(
        (table[len(prompt) + k - 1, token] for k, token in enumerate(response)), torch.zeros(())
    )


@pytest.fixture(scope="module")
def data() -> Responses:
    return responses()


def test_at_its_start_the_loss_is_log_2_exactly(data: Responses) -> None:
    module = built()
    own = batch(data)
    module.paired = True
    with torch.no_grad():
        module.reference = torch.zeros(data.n_scored)
        module.reference[own["number"]] = module.scores(own)[0]
        assert module.loss(own).item() == pytest.approx(np.log(2), abs=1e-7)


def test_packed_pairs_are_plain_dpo_in_loss_and_gradient(data: Responses) -> None:
    """Every pair by itself, four sequences each: the same to 1e-5."""
    module = built().eval()
    own = batch(data, n=4)
    module.paired = True
    module.reference = torch.randn(data.n_scored, generator=torch.Generator().manual_seed(0))
    loss = module.loss(own)
    parameters = module.learned()
    ours = torch.autograd.grad(loss, parameters)
    reference = {}
    each = []
    for branch in data.branches[:4]:
        prompt = data.prompt(branch.item, branch.target)
        for order, vote in enumerate(branch.scored()):
            reference[branch.target, vote] = module.reference[branch.first + order]
        for chosen, rejected in branch.pairs.tolist():
            h = [
                alone(module, prompt, data.response(v)) - reference[branch.target, v]
                for v in (chosen, rejected)
            ]
            each.append(-logsigmoid(0.1 * (h[0] - h[1])))
    plain = torch.stack(each).mean()
    assert len(each) == len(own["pairs"]) >= 10
    torch.testing.assert_close(loss, plain, atol=1e-5, rtol=1e-5)
    for a, b in zip(ours, torch.autograd.grad(plain, parameters), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


def test_where_nobody_is_named_both_directions_cancel() -> None:
    """Pooled, at the reference: a over b and b over a take each other's gradient back."""
    module, data = built(who="pooled").eval(), responses("pooled")
    own = batch(data, n=4)
    module.paired = True
    with torch.no_grad():
        module.reference = torch.zeros(data.n_scored)
        module.reference[own["number"]] = module.scores(own)[0]
    gradients = torch.autograd.grad(module.loss(own), module.learned())
    assert max(float(g.abs().max()) for g in gradients) < 1e-6
    named = built().eval()
    own = batch(responses(), n=4)
    named.paired, named.reference = True, module.reference
    with torch.no_grad():
        named.reference = torch.zeros(data.n_scored)
        named.reference[own["number"]] = named.scores(own)[0]
    gradients = torch.autograd.grad(named.loss(own), named.learned())
    assert max(float(g.abs().max()) for g in gradients) > 1e-4


def test_stage_1_is_the_mean_over_its_tokens(data: Responses) -> None:
    module = built().eval()
    own = batch(data, paired=False, n=2)
    total = sum(
        alone(module, data.prompt(b.item, b.target), data.response(v))
        for b in data.branches[:2]
        for v in b.own
    )
    n_tokens = sum(len(data.response(v)) for b in data.branches[:2] for v in b.own)
    torch.testing.assert_close(module.loss(own), -total / n_tokens, atol=1e-5, rtol=1e-5)


def test_the_anchor_is_the_chosen_ones_likelihood_a_token(data: Responses) -> None:
    own = batch(data)
    losses = []
    for anchor in (0.0, 0.5):
        module = built(anchor=anchor).eval()
        module.paired, module.reference = True, torch.zeros(data.n_scored)
        losses.append(module.loss(own))
    total, length = built().eval().scores(own)
    chosen = own["chosen"]
    expected = -0.5 * (total[chosen] / length[chosen]).mean()
    torch.testing.assert_close(losses[1] - losses[0], expected)


RATIO = {"total": [-3.0, -8.0, -1.0, -6.0], "reference": [-2.0, -9.5, -1.5, -3.0]}
LENGTH, WEIGHT = [2.0, 5.0, 1.0, 4.0], [0.3, 1.4, 0.0]
PAIRS = [[0, 1], [2, 3], [3, 0]]


@pytest.mark.parametrize("loss", ["dpo", "ipo", "simpo", "listwise"])
def test_loss_of_a_batch_by_hand(loss: str) -> None:
    """Unequal lengths, weights and numbers; a reference of more responses than the batch has."""
    how = {"beta": 0.7, "margin": 0.2, "smoothing": 0.1, "anchor": 0.25}
    module = built(loss=loss, **how)
    module.paired = True
    number = [5, 1, 3, 6]
    reference = np.full(8, 100.0)
    reference[number] = RATIO["reference"]
    module.reference = torch.tensor(reference, dtype=torch.float64)
    total, length = np.array(RATIO["total"]), np.array(LENGTH)
    chosen, group = np.array([True, False, True, True]), np.array([0, 0, 1, 1])
    own = {
        "number": torch.tensor(number),
        "chosen": torch.from_numpy(chosen),
        "group": torch.from_numpy(group),
        "pairs": torch.tensor(PAIRS),
        "weight": torch.tensor(WEIGHT, dtype=torch.float64),
    }
    ratio = total - np.array(RATIO["reference"])

    def minus_log_sigmoid(h: float) -> float:
        return float(np.log1p(np.exp(-h)))

    each = []
    for a, b in PAIRS:
        h = 0.7 * (ratio[a] - ratio[b])
        if loss == "dpo":
            each.append(0.9 * minus_log_sigmoid(h) + 0.1 * minus_log_sigmoid(-h))
        elif loss == "ipo":
            each.append((ratio[a] / length[a] - ratio[b] / length[b] - 1 / 1.4) ** 2)
        elif loss == "simpo":
            per_token = total / length
            each.append(minus_log_sigmoid(0.7 * (per_token[a] - per_token[b]) - 0.2))
    preferred = float(np.average(each, weights=WEIGHT)) if each else 0.0
    if loss == "listwise":
        # response 0 against 1; 2 and 3, both chosen, against nobody
        preferred = minus_log_sigmoid(0.7 * (ratio[0] - ratio[1])) / 3
    scores = torch.from_numpy(total), torch.from_numpy(length)
    module.scores = lambda batch: scores  # type: ignore[method-assign]
    likelihood = -np.mean((total / length)[chosen])
    assert module.preferred(*scores, own).item() == pytest.approx(preferred)
    assert module.loss(own).item() == pytest.approx(preferred + 0.25 * likelihood)
    module.paired = False
    assert module.loss(own).item() == pytest.approx(18 / 12)


def test_batch_without_pairs_has_no_loss_and_no_gradient(data: Responses) -> None:
    module = built()
    own = batch(data, n=1)
    own |= {"pairs": own["pairs"][:0], "weight": own["weight"][:0]}
    module.paired, module.reference = True, torch.zeros(data.n_scored)
    loss = module.loss(own)
    loss.backward()
    assert loss.item() == 0
    assert all(not p.grad.any() for p in module.learned() if p.grad is not None)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_optimizer_is_of_the_stage(schedule: str) -> None:
    """Rate and number of steps of either stage, the rest of both; as many steps as it has."""
    keys = {"lr": 3e-3, "betas": (0.8, 0.95), "weight_decay": 0.07, "schedule": schedule}
    network = {"family": "causal", "model": "tiny", "lora": 0, "checkpointing": False}
    spec = TaskSpec("explain", 2, 4)
    preference = {"preference_steps": 5, "preference_lr": 7e-4}
    module = Capo(network, OPTIMIZER | keys, 0, spec, **(KEYS | preference))
    for paired, lr, steps in ((False, 3e-3, 10), (True, 7e-4, 5)):
        module.paired = paired
        configured = module.configure_optimizers()
        (group,) = configured["optimizer"].param_groups
        assert (group["betas"], group["weight_decay"]) == ((0.8, 0.95), 0.07)
        assert len(group["params"]) == len(list(module.parameters()))
        assert configured["lr_scheduler"]["interval"] == "step"
        rates = []
        for _ in range(steps + 1):
            rates.append(group["lr"])
            configured["optimizer"].step()
            configured["lr_scheduler"]["scheduler"].step()
        at = np.arange(steps + 1) / steps
        factor = (1 + np.cos(np.pi * at)) / 2 if schedule == "cosine" else np.ones(steps + 1)
        assert rates == pytest.approx(lr * factor, abs=1e-12)


def test_gradient_is_clipped_to_the_norm_that_is_asked_for() -> None:
    network = {"family": "causal", "model": "tiny", "lora": 0, "checkpointing": False}
    module = Capo(network, OPTIMIZER | {"clip": 0.25}, 0, TaskSpec("explain", 2, 4), **KEYS)
    for size, norm in ((3.0, 0.25), (1e-6, None)):
        for p in module.learned():
            p.grad = torch.full_like(p, size)
        before = torch.cat([p.grad.flatten() for p in module.learned()])
        module.on_before_optimizer_step(torch.optim.SGD(module.learned()))
        after = torch.cat([p.grad.flatten() for p in module.learned()])
        if norm is None:
            assert torch.equal(before, after)
        else:
            assert after.norm().item() == pytest.approx(norm, rel=1e-4)


def test_validation_loss_is_the_mean_over_responses_and_begins_anew(data: Responses) -> None:
    """Batches of 1 and of 5 branches; a second pass has nothing of the first."""
    module = built()
    logged: list[tuple[str, float]] = []
    module.log = lambda name, value, **_: logged.append((name, value))  # type: ignore[method-assign]
    few, more = (batch(data, paired=False, n=n) for n in (1, 5))
    with torch.no_grad():
        one, five = module.loss(few).item(), module.loss(more).item()
        for batches in ((few, more), (more,)):
            for own in batches:
                module.validation_step(own)
            module.on_validation_epoch_end()
    assert abs(one - five) > 1e-3
    assert logged == [
        ("val/loss", pytest.approx((one + 5 * five) / 6)),
        ("val/loss", pytest.approx(five)),
    ]


@pytest.mark.parametrize("loss", ["dpo", "ipo", "simpo", "listwise"])
def test_each_loss_moves_its_own_response_up_against_the_others(loss: str, data: Responses) -> None:
    module = built(loss=loss, beta=0.5, preference_lr=2e-3).train()
    own = batch(data, n=4)
    module.paired = True
    with torch.no_grad():
        start = module.scores(own)[0]
        module.reference = torch.zeros(data.n_scored)
        module.reference[own["number"]] = start
    adamw = module.configure_optimizers()["optimizer"]
    losses = []
    for _ in range(40):
        adamw.zero_grad()
        losses.append(module.loss(own))
        losses[-1].backward()
        adamw.step()
    with torch.no_grad():
        moved = module.scores(own)[0] - start
    chosen, rejected = own["pairs"].unbind(dim=1)
    assert losses[-1] < 0.8 * losses[0]
    assert (moved[chosen] - moved[rejected]).mean() > 0.3


def test_the_label_is_given_where_the_explanation_alone_counts(data: Responses) -> None:
    module = built().eval()
    whole, why = (batch(data, n=1, explanation_only=only) for only in (False, True))
    vote = data.branches[0].own[0]
    label = data.label[data.votes.label[vote]]
    prompt = data.prompt(data.branches[0].item, data.branches[0].target)
    with torch.no_grad():
        difference = module.scores(whole)[0][0] - module.scores(why)[0][0]
        torch.testing.assert_close(difference, alone(module, prompt, label), atol=1e-4, rtol=1e-4)


def test_only_the_seed_of_the_weights_tells_two_apart() -> None:
    one, again, other = (built(s).net.state_dict() for s in (0, 0, 1))
    assert all(torch.equal(one[k], again[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)


RANK, N = 4, 4
ADAPTED = {"family": "causal", "model": "tiny", "lora": RANK, "checkpointing": False}


def apart(**changes: Any) -> Capo:
    keys = KEYS | {"who": "adapter"} | changes
    module = Capo(ADAPTED, OPTIMIZER, 0, TaskSpec("explain", 2, N), **keys)
    filled(module.net)
    return module


def filled(network: net_response.ResponseLM) -> None:
    """Let adapters do something: their second half starts at zero."""
    drawn = torch.Generator().manual_seed(0)
    for name, own in sorted(network.named_parameters()):
        if "lora_B" in name:
            with torch.no_grad():
                own.copy_(0.3 * torch.randn(own.shape, generator=drawn))


def lone(module: Capo, who: int) -> net_response.ResponseLM:
    """Return a network of one annotator, with his part of every adapter as its own."""
    single = net_response.build(ADAPTED, 0)
    every = dict(module.net.named_parameters())
    part = slice(who * RANK, (who + 1) * RANK)
    with torch.no_grad():
        for name, own in single.named_parameters():
            whole = every[name]
            if "lora_A" in name:
                whole = whole[part]
            elif "lora_B" in name:
                whole = whole[:, part]
            own.copy_(whole)
    return single


def test_a_row_is_what_its_annotators_own_network_says() -> None:
    module, data = apart().eval(), responses("adapter")
    own = batch(data, n=N)
    assert own["tokens"].shape[0] == N and own["whose"].tolist() == list(range(N))
    scores, _ = module.scores(own)
    for who in range(N):
        single = apart()
        single.net = lone(module, who)
        theirs, _ = single.eval().scores(own | {"whose": torch.zeros(N, dtype=torch.long)})
        mine = own["group"] == who
        torch.testing.assert_close(scores[mine], theirs[mine], atol=1e-4, rtol=1e-5)
        assert (scores[~mine] - theirs[~mine]).abs().max() > 0.1


def test_no_annotator_moves_anothers_adapter() -> None:
    module, data = apart(), responses("adapter")
    branches = [b for b in data.branches if b.target == 2][:3]
    arrays = data.batch(branches, paired=False, explanation_only=False)
    module.loss({name: torch.from_numpy(array) for name, array in arrays.items()}).backward()
    for name, own in module.net.named_parameters():
        if not own.requires_grad:
            continue
        assert "lora" in name and own.grad is not None
        parts = own.grad.split(RANK, dim=0 if "lora_A" in name else 1)
        moved = [float(part.abs().max()) for part in parts]
        assert moved[2] > 0 and moved[:2] + moved[3:] == [0.0] * 3


def test_what_is_written_is_the_annotators_own_networks() -> None:
    module, data = apart().eval(), responses("adapter")
    prompts = [data.prompt(item, who) for item in (0, 1) for who in range(N)]
    whose = list(range(N)) * 2
    how = {"end": data.end, "most": 12, "temperature": 0}
    written = module.net.write(prompts, whose, **how)
    for who in range(N):
        theirs = lone(module, who).write(prompts[who::N], [0, 0], **how)
        assert written[who::N] == theirs
    assert len({tuple(own) for own in written[:N]}) == N


def test_annotators_are_told_apart_by_their_adapters_alone() -> None:
    data = responses("adapter")
    assert len({tuple(data.prompt(0, who)) for who in range(N)}) == 1
    module = apart().eval()
    own = batch(data, n=N, paired=False)
    scores, _ = module.scores(own)
    turned, _ = module.scores(own | {"whose": own["whose"].roll(1)})
    assert (scores - turned).abs().min() > 1e-3


def test_recomputed_activations_are_of_the_same_rows() -> None:
    """Gradients with checkpointing are those without."""
    data = responses("adapter")
    own = batch(data, n=N, paired=False)
    found: list[list[Tensor]] = []
    for again in (False, True):
        network = ADAPTED | {"checkpointing": again}
        spec = TaskSpec("explain", 2, N)
        module = Capo(network, OPTIMIZER, 0, spec, **(KEYS | {"who": "adapter"}))
        filled(module.net)
        found.append(list(torch.autograd.grad(module.loss(own), module.learned())))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
