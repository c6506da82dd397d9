"""Which prompts are worth a gradient step: neither too easy nor too hard for the policy of now."""

from __future__ import annotations

import torch
from torch import Tensor

from implicit_prime.core.tensors import exact
from implicit_prime.errors import PrimeError

# Far below 1 / (K x tests), the distance of two accuracies; far above the rounding of float32.
_TOLERANCE = 1e-6


def accuracy_filter(outcomes: Tensor, low: float = 0.2, high: float = 0.8) -> Tensor:
    """Keep the prompts with low <= mean outcome <= high, both bounds included: bool [P] (section 2.1).

    `outcomes` [P, K] lie in [0, 1]: of K responses to each of P prompts. NaN is a response without a verdict,
    because its verifier failed: the mean is over the others, and a prompt with fewer than two verdicts is not
    kept. The bounds are met to 1e-6, so that 4 of 5 is 0.8 in any dtype.

    Raises `PrimeError` for another shape, K < 2 and bounds that are not 0 <= low <= high <= 1.
    """
    if outcomes.ndim != 2 or outcomes.shape[1] < 2:
        raise PrimeError(
            f"outcomes must be [prompts, responses], 2 responses or more, not {list(outcomes.shape)}"
        )
    if not 0 <= low <= high <= 1:
        raise PrimeError(f"accuracy_range must be 0 <= low <= high <= 1, not ({low}, {high})")
    values = exact(outcomes)
    accuracy = values.nanmean(dim=1)  # NaN without any verdict: inside no bounds
    enough = (~values.isnan()).sum(dim=1) >= 2
    inside = (accuracy >= low - _TOLERANCE) & (accuracy <= high + _TOLERANCE)
    return torch.logical_and(inside, enough).to(outcomes.device)
