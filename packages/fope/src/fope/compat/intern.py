"""Intern-S1-Pro's embedding, re-stated from its formulas: what `FopeConfig.intern_s1` must agree with.

It is also what vLLM 0.32, SGLang, LMDeploy and XTuner compute. One set of coefficients serves all layers.
vLLM after 0.32 pads the sine with 0 instead of 1, which is another function: `zero_sin` says which. Fold the
checkpoint to be right with both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def intern_inv_freq(
    head_dim: int, max_position_embeddings: int, theta: float, num_inv_freq: int | None = None
) -> Tensor:
    """Its bank, float32 [D]: the first `num_inv_freq`, else those above 2π/max_position_embeddings."""
    inv_freq = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if num_inv_freq is not None:
        return inv_freq[:num_inv_freq]
    return inv_freq[inv_freq > 2 * math.pi / max_position_embeddings]


def intern_cos_sin(
    positions: Tensor,
    inv_freq: Tensor,
    cos_coef: Tensor,
    sin_coef: Tensor,
    head_dim: int,
    zero_sin: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Its tables, float32 [T, H, d] of positions [T] and coefficients [H, D, D], each half of d the same."""
    angles = torch.outer(positions.float(), inv_freq)
    cos = torch.einsum("tD,hDd->thd", angles.cos(), cos_coef.float())
    sin = torch.einsum("tD,hDd->thd", angles.sin(), sin_coef.float())
    rest = head_dim // 2 - len(inv_freq)
    cos = torch.nn.functional.pad(cos, (0, rest), value=1.0)
    sin = torch.nn.functional.pad(sin, (0, rest), value=zero_sin)
    return torch.cat([cos, cos], dim=-1), torch.cat([sin, sin], dim=-1)


def intern_rotation(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x [T, heads, d] by tables [T, H, d]; heads of a group share one."""
    group = x.shape[1] // cos.shape[1]
    cos, sin = (table.repeat_interleave(group, dim=1) for table in (cos, sin))
    first, second = x.float().chunk(2, dim=-1)
    return (x * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)
