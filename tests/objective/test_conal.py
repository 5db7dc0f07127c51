"""CoNAL's loss: by hand, against the dense form of its authors' code, and its limits."""

import doctest
import math

import pytest
import torch

from annorun.objective import conal as module
from annorun.objective.conal import common_share, conal_loss, implied_accuracy, start
from annorun.objective.crowd_layer import crowd_layer_loss


def drawn(n: int = 14, n_annotators: int = 4, k: int = 3) -> dict[str, torch.Tensor]:
    """At most one vote of an annotator on an item: item i is row i, voted on by i % 4."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return {
        "probs": (2 * normal(n, k)).softmax(dim=-1),
        "annotator": torch.arange(n) % n_annotators,
        "label": torch.randint(k, (n,), generator=generator),
        "share": torch.rand(n, dtype=torch.float64, generator=generator),
        "own": normal(n_annotators, k, k),
        "common": normal(k, k),
    }


def test_by_hand():
    """p = (3/4, 1/4), w = 1/3; in units of ln 2, W_c = [[12, 12], [0, 0]], W_r = [[0, 3], [3, 0]].

    w W_c^T p = (3, 3) and (1 - w) W_r^T p = (1/2, 3/2): P(1) = 2 / (1 + 2). Shares that are swapped
    would give (6 + 1/4, 6 + 3/4), a transposed W_c (4 + 1/2, 0 + 3/2). |W_c - W_r|^2 = 12^2 + 9^2 +
    3^2 = 234.
    """
    unit = math.log(2)
    common = unit * torch.tensor([[12.0, 12.0], [0.0, 0.0]]).double()
    own = unit * torch.tensor([[[0.0, 3.0], [3.0, 0.0]]]).double()
    given = torch.tensor([[0.75, 0.25]]).double(), torch.tensor([0]), torch.tensor([1])
    share = torch.tensor([1 / 3], dtype=torch.float64)
    loss = conal_loss(*given, share, own, common, apart=0.0).item()
    assert loss == pytest.approx(math.log(1.5), abs=1e-14)
    less = conal_loss(*given, share, own, common, apart=0.1).item()
    assert less == pytest.approx(math.log(1.5) - 0.1 * unit * math.sqrt(234), abs=1e-14)


def test_the_distances_are_summed_over_the_annotators_who_voted():
    """|diag(3, 4)| = 5; |diag(5, 12)| = 13 is of somebody without a vote, until he has one."""
    common = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    own = common + torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[5.0, 0.0], [0.0, 12.0]]])
    vote = torch.tensor([[0.5, 0.5]]), torch.tensor([0]), torch.tensor([1]), torch.tensor([0.5])
    with_, without = (conal_loss(*vote, own, common, apart=a).item() for a in (0.5, 0.0))
    assert without - with_ == pytest.approx(0.5 * 5, abs=1e-5)
    both = (vote[0].repeat(2, 1), torch.tensor([0, 1]), torch.tensor([1, 1]), vote[3].repeat(2))
    with_, without = (conal_loss(*both, own, common, apart=a).item() for a in (0.5, 0.0))
    assert without - with_ == pytest.approx(0.5 * 18, abs=1e-5)


def test_nothing_common_is_the_crowd_layer_and_all_common_is_one_matrix_for_all():
    given = drawn()
    own, common = given["own"].requires_grad_(), given["common"].requires_grad_()
    votes = given["probs"], given["annotator"], given["label"]
    for share, matrices, unread in (
        (torch.zeros(14), own, common),
        (torch.ones(14), common.expand(4, 3, 3), own),
    ):
        loss = conal_loss(*votes, share.double(), own, common, apart=0.0)
        torch.testing.assert_close(loss, crowd_layer_loss(*votes, matrices))
        assert (torch.autograd.grad(loss, unread)[0] == 0).all()


def test_of_equal_matrices_the_share_says_nothing():
    given = drawn()
    given["own"] = given["common"].expand(4, 3, 3)
    losses = [
        conal_loss(**{**given, "share": given["share"] ** power}, apart=0.0) for power in (1, 5)
    ]
    torch.testing.assert_close(*losses)


def test_it_is_the_dense_masked_loss_of_the_papers_code():
    """Answers of every annotator to every item, [item, class, annotator], masked, softmax last."""
    given = drawn()
    said = torch.full((14, 4), -1)
    said[torch.arange(14), given["annotator"]] = given["label"]
    shares = torch.rand(14, 4, dtype=torch.float64)
    shares[torch.arange(14), given["annotator"]] = given["share"]
    of_all = torch.einsum("ij,jk->ik", given["probs"], given["common"])
    of_each = torch.einsum("ik,rkl->irl", given["probs"], given["own"])
    answers = shares[..., None] * of_all[:, None] + (1 - shares[..., None]) * of_each
    mask = said != -1
    dense = torch.nn.functional.cross_entropy(answers[mask], said[mask])
    norms = (given["own"] - given["common"]).reshape(4, -1).norm(dim=1).sum()
    torch.testing.assert_close(conal_loss(**given, apart=1e-2), dense - 1e-2 * norms)


def test_the_gradients_are_those_of_the_docstring():
    given = drawn(n=1)
    names = ("probs", "share", "own", "common")
    leaves = [given[n].requires_grad_() for n in names]
    loss = conal_loss(**given, apart=0.0)
    in_probs, in_share, in_own, in_common = torch.autograd.grad(loss, leaves)
    p, w, own, common = given["probs"][0], given["share"][0], given["own"][0], given["common"]
    matrix = w * common + (1 - w) * own
    s = (matrix.T @ p).softmax(0) - torch.nn.functional.one_hot(given["label"][0], 3)
    torch.testing.assert_close(in_common, w * torch.outer(p, s))
    torch.testing.assert_close(in_own[0], (1 - w) * torch.outer(p, s))
    torch.testing.assert_close(in_share[0], p @ (common - own) @ s)
    torch.testing.assert_close(in_probs[0], matrix @ s)


def test_gradients_are_finite_differences():
    given = drawn()

    def loss(logits, share, own, common):
        probs = logits.softmax(dim=-1)
        who = given["annotator"], given["label"]
        return conal_loss(probs, *who, share.sigmoid(), own, common, apart=0.3)

    leaves = (given["probs"].log(), given["share"].logit(), given["own"], given["common"])
    assert torch.autograd.gradcheck(loss, tuple(v.requires_grad_() for v in leaves))


def test_at_the_start_no_matrix_is_driven_anywhere():
    """The distance has no gradient where matrices are equal: 0, and not a quotient of zeros."""
    own, common = (v.requires_grad_() for v in start(2, 3))
    given = drawn(n=4, n_annotators=2)
    votes = (given["probs"].float(), given["annotator"], given["label"], given["share"].float())
    grads = [
        torch.autograd.grad(conal_loss(*votes, own, common, apart=a), (own, common))
        for a in (0.0, 1e3)
    ]
    torch.testing.assert_close(*grads)
    assert all(bool(g.isfinite().all()) and bool(g.abs().sum() > 0) for g in grads[1])


def test_the_share_is_a_sigmoid_of_the_cosine():
    """cos = 1, -1, 0 and (3 * 1 + 4 * 0) / 5, whatever the lengths."""
    v = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 7.0], [3.0, 4.0]]).double()
    u = torch.tensor([[9.0, 0.0], [-0.1, 0.0], [1.0, 0.0], [5.0, 0.0]]).double()
    expected = [1 / (1 + math.exp(-c)) for c in (1, -1, 0, 0.6)]
    assert common_share(v, u).tolist() == pytest.approx(expected, abs=1e-14)
    x = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(common_share, tuple(a.requires_grad_() for a in x))


def test_the_order_of_annotators_is_free():
    given, order = drawn(), torch.tensor([2, 0, 3, 1])
    own = torch.empty_like(given["own"])
    own[order] = given["own"]
    renamed = {**given, "annotator": order[given["annotator"]], "own": own}
    torch.testing.assert_close(conal_loss(**renamed, apart=0.1), conal_loss(**given, apart=0.1))


def test_what_a_sure_network_says_by_each_matrix():
    """Share 0: the annotator's own, share 1: the common one; softmax(ln T[k]) = T[k].

    Between them, at 1/2, rows are root(.8 * .5) and root(.2 * .5) over their sum: 2 / 3.
    """
    own = torch.tensor([[0.8, 0.2], [0.2, 0.8]]).double().log().expand(3, 2, 2)
    common = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).double().log()
    share = torch.tensor([0.0, 1.0, 0.5]).double()
    expected = [0.8, 0.5, 2 / 3]
    assert implied_accuracy(share, own, common).tolist() == pytest.approx(expected, abs=1e-14)


def test_docstring_example():
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0
