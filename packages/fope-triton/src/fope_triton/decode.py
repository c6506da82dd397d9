"""Decoding: one query token a sequence against a cache of keys and values, split over the keys
(flash-decoding).

A program takes one sequence, one KV head and one split of its keys, for all G query heads of that KV head, so
every key and value is read once. Its result is a softmax over its own keys; `decode_reduce` joins the splits.
Nothing is added by atomics: the same call gives the same bits.

The query is rotated in the prologue, at the last position. A cache of rotated keys then costs what plain
decoding costs. Unrotated keys are rotated as they are read, by tables or, for long contexts, by the factored
basis, whose rows stay in the multiprocessor's own cache, so that it adds no traffic to memory
(`factored_range`).
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

from fope_triton.backend import DTYPE_NAMES, on_device, processors, target_of, unit_stride
from fope_triton.signatures import COMPILED, compile_spec
from fope_triton.tables import factored_range, table_rows
from fope_triton.tiles import HEAD_DIMS, TARGETS, CompileSpec, Tile

LOG2_E = 1.4426950408889634
GROUP = 16  # query heads a program: the least that tensor cores take
MOST_SPLITS = 64
REDUCE_WARPS = 4
# name, whether keys are rotated as they are read, whether from the factored basis
KERNELS = (
    ("decode_rotated", False, False),
    ("decode_rotated_factored", False, True),
    ("decode_tables", True, False),
    ("decode_factored", True, True),
)


@triton.jit
def decode_split(
    q, k_cache, v_cache, cos, sin, cache_lens, block_table, partial, lse,
    stride_qb, stride_qh, stride_kb, stride_kt, stride_kh, stride_vb, stride_vt, stride_vh,
    stride_ch, stride_ct, stride_sh, stride_st, stride_tb,
    H, G, D, R, splits, block_size, capacity, zero_sin, scale_log2,
    P: tl.constexpr, BLOCK_N: tl.constexpr,
    ROTATE_K: tl.constexpr, PAGED: tl.constexpr, FACTORED: tl.constexpr,
    ROWS: tl.constexpr, PRECISION: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Softmax over one split of one sequence's keys: `partial` [B, Hq, splits, 2P], `lse` [B, Hq, splits]
    (base 2).

    Where FACTORED, `cos` is the pair of factor tables [2, ROWS, D, 2] and `sin` the coefficients [2, H, D,
    R].
    """
    sequence, split = tl.program_id(0).to(tl.int64), tl.program_id(2)
    chunks = tl.cdiv(G, GROUP)  # of the query heads of a KV head
    head = (tl.program_id(1) // chunks).to(tl.int64)
    length = tl.minimum(tl.load(cache_lens + sequence).to(tl.int32), capacity)
    tiles = tl.cdiv(tl.cdiv(length, BLOCK_N), splits)  # as even as whole tiles allow
    first = split * tiles * BLOCK_N
    last = tl.minimum(first + tiles * BLOCK_N, length)

    pair = tl.arange(0, P)
    group = (tl.program_id(1) % chunks) * GROUP + tl.arange(0, GROUP)
    queries = q + sequence * stride_qb + (head * G + group[:, None]) * stride_qh + pair[None, :]
    real = (group < G)[:, None]
    q1 = tl.load(queries, mask=real, other=0.0).to(tl.float32)
    q2 = tl.load(queries + P, mask=real, other=0.0).to(tl.float32)
    position = tl.maximum(length - 1, 0)
    if FACTORED:
        row_c, row_s = factored_range(cos, sin, head, position, zero_sin, D, H, R, ROWS, PRECISION, P, 16)
        at = tl.arange(0, 16)[:, None] == 0
        q_c = tl.sum(tl.where(at, row_c, 0.0), 0)[None, :]
        q_s = tl.sum(tl.where(at, row_s, 0.0), 0)[None, :]
    else:
        cos += head * stride_ch
        sin += head * stride_sh
        one = tl.arange(0, 1)
        q_c, q_s = table_rows(cos, sin, position + one, one < 1, zero_sin, R, stride_ct, stride_st, P)
    dtype = k_cache.dtype.element_ty
    q_first = (q1 * q_c - q2 * q_s).to(dtype)
    q_second = (q2 * q_c + q1 * q_s).to(dtype)

    maximum = tl.full([GROUP], float("-inf"), tl.float32)
    total = tl.zeros([GROUP], tl.float32)
    weighted = tl.zeros([GROUP, 2 * P], tl.float32)
    channel = tl.arange(0, 2 * P)
    for start in range(first, last, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        inside = n < last
        if PAGED:
            block = tl.load(block_table + sequence * stride_tb + n // block_size, mask=inside, other=0)
            row = n % block_size
        else:
            block = tl.zeros([BLOCK_N], tl.int64) + sequence
            row = n
        keys = k_cache + head * stride_kh + block.to(tl.int64) * stride_kb + row.to(tl.int64) * stride_kt
        k1 = tl.load(keys[:, None] + pair[None, :], mask=inside[:, None], other=0.0)
        k2 = tl.load(keys[:, None] + P + pair[None, :], mask=inside[:, None], other=0.0)
        values = v_cache + head * stride_vh + block.to(tl.int64) * stride_vb + row.to(tl.int64) * stride_vt
        v = tl.load(values[:, None] + channel[None, :], mask=inside[:, None], other=0.0)
        if ROTATE_K:
            if FACTORED:
                c, s = factored_range(cos, sin, head, start, zero_sin, D, H, R, ROWS, PRECISION, P, BLOCK_N)
            else:
                c, s = table_rows(cos, sin, n, inside, zero_sin, R, stride_ct, stride_st, P)
            x1, x2 = k1.to(tl.float32), k2.to(tl.float32)
            k1 = (x1 * c - x2 * s).to(dtype)
            k2 = (x2 * c + x1 * s).to(dtype)
        score = tl.dot(q_first, tl.trans(k1), input_precision=PRECISION)
        score = tl.dot(q_second, tl.trans(k2), score, input_precision=PRECISION)
        score = tl.where(inside[None, :], score * scale_log2, float("-inf"))
        new = tl.maximum(maximum, tl.max(score, 1))
        weight = tl.exp2(score - new[:, None])
        shrink = tl.exp2(maximum - new)
        weighted = tl.dot(weight.to(dtype), v, weighted * shrink[:, None], input_precision=PRECISION)
        total = total * shrink + tl.sum(weight, 1)
        maximum = new

    row = ((sequence * H + head) * G + group) * splits + split
    some = tl.where(total > 0, total, 1.0)  # a split without keys gives 0, with weight exp2(-inf)
    tl.store(partial + row[:, None] * (2 * P) + channel[None, :], weighted / some[:, None], mask=real)
    tl.store(lse + row, maximum + tl.log2(some), mask=group < G)


@triton.jit
def decode_reduce(partial, lse, out, splits, SPLITS_PAD: tl.constexpr, DIM: tl.constexpr):
    """Join the splits of a query head: softmaxes weighted by their share of the sum. `out` [B, Hq, DIM]."""
    head = tl.program_id(0).to(tl.int64)
    split = tl.arange(0, SPLITS_PAD)
    channel = tl.arange(0, DIM)
    size = tl.load(lse + head * splits + split, mask=split < splits, other=float("-inf"))
    largest = tl.max(size, 0)
    largest = tl.where(largest == float("-inf"), 0.0, largest)  # a sequence without keys: every share is 0
    total = tl.sum(tl.exp2(size - largest), 0)
    joined = tl.zeros([DIM], tl.float32)
    for i in range(splits):
        share = tl.exp2(tl.load(lse + head * splits + i) - largest)
        joined += share * tl.load(partial + (head * splits + i) * DIM + channel)
    joined /= tl.where(total > 0, total, 1.0)
    tl.store(out + head * DIM + channel, joined.to(out.dtype.element_ty))


def tile(factored: bool, dtype: str, head_dim: int, target: str) -> Tile:
    """Return keys a tile, warps and stages. Chosen so that nothing spills, with all frequencies and pairs."""
    if TARGETS[target].is_amd:
        if head_dim == 256 and dtype == "fp32":
            return Tile(GROUP, 16, 4, 2)
        return Tile(GROUP, 64 if head_dim <= 64 and dtype != "fp32" else 32, 4, 2)
    if dtype == "fp32":
        return {
            32: Tile(GROUP, 64, 4, 2),
            64: Tile(GROUP, 32, 4, 2),
            128: Tile(GROUP, 16, 8, 2),
            256: Tile(GROUP, 16, 8, 2),
        }[head_dim]
    if factored:
        return {
            32: Tile(GROUP, 64, 8, 2),
            64: Tile(GROUP, 32, 4, 2),
            128: Tile(GROUP, 32, 8, 2),
            256: Tile(GROUP, 32, 8, 2),
        }[head_dim]
    return {
        32: Tile(GROUP, 64, 4, 2),
        64: Tile(GROUP, 64, 4, 2),
        128: Tile(GROUP, 64, 4, 2),
        256: Tile(GROUP, 32, 8, 2),
    }[head_dim]


def constants(
    rotate_keys: bool, factored: bool, paged: bool, rows: int, dtype: str, head_dim: int, target: str
) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the compile-time arguments of `decode_split` and its options; `rows` of a factor table."""
    chosen = tile(factored, dtype, head_dim, target)
    values = {
        "P": head_dim // 2,
        "BLOCK_N": chosen.block_n,
        "ROTATE_K": rotate_keys,
        "PAGED": paged,
        "FACTORED": factored,
        "ROWS": rows if factored else 1,
        "PRECISION": "ieee" if TARGETS[target].is_amd else "tf32x3",
        "GROUP": GROUP,
    }
    return values, {"num_warps": chosen.num_warps, "num_stages": chosen.num_stages}


def split_count(programs: int, capacity: int, block_n: int, processors: int) -> int:
    """Return into how many parts keys are split: enough programs for two waves, at least four tiles each."""
    wanted = triton.cdiv(2 * processors, max(programs, 1))
    return max(1, min(wanted, triton.cdiv(capacity, 4 * block_n), MOST_SPLITS))


def launch(
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
    splits: int | None = None,
) -> Tensor:
    """Run both kernels, with `split_count` splits unless given. Arguments as `fope_decode` checked them."""
    batch, query_heads, head_dim = q.shape
    block_size, heads = k_cache.shape[1:3]
    out = q.new_empty(q.shape)
    if out.numel() == 0:
        return out
    factored, paged = cos.ndim == 4, block_table is not None
    cos, sin = (x.contiguous() if factored else unit_stride(x) for x in (cos, sin))
    values, options = constants(
        not rotated_cache, factored, paged, cos.shape[1], DTYPE_NAMES[q.dtype], head_dim, target_of(q)
    )
    group = query_heads // heads
    programs = heads * triton.cdiv(group, GROUP)
    capacity = block_size * (1 if block_table is None else block_table.shape[1])
    if splits is None:
        splits = split_count(batch * programs, capacity, values["BLOCK_N"], processors(q.device))
    partial = q.new_empty((batch, query_heads, splits, head_dim), dtype=torch.float32)
    lse = q.new_empty((batch, query_heads, splits), dtype=torch.float32)
    q, cache_lens = unit_stride(q), cache_lens.contiguous()
    if block_table is not None:
        block_table = block_table.contiguous()
    with on_device(q):
        decode_split[(batch, programs, splits)](
            q, k_cache, v_cache, cos, sin, cache_lens, cache_lens if block_table is None else block_table,
            partial, lse, *q.stride()[:2], *k_cache.stride()[:3], *v_cache.stride()[:3],
            *((0, 0, 0, 0) if factored else (*cos.stride()[:2], *sin.stride()[:2])),
            0 if block_table is None else block_table.stride(0),
            heads, group, cos.shape[2] if factored else 0, sin.shape[-1], splits, block_size, capacity,
            zero_sin, scale * LOG2_E, **values, **options,
        )  # fmt: skip
        decode_reduce[(batch * query_heads,)](
            partial, lse, out, splits,
            SPLITS_PAD=triton.next_power_of_2(splits), DIM=head_dim, num_warps=REDUCE_WARPS,
        )  # fmt: skip
    return out


def specs(dtypes: Sequence[str] = COMPILED) -> list[CompileSpec]:
    """Return what is shipped, for every target: the paged kernels, which have all of the unpaged ones."""
    found = []
    for target, dtype, head_dim in itertools.product(TARGETS, dtypes, HEAD_DIMS):
        place = (dtype, head_dim, target)
        for name, rotate_keys, factored in KERNELS:
            values, options = constants(rotate_keys, factored, True, 1024, dtype, head_dim, target)
            found.append(compile_spec(name, decode_split, values, options, *place))
        values = {"SPLITS_PAD": MOST_SPLITS, "DIM": head_dim}
        found.append(
            compile_spec("decode_reduce", decode_reduce, values, {"num_warps": REDUCE_WARPS}, *place)
        )
    return found
