"""Putting rewards and advantages of one batch on a common scale (section 2.2, normalisation)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from implicit_prime.core.returns import discounted_returns
from implicit_prime.core.tensors import check_tokens, masked
from implicit_prime.errors import PrimeError

ProcessNorm = Literal["none", "batch_max", "rms"]

# A return is a log-odds: one of 0.1 moves a probability of 1/2 by 2.5 points. A PRM whose returns are smaller
# than that knows nothing yet, and its noise must not be blown up to the size of an outcome.
RMS_FLOOR = 0.1


def normalize_process(process: Tensor, mask: Tensor, how: ProcessNorm = "none") -> Tensor:
    """Process rewards [B, T], divided by one number for the whole batch; 0 outside `mask` [B, T].

    "none" leaves beta log-ratio as it is (the paper). "batch_max" divides by the largest |return| of the
    batch + 1e-6, a return being the sum of the rewards from a token on (the official code). "rms" divides by
    the root mean square of the returns over all tokens, or by 0.1 where that is larger. Pass the whole batch,
    not one process's share of it: else the scale depends on the number of processes.

    Raises `PrimeError` for shapes that differ and another `how`.
    """
    check_tokens(process=process, mask=mask)
    if how not in ("none", "batch_max", "rms"):
        raise PrimeError(f"process_norm must be 'none', 'batch_max' or 'rms', not {how!r}")
    rewards = masked(process, mask)
    if how == "none" or not rewards.numel():
        return rewards
    returns = masked(discounted_returns(rewards), mask)
    if how == "batch_max":
        return rewards / (returns.abs().max() + 1e-6)
    square = returns.square().sum() / mask.bool().sum().clamp(min=1)
    return rewards / square.sqrt().clamp(min=RMS_FLOOR)


def whiten(x: Tensor, mask: Tensor) -> Tensor:
    """(x - mean) / sqrt(var + 1e-8) over all tokens in `mask`, var with n - 1; 0 outside: [B, T].

    Raises `PrimeError` for shapes that differ.
    """
    check_tokens(x=x, mask=mask)
    values, count = masked(x, mask), mask.bool().sum()
    centred = masked(values - values.sum() / count.clamp(min=1), mask)
    variance = centred.square().sum() / (count - 1).clamp(min=1)
    return centred / (variance + 1e-8).sqrt()
