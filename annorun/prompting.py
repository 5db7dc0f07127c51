"""Writing explanations with a language model that learns nothing: the part that needs torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from annorun import explained_results, fitting, net, writing
from annorun.check_network import family
from annorun.dataset.files import mapping_of
from annorun.errors import ConfigError
from annorun.method import explain_prompt
from annorun.method.explain_prompt import ExplainPrompt
from annorun.seeds import rng
from annorun.votes import Items, Posterior, Votes
from annorun.written import Written


class Prompting:
    """A language model and the prompts, built before anything is written.

    Raises:
        ConfigError: the network cannot be loaded, there is no such device, nothing to judge by, no
            example to show, or no such personas.
    """

    steps = 0

    def __init__(self, c: dict[str, Any], items: Items, votes: Votes, build: Callable[..., Any]):
        if found := writing.unjudged(items, votes):
            raise ConfigError(*found)
        t, size = c["trainer"], c["model_size"]
        self.device = fitting.device(t)
        self.place = "cuda" if t["accelerator"] == "gpu" else "cpu"
        self.c, self.items, self.given = c, items, votes
        # what prompts may show
        self.votes = votes.on(items.split == "train")
        model = size[family(c)]
        # adapters that have learned nothing change nothing
        network = {"family": family(c), "model": model, "lora": 0, "checkpointing": False}
        asked = c["method"]["module"]
        # before the network, which may take long
        self.names = list(items.annotator_names or map(str, range(votes.n_annotators)))
        self.about = about(asked["personas"], self.names)
        few = np.bincount(self.votes.annotator, minlength=votes.n_annotators).min()
        if asked["examples"] > few:
            raise ConfigError(
                f"method.module.examples={asked['examples']}: an annotator has {few} responses to "
                f"training items; allowed is up to {few}"
            )
        self.module: ExplainPrompt = build(asked, network=network, optimizer={}, seed=c["seed"])
        self.judges = writing.judges(self.module, items, votes, c["seed"], self.place)
        self.tokenizer = net.tokenizer(model)
        self.prompts = self._prompts()
        longest = max(map(len, self.prompts.values())) + self.module.most_tokens
        lm: Any = self.module.net.lm
        if longest > (most := getattr(lm.config, "max_position_embeddings", longest)):
            raise ConfigError(
                f"method.module.examples={asked['examples']}: a prompt of {longest} tokens with "
                f"its response, and the model takes {most}; ask for fewer"
            )

    def refuse(self, posterior: Posterior | None) -> None:
        """See `Training`: there is nothing to refuse."""

    def explain(self, folder: Path) -> dict[str, float]:
        """Write to the test items, judge it; write the run's files."""
        module, labels = self.module, self.items.classes()
        module.net.to(self.place)
        said = writing.texts(module, self.tokenizer, self.prompts, self.c["seed"])
        written = [
            Written(*pair, decoding, *explain_prompt.answer(text, labels))
            for pair, decoding, text in said
        ]
        return explained_results.judge(
            folder,
            self.items,
            self.given,
            sorted(written),
            seed=self.c["seed"],
            **self.judges,
        )

    def _prompts(self) -> dict[tuple[int, int], list[int]]:
        """Return what each annotator is asked of each test item."""
        module, labels = self.module, self.items.classes()
        prompts = {}
        order = self._order() if module.choose == "nearest" and module.examples else {}
        for item, target in writing.to_answer(self.items, self.votes):
            own = np.flatnonzero(self.votes.annotator == target)
            if order:
                ranked = own[np.argsort(order[item][self.votes.item[own]], kind="stable")]
            else:
                ranked = rng(self.c["seed"], f"examples/{item}/{target}").permutation(own)
            # the likest last, beside the question
            shown = [self._said(vote) for vote in ranked[: module.examples][::-1]]
            turns = explain_prompt.messages(self._question(item), labels, shown, self.about[target])
            prompts[item, target] = explain_prompt.prompt(turns, self.tokenizer)
        return prompts

    def _question(self, item: int) -> str:
        words: str = self.c["dataset"]["prompt"]
        return words.format(text=self.items.inputs["text"][item])

    def _said(self, vote: int) -> tuple[str, str, str]:
        """Return the question, label and explanation of a response."""
        assert self.votes.explanation is not None
        label = self.items.classes()[self.votes.label[vote]]
        return self._question(self.votes.item[vote]), label, self.votes.explanation[vote]

    def _order(self) -> dict[int, np.ndarray[Any, Any]]:
        """Return the rank of each item's input among all, by likeness, for each test item."""
        texts = self.items.inputs["text"]
        test = np.flatnonzero(self.items.split == "test")
        order = explain_prompt.nearest(list(texts), [texts[i] for i in test])
        return {int(i): np.argsort(own) for i, own in zip(test, order, strict=True)}


def about(path: str | None, names: list[str]) -> list[dict[str, str]]:
    """Return what a file says of each annotator; nothing without one.

    Raises:
        ConfigError: it is not such a file, or says nothing of one of them.
    """
    if path is None:
        return [{} for _ in names]
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(f"method.module.personas={path}: there is no such file")
    told = mapping_of(file)
    faults = [
        f"method.module.personas={path}: says nothing of {name}; needed is what he is like, a name "
        "and a value each"
        for name in names
        if not isinstance(told.get(name), dict) or not told[name]
    ]
    if faults:
        raise ConfigError(*faults)
    return [{str(k): str(v) for k, v in told[name].items()} for name in names]
