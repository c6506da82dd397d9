"""Attention, backward, on the rotated q′ and k′; the transpose of the rotation is applied in the epilogues.

R(p)ᵀ is the rotation with s → −s (not the inverse: c² + s² need not be 1). dq and dk, dv have a kernel each,
and a KV head's program goes over its query heads, so nothing is added by atomics: the same call gives the
same bits.
"""

# mypy: disable-error-code=no-untyped-def
# Triton gives the arguments of a kernel their types.
from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from fope_triton.attention_fwd import LOG2_E, constants, options, sequence_block
from fope_triton.attention_tiles import tile_for, tile_of
from fope_triton.backend import on_device, token_major, unit_stride
from fope_triton.rotate import table_strides
from fope_triton.signatures import COMPILED, compile_spec
from fope_triton.tables import table_rows
from fope_triton.tiles import HEAD_DIMS, TARGETS, CompileSpec
from fope_triton.varlen import sequence_blocks

DELTA_ROWS = 8
DELTA_OPTIONS = {"num_warps": 4}


@triton.jit
def attention_bwd_delta(
    out, dout, delta, stride_ob, stride_oh, stride_ot, stride_dob, stride_doh, stride_dot, T,
    DIM: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """`delta` [B, Hq, T]: the sum over channels of out · dout."""
    head = tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    at = m.to(tl.int64)[:, None]
    channel = tl.arange(0, DIM)[None, :]
    mask = (m < T)[:, None]
    x = tl.load(out + batch * stride_ob + head * stride_oh + at * stride_ot + channel, mask=mask, other=0.0)
    dx = tl.load(
        dout + batch * stride_dob + head * stride_doh + at * stride_dot + channel, mask=mask, other=0.0
    )
    total = tl.sum(x.to(tl.float32) * dx.to(tl.float32), 1)
    tl.store(delta + (batch * tl.num_programs(1) + head) * T + m, total, mask=m < T)


@triton.jit
def attention_bwd_dq(
    q, k, v, dout, lse, delta, cos, sin, dq, cu_seqlens, blocks,
    stride_qb, stride_qh, stride_qt, stride_kb, stride_kh, stride_kt, stride_vb, stride_vh, stride_vt,
    stride_ob, stride_oh, stride_ot, stride_dqb, stride_dqh, stride_dqt,
    stride_cb, stride_ch, stride_ct, stride_sb, stride_sh, stride_st,
    G, T, S, R, zero_sin, scale, scale_log2,
    P: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr, VARLEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq [B, H·G, T, 2P] of the queries before rotation; q and k are rotated."""
    query_head = tl.program_id(1).to(tl.int64)
    head = query_head // G
    batch = tl.program_id(2).to(tl.int64)
    row = (batch * tl.num_programs(1) + query_head) * T
    if VARLEN:
        block, begin, T = sequence_block(blocks, cu_seqlens, tl.program_id(0))
        S = T
    else:
        block = tl.num_programs(0) - 1 - tl.program_id(0)
        begin = tl.zeros([], tl.int64)
    if block * BLOCK_M >= T:
        return
    m = block * BLOCK_M + tl.arange(0, BLOCK_M)
    at = begin + m.to(tl.int64)[:, None]
    pair, channel = tl.arange(0, P)[None, :], tl.arange(0, 2 * P)[None, :]
    real = (m < T)[:, None]
    queries = q + batch * stride_qb + query_head * stride_qh + at * stride_qt + pair
    q1 = tl.load(queries, mask=real, other=0.0)
    q2 = tl.load(queries + P, mask=real, other=0.0)
    grads = dout + batch * stride_ob + query_head * stride_oh + at * stride_ot + channel
    do = tl.load(grads, mask=real, other=0.0)
    size = tl.load(lse + row + begin + m, mask=m < T, other=float("inf"))  # beyond T every weight is 0
    shift = tl.load(delta + row + begin + m, mask=m < T, other=0.0)

    dq1 = tl.zeros([BLOCK_M, P], tl.float32)
    dq2 = tl.zeros([BLOCK_M, P], tl.float32)
    k += batch * stride_kb + head * stride_kh + begin * stride_kt
    v += batch * stride_vb + head * stride_vh + begin * stride_vt
    last = S
    if CAUSAL:
        last = tl.minimum(S, S - T + (block + 1) * BLOCK_M)
    for start in range(0, last, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        inside = (n < S)[:, None]
        keys = k + n.to(tl.int64)[:, None] * stride_kt + pair
        k1 = tl.load(keys, mask=inside, other=0.0)
        k2 = tl.load(keys + P, mask=inside, other=0.0)
        x = tl.load(v + n.to(tl.int64)[:, None] * stride_vt + channel, mask=inside, other=0.0)
        score = tl.dot(q1, tl.trans(k1), input_precision=PRECISION)
        score = tl.dot(q2, tl.trans(k2), score, input_precision=PRECISION)
        seen = (n < S)[None, :]
        if CAUSAL:
            seen = seen & (n[None, :] <= S - T + m[:, None])
        weight = tl.where(seen, tl.exp2(score * scale_log2 - size[:, None]), 0.0)
        dweight = tl.dot(do, tl.trans(x), input_precision=PRECISION)
        dscore = (weight * (dweight - shift[:, None])).to(k1.dtype)
        dq1 = tl.dot(dscore, k1, dq1, input_precision=PRECISION)
        dq2 = tl.dot(dscore, k2, dq2, input_precision=PRECISION)
    c, s = table_rows(
        cos + batch * stride_cb + head * stride_ch, sin + batch * stride_sb + head * stride_sh,
        (S - T + m).to(tl.int64), m < T, zero_sin, R, stride_ct, stride_st, P,
    )  # fmt: skip
    kept = dq + batch * stride_dqb + query_head * stride_dqh + at * stride_dqt + pair
    store_transposed(kept, dq1 * scale, dq2 * scale, c, s, real, P)


@triton.jit
def attention_bwd_dkv(
    q, k, v, dout, lse, delta, cos, sin, dk, dv, cu_seqlens, blocks,
    stride_qb, stride_qh, stride_qt, stride_kb, stride_kh, stride_kt, stride_vb, stride_vh, stride_vt,
    stride_ob, stride_oh, stride_ot, stride_dkb, stride_dkh, stride_dkt, stride_dvb, stride_dvh, stride_dvt,
    stride_cb, stride_ch, stride_ct, stride_sb, stride_sh, stride_st,
    G, T, S, R, zero_sin, scale, scale_log2,
    P: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr, VARLEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dk, dv [B, H, S, 2P] of the keys before rotation, over the G query heads; q and k are rotated."""
    head = tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    length = T
    if VARLEN:
        block, begin, T = sequence_block(blocks, cu_seqlens, tl.program_id(0))
        S = T
    else:
        block = tl.program_id(0)
        begin = tl.zeros([], tl.int64)
    if block * BLOCK_N >= S:
        return
    n = block * BLOCK_N + tl.arange(0, BLOCK_N)
    at = begin + n.to(tl.int64)[:, None]
    pair, channel = tl.arange(0, P)[None, :], tl.arange(0, 2 * P)[None, :]
    real = (n < S)[:, None]
    keys = k + batch * stride_kb + head * stride_kh + at * stride_kt + pair
    k1 = tl.load(keys, mask=real, other=0.0)
    k2 = tl.load(keys + P, mask=real, other=0.0)
    x = tl.load(v + batch * stride_vb + head * stride_vh + at * stride_vt + channel, mask=real, other=0.0)

    dk1 = tl.zeros([BLOCK_N, P], tl.float32)
    dk2 = tl.zeros([BLOCK_N, P], tl.float32)
    dx = tl.zeros([BLOCK_N, 2 * P], tl.float32)
    q += batch * stride_qb + begin * stride_qt
    dout += batch * stride_ob + begin * stride_ot
    first = 0
    if CAUSAL:  # the first block with a query that sees the first of these keys
        first = tl.maximum(block * BLOCK_N - (S - T), 0) // BLOCK_M
    each = tl.cdiv(T, BLOCK_M) - first
    for step in range(0, G * each):  # noqa: PIE808 one loop over heads and blocks, pipelined as a whole
        query_head = head * G + step // each
        m = (first + step % each) * BLOCK_M + tl.arange(0, BLOCK_M)
        inside = (m < T)[:, None]
        row = m.to(tl.int64)[:, None]
        queries = q + query_head * stride_qh + row * stride_qt + pair
        q1 = tl.load(queries, mask=inside, other=0.0)
        q2 = tl.load(queries + P, mask=inside, other=0.0)
        do = tl.load(dout + query_head * stride_oh + row * stride_ot + channel, mask=inside, other=0.0)
        rows = ((batch * tl.num_programs(1)) * G + query_head) * length + begin + m
        size = tl.load(lse + rows, mask=m < T, other=float("inf"))
        shift = tl.load(delta + rows, mask=m < T, other=0.0)
        score = tl.dot(k1, tl.trans(q1), input_precision=PRECISION)
        score = tl.dot(k2, tl.trans(q2), score, input_precision=PRECISION)
        weight = tl.exp2(score * scale_log2 - size[None, :])
        if CAUSAL:
            weight = tl.where(n[:, None] <= S - T + m[None, :], weight, 0.0)
        dx = tl.dot(weight.to(do.dtype), do, dx, input_precision=PRECISION)
        dweight = tl.dot(x, tl.trans(do), input_precision=PRECISION)
        dscore = (weight * (dweight - shift[None, :])).to(q1.dtype)
        dk1 = tl.dot(dscore, q1, dk1, input_precision=PRECISION)
        dk2 = tl.dot(dscore, q2, dk2, input_precision=PRECISION)
    values = dv + batch * stride_dvb + head * stride_dvh + at * stride_dvt + channel
    tl.store(values, dx.to(dv.dtype.element_ty), mask=real)
    c, s = table_rows(
        cos + batch * stride_cb + head * stride_ch, sin + batch * stride_sb + head * stride_sh,
        n.to(tl.int64), n < S, zero_sin, R, stride_ct, stride_st, P,
    )  # fmt: skip
    kept = dk + batch * stride_dkb + head * stride_dkh + at * stride_dkt + pair
    store_transposed(kept, dk1 * scale, dk2 * scale, c, s, real, P)


@triton.jit
def store_transposed(at, dy1, dy2, c, s, mask, P: tl.constexpr):
    """Store the gradient of what was rotated: Rᵀ of the gradient of the result."""
    tl.store(at, (dy1 * c + dy2 * s).to(at.dtype.element_ty), mask=mask)
    tl.store(at + P, (dy2 * c - dy1 * s).to(at.dtype.element_ty), mask=mask)


def launch(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    cos: Tensor,
    sin: Tensor,
    cu_seqlens: Tensor | None,
    causal: bool,
    zero_sin: float,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dq as q [B, Hq, T, D] and dk, dv as k [B, H, S, D], of query and key before rotation.

    q and k are rotated; `out` and `lse` are what the forward pass returned.
    """
    batch, query_heads, length, head_dim = q.shape
    heads, keys = k.shape[1:3]
    dq, dk, dv = token_major(q), token_major(k), token_major(v)
    if dq.numel() == 0:
        return dq, dk.zero_(), dv.zero_()
    dout, q, k, v, out, cos, sin = (unit_stride(x) for x in (dout, q, k, v, out, cos, sin))
    delta = torch.empty_like(lse)
    inputs = (q, k, v, dout, lse, delta, cos, sin)
    strides = [stride for x in (q, k, v, dout) for stride in x.stride()[:3]]
    sizes = (query_heads // heads, length, keys, cos.shape[-1], zero_sin, scale, scale * LOG2_E)
    with on_device(q):
        attention_bwd_delta[(triton.cdiv(length, DELTA_ROWS), query_heads, batch)](
            out, dout, delta, *out.stride()[:3], *dout.stride()[:3], length,
            DIM=head_dim, BLOCK_M=DELTA_ROWS, **DELTA_OPTIONS,
        )  # fmt: skip
        for kernel, results, tokens, all_heads in (
            (attention_bwd_dq, (dq,), length, query_heads),
            (attention_bwd_dkv, (dk, dv), keys, heads),
        ):
            chosen = tile_of(kernel.__name__, q)
            size = chosen.block_m if kernel is attention_bwd_dq else chosen.block_n
            programs, starts, blocks = triton.cdiv(tokens, size), lse, lse
            if cu_seqlens is not None:
                starts, blocks = cu_seqlens, sequence_blocks(cu_seqlens, tokens, size)
                programs = len(blocks)
            kernel[(programs, all_heads, batch)](
                *inputs, *results, starts, blocks, *strides,
                *(stride for x in results for stride in x.stride()[:3]), *table_strides(cos, sin), *sizes,
                **constants(chosen, head_dim, causal, cu_seqlens is not None), **options(chosen),
            )  # fmt: skip
    return dq, dk, dv


def specs(dtypes: Sequence[str] = COMPILED, *, causal: bool = True, varlen: bool = True) -> list[CompileSpec]:
    """Return each tile, for every target, in one variant: by default causal and packed."""
    found = []
    for target, dtype, head_dim in itertools.product(TARGETS, dtypes, HEAD_DIMS):
        place = (dtype, head_dim, target)
        for name, kernel in (
            ("attention_bwd_dq", attention_bwd_dq),
            ("attention_bwd_dkv", attention_bwd_dkv),
        ):
            chosen = tile_for(name, *place)
            values = constants(chosen, head_dim, causal, varlen)
            found.append(compile_spec(name, kernel, values, options(chosen), *place))
        values = {"DIM": head_dim, "BLOCK_M": DELTA_ROWS}
        found.append(compile_spec("attention_bwd_delta", attention_bwd_delta, values, DELTA_OPTIONS, *place))
    return found
