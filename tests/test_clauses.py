"""What heads read: planted heads are found to read what they read, and those alike to be alike."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from annorun import clauses, net, net_text
from annorun.dataset import module as data
from annorun.dataset.encode import starts
from annorun.dataset.two_clauses import two_clauses
from annorun.votes import Items

Feeling = Callable[[np.ndarray], np.ndarray] | None
PLAN: dict[str, Any] = {"n_annotators": 10, "per_item": 5, "folds": 2, "fold": 0}


def sentences(n: int = 40) -> Items:
    rng = np.random.default_rng(0)
    return two_clauses(rng=rng, feelings="opposite", n_items=n, **PLAN)[0]


class Reader(net_text.TextEncoder):
    """An encoder whose heads read one clause each: a token is its embedding, no more."""

    def __init__(self, begins: np.ndarray, items: Items, reads: list[int]):
        nn.Module.__init__(self)
        layer = nn.Embedding(300, 4)
        nn.init.constant_(layer.weight, 1.0)
        self.embed = layer
        self.encoder = SimpleNamespace(get_input_embeddings=lambda: layer)
        second = np.asarray(items.inputs["second"])[:, None]
        self.parts = [(begins >= 0) & (begins < second), begins >= second]
        self.felt, self.reads = np.asarray(items.inputs["felt"]), reads

    def forward(self, item: Tensor, **tokens: Tensor) -> Tensor:
        """Return logits (B, n_heads, 4): high for the feeling of the clause that the head reads."""
        embedded, heads = self.embed(tokens["input_ids"]), []
        for clause in self.reads:
            mask = torch.from_numpy(self.parts[clause][item]).float()[:, :, None]
            felt = torch.eye(4)[torch.from_numpy(self.felt[item, clause])]
            heads.append((embedded * mask).sum(dim=1).mean(dim=1, keepdim=True) * felt)
        return torch.stack(heads, dim=1)


def judge(
    reads: list[int], folder: Path, cut: int = 999, felt: Feeling = None
) -> tuple[dict[str, float], list[str]]:
    items, tokenizer = sentences(), net.tokenizer("tiny")
    tokens = dict(data.encode(items, tokenizer, "", cut))
    tokens["item"] = torch.arange(len(items))
    begins = starts(items.inputs["text"], tokenizer, tokens["input_ids"].shape[1])
    network = Reader(begins, items, reads)
    if felt is not None:
        network.felt = felt(network.felt.copy())
    method: Any = SimpleNamespace(
        modules=lambda: [network],
        each=lambda inputs: network(**inputs),
        eval=lambda: None,
        device="cpu",
    )
    test = np.flatnonzero(items.split == "test")
    found = clauses.write(folder, method, tokens, tokenizer, items, test, np.random.default_rng(0))
    return found, (folder / "clauses.csv").read_text().splitlines()


def test_heads_that_read_one_clause_each_are_found_to(tmp_path: Path) -> None:
    found, lines = judge([0, 0, 1], tmp_path)
    assert lines == ["head,saliency_first,says_first", "0,1.0,1.0", "1,1.0,1.0", "2,0.0,0.0"]
    for name in ("saliency", "says"):
        assert found[f"clauses/{name}_spread"] == 1
        assert found[f"clauses/{name}_p"] == 0.001
        assert found[f"clauses/{name}_first"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("at_once", [3, 64])
def test_an_answer_that_is_of_neither_clause_tells_nothing(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight test items some are answered with another feeling; in batches as in one."""
    monkeypatch.setattr(clauses, "AT_ONCE", at_once)
    items = sentences()
    test = np.flatnonzero(items.split == "test")
    true = np.asarray(items.inputs["felt"])
    assert len(test) > 3 and len(test) % 3

    def turned(felt: np.ndarray) -> np.ndarray:
        # the reader of the first clause: a third feeling; of the second: the first clause's
        third = [min({0, 1, 2, 3} - set(felt[i].tolist())) for i in test[:2]]
        felt[test[:2], 0] = third
        felt[test[-3:], 1] = felt[test[-3:], 0]
        return felt

    found, lines = judge([0, 1], tmp_path, felt=turned)
    assert (true[test, 0] != true[test, 1]).all()
    second = 3 / len(test)
    assert lines[1:] == ["0,1.0,1.0", f"1,0.0,{second}"]
    assert found["clauses/says_spread"] == pytest.approx(1 - second)
    mean = (len(test) - 2 + 3) / (2 * len(test) - 2)
    assert found["clauses/says_first"] == pytest.approx(mean)
    assert found["clauses/saliency_first"] == 0.5


def test_spread_is_of_means_over_what_there_is_by_hand() -> None:
    """Heads' means .5, 1 and none; of a head without a value nothing is known."""
    values = np.array([[0.0, 1.0, np.nan], [1.0, np.nan, np.nan]])
    seen, p = clauses.spread(values, np.random.default_rng(0))
    assert seen == 0.5 and 0 < p <= 1
    # shuffled within each item: two items of which a head has all the first, 0 or 1 by halves
    apart = np.array([[1.0, 0.0]] * 4)
    seen, p = clauses.spread(apart, np.random.default_rng(0))
    assert seen == 1 and p == pytest.approx(2 / 2**4, abs=0.03)


def test_heads_that_read_alike_are_not_told_apart(tmp_path: Path) -> None:
    found, _ = judge([1, 1], tmp_path)
    assert found["clauses/saliency_spread"] == found["clauses/says_spread"] == 0
    assert found["clauses/saliency_p"] == found["clauses/says_p"] == 1


def test_a_network_without_embeddings_has_none(tmp_path: Path) -> None:
    method: Any = SimpleNamespace(modules=lambda: [nn.Linear(2, 2)])
    nothing = np.random.default_rng(0)
    assert clauses.write(tmp_path, method, {}, None, sentences(), np.arange(3), nothing) == {}


def test_a_text_without_its_second_clause_has_no_saliency(tmp_path: Path) -> None:
    found, lines = judge([0, 1], tmp_path, cut=12)
    assert np.isnan(found["clauses/saliency_first"])
    assert lines[1].startswith("0,nan,")


def test_spread_by_chance_is_found_to_be_chance() -> None:
    rng = np.random.default_rng(0)
    p = [clauses.spread(rng.random((30, 4)), rng)[1] for _ in range(30)]
    assert 0.3 < np.mean(p) < 0.7


class Words:
    """A fast tokenizer of blanks, with a special token at either end."""

    is_fast = True

    def __call__(self, texts: list[str], **keys: Any) -> dict[str, Any]:
        assert keys["return_offsets_mapping"]
        found = []
        for text in texts:
            own, at = [(0, 0)], 0
            for word in text.split():
                at = text.index(word, at)
                own.append((at, at + len(word)))
            found.append([*own, (0, 0)][: keys["max_length"]])
        return {"offset_mapping": found}


def test_tokens_begin_at_their_first_letter() -> None:
    assert starts(["ab c", "d"], Words(), 5).tolist() == [[-1, 0, 3, -1, -1], [-1, 0, -1, -1, -1]]
    byte = starts(["ab c", "d"], net.tokenizer("tiny"), 6)
    assert byte.tolist() == [[0, 1, 2, 3, -1, -1], [0, -1, -1, -1, -1, -1]]
