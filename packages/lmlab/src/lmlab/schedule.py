"""The learning rate as a fraction of its peak at each step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

Schedule = Literal["cosine", "linear", "constant"]


def learning_rate_factor(
    schedule: Schedule, max_steps: int, warmup_steps: int, min_ratio: float
) -> Callable[[int], float]:
    """The factor for steps 0, 1, ..., max_steps - 1.

    It rises linearly as step / warmup_steps, as in transformers (the first warm-up step is taken at rate 0),
    then falls from 1 to `min_ratio` along half a cosine or a line, or stays at 1.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        done = (step - warmup_steps) / max(1, max_steps - warmup_steps)
        if schedule == "cosine":
            shape = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        elif schedule == "linear":
            shape = max(0.0, 1 - done)
        else:
            return 1.0
        return min_ratio + (1 - min_ratio) * shape

    return factor
