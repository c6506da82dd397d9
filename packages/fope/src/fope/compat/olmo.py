"""The authors' released embedding, re-stated from its formulas: what `FopeConfig.olmo` must agree with.

As slow as theirs, on purpose: float32 angles, tables by einsum for every batch, head and call, sine and
cosine both padded with 1. Use it to check against, not to train with.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def released_inv_freq(
    head_dim: int, train_length: int, fourier_dim: int = 0, theta: float = 10_000.0
) -> Tensor:
    """The released bank, float32 [D]: frequencies below 2π/L are set to zero, and zeros are then left out."""
    dim = max(fourier_dim, head_dim)
    inv_freq = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    inv_freq[inv_freq < 2 * math.pi / train_length] = 0.0
    return inv_freq[inv_freq > 0]


def released_eye(num_frequencies: int, head_dim: int) -> Tensor:
    """The ones of the released start, [D, min(D, head_dim/4)]: an identity, or one every ceil(D/R) rows."""
    pairs = min(num_frequencies, head_dim // 4)
    if pairs == num_frequencies:
        return torch.eye(pairs)
    step = math.ceil(num_frequencies / pairs)
    eye = torch.zeros(num_frequencies, pairs)
    for pair in range(pairs):
        if pair * step < num_frequencies:
            eye[pair * step, pair] = 1.0
    return eye


def released_rotation(
    x: Tensor, positions: Tensor, inv_freq: Tensor, cos_coef: Tensor, sin_coef: Tensor
) -> Tensor:
    """The released forward pass: x [B, H, T, d], positions [T], coefficients [H, D, R]; the dtype of x."""
    angles = torch.einsum("t,D->tD", positions.float(), inv_freq)
    shape = (*x.shape[:3], -1)
    cos = torch.einsum("bhtD,hDd->bhtd", angles.cos().expand(shape), cos_coef)
    sin = torch.einsum("bhtD,hDd->bhtd", angles.sin().expand(shape), sin_coef)
    rest = x.shape[-1] // 2 - cos.shape[-1]
    cos = torch.nn.functional.pad(cos, (0, rest), value=1.0)
    sin = torch.nn.functional.pad(sin, (0, rest), value=1.0)
    first, second = x.float().chunk(2, dim=-1)
    rotated_half = torch.cat([-second, first], dim=-1)
    return (x * torch.cat([cos, cos], dim=-1) + rotated_half * torch.cat([sin, sin], dim=-1)).to(x.dtype)
