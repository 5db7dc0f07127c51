"""What the config's parts without a `_target_` hold: keys and types, read by `annorun.check`."""

from dataclasses import dataclass
from typing import Any, Literal

from annorun.kinds import Count, Natural, NonNegative, Positive, Share


@dataclass(frozen=True)
class Run:
    """The top level."""

    name: str
    seed: Natural
    data_seed: Natural
    out_root: str
    mode: Literal["cached", "force"]
    choices: dict[str, str]
    overrides: list[str]
    # a sweep file's own: others of the same table, its smoke overrides, what its table shows
    also: list[str] | None = None
    smoke: list[str] | None = None
    keys: list[str] | None = None
    metric: str | list[str] | None = None
    figures: dict[str, Any] | None = None
    compare: dict[str, str] | None = None
    folds: str | None = None


@dataclass(frozen=True)
class Method:
    """A method: what data it takes, what it needs of them, and its optional nodes."""

    accepts: list[str]
    needs: list[str]
    aggregator: dict[str, Any] | None
    module: dict[str, Any] | None
    episodes: dict[str, Any] | None = None


@dataclass(frozen=True)
class ModelSize:
    """What a size means for each family: a name, or null."""

    family: Literal["auto", "seq2seq", "causal", "encoder", "image", "features"]
    seq2seq: str | None
    causal: str | None
    encoder: str | None
    pooling: Literal["first", "mean"]
    image: Literal["tiny"] | None
    features: Literal["tiny"] | None
    start: Literal["pretrained", "scratch", "frozen"]
    lora: Natural


@dataclass(frozen=True)
class Trainer:
    """How long, how fast, on what."""

    accelerator: Literal["cpu", "gpu"]
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    threads: Count
    max_steps: Count
    batch_size: Count
    bucket: Count
    checkpointing: bool
    lr: Positive
    betas: tuple[Share, Share]
    weight_decay: NonNegative
    clip: Positive
    schedule: Literal["cosine", "constant"]
    choose_on: Literal["last", "votes", "gold"]
    val_share: Share
    val_every: Count


@dataclass(frozen=True)
class Logger:
    """Where curves go beside the run's own folder."""

    kind: Literal["none", "csv", "wandb"]
    project: str | None = None
    offline: bool | None = None
