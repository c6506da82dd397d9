"""Gradients token by token: q = <g, row>, and, by atomic additions, the gradient of the tables.

For few tokens, where sorting costs more than it saves; and for q alone, where the tables are frozen. What is
added by atomics may differ in its last bits from call to call; q may not.
"""

# mypy: disable-error-code=no-untyped-def
# Triton gives the arguments of a kernel their types.
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from memoryformer_triton.backend import on_device, precision
from memoryformer_triton.tiles import token_tile


@triton.jit
def token_grad(
    dy, tables, codes, weights, q, grad, K,
    H: tl.constexpr, TAU: tl.constexpr, ACC: tl.constexpr, NEEDS_Q: tl.constexpr, NEEDS_TABLES: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """One token by BLOCK_K tables: q [N, K]; grad [K, 2^TAU, H], of the dtype ACC, is added to."""
    token = tl.program_id(0).to(tl.int64)
    table = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = table < K
    code = tl.load(codes + token * K + table, mask=inside, other=0).to(tl.int32)
    row = (table.to(tl.int64) * (1 << TAU) + code) * H
    if NEEDS_TABLES:
        weight = tl.load(weights + token * K + table, mask=inside, other=0.0)
    total = tl.zeros([BLOCK_K, BLOCK_H], ACC)
    for first in range(0, H, BLOCK_H):
        column = first + tl.arange(0, BLOCK_H)
        within = column < H
        mask = inside[:, None] & within
        g = tl.load(dy + token * H + column, mask=within, other=0.0).to(ACC)
        at = row[:, None] + column
        if NEEDS_Q:
            total += g[None, :] * tl.load(tables + at, mask=mask, other=0.0).to(ACC)
        if NEEDS_TABLES:
            tl.atomic_add(grad + at, weight[:, None] * g[None, :], mask=mask, sem="relaxed")
    if NEEDS_Q:
        tl.store(q + token * K + table, tl.sum(total, 1), mask=inside)


def launch(
    dy: Tensor, tables: Tensor, codes: Tensor, weights: Tensor, needs_q: bool, needs_tables: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradient of tables [K, 2^tau, h], in their dtype, and q [1, N, K], each None if not needed.

    dy [N, h] in any float dtype; codes and weights [N, K] of the forward pass.
    """
    tokens, chunks = codes.shape
    _, rows, width = tables.shape
    q = weights.new_empty((1, tokens, chunks)) if needs_q else None
    grad = torch.zeros(tables.shape, dtype=weights.dtype, device=dy.device) if needs_tables else None
    tile = token_tile(width)
    if tokens:
        with on_device(dy):
            token_grad[(tokens, triton.cdiv(chunks, tile.things))](
                dy.contiguous(), tables.contiguous(), codes.contiguous(), weights.contiguous(),
                weights if q is None else q, weights if grad is None else grad, chunks,
                H=width, TAU=rows.bit_length() - 1, ACC=precision(weights)[1],
                NEEDS_Q=needs_q, NEEDS_TABLES=needs_tables,
                BLOCK_K=tile.things, BLOCK_H=tile.columns, **tile.options,
            )  # fmt: skip
    return None if grad is None else grad.to(tables.dtype), q
