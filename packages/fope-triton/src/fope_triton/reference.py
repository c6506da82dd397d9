"""Rotation and attention in plain PyTorch: what the kernels mean, and what runs where they cannot.

Differentiable by PyTorch itself, in any floating dtype, so float64 settles what is right.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor


def turn(x: Tensor, cos: Tensor, sin: Tensor, zero_sin: float) -> Tensor:
    """Rotate x [..., H·G, T, 2P] by tables [..., H, T, R], in float32 at least.

    With x1, x2 the halves of x: y1 = x1·c − x2·s, y2 = x2·c + x1·s. Pairs from R on have c = 1, s = zero_sin.
    Head i takes table i // G.
    """
    pairs = x.shape[-1] // 2
    group = x.shape[-3] // cos.shape[-3]
    precise = torch.promote_types(x.dtype, torch.float32)
    missing = (0, pairs - cos.shape[-1])
    c = F.pad(cos.to(precise), missing, value=1.0).repeat_interleave(group, -3)
    s = F.pad(sin.to(precise), missing, value=zero_sin).repeat_interleave(group, -3)
    x1, x2 = x.to(precise).split(pairs, dim=-1)
    return torch.cat([x1 * c - x2 * s, x2 * c + x1 * s], dim=-1).to(x.dtype)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    causal: bool,
    zero_sin: float,
    scale: float,
) -> Tensor:
    """Softmax attention of rotated q [B, Hq, T, D] to rotated k and v [B, H, S, D].

    Tables [H, S, R] or [B, H, S, R]; the queries are the last T of the S positions.
    """
    length, keys = q.shape[-2], k.shape[-2]
    if q.numel() == 0:
        return q * 1.0
    late = keys - length
    q = turn(q, cos[..., late:, :], sin[..., late:, :], zero_sin)
    k = turn(k, cos, sin, zero_sin)
    mask = None
    if causal and late:
        mask = torch.ones(length, keys, dtype=torch.bool, device=q.device).tril(late)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal and not late, scale=scale, enable_gqa=True
    )


def attention_varlen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    cu_seqlens: Tensor,
    causal: bool,
    zero_sin: float,
    scale: float,
) -> Tensor:
    """`attention` in each of the sequences packed in q [N, Hq, D] and k, v [N, H, D], one after the other."""
    ends = cu_seqlens.tolist()
    parts = [q[:0] * 1.0]
    for first, last in itertools.pairwise(ends):
        one_q, one_k, one_v = (x[first:last].transpose(0, 1)[None] for x in (q, k, v))
        c, s = cos[:, : last - first], sin[:, : last - first]
        parts.append(attention(one_q, one_k, one_v, c, s, causal, zero_sin, scale)[0].transpose(0, 1))
    return torch.cat(parts)
