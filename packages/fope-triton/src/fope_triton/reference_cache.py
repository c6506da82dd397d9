"""Decoding and cache writing in plain PyTorch: what the kernels mean, and what runs where they cannot."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fope_triton.reference import turn


def tables_at(cos: Tensor, sin: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return cos and sin [H, N, R] of positions [N].

    `cos`, `sin` are tables [H, T, R]; or `cos` is the factored basis [2, ROWS, D, 2] and `sin` the
    coefficients [2, H, D, R].
    """
    if cos.ndim == 3:
        return cos[:, positions], sin[:, positions]
    basis = factored_basis(cos, positions)
    return basis.real @ sin[0], basis.imag @ sin[1]


def factored_basis(factors: Tensor, positions: Tensor) -> Tensor:
    """Return e^{iΩp} of positions [N], complex [N, D], from the factors [2, ROWS, D, 2]."""
    rows = factors.shape[1]
    basis = torch.view_as_complex(factors.contiguous())
    return basis[0, positions // rows] * basis[1, positions % rows]


def rotate(x: Tensor, c: Tensor, s: Tensor, zero_sin: float) -> Tensor:
    """Rotate x [N, H·G, 2P] by c and s [H, N, R]; from pair R on, c = 1, s = zero_sin."""
    return turn(x.transpose(0, 1), c, s, zero_sin).transpose(0, 1)


def decode(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    cos: Tensor,
    sin: Tensor,
    cache_lens: Tensor,
    block_table: Tensor | None,
    zero_sin: float,
    scale: float,
    rotated_cache: bool,
) -> Tensor:
    """What `fope_decode` returns; one sequence after the other."""
    out = torch.zeros_like(q, memory_format=torch.contiguous_format)
    for sequence, length in enumerate(cache_lens.tolist()):
        if length == 0:
            continue
        positions = torch.arange(length, device=q.device)
        c, s = tables_at(cos, sin, positions)
        keys, values = (cached(cache, sequence, positions, block_table) for cache in (k_cache, v_cache))
        if not rotated_cache:
            keys = rotate(keys, c, s, zero_sin)
        query = rotate(q[sequence][None], c[:, -1:], s[:, -1:], zero_sin)
        out[sequence] = F.scaled_dot_product_attention(
            query.transpose(0, 1), keys.transpose(0, 1), values.transpose(0, 1), scale=scale, enable_gqa=True
        ).squeeze(1)  # fmt: skip
    return out


def cached(cache: Tensor, sequence: int, positions: Tensor, block_table: Tensor | None) -> Tensor:
    """Return what a cache holds at some positions of a sequence, [N, H, head_dim]."""
    if block_table is None:
        return cache[sequence, positions]
    size = cache.shape[1]
    return cache[block_table[sequence, positions // size].long(), positions % size]


def rotate_and_cache(
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slots: Tensor,
    zero_sin: float,
) -> None:
    """What `fope_rotate_and_cache` does."""
    wanted = slots >= 0
    block, row = slots[wanted] // k_cache.shape[1], slots[wanted] % k_cache.shape[1]
    rotated = rotate(k, *tables_at(cos, sin, positions), zero_sin)
    k_cache[block, row] = rotated[wanted]
    v_cache[block, row] = v[wanted]
