"""Causal attention with a cache of keys and values (section 2.5)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnirl.model.config import OmniRLConfig
from omnirl.model.layouts import FUSED

LayerMemory = dict[str, Tensor]


@dataclass(frozen=True)
class Context:
    """What all layers share in one pass over T tokens.

    `used` places of the cache are filled. `mask` (B or 1, 1, T, used + T) is true where a token may look,
    None where it may look at all before it. `positions` (B, T) count a row's own tokens. `in_place` writes
    the new keys into the cache's free places instead of making a longer cache. `shared` is what layers of
    one pass tell each other.
    """

    used: int
    mask: Tensor | None
    positions: Tensor
    in_place: bool
    shared: dict[str, Any] = field(default_factory=dict)


class Attention(nn.Module):
    """Softmax attention; with rotary positions, except in the fused layout."""

    def __init__(self, config: OmniRLConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_heads
        self.rotary = config.layout != FUSED
        self.dropout = config.dropout
        self.qkv_proj = nn.Linear(width, 3 * width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=config.attention_bias)

    def forward(self, x: Tensor, memory: LayerMemory, context: Context) -> tuple[Tensor, LayerMemory]:
        """(B, T, hidden) to (B, T, hidden), and the memory with the T tokens' keys and values."""
        batch, length, width = x.shape
        qkv = self.qkv_proj(x).view(batch, length, 3, self.num_heads, width // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if self.rotary:
            angles = _angles(context.positions, q.shape[-1])
            q, k = rotate(q, angles), rotate(k, angles)
        keys, values, memory = _remember(memory, k, v, context)
        dropout = self.dropout if self.training else 0.0
        causal = context.mask is None and length > 1
        with _wide_on_cpu(x) as wide:
            out = F.scaled_dot_product_attention(
                wide(q), wide(keys), wide(values), context.mask, dropout, is_causal=causal
            )
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, width)), memory

    def empty_memory(self, batch_size: int) -> LayerMemory:
        """A cache without a place."""
        weight = self.o_proj.weight
        nothing = weight.new_empty(batch_size, self.num_heads, 0, weight.shape[0] // self.num_heads)
        return {"keys": nothing, "values": nothing}


@contextlib.contextmanager
def _wide_on_cpu(x: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
    """Attention in float32 on a CPU: its kernels are several times slower in bfloat16."""
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            yield Tensor.float
    else:
        yield lambda tensor: tensor


def _remember(
    memory: LayerMemory, k: Tensor, v: Tensor, context: Context
) -> tuple[Tensor, Tensor, LayerMemory]:
    used, total = context.used, context.used + k.shape[2]
    if context.in_place:
        memory["keys"][:, :, used:total] = k
        memory["values"][:, :, used:total] = v
        return memory["keys"][:, :, :total], memory["values"][:, :, :total], memory
    if used:
        k = torch.cat((memory["keys"][:, :, :used], k), dim=2)
        v = torch.cat((memory["values"][:, :, :used], v), dim=2)
    return k, v, {"keys": k, "values": v}


def grow(memory: LayerMemory, used: int, kept: int, capacity: int) -> LayerMemory:
    """A copy of the cache with `capacity` places, filled with the last `kept` of the `used` ones."""
    grown = {}
    for name, old in memory.items():
        grown[name] = old.new_zeros(*old.shape[:2], capacity, old.shape[3])
        grown[name][:, :, :kept] = old[:, :, used - kept : used]
    return grown


def look_back(tokens: Tensor, used: int, length: int, window: int | None) -> Tensor | None:
    """Which keys (B or 1, 1, T, used + T) each of T tokens may look at; None for all that came before.

    `tokens` (B,) says how many of the `used` places, counted from the end, are a row's own.
    """
    least = int(tokens.min())
    total = used + length
    if least >= used and (window is None or total <= window) and (used == 0 or length == 1):
        return None
    key = torch.arange(total, device=tokens.device)
    query = torch.arange(used, total, device=tokens.device)[:, None]
    mask = key <= query
    if window is not None:
        mask = mask & (query - key < window)
    if least < used:
        return (mask & (key >= (used - tokens)[:, None, None]))[:, None]
    return mask[None, None]


def rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions: turn the pairs (x_i, x_{i+D/2}) by position / 10000^{2i/D}."""
    cos, sin = angles
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def _angles(positions: Tensor, size: int) -> tuple[Tensor, Tensor]:
    frequency = 10_000.0 ** (-torch.arange(0, size, 2, device=positions.device) / size)
    angle = positions[:, None, :, None] * frequency
    return angle.cos(), angle.sin()
