"""Packed sequences: places, what sees what, and the scores of each branch alone."""

import numpy as np
import pytest
import torch
from torch import Tensor

from annorun import net_response
from annorun.dataset.packing import Tree, packed

SEGMENTS = [((5, 6, 9), -1), ((7,), 0), ((8, 9), 0), ((3, 4, 5), 1), ((6, 7), 2), ((1, 2), 2)]
BRANCHES = ([0, 1, 3], [0, 2, 4], [0, 2, 5])


@pytest.fixture(scope="module")
def lm() -> net_response.ResponseLM:
    return net_response.build({"family": "causal", "model": "tiny"}, 0).eval()


def log_probs(lm: net_response.ResponseLM, tree: Tree) -> dict[int, Tensor]:
    """Return the log-probability of each token that another predicts."""
    tell = np.flatnonzero(tree.before >= 0)
    tokens, position, sees = (
        torch.from_numpy(v)[None] for v in (tree.tokens, tree.position, tree.sees())
    )
    place = torch.from_numpy(tree.before[tell])
    logits = lm(tokens, position, sees, torch.zeros_like(place), place)
    found = torch.log_softmax(logits, dim=-1)
    return {t: row[tree.tokens[t]] for t, row in zip(tell.tolist(), found, strict=True)}


def test_a_tree_by_hand() -> None:
    tree = packed(SEGMENTS)
    assert tree.tokens.tolist() == [5, 6, 9, 7, 8, 9, 3, 4, 5, 6, 7, 1, 2]
    assert tree.position.tolist() == [0, 1, 2, 3, 3, 4, 4, 5, 6, 5, 6, 5, 6]
    assert tree.before.tolist() == [-1, 0, 1, 2, 2, 4, 3, 6, 7, 5, 9, 5, 11]
    # the last token of the last response: the input, its annotator, itself
    assert np.flatnonzero(tree.sees()[12]).tolist() == [0, 1, 2, 4, 5, 11, 12]


def test_each_branch_is_scored_as_if_alone(lm: net_response.ResponseLM) -> None:
    tree = packed(SEGMENTS)
    together = log_probs(lm, tree)
    for branch in BRANCHES:
        own = [t for k in branch for t in SEGMENTS[k][0]]
        with torch.no_grad():
            alone = torch.log_softmax(lm.lm(torch.tensor([own])).logits[0], dim=-1)
        places = np.flatnonzero(np.isin(tree.segment, branch))
        for at, place in enumerate(places.tolist()):
            if at:
                torch.testing.assert_close(
                    together[place], alone[at - 1, own[at]], atol=1e-5, rtol=1e-5
                )


def test_gradients_are_those_of_the_branches_alone(lm: net_response.ResponseLM) -> None:
    """Summed over branches, the input counts once for each."""
    tree = packed(SEGMENTS)
    answers = [t for k in (3, 4, 5) for t in np.flatnonzero(tree.segment == k).tolist()]
    together = log_probs(lm, tree)
    weight = lm.lm.get_input_embeddings().weight
    (packed_gradient,) = torch.autograd.grad(sum(together[t] for t in answers), weight)
    total = torch.zeros(())
    for branch in BRANCHES:
        own = [t for k in branch for t in SEGMENTS[k][0]]
        alone = torch.log_softmax(lm.lm(torch.tensor([own])).logits[0], dim=-1)
        length = len(SEGMENTS[branch[-1]][0])
        total = total + sum(alone[t - 1, own[t]] for t in range(len(own) - length, len(own)))
    (alone_gradient,) = torch.autograd.grad(total, weight)
    torch.testing.assert_close(packed_gradient, alone_gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "segments", [[((), -1)], [((1,), 0)], [((1,), -1), ((2,), 1)], [((1,), -1), ((2,), -1)]]
)
def test_what_is_no_tree_is_refused(segments: list[tuple[tuple[int, ...], int]]) -> None:
    with pytest.raises(ValueError, match="follow a segment before"):
        packed(segments)


def test_writing_goes_on_from_each_prompt_alone(lm: net_response.ResponseLM) -> None:
    """Without chance, a prompt's response does not depend on what it is padded beside."""
    greedy = {"end": 1, "most": 6, "temperature": 0.0}
    both = lm.write([[5, 6, 9], [7]], **greedy)
    assert both == [lm.write([p], **greedy)[0] for p in ([5, 6, 9], [7])]
    own = [5, 6, 9]
    for token in both[0]:
        with torch.no_grad():
            assert int(lm.lm(torch.tensor([own])).logits[0, -1].argmax()) == token
        own = [*own, token]


def test_a_response_ends_where_its_end_is_drawn(lm: net_response.ResponseLM) -> None:
    greedy = {"most": 6, "temperature": 0.0}
    whole = lm.write([[5, 6, 9]], end=1, **greedy)[0]
    cut = lm.write([[5, 6, 9]], end=whole[2], **greedy)[0]
    assert cut == whole[: whole.index(whole[2])]


def test_warm_writing_follows_the_generator(lm: net_response.ResponseLM) -> None:
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(lm.write([[5, 6, 9]], end=1, most=8, temperature=1.0))
    assert found[0] == found[1] != found[2]
