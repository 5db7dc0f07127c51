"""A language model as judge: shown what anonymous annotators wrote, it names whose a bag is.

The judge attribution of CAPO (Chen et al., arXiv 2605.28802, abstract; its prompt is not known to
us): an annotator is a letter and some of his explanations, the answer is the letter after the
prompt. The model learns nothing.

A model may like a letter, or a place in the prompt. Each bag is therefore asked n_annotators times,
annotator a under letter l = a - r mod n_annotators in rotation r, and his logs are averaged:

    log p(a | bag) = mean_r log p(letter a - r | prompt r) + constant

Let log p(l | prompt r) = s_a + b_l - z_r: what speaks for the annotator, what for his letter (which
is also his place), and the normaliser. The rotations put each annotator under each letter once, so
that the mean is s_a + mean(b) - mean(z), of which s_a alone differs between annotators: rotations
suffice, other permutations would add nothing. What is not of this form stays: a liking for a letter
that the texts change, or for whoever stands after a certain other, who is the same in every one of
the rotations.

Example:
    >>> print(question([["It rains."], ["it does not"]], ["it snows"]))
    Each of 2 annotators explains his answers in his own way.
    <BLANKLINE>
    Annotator A:
    - It rains.
    <BLANKLINE>
    Annotator B:
    - it does not
    <BLANKLINE>
    One of them wrote:
    - it snows
    <BLANKLINE>
    Which annotator wrote this? Answer with one letter.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax

from annorun import net
from annorun.errors import ConfigError
from annorun.method import explain_prompt
from annorun.net_text import AnswerLM
from annorun.votes import LETTERS, Floats

# in the prompt, and what the model is read for: the word "a" is no answer
NAMES = LETTERS.upper()


def question(shown: Sequence[Sequence[str]], bag: Sequence[str]) -> str:
    """Return what a judge is asked.

    Args:
        shown: explanations of each annotator, who are A, B, C, ... in this order.
        bag: those whose author is asked for, one or more.
    """
    parts = [f"Each of {len(shown)} annotators explains his answers in his own way."]
    parts += [f"Annotator {NAMES[k]}:{_lines(own)}" for k, own in enumerate(shown)]
    parts += [f"One of them wrote:{_lines(bag)}"]
    which = "this" if len(bag) == 1 else "these"
    return "\n\n".join([*parts, f"Which annotator wrote {which}? Answer with one letter."])


def attributed(
    ask: Callable[[list[str]], Floats],
    shown: Sequence[Sequence[str]],
    bags: Sequence[Sequence[str]],
) -> Floats:  # (n_bags, n_annotators)
    """Return log p(annotator | bag), free of a preference for letters.

    Each bag is asked once for each rotation of the annotators over the letters; see above why this
    suffices for a preference that adds to the logs, and that one which depends on the texts stays.

    Args:
        ask: prompts -> log p(letter | prompt), (n_prompts, n_annotators), one column a letter.
        shown: explanations of each annotator, (n_annotators) lists.
        bags: each by one of them, one explanation or more.
    """
    n = len(shown)
    # under[r, l]: who is under letter l in rotation r
    under = np.add.outer(np.arange(n), np.arange(n)) % n
    prompts = [question([shown[a] for a in order], bag) for bag in bags for order in under]
    told = ask(prompts).reshape(len(bags), n, n)
    # the letter of each annotator, [rotation, annotator]
    letter = np.argsort(under, axis=1)
    own = np.take_along_axis(told, letter[None], axis=2)
    found: Floats = log_softmax(own.mean(axis=1), axis=1)
    return found


class LlmJudge:
    """A causal language model that answers prompts with letters: an `ask` for `attributed`.

    In eval mode and float32, on its device for as long as it lives.

    Args:
        model: its name, as `annorun.net` takes it.
        n_annotators: how many letters it chooses among.
        seed: its child `weights` draws what is not loaded.
        device: where it answers.
        size: of a batch.

    Raises:
        ConfigError: the model cannot be loaded, or its letters are not single tokens.
    """

    def __init__(
        self, model: str, n_annotators: int, *, seed: int, device: str = "cpu", size: int = 8
    ):
        self.model, self.device, self.size = model, device, size
        self.tokenizer = net.tokenizer(model)
        ids = letter_ids(self.tokenizer, n_annotators, model)
        with net.seeded(seed, "weights"):
            self.net = AnswerLM(net.causal(model), ids)
        self.net.eval().to(device)

    def tokens(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each prompt, up to where the letter stands.

        Raises:
            ConfigError: one is longer than the model takes.
        """
        asked = [[{"role": "user", "content": text}] for text in prompts]
        ids = [explain_prompt.prompt(turns, self.tokenizer) for turns in asked]
        longest = max(map(len, ids), default=0)
        if longest > self.net.positions:
            raise ConfigError(
                f"method.module.llm={self.model}: a prompt of {longest} tokens, and the model "
                f"takes {self.net.positions}; show it fewer explanations, or take another"
            )
        return ids

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Floats:
        """Return log p(letter | prompt) among the letters, (n_prompts, n_annotators)."""
        ids = self.tokens(prompts)
        found = np.empty((len(ids), len(self.net.answers.ids)))
        # prompts of like length together: the least padding
        order = sorted(range(len(ids)), key=lambda k: len(ids[k]))
        for start in range(0, len(order), self.size):
            rows = order[start : start + self.size]
            longest = len(ids[rows[-1]])
            # padding stands after, where no token of the prompt sees it; which one is all the same
            batch = [ids[k] + [0] * (longest - len(ids[k])) for k in rows]
            mask = [[1] * len(ids[k]) + [0] * (longest - len(ids[k])) for k in rows]
            logits = self.net(
                torch.tensor(batch, device=self.device), torch.tensor(mask, device=self.device)
            )
            found[rows] = logits.double().log_softmax(dim=1).cpu().numpy()
        return found


def letter_ids(tokenizer: Any, n_letters: int, model: str) -> list[int]:
    """Return the token of each letter as it follows a prompt: after a blank only in plain text.

    `annorun.net.answer_ids` is of answers that fine-tuning teaches, for which this does not matter.

    Raises:
        ConfigError: more annotators than letters, or a letter that is not one token of its own.
    """
    if n_letters > len(NAMES):
        raise ConfigError(
            f"method.module.llm={model}: {n_letters} annotators; allowed are {len(NAMES)}"
        )
    before = "" if tokenizer.chat_template else " "
    flat = []
    for letter in NAMES[:n_letters]:
        ids = tokenizer(before + letter, add_special_tokens=False)["input_ids"]
        # a blank of its own, in bytes or pieces, says nothing about the letter
        own = [i for i in ids if tokenizer.convert_ids_to_tokens(i) not in ("▁", " ")]
        flat += own if len(own) == 1 and own[0] != tokenizer.unk_token_id else []
    if len(set(flat)) != n_letters:
        raise ConfigError(
            f"method.module.llm={model}: its tokenizer has no single token for each of the letters "
            f"A to {NAMES[n_letters - 1]}; allowed is a model that has"
        )
    return flat


def _lines(texts: Sequence[str]) -> str:
    """Return texts one a line, each after a line's end."""
    return "".join("\n- " + " ".join(text.split()) for text in texts)
