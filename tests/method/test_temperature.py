"""Temperature scaling: whose logits and labels the temperature is of, and what it is applied to."""

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import Tensor, nn

from annorun import run
from annorun.dataset import module
from annorun.dataset.module import CrowdData
from annorun.method.temperature import BOUNDS, Temperature, temperature
from annorun.votes import Items, TaskSpec, Votes

K = 3
SPEC = TaskSpec(kind="features", n_classes=K, n_annotators=1, input_shape=(K,))
OPTIMIZER = {
    **{"lr": 0.01, "betas": (0.9, 0.999), "weight_decay": 0.1, "clip": 1.0},
    **{"schedule": "constant", "max_steps": 300},
}
# of each part the labels are those of logits divided by about so much
PLANTED = {"train": 0.4, "val": 2.5, "test": 6.0}
SPLIT = np.array(["val", "train", "test"] * 11)


class Given(nn.Module):
    """Logits that are the inputs; in training half of them are dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.scale = nn.Dropout(0.5), nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x) * self.scale


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> CrowdData:
    """Eleven items a part, of which a batch has four; votes and truth are the greatest logit's."""
    monkeypatch.setattr(module, "MOST_ITEMS", 4)
    n, draw = len(SPLIT), np.random.default_rng(0)
    x = (3 * draw.normal(size=(n, K))).astype(np.float32)
    truth = x.argmax(axis=1)
    items = Items("features", {"x": x}, SPLIT, K, truth=truth)
    votes = Votes(np.arange(n), np.zeros(n), truth, n, 1, K)
    keys = {"batch_size": 4, "val_share": 0.2, "data_seed": 0, "seed": 0}
    found = CrowdData(items, votes, tokenizer=None, prompt="", **keys)
    found.inputs = {"x": torch.from_numpy(x)}
    around = np.array([PLANTED[part] for part in SPLIT]) * np.exp(draw.normal(size=n) / 3)
    found.target = torch.from_numpy(softmax(x / around[:, None], axis=1)).float()
    return found


def made() -> Temperature:
    network = {"family": "features", "model": "tiny", "weights": None}
    node = {"_target_": "annorun.method.temperature.Temperature"}
    own: Temperature = run.build(
        node, spec=SPEC, network=network, optimizer=dict(OPTIMIZER), seed=0
    )
    own.net = Given()
    return own


def answer(own: Temperature, data: CrowdData, folder: Path) -> Temperature:
    trainer = L.Trainer(
        **{"accelerator": "cpu", "logger": False, "enable_progress_bar": False},
        **{"enable_checkpointing": False, "enable_model_summary": False},
        default_root_dir=folder,
    )
    trainer.test(own, data, verbose=False)
    return own


def least(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of the least cross-entropy, on a grid."""
    grid = np.exp(np.linspace(*BOUNDS, 4001))
    costs = [-(labels * log_softmax(logits / t, axis=1)).sum() for t in grid]
    return float(grid[int(np.argmin(costs))])


def rows(values: Tensor, index: np.ndarray) -> np.ndarray:
    return values[torch.from_numpy(index)].double().numpy()


def test_it_is_found_on_every_validation_item_and_on_no_other(
    data: CrowdData, tmp_path: Path
) -> None:
    x, labels = data.inputs["x"], data.target
    parts = {"train": data.train, "val": data.val, "test": data.test}
    expected = {name: least(rows(x, i), rows(labels, i)) for name, i in parts.items()}
    assert expected["train"] < 0.6 < 2 < expected["val"] < 3.5 < 4.5 < expected["test"]
    own = answer(made(), data, tmp_path)
    assert own.numbers() == {"train/temperature": pytest.approx(expected["val"], rel=5e-3)}
    first = least(rows(x, data.val[:4]), rows(labels, data.val[:4]))
    assert first != pytest.approx(expected["val"], rel=0.05), "a batch is not all"


def test_it_divides_the_test_items_logits_once(data: CrowdData, tmp_path: Path) -> None:
    own = answer(made(), data, tmp_path)
    found = float(own.temperature)
    x = rows(data.inputs["x"], data.test)
    np.testing.assert_allclose(own.probabilities(), softmax(x / found, axis=1), atol=1e-6)
    assert (own.probabilities().argmax(axis=1) == x.argmax(axis=1)).all()


def test_it_is_found_anew_for_other_weights(data: CrowdData, tmp_path: Path) -> None:
    """Logits twice as large want twice the temperature, and give the answers that they gave."""
    own = answer(made(), data, tmp_path)
    before, answers = float(own.temperature), own.probabilities()
    with torch.no_grad():
        own.net.scale.fill_(2.0)
    answer(own, data, tmp_path)
    assert float(own.temperature) == pytest.approx(2 * before, rel=1e-2)
    assert own.probabilities().shape == answers.shape
    np.testing.assert_allclose(own.probabilities(), answers, atol=0.01)


def test_training_and_validation_see_logits_that_are_not_divided(data: CrowdData) -> None:
    own = made().eval()
    own.temperature.fill_(5.0)
    batch = data.batch([0, 5, 7])
    logits = own(batch["inputs"])
    assert torch.equal(logits, batch["inputs"]["x"]) and torch.equal(own.answers(logits), logits)
    expected = -(batch["target"] * logits.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(own.loss(logits, batch), expected)


@pytest.mark.parametrize("planted", [0.25, 1.0, 7.0])
def test_the_temperature_of_given_labels_by_hand(planted: float) -> None:
    """Labels that are the logits' own at a temperature have that one."""
    logits = 3 * np.random.default_rng(1).normal(size=(40, K))
    labels = softmax(logits / planted, axis=1)
    assert temperature(logits, labels) == pytest.approx(planted, rel=1e-3)


def test_sampled_labels_have_about_their_temperature() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(20_000, K))
    labels = np.eye(K)[[draw.choice(K, p=row) for row in softmax(logits, axis=1)]]
    assert temperature(3 * logits, labels) == pytest.approx(3, rel=0.05)
    assert temperature(logits / 2, labels) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize(("right", "edge"), [(True, BOUNDS[0]), (False, BOUNDS[1])])
def test_it_ends_at_its_bounds(right: bool, edge: float) -> None:
    """Labels that are always right want no heat, labels that are always wrong all of it."""
    logits = np.eye(K) * 0.1
    labels = np.eye(K) if right else (1 - np.eye(K)) / 2
    assert np.log(temperature(logits, labels)) == pytest.approx(edge, abs=1e-3)


def test_it_wants_validation_items(data: CrowdData, tmp_path: Path) -> None:
    """`Training` refuses to begin without them; a test alone answers as it is."""
    assert Temperature.needs_validation
    data.val = data.val[:0]
    own = answer(made(), data, tmp_path)
    assert own.numbers() == {"train/temperature": 1.0}
