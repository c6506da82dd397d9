"""Gradient of the tables in a fixed order, and q = <g, row> on the way: each row is read and written once.

    dT[k, r] = Σ_{n: c_nk = r} w_nk g_n        q_nk = <g_n, T[k, c_nk]>

Tokens are sorted by their codes, stably, so a row's tokens lie side by side, in their order. A block takes
one bucket and a whole row of up to 2048 columns. Buckets are uneven: longer ones than `chunk` are split, each
piece writes its sum to a slot of its own, and `add_pieces` adds the slots of a row in order. Rows that nobody
hit get 0 from the same kernel.
"""

# mypy: disable-error-code=no-untyped-def
# Triton gives the arguments of a kernel their types.
from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from memoryformer_triton.backend import on_device, precision
from memoryformer_triton.tiles import pieces_tile, sorted_tile

SHORTEST_CHUNK = 64


@triton.jit
def rounded(x, like):
    """The numbers x in the dtype that `like` points to; from float64 to 16 bits by way of float32."""
    if like.dtype.element_ty != tl.float64:
        x = x.to(tl.float32)
    return x.to(like.dtype.element_ty)


@triton.jit
def table_grad(
    dy, tables, weights, order, starts, pieces, ends, slots, rows, q, grad, partial,
    N, K, chunk, all_slots,
    H: tl.constexpr, TAU: tl.constexpr, ACC: tl.constexpr, NEEDS_Q: tl.constexpr, SPLIT: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """One piece of a bucket by BLOCK_H columns of grad [K, 2^TAU, H]; q [column blocks, N, K]."""
    table = tl.program_id(1).to(tl.int64)
    column = tl.program_id(2) * BLOCK_H + tl.arange(0, BLOCK_H)
    within = column < H
    row = tl.program_id(0)
    if SPLIT:
        row = tl.load(rows + table * tl.num_programs(0) + row)
        if row == (1 << TAU):
            return
    bucket = table * (1 << TAU) + row
    begin = tl.load(starts + bucket + table)  # starts [K, 2^TAU + 1]
    end = tl.load(starts + bucket + table + 1)
    if SPLIT:
        count = tl.load(pieces + bucket)
        piece = tl.program_id(0) - (tl.load(ends + bucket) - count)
        begin += piece * chunk
        end = tl.minimum(begin + chunk, end)
    if NEEDS_Q:
        values = tl.load(tables + bucket * H + column, mask=within, other=0.0).to(ACC)
    total = tl.zeros([BLOCK_N, BLOCK_H], ACC)
    for first in range(begin, end, BLOCK_N):
        at = first + tl.arange(0, BLOCK_N)
        inside = at < end
        token = tl.load(order + table * N + at, mask=inside, other=0)
        weight = tl.load(weights + token * K + table, mask=inside, other=0.0)
        g = tl.load(dy + token[:, None] * H + column, mask=inside[:, None] & within, other=0.0).to(ACC)
        total += weight[:, None] * g
        if NEEDS_Q:
            kept = q + (tl.program_id(2).to(tl.int64) * N + token) * K + table
            tl.store(kept, tl.sum(g * values[None, :], 1), mask=inside)
    out = tl.sum(total, 0)
    whole = within
    if SPLIT:
        slot = table * all_slots + tl.load(slots + bucket) + piece
        tl.store(partial + slot * H + column, out, mask=within & (count > 1))
        whole = within & (count == 1)
    tl.store(grad + bucket * H + column, rounded(out, grad), mask=whole)


@triton.jit
def add_pieces(
    partial, pieces, slots, grad, all_slots,
    H: tl.constexpr, TAU: tl.constexpr, ACC: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """grad [K, 2^TAU, H] of the rows whose buckets were split: their slots of partial, in order."""
    table = tl.program_id(1).to(tl.int64)
    bucket = table * (1 << TAU) + tl.program_id(0)
    count = tl.load(pieces + bucket)
    if count > 1:
        column = tl.program_id(2) * BLOCK_H + tl.arange(0, BLOCK_H)
        within = column < H
        at = partial + (table * all_slots + tl.load(slots + bucket)) * H + column
        total = tl.zeros([BLOCK_H], ACC)
        for _ in range(count):
            total += tl.load(at, mask=within, other=0.0)
            at += H
        tl.store(grad + bucket * H + column, rounded(total, grad), mask=within)


@dataclass(frozen=True)
class Buckets:
    """The tokens of each row, and the pieces that buckets are split in; all on the device.

    `order` int64 [K, N]: tokens sorted by code; `starts` int32 [K, rows + 1]: where each bucket begins in it.
    Only where `chunk` < N: `pieces` of each bucket, their running sum `ends`, and the first of the `slots` of
    buckets with several, each int32 [K, rows]; `rows` int32 [K, blocks]: the row of each block, 2^tau for
    none. A table needs at most `all_slots`.
    """

    order: Tensor
    starts: Tensor
    chunk: int
    pieces: Tensor | None = None
    ends: Tensor | None = None
    slots: Tensor | None = None
    rows: Tensor | None = None
    all_slots: int = 0


def bucket_sort(codes: Tensor, rows: int) -> Buckets:
    """Sort the tokens of codes [N, K] into buckets; nothing is read back from the device.

    A bucket has at most `chunk` tokens, four times an even share, else it is split. So the slots of all
    split buckets take at most half as much memory as the tables in float32.
    """
    tokens, chunks = codes.shape
    by_code, order = torch.sort(codes.T.contiguous(), dim=1, stable=True)
    bounds = torch.arange(rows + 1, dtype=torch.int32, device=codes.device).expand(chunks, -1).contiguous()
    starts = torch.searchsorted(by_code.int(), bounds, out_int32=True)
    chunk = max(SHORTEST_CHUNK, triton.next_power_of_2(triton.cdiv(4 * tokens, rows)))
    if tokens <= chunk:
        return Buckets(order, starts, chunk)
    pieces = starts.diff(dim=1).add_(chunk - 1).div_(chunk, rounding_mode="floor").clamp_(min=1)
    ends = pieces.cumsum(1, dtype=torch.int32)
    several = pieces * (pieces > 1)
    slots = several.cumsum(1, dtype=torch.int32) - several
    # Σ ⌈n/chunk⌉ is at most N/chunk + rows over all buckets, and below 2N/chunk over those with n > chunk.
    blocks = torch.arange(rows + tokens // chunk, dtype=torch.int32, device=codes.device)
    owners = torch.searchsorted(ends, blocks.expand(chunks, -1).contiguous(), right=True, out_int32=True)
    return Buckets(order, starts, chunk, pieces, ends, slots, owners, 2 * tokens // chunk)


def launch(
    dy: Tensor, tables: Tensor, codes: Tensor, weights: Tensor, needs_q: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the gradient of tables [K, 2^tau, h], in their dtype, and q [column blocks, N, K] or None.

    dy [N, h] in any float dtype; codes and weights [N, K] of the forward pass. The same bits every time.
    """
    tokens, chunks = codes.shape
    _, rows, width = tables.shape
    tables, dy, weights = tables.contiguous(), dy.contiguous(), weights.contiguous()
    grad = torch.empty_like(tables)
    tile = sorted_tile(width)
    column_blocks = triton.cdiv(width, tile.columns)
    q = weights.new_empty((column_blocks, tokens, chunks)) if needs_q else None
    buckets = bucket_sort(codes, rows)
    split = buckets.pieces is not None
    # A pointer must be given where there is nothing to point to.
    nothing = buckets.starts
    pieces, ends, slots, owners = (
        nothing if x is None else x for x in (buckets.pieces, buckets.ends, buckets.slots, buckets.rows)
    )
    partial = weights.new_empty((chunks, buckets.all_slots, width)) if split else weights
    known = {"H": width, "TAU": rows.bit_length() - 1, "ACC": precision(weights)[1]}
    with on_device(dy):
        table_grad[(owners.shape[1] if split else rows, chunks, column_blocks)](
            dy, tables, weights, buckets.order, buckets.starts, pieces, ends, slots, owners,
            weights if q is None else q, grad, partial, tokens, chunks, buckets.chunk, buckets.all_slots,
            **known, NEEDS_Q=needs_q, SPLIT=split,
            BLOCK_N=tile.things, BLOCK_H=tile.columns, **tile.options,
        )  # fmt: skip
        if split:
            tile = pieces_tile(width)
            add_pieces[(rows, chunks, triton.cdiv(width, tile.columns))](
                partial, pieces, slots, grad, buckets.all_slots,
                **known, BLOCK_H=tile.columns, **tile.options,
            )  # fmt: skip
    return grad, q
