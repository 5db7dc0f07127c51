"""Which network a config calls for, and what it can be combined with; plain dicts, no torch."""

from pathlib import Path
from typing import Any

# what a kind of data can be answered by, and first what it is when model_size.family=auto
FAMILIES = {
    "choice": ("seq2seq", "encoder", "causal"),
    "text": ("encoder",),
    "explain": ("causal",),
    "image": ("image",),
    "features": ("features",),
}
ALL = ("seq2seq", "causal", "encoder", "image", "features")
TRANSFORMERS = ("seq2seq", "causal", "encoder")


def family(config: dict[str, Any]) -> str | None:
    """Return the family of networks that the data and the size call for; None without a network.

    `auto` is the first of the kind's families that the size names.
    """
    size = config["model_size"]
    if not any(size[f] for f in ALL) or config["method"]["module"] is None:
        return None
    possible = FAMILIES.get(config["dataset"]["kind"], ("auto",))
    named = [f for f in possible if size.get(f)]
    chosen: str = size["family"]
    return (named or possible)[0] if chosen == "auto" else chosen


def network_faults(config: dict[str, Any], name: dict[str, str]) -> list[str]:
    """Return what does not go together: method, data, size, trainer; `name` is each group's."""
    method, size, kind = config["method"], config["model_size"], config["dataset"]["kind"]
    used = family(config)
    if used is None:
        if method["aggregator"] is None and kind in method["accepts"]:
            return [
                f"model_size={name['model_size']}: method={name['method']} is a network; "
                "allowed is a size that names one, such as tiny"
            ]
        return []
    if kind == "votes":
        return [
            f"model_size={name['model_size']}: dataset={name['dataset']} has votes and no inputs; "
            "allowed is model_size=none"
        ]
    if used not in FAMILIES.get(kind, ()):
        wanted = " or ".join(FAMILIES.get(kind, ("no family that exists yet",)))
        return [f"model_size.family={used}: data of kind {kind} want {wanted}"]
    if not size[used]:
        return [
            f"model_size={name['model_size']}: names no {used} network, which "
            f"dataset={name['dataset']} wants; allowed is model_size=tiny or model_size.{used}=NAME"
        ]
    return [
        *_start_faults(size, used, name["dataset"]),
        *_trainer_faults(
            config["trainer"], used, config["dataset"]["provides"], bool(method.get("episodes"))
        ),
    ]


def _start_faults(size: dict[str, Any], used: str, dataset: str) -> list[str]:
    found, start = [], size["start"]
    if start == "frozen" and used != "encoder":
        found.append(
            f"model_size.start=frozen: is for encoders; dataset={dataset} has a {used} network"
        )
    if start == "scratch" and used in TRANSFORMERS and size[used] != "tiny":
        found.append(
            f"model_size.start=scratch: {size[used]} comes with its weights; allowed is pretrained"
        )
    if size["lora"] and used not in TRANSFORMERS:
        found.append(f"model_size.lora={size['lora']}: adapts transformers, not {used}; allowed: 0")
    if size["lora"] and start == "frozen":
        found.append(
            f"model_size.lora={size['lora']}: nothing learns in a frozen encoder; allowed: 0"
        )
    return found


def _trainer_faults(
    trainer: dict[str, Any], used: str, provides: list[str], episodes: bool
) -> list[str]:
    found, choose_on = [], trainer["choose_on"]
    if trainer["precision"] == "16-mixed" and used == "seq2seq":
        found.append(
            "trainer.precision=16-mixed: T5 overflows in float16; allowed is 32-true or bf16-mixed"
        )
    elif trainer["precision"] == "16-mixed" and trainer["accelerator"] == "cpu":
        found.append("trainer.precision=16-mixed: a CPU has none; allowed is 32-true or bf16-mixed")
    if trainer["checkpointing"] and used not in TRANSFORMERS:
        found.append(f"trainer.checkpointing=true: is for transformers, not {used}; allowed: false")
    if choose_on != "last" and not trainer["val_share"]:
        found.append(
            f"trainer.choose_on={choose_on}: wants validation items; "
            "allowed is last, or a trainer.val_share above 0"
        )
    if choose_on == "votes" and episodes:
        found.append("trainer.choose_on=votes: validation tasks are clean; allowed is last or gold")
    if choose_on == "gold" and "truth" not in provides:
        found.append("trainer.choose_on=gold: the data have no truth; allowed is last or votes")
    return found


def place_faults(config: dict[str, Any]) -> list[str]:
    """Return which networks, named by a place on this machine, are not there."""
    used, module = family(config), config["method"]["module"] or {}
    named = {f"method.module.{key}": module.get(key) for key in ("encoder", "llm")}
    if used:
        named[f"model_size.{used}"] = config["model_size"].get(used)
    found = []
    for key, model in named.items():
        if not isinstance(model, str) or not is_path(model):
            continue
        place = Path(model).expanduser()
        if place.suffix == ".gguf" and not place.is_file():
            found.append(f"{key}={model}: no such file; allowed is one that exists")
        elif place.suffix != ".gguf" and not (place / "config.json").is_file():
            found.append(
                f"{key}={model}: no config.json there; allowed is a model's folder or a hub name"
            )
    return found


def is_path(model: str) -> bool:
    """Say whether a model's name means a local place: as written, or because it is there."""
    if model.startswith("package:"):
        return False
    return model.startswith(("/", ".", "~")) or model.endswith(".gguf") or Path(model).is_dir()
