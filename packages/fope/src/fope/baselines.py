"""The other position embeddings of the paper's comparison, as functions and modules that attention takes.

RoPE and RoPE-A rotate; NoPE does nothing at all; ALiBi, KERPLE and FIRE add a bias [heads, queries, keys] to
the scores, which callers mask for the future.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fope.errors import FopeError
from fope.functional import apply_fope, fope_basis


def rope(x: Tensor, positions: Tensor, inv_freq: Tensor) -> Tensor:
    """Rotary embedding (Su et al. 2021) of x [B, heads, T, d]: frequencies [d/2], positions [T] or [B, T]."""
    cos, sin = fope_basis(positions, inv_freq)
    return apply_fope(x, cos.unsqueeze(-3), sin.unsqueeze(-3))


def rope_a(inv_freq: Tensor, train_length: int) -> Tensor:
    """RoPE-A (Table 2): every frequency moved to the nearest that completes whole cycles in `train_length`.

    Whole cycles are multiples of 2π/L; a frequency nearer to none than to one cycle becomes zero.
    """
    if train_length < 1:
        raise FopeError(f"train_length is {train_length}; it must be at least 1")
    cycle = 2 * math.pi / train_length
    return torch.round(inv_freq / cycle) * cycle


def nope(x: Tensor, positions: Tensor | None = None) -> Tensor:
    """No position embedding: x as it is; the order is left to the causal mask."""
    return x


def alibi_slopes(num_heads: int) -> Tensor:
    """ALiBi's slopes (Press et al. 2022), float32 [heads]: 2^(−8i/n) for i = 1 … n where n is a power of two.

    Other numbers of heads take the slopes of the power of two below, then every second one of the next.
    """
    power = 1 << (num_heads.bit_length() - 1)
    slopes = [2 ** (-8 * i / power) for i in range(1, power + 1)]
    between = [2 ** (-4 * i / power) for i in range(1, 2 * power + 1, 2)]
    return torch.tensor((slopes + between)[:num_heads])


def alibi_bias(num_heads: int, query_positions: Tensor, key_positions: Tensor) -> Tensor:
    """ALiBi: −slope·|i − j|, float32 [heads, queries, keys]."""
    return _alibi(alibi_slopes(num_heads).to(query_positions.device), query_positions, key_positions)


def _alibi(slopes: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor:
    return -slopes[:, None, None] * _distance(query_positions, key_positions)


def _distance(query_positions: Tensor, key_positions: Tensor) -> Tensor:
    """|i − j|, float32 [queries, keys]."""
    return (query_positions[:, None] - key_positions[None, :]).abs().float()


class Alibi(nn.Module):
    """ALiBi as a module: `bias(query_positions, key_positions)` is `alibi_bias`."""

    slopes: Tensor

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.register_buffer("slopes", alibi_slopes(num_heads), persistent=False)

    def forward(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        """The bias, float32 [heads, queries, keys]."""
        return _alibi(self.slopes, query_positions, key_positions)


class Kerple(nn.Module):
    """KERPLE in its logarithmic form (Chi et al. 2022): −r1·log(1 + r2·|i − j|), r1 and r2 trained for each
    head.

    They start uniform in (0, 2) and (0, 1), as in its authors' code, and are kept at 0.01 or more.
    """

    SMALLEST = 1e-2

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.r1 = nn.Parameter(2 * torch.rand(num_heads))
        self.r2 = nn.Parameter(torch.rand(num_heads))

    def forward(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        """The bias, float32 [heads, queries, keys]."""
        r1, r2 = (r.float().clamp(min=self.SMALLEST)[:, None, None] for r in (self.r1, self.r2))
        return -r1 * torch.log1p(r2 * _distance(query_positions, key_positions))


class Fire(nn.Module):
    """FIRE (Li et al. 2024): f(ψ(i − j)/ψ(max(i, L))) with ψ(x) = log(c·x + 1), f a small network.

    c and the threshold L are trained; L starts at `train_length`. The future (j > i) counts as distance 0.
    """

    def __init__(self, num_heads: int, train_length: int, width: int = 32) -> None:
        super().__init__()
        self.inner = nn.Linear(1, width)
        self.outer = nn.Linear(width, num_heads)
        self.c = nn.Parameter(torch.tensor(0.1))
        self.threshold = nn.Parameter(torch.tensor(float(train_length)))

    def forward(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        """The bias, [heads, queries, keys] in the network's dtype."""
        distance = (query_positions[:, None] - key_positions[None, :]).clamp(min=0).float()
        longest = torch.maximum(query_positions.float(), self.threshold.float().abs())[:, None]
        c = self.c.float().abs()
        share = torch.log1p(c * distance) / torch.log1p(c * longest).clamp(min=1e-6)
        hidden = self.inner(share.unsqueeze(-1).to(self.inner.weight.dtype)).relu()
        bias: Tensor = self.outer(hidden).permute(2, 0, 1)
        return bias
