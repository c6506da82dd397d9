"""Which frequencies a head has: RoPE's bank, the floor 2π/L below which they are clipped, and its extensions.

Banks are in radians per position, highest first; what is kept is decided in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fope.errors import FopeError


def rope_frequencies(
    head_dim: int, theta: float = 10_000.0, oversample: int = 1, dtype: torch.dtype = torch.float64
) -> Tensor:
    """RoPE's bank ω_j = θ^(−2j/d_h), or with `oversample` r the finer Ω_k = θ^(−2k/(r·d_h)).

    Shape [r·d_h/2]; Ω_{r·j} = ω_j. In float32 the bits are those of transformers and the released code.
    """
    steps = oversample * head_dim
    return 1.0 / theta ** (torch.arange(0, steps, 2, dtype=dtype, device="cpu") / steps)


def floor_frequency(train_length: int) -> float:
    """ω_l = 2π/L: the lowest frequency that completes a period within the training length L."""
    return 2 * math.pi / train_length


def kept_frequencies(
    head_dim: int, theta: float, train_length: int, strict: bool = False, oversample: int = 1
) -> Tensor:
    """The part of the bank at or above the floor (above it, if `strict`): a prefix, shape [R] or [D].

    Raises `FopeError` when not one frequency has a full period in `train_length`.
    """
    bank = rope_frequencies(head_dim, theta, oversample)
    if train_length <= 0:
        raise FopeError(f"no frequency has a full period in L={train_length}: train_length must be positive")
    floor = floor_frequency(train_length)
    kept = bank[bank > floor] if strict else bank[bank >= floor]
    if kept.numel() == 0:
        raise FopeError(
            f"no frequency has a full period in L={train_length}: train_length must be at least 7 "
            "(2π positions for the fastest wave)"
        )
    return kept


def interpolate(inv_freq: Tensor, original_length: int, new_length: int) -> Tensor:
    """Position interpolation (linear): Ω·L_orig/L_new."""
    if not 0 < original_length <= new_length:
        raise FopeError(
            f"position interpolation stretches {original_length} positions to {new_length}: "
            "the new length must not be smaller, and both must be positive"
        )
    return inv_freq * (original_length / new_length)


@dataclass(frozen=True)
class Yarn:
    """YaRN's parameters (Peng et al. 2023), with the values of the released code."""

    factor: float = 16.0
    original_length: int = 512
    beta_fast: float = 32.0
    beta_slow: float = 1.0

    def __post_init__(self) -> None:
        if self.factor < 1 or self.original_length <= 0 or not self.beta_fast > self.beta_slow > 0:
            raise FopeError(
                f"YaRN needs factor >= 1, original_length > 0 and beta_fast > beta_slow > 0, got {self}"
            )

    @property
    def attention_factor(self) -> float:
        """The scale that transformers puts on cos and sin (`mscale`): 0.1·ln(factor) + 1.

        The released FoPE code uses none.
        """
        return 0.1 * math.log(self.factor) + 1.0

    def range(self, head_dim: int, theta: float) -> tuple[int, int]:
        """The pairs between which the ramp from "leave alone" to "interpolate" runs."""

        def pair(rotations: float) -> float:
            return (
                head_dim * math.log(self.original_length / (rotations * 2 * math.pi)) / (2 * math.log(theta))
            )

        return max(math.floor(pair(self.beta_fast)), 0), min(math.ceil(pair(self.beta_slow)), head_dim - 1)


def yarn(inv_freq: Tensor, head_dim: int, theta: float, parameters: Yarn) -> Tensor:
    """YaRN on a (possibly clipped or oversampled) bank: Ω·((1−m) + m/factor), ramp m over the pair number.

    `inv_freq` has shape [D]. The pair number of a frequency is read off the frequency itself, so that an
    oversampled or clipped bank is treated as RoPE's would be at that frequency. Zeros stay zero.
    """
    low, high = parameters.range(head_dim, theta)
    positive = inv_freq > 0
    pair = -torch.log(torch.where(positive, inv_freq, 1.0)) * head_dim / (2 * math.log(theta))
    ramp = ((pair - low) / max(high - low, 0.001)).clamp(0, 1)
    return torch.where(positive, inv_freq * ((1 - ramp) + ramp / parameters.factor), 0.0)


def periods(inv_freq: Tensor) -> Tensor:
    """2π/Ω in positions; infinite for a frequency of zero."""
    return 2 * math.pi / inv_freq
