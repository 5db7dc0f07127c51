"""Names for the ranges that a value may lie in: used in signatures, read by `annorun.config`.

A signature says `lr: Positive`; for Python and mypy that is a float, for the config check it is
also a rule, with the words that a person reads when the rule is broken.
"""

import math
from collections.abc import Callable

Positive = float
NonNegative = float
Probability = float
Share = float
Count = int
Natural = int

RULES: dict[str, tuple[type, Callable[[float], bool], str]] = {
    "Positive": (float, lambda v: v > 0 and math.isfinite(v), "a finite number above 0"),
    "NonNegative": (float, lambda v: v >= 0 and math.isfinite(v), "a finite number, 0 or more"),
    "Probability": (float, lambda v: 0 <= v <= 1, "a number in [0, 1]"),
    "Share": (float, lambda v: 0 <= v < 1, "a number in [0, 1)"),
    "Count": (int, lambda v: v >= 1, "an integer, 1 or more"),
    "Natural": (int, lambda v: v >= 0, "an integer, 0 or more"),
}
