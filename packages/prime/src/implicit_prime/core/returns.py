"""Discounted sums of rewards from every token on, for all responses at once."""

from __future__ import annotations

from torch import Tensor

from implicit_prime.core.tensors import check_gamma, check_tokens, wide


def discounted_returns(rewards: Tensor, gamma: float = 1.0) -> Tensor:
    """G_t = sum over s >= t of gamma^(s-t) rewards_s: [B, T], float64 for float64 and else float32.

    `rewards` [B, T] are 0 outside the responses. Discounting doubles its reach until it spans all tokens:
    after k rounds G_t holds the rewards of t .. t + 2^k - 1, so log2(T) passes do. No power of gamma is ever
    divided by, and one that underflows is a weight of 0, as it should be.

    Raises `PrimeError` for other shapes and for gamma outside [0, 1].
    """
    check_tokens(rewards=rewards)
    check_gamma("gamma", gamma)
    if gamma == 1:
        return wide(rewards).flip(-1).cumsum(-1).flip(-1)
    returns, reach = wide(rewards).clone(), 1
    while reach < rewards.shape[1] and gamma**reach:
        returns[:, :-reach] += gamma**reach * returns[:, reach:]
        reach *= 2
    return returns
