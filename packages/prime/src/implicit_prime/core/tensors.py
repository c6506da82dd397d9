"""What the core asks of its tensors: one shape, a dtype wide enough, nothing from padding."""

from __future__ import annotations

import torch
from torch import Tensor

from implicit_prime.errors import PrimeError


def wide(x: Tensor) -> Tensor:
    """`x` in float64 if it is float64, else in float32."""
    return x if x.dtype == torch.float64 else x.float()


def masked(x: Tensor, mask: Tensor) -> Tensor:
    """`x` wide, and exactly 0 outside `mask`, whatever stands there."""
    return wide(x).masked_fill(~mask.bool(), 0.0)


def exact(x: Tensor) -> Tensor:
    """`x` in float64 on the CPU: for what is one number a response, and because not every GPU has float64."""
    return x.cpu().double()


def check_tokens(**tensors: Tensor) -> None:
    """Raise `PrimeError` unless all are [responses, tokens] and of one shape."""
    (first, x), *others = tensors.items()
    if x.ndim != 2:
        raise PrimeError(f"{first} must be [responses, tokens], not {list(x.shape)}")
    for name, other in others:
        if other.shape != x.shape:
            raise PrimeError(
                f"{first} {list(x.shape)} and {name} {list(other.shape)} must both be [responses, tokens]"
            )


def check_gamma(name: str, gamma: float) -> None:
    """Raise `PrimeError` unless `gamma` lies in [0, 1]."""
    if not 0 <= gamma <= 1:
        raise PrimeError(f"{name} must lie in [0, 1], not {gamma}")
