"""Rotation of queries and keys: memory traffic and nothing else, so each byte is read once and written once.

A program takes BLOCK_T tokens of one KV head: it makes their cos and sin once and rotates the G query heads
and the key head by them. The transpose (s → −s) is the backward pass. `table_grads` sums what the tables
receive over the group, in a fixed order.
"""

# mypy: disable-error-code=no-untyped-def
# Triton gives the arguments of a kernel their types.
from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fope_triton.backend import on_device, target_of, unit_stride
from fope_triton.signatures import COMPILED, compile_spec
from fope_triton.tables import factored_rows, table_rows
from fope_triton.tiles import HEAD_DIMS, TARGETS, CompileSpec

OPTIONS = {"num_warps": 4, "num_stages": 1}


@triton.jit
def rotate(
    q, k, q_out, k_out, cos, sin, positions,
    stride_qb, stride_qh, stride_qt, stride_kb, stride_kh, stride_kt,
    stride_qob, stride_qoh, stride_qot, stride_kob, stride_koh, stride_kot,
    stride_cb, stride_ch, stride_ct, stride_sb, stride_sh, stride_st,
    H, G, T, D, R, first, zero_sin, sign,
    P: tl.constexpr, BLOCK_T: tl.constexpr, HAS_K: tl.constexpr, INDEXED: tl.constexpr,
    TOUCHED: tl.constexpr, FACTORED: tl.constexpr, ROWS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """q [B, H·G, T, 2P] and, where HAS_K, k [B, H, T, 2P]; sign −1 for the transpose.

    Token t takes the row positions[t] of the tables where INDEXED, else first + t. Pairs from TOUCHED on are
    neither read nor written.
    """
    head = tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    token = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    inside = token < T
    if INDEXED:
        position = tl.load(positions + token, mask=inside, other=0).to(tl.int64)
    else:
        position = (first + token).to(tl.int64)
    if FACTORED:
        c, s = factored_rows(cos, sin, head, position, zero_sin, D, H, R, ROWS, PRECISION, P, BLOCK_T)
    else:
        c, s = table_rows(
            cos + batch * stride_cb + head * stride_ch,
            sin + batch * stride_sb + head * stride_sh,
            position,
            inside,
            zero_sin,
            R,
            stride_ct,
            stride_st,
            P,
        )
    s *= sign
    at = token.to(tl.int64)
    q += batch * stride_qb + head * G * stride_qh
    q_out += batch * stride_qob + head * G * stride_qoh
    for _ in range(G):
        rotate_tile(q, q_out, at, inside, c, s, stride_qt, stride_qot, P, TOUCHED)
        q += stride_qh
        q_out += stride_qoh
    if HAS_K:
        k += batch * stride_kb + head * stride_kh
        k_out += batch * stride_kob + head * stride_koh
        rotate_tile(k, k_out, at, inside, c, s, stride_kt, stride_kot, P, TOUCHED)


@triton.jit
def rotate_tile(x, y, at, inside, c, s, stride_x, stride_y, P: tl.constexpr, TOUCHED: tl.constexpr):
    """Rotate the rows `at` of x [T, 2P] into y."""
    mask = inside[:, None]
    pair = tl.arange(0, P)[None, :]
    if TOUCHED < P:
        mask = mask & (pair < TOUCHED)
    source = x + at[:, None] * stride_x + pair
    x1 = tl.load(source, mask=mask, other=0.0).to(tl.float32)
    x2 = tl.load(source + P, mask=mask, other=0.0).to(tl.float32)
    kept = y + at[:, None] * stride_y + pair
    tl.store(kept, (x1 * c - x2 * s).to(y.dtype.element_ty), mask=mask)
    tl.store(kept + P, (x2 * c + x1 * s).to(y.dtype.element_ty), mask=mask)


@triton.jit
def table_grads(
    q, k, dq, dk, dc, ds,
    stride_qb, stride_qh, stride_qt, stride_kb, stride_kh, stride_kt,
    stride_dqb, stride_dqh, stride_dqt, stride_dkb, stride_dkh, stride_dkt,
    H, G, T, R, sign,
    P: tl.constexpr, BLOCK_T: tl.constexpr, HAS_K: tl.constexpr,
):  # fmt: skip
    """What the rows of the tables receive from each token: dc, ds [B, H, T, R], summed over the heads."""
    head = tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    token = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    inside = token < T
    at = token.to(tl.int64)
    pair = tl.arange(0, P)[None, :]
    if HAS_K:
        k += batch * stride_kb + head * stride_kh
        dk += batch * stride_dkb + head * stride_dkh
        c, s = table_grads_tile(k, dk, at, inside, stride_kt, stride_dkt, P)
    else:
        c = tl.zeros([BLOCK_T, P], tl.float32)
        s = tl.zeros([BLOCK_T, P], tl.float32)
    q += batch * stride_qb + head * G * stride_qh
    dq += batch * stride_dqb + head * G * stride_dqh
    for _ in range(G):
        more_c, more_s = table_grads_tile(q, dq, at, inside, stride_qt, stride_dqt, P)
        c += more_c
        s += more_s
        q += stride_qh
        dq += stride_dqh
    kept = ((batch * H + head) * T + at[:, None]) * R + pair
    mask = inside[:, None] & (pair < R)
    tl.store(dc + kept, c, mask=mask)
    tl.store(ds + kept, s * sign, mask=mask)


@triton.jit
def table_grads_tile(x, dy, at, inside, stride_x, stride_dy, P: tl.constexpr):
    """One head's share: dy1·x1 + dy2·x2 and dy2·x1 − dy1·x2."""
    mask = inside[:, None]
    pair = tl.arange(0, P)[None, :]
    x += at[:, None] * stride_x + pair
    dy += at[:, None] * stride_dy + pair
    x1 = tl.load(x, mask=mask, other=0.0).to(tl.float32)
    x2 = tl.load(x + P, mask=mask, other=0.0).to(tl.float32)
    dy1 = tl.load(dy, mask=mask, other=0.0).to(tl.float32)
    dy2 = tl.load(dy + P, mask=mask, other=0.0).to(tl.float32)
    return dy1 * x1 + dy2 * x2, dy2 * x1 - dy1 * x2


def block_t(head_dim: int) -> int:
    """Return tokens a tile: 2048 numbers, eight pairs a thread."""
    return max(2048 // head_dim, 16)


def constants(factored: bool, rows: int, head_dim: int, target: str) -> dict[str, Any]:
    """Return the compile-time arguments of `rotate` that the table decides; `rows` of a factor table."""
    return {
        "P": head_dim // 2,
        "BLOCK_T": block_t(head_dim),
        "FACTORED": factored,
        "ROWS": rows if factored else 1,
        "PRECISION": "ieee" if TARGETS[target].is_amd else "tf32x3",
    }


def table_strides(cos: Tensor, sin: Tensor) -> tuple[int, ...]:
    """Return the strides of tables [H, T, R] or [B, H, T, R] over B, H and T, of cos and then of sin."""
    return tuple(stride for x in (cos, sin) for stride in ((0,) * (4 - x.ndim) + x.stride())[:3])


def launch(
    q: Tensor,
    k: Tensor | None,
    q_out: Tensor,
    k_out: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None,
    zero_sin: float,
    transpose: bool = False,
    factored: bool = False,
    first: int = 0,
) -> None:
    """Rotate q [B, H·G, T, D] and, unless None, k [B, H, T, D] into the outputs, which they may be.

    Outputs have their channels side by side. Where `positions` is None, the rows from `first` on are taken.
    In place and with zero_sin = 0, only the pairs that the tables have are read and written.
    """
    batch, query_heads, length, head_dim = q.shape
    heads, pairs = sin.shape[-3], sin.shape[-1]
    if q.numel() == 0:
        return
    cos, sin = (x.contiguous() if factored else unit_stride(x) for x in (cos, sin))
    has_k, only_kept = k is not None, q is q_out and zero_sin == 0
    q = unit_stride(q)
    k, k_out = (q, q_out) if k is None or k_out is None else (unit_stride(k), k_out)
    values = constants(factored, cos.shape[-3] if factored else 1, head_dim, target_of(q))
    with on_device(q):
        rotate[(triton.cdiv(length, values["BLOCK_T"]), heads, batch)](
            q, k, q_out, k_out, cos, sin, cos if positions is None else positions.contiguous(),
            *q.stride()[:3], *k.stride()[:3], *q_out.stride()[:3], *k_out.stride()[:3],
            *((0,) * 6 if factored else table_strides(cos, sin)),
            heads, query_heads // heads, length, cos.shape[2] if factored else 0, pairs, first,
            zero_sin, -1.0 if transpose else 1.0,
            HAS_K=has_k, INDEXED=positions is not None,
            # Whole vectors of 16: pairs beyond the tables' turn by nothing.
            TOUCHED=min(head_dim // 2, triton.cdiv(pairs, 16) * 16) if only_kept else head_dim // 2,
            **values, **OPTIONS,
        )  # fmt: skip


def launch_table_grads(
    q: Tensor, k: Tensor | None, dq: Tensor, dk: Tensor | None, heads: int, pairs: int, transpose: bool
) -> tuple[Tensor, Tensor]:
    """Return dc and ds [B, heads, T, pairs], what each token gives to its row of the tables.

    q [B, heads·G, T, D], k [B, heads, T, D] before the rotation; dq, dk gradients of what came of it.
    """
    batch, query_heads, length, head_dim = q.shape
    dc = q.new_empty((batch, heads, length, pairs), dtype=torch.float32)
    ds = torch.empty_like(dc)
    if dc.numel() == 0:
        return dc, ds
    has_k, q, dq = k is not None, unit_stride(q), unit_stride(dq)
    k, dk = (q, dq) if k is None or dk is None else (unit_stride(k), unit_stride(dk))
    size = block_t(head_dim)
    with on_device(q):
        table_grads[(triton.cdiv(length, size), heads, batch)](
            q, k, dq, dk, dc, ds,
            *q.stride()[:3], *k.stride()[:3], *dq.stride()[:3], *dk.stride()[:3],
            heads, query_heads // heads, length, pairs, -1.0 if transpose else 1.0,
            P=head_dim // 2, BLOCK_T=size, HAS_K=has_k, **OPTIONS,
        )  # fmt: skip
    return dc, ds


def specs(dtypes: Sequence[str] = COMPILED) -> list[CompileSpec]:
    """Return what is shipped, for every target."""
    found = []
    for target, dtype, head_dim in itertools.product(TARGETS, dtypes, HEAD_DIMS):
        place = (dtype, head_dim, target)
        for name, factored in (("rotate", False), ("rotate_factored", True)):
            values = constants(factored, 1024, head_dim, target)
            values |= {"HAS_K": True, "INDEXED": True, "TOUCHED": head_dim // 2}
            found.append(compile_spec(name, rotate, values, OPTIONS, *place))
        values = {"P": head_dim // 2, "BLOCK_T": block_t(head_dim), "HAS_K": True}
        found.append(compile_spec("table_grads", table_grads, values, OPTIONS, *place))
    return found
