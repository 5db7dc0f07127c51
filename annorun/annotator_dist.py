"""Simulated crowds: one function an option, giving what is planted in each annotator."""

import numpy as np

from annorun.errors import ConfigError
from annorun.kinds import Count, Probability
from annorun.votes import Pool


def fixed(expertise: list[Probability]) -> Pool:
    """Return the pool whose annotators have these values, one an annotator.

    Raises:
        ConfigError: the list is empty or a value is not in [0, 1].
    """
    if not expertise:
        raise ConfigError("annotator_dist.expertise: empty; give one value in [0, 1] an annotator")
    faults = [
        f"annotator_dist.expertise[{m}]: {value} is not a number in [0, 1]"
        for m, value in enumerate(expertise)
        if not 0 <= value <= 1
    ]
    if faults:
        raise ConfigError(*faults)
    return Pool(np.array(expertise, dtype=np.float64))


def linspace(n_annotators: Count, highest: Probability, lowest: Probability) -> Pool:
    """Return a pool evenly spaced from `highest` down to `lowest`; one annotator has `highest`.

    Raises:
        ConfigError: there is no annotator or an end is not in [0, 1].
    """
    if n_annotators < 1:
        raise ConfigError(f"annotator_dist.n_annotators: {n_annotators} is not 1 or more")
    return fixed(np.linspace(highest, lowest, n_annotators).tolist())


def real() -> None:
    """Return nothing: the votes are the data's own."""
