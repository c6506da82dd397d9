"""y_n = Σ_k w_nk · scale[k, c_nk] · T[k, c_nk] + b: rows fetched, weighted and summed in float32.

The width H is a constant of the kernel: where it divides by 16 bytes, rows are fetched 16 bytes a load.
`hash_lookup` takes one token a block and hashes itself: few launches, for few tokens. `lookup` takes 16
tokens and what `hash_chunks` made: all blocks walk the tables in order, so that the table in use stays in L2.
"""

# mypy: disable-error-code=no-untyped-def
# Triton gives the arguments of a kernel their types.
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from memoryformer_triton.backend import code_dtype, on_device, precision
from memoryformer_triton.hashing import code_and_weight, divided, launch_hash, log_of
from memoryformer_triton.tiles import lookup_tile, small_lookup_tile

FEW_TOKENS = 64  # up to here one block a token; estimated, not measured


@triton.jit
def add_bias(total, bias, column, within, HAS_BIAS: tl.constexpr):
    """Add the bias of these columns to a sum [.., columns] or [columns]."""
    if HAS_BIAS:
        total += tl.load(bias + column, mask=within, other=0.0).to(total.dtype)
    return total


@triton.jit
def hash_lookup(
    z, tables, bias, scales, y, codes, weights, K, inverse, scale_table, scale_row,
    H: tl.constexpr, TAU: tl.constexpr, LOG: tl.constexpr, SCALED: tl.constexpr, ACC: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_SCALES: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """One token of z [N, K, TAU] by BLOCK_H columns of y [N, H]; also codes and weights [N, K]."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    within = column < H
    total = tl.zeros([BLOCK_K, BLOCK_H], ACC)
    for first in range(0, K, BLOCK_K):
        table = first + tl.arange(0, BLOCK_K)
        inside = table < K
        code, weight = code_and_weight(z, token * K + table, inside, inverse, TAU, LOG, SCALED, ACC, BLOCK_K)
        kept = inside & (tl.program_id(1) == 0)
        tl.store(codes + token * K + table, code.to(codes.dtype.element_ty), mask=kept)
        tl.store(weights + token * K + table, weight, mask=kept)
        if HAS_SCALES:
            weight *= tl.load(scales + table * scale_table + code * scale_row, mask=inside, other=0.0)
        row = tables + (table.to(tl.int64) * (1 << TAU) + code) * H
        values = tl.load(row[:, None] + column, mask=inside[:, None] & within, other=0.0)
        total += weight[:, None] * values.to(ACC)
    out = add_bias(tl.sum(total, 0), bias, column, within, HAS_BIAS)
    tl.store(y + token * H + column, out.to(y.dtype.element_ty), mask=within)


@triton.jit
def lookup(
    codes, weights, tables, bias, scales, y, N, K, scale_table, scale_row,
    H: tl.constexpr, TAU: tl.constexpr, ACC: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_SCALES: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """BLOCK_N tokens by BLOCK_H columns of y [N, H]."""
    token = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = token < N
    column = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    within = column < H
    mask = inside[:, None] & within
    total = tl.zeros([BLOCK_N, BLOCK_H], ACC)
    for table in range(K):
        code = tl.load(codes + token * K + table, mask=inside, other=0).to(tl.int32)
        weight = tl.load(weights + token * K + table, mask=inside, other=0.0)
        if HAS_SCALES:
            weight *= tl.load(scales + table * scale_table + code * scale_row, mask=inside, other=0.0)
        row = tables + (tl.cast(table, tl.int64) * (1 << TAU) + code) * H
        total += weight[:, None] * tl.load(row[:, None] + column, mask=mask, other=0.0).to(ACC)
    total = add_bias(total, bias, column, within, HAS_BIAS)
    tl.store(y + token[:, None] * H + column, total.to(y.dtype.element_ty), mask=mask)


def launch(
    z: Tensor, tables: Tensor, bias: Tensor | None, scales: Tensor | None, score: str, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y [N, h] in the dtype of z [N, K, tau], and the codes and weights [N, K] of `launch_hash`.

    tables [K, 2^tau, h]; scales [K, 2^tau] or [K, 1] for int8 tables.
    """
    tokens, chunks, tau = z.shape
    width = tables.shape[2]
    z, tables = z.contiguous(), tables.contiguous()
    y = z.new_empty((tokens, width))
    dtype, acc = precision(z)
    # A pointer must be given where there is nothing to point to.
    values = (z if bias is None else bias.contiguous(), z if scales is None else scales)
    steps = (0, 0) if scales is None else (scales.stride(0), scales.stride(1) if scales.shape[1] > 1 else 0)
    known = {
        "H": width,
        "TAU": tau,
        "ACC": acc,
        "HAS_BIAS": bias is not None,
        "HAS_SCALES": scales is not None,
    }
    if tokens > FEW_TOKENS:
        codes, weights = launch_hash(z, score, temperature)
        tile = lookup_tile(width, widens=tables.itemsize < z.itemsize)
        with on_device(z):
            lookup[(triton.cdiv(tokens, tile.things), triton.cdiv(width, tile.columns))](
                codes, weights, tables, *values, y, tokens, chunks, *steps,
                **known, BLOCK_N=tile.things, BLOCK_H=tile.columns, **tile.options,
            )  # fmt: skip
        return y, codes, weights
    codes = z.new_empty((tokens, chunks), dtype=code_dtype(tau))
    weights = z.new_empty((tokens, chunks), dtype=dtype)
    tile = small_lookup_tile(width)
    if tokens:
        z, inverse = divided(z, temperature)
        with on_device(z):
            hash_lookup[(tokens, triton.cdiv(width, tile.columns))](
                z, tables, *values, y, codes, weights, chunks, inverse, *steps,
                LOG=log_of(tau), SCALED=score == "scaled", **known,
                BLOCK_K=tile.things, BLOCK_H=tile.columns, **tile.options,
            )  # fmt: skip
    return y, codes, weights
