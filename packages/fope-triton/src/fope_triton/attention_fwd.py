"""Attention, forward: FlashAttention with queries rotated in the prologue and keys that are rotated already.

Rotating Q here is free: a tile is turned once, before the loop. Rotating K here would not be: every key would
be turned for every block of queries, and float32 tables would pass through shared memory with it. So keys
come from `rotate`. Halves stay apart, S = q1·k1ᵀ + q2·k2ᵀ: nothing is concatenated.

Sequences are packed along T where VARLEN: `blocks` [·, 2] names each program's sequence and its block there,
and `cu_seqlens` where sequences begin (see `varlen`).
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

from fope_triton.attention_tiles import tile_for, tile_of
from fope_triton.backend import on_device, token_major, unit_stride
from fope_triton.rotate import table_strides
from fope_triton.signatures import COMPILED, compile_spec
from fope_triton.tables import table_rows
from fope_triton.tiles import HEAD_DIMS, TARGETS, CompileSpec, Tile
from fope_triton.varlen import sequence_blocks

LOG2_E = 1.4426950408889634


@triton.jit
def attention_fwd(
    q, k, v, cos, sin, out, lse, cu_seqlens, blocks,
    stride_qb, stride_qh, stride_qt, stride_kb, stride_kh, stride_kt, stride_vb, stride_vh, stride_vt,
    stride_ob, stride_oh, stride_ot, stride_cb, stride_ch, stride_ct, stride_sb, stride_sh, stride_st,
    G, T, S, R, zero_sin, scale_log2,
    P: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr, ROTATE_Q: tl.constexpr, VARLEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out, q [B, H·G, T, 2P]; k, v [B, H, S, 2P]; lse [B, H·G, T], base 2. Query t has position S − T + t."""
    query_head = tl.program_id(1).to(tl.int64)
    head = query_head // G
    batch = tl.program_id(2).to(tl.int64)
    row_lse = (batch * tl.num_programs(1) + query_head) * T
    if VARLEN:
        block, begin, T = sequence_block(blocks, cu_seqlens, tl.program_id(0))
        S = T
    else:
        block = tl.num_programs(0) - 1 - tl.program_id(0)  # causal: the longest rows first
        begin = tl.zeros([], tl.int64)
    if block * BLOCK_M >= T:
        return
    q += batch * stride_qb + query_head * stride_qh + begin * stride_qt
    k += batch * stride_kb + head * stride_kh + begin * stride_kt
    v += batch * stride_vb + head * stride_vh + begin * stride_vt
    out += batch * stride_ob + query_head * stride_oh + begin * stride_ot

    m = block * BLOCK_M + tl.arange(0, BLOCK_M)
    pair = tl.arange(0, P)
    channel = tl.arange(0, 2 * P)
    real = m < T
    at = q + m.to(tl.int64)[:, None] * stride_qt + pair[None, :]
    q1 = tl.load(at, mask=real[:, None], other=0.0)
    q2 = tl.load(at + P, mask=real[:, None], other=0.0)
    if ROTATE_Q:
        c, s = table_rows(
            cos + batch * stride_cb + head * stride_ch,
            sin + batch * stride_sb + head * stride_sh,
            (S - T + m).to(tl.int64),
            real,
            zero_sin,
            R,
            stride_ct,
            stride_st,
            P,
        )
        x1, x2 = q1.to(tl.float32), q2.to(tl.float32)
        q1 = (x1 * c - x2 * s).to(k.dtype.element_ty)
        q2 = (x2 * c + x1 * s).to(k.dtype.element_ty)

    maximum = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    weighted = tl.zeros([BLOCK_M, 2 * P], tl.float32)
    last = S
    whole = S // BLOCK_N * BLOCK_N
    if CAUSAL:
        last = tl.minimum(S, S - T + (block + 1) * BLOCK_M)
        whole = tl.minimum(whole, (S - T + block * BLOCK_M + 1) // BLOCK_N * BLOCK_N)
    for start in range(0, whole, BLOCK_N):
        maximum, total, weighted = attend(
            q1, q2, k, v, maximum, total, weighted, start, m, T, S, stride_kt, stride_vt, scale_log2,
            P, BLOCK_N, False, CAUSAL, PRECISION,
        )  # fmt: skip
    for start in range(whole, last, BLOCK_N):
        maximum, total, weighted = attend(
            q1, q2, k, v, maximum, total, weighted, start, m, T, S, stride_kt, stride_vt, scale_log2,
            P, BLOCK_N, True, CAUSAL, PRECISION,
        )  # fmt: skip

    kept = out + m.to(tl.int64)[:, None] * stride_ot + channel[None, :]
    tl.store(kept, (weighted / total[:, None]).to(out.dtype.element_ty), mask=real[:, None])
    tl.store(lse + row_lse + begin + m, maximum + tl.log2(total), mask=real)


@triton.jit
def attend(
    q1, q2, k, v, maximum, total, weighted, start, m, T, S, stride_kt, stride_vt, scale_log2,
    P: tl.constexpr, BLOCK_N: tl.constexpr,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Take one block of keys and values into the running softmax; MASKED where some may not be seen."""
    n = start + tl.arange(0, BLOCK_N)
    pair = tl.arange(0, P)
    channel = tl.arange(0, 2 * P)
    keys = k + n.to(tl.int64)[:, None] * stride_kt + pair[None, :]
    values = v + n.to(tl.int64)[:, None] * stride_vt + channel[None, :]
    if MASKED:
        inside = (n < S)[:, None]
        k1, k2 = tl.load(keys, mask=inside, other=0.0), tl.load(keys + P, mask=inside, other=0.0)
        x = tl.load(values, mask=inside, other=0.0)
    else:
        k1, k2, x = tl.load(keys), tl.load(keys + P), tl.load(values)
    score = tl.dot(q1, tl.trans(k1), input_precision=PRECISION)
    score = tl.dot(q2, tl.trans(k2), score, input_precision=PRECISION) * scale_log2
    if MASKED:
        seen = (n < S)[None, :]
        if CAUSAL:
            seen = seen & (n[None, :] <= S - T + m[:, None])
        score = tl.where(seen, score, float("-inf"))
    # Every row sees key 0, in the first block, so the maximum is never -inf.
    new = tl.maximum(maximum, tl.max(score, 1))
    weight = tl.exp2(score - new[:, None])
    shrink = tl.exp2(maximum - new)
    weighted = tl.dot(weight.to(x.dtype), x, weighted * shrink[:, None], input_precision=PRECISION)
    return new, total * shrink + tl.sum(weight, 1), weighted


@triton.jit
def sequence_block(blocks, cu_seqlens, program):
    """A program's block, where its sequence begins, and how long that is; 0 where there is no work."""
    sequence = tl.load(blocks + 2 * program)
    begin = tl.load(cu_seqlens + sequence).to(tl.int64)
    end = tl.load(cu_seqlens + sequence + 1).to(tl.int64)
    return tl.load(blocks + 2 * program + 1), begin, (end - begin).to(tl.int32)


def constants(chosen: Tile, head_dim: int, causal: bool, varlen: bool) -> dict[str, Any]:
    """Return the compile-time arguments that all attention kernels have."""
    return {
        "P": head_dim // 2,
        "BLOCK_M": chosen.block_m,
        "BLOCK_N": chosen.block_n,
        "CAUSAL": causal,
        "VARLEN": varlen,
        "PRECISION": chosen.precision,
    }


def options(chosen: Tile) -> dict[str, int]:
    """Return how a kernel with that tile is compiled."""
    return {"num_warps": chosen.num_warps, "num_stages": chosen.num_stages}


def launch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor | None,
    sin: Tensor | None,
    cu_seqlens: Tensor | None,
    causal: bool,
    zero_sin: float,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Return `out` as q [B, Hq, T, D] and `lse` float32 [B, Hq, T], base 2.

    k is rotated already; q is rotated here by tables [H, S, R] or [B, H, S, R], unless there are none.
    """
    batch, query_heads, length, head_dim = q.shape
    heads, keys = k.shape[1:3]
    out, lse = token_major(q), q.new_empty((batch, query_heads, length), dtype=torch.float32)
    if out.numel() == 0:
        return out, lse
    q, k, v = (unit_stride(x) for x in (q, k, v))
    chosen = tile_of("attention_fwd", q)
    strides: tuple[int, ...] = (0,) * 6
    pairs = 0
    if cos is not None and sin is not None:
        cos, sin = unit_stride(cos), unit_stride(sin)
        strides, pairs = table_strides(cos, sin), cos.shape[-1]
    programs, starts, blocks = triton.cdiv(length, chosen.block_m), lse, lse
    if cu_seqlens is not None:
        starts = cu_seqlens
        blocks = sequence_blocks(cu_seqlens, length, chosen.block_m)
        programs = len(blocks)
    with on_device(q):
        attention_fwd[(programs, query_heads, batch)](
            q, k, v, cos, sin, out, lse, starts, blocks,
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3], *strides,
            query_heads // heads, length, keys, pairs, zero_sin, scale * LOG2_E,
            ROTATE_Q=cos is not None,
            **constants(chosen, head_dim, causal, cu_seqlens is not None), **options(chosen),
        )  # fmt: skip
    return out, lse


def specs(
    dtypes: Sequence[str] = COMPILED, *, causal: bool = True, varlen: bool = True, rotate_q: bool = True
) -> list[CompileSpec]:
    """Return each tile, for every target, in one variant: by default causal, packed, with Q rotated."""
    found = []
    for target, dtype, head_dim in itertools.product(TARGETS, dtypes, HEAD_DIMS):
        chosen = tile_for("attention_fwd", dtype, head_dim, target)
        values = constants(chosen, head_dim, causal, varlen) | {"ROTATE_Q": rotate_q}
        place = (dtype, head_dim, target)
        found.append(compile_spec("attention_fwd", attention_fwd, values, options(chosen), *place))
    return found
