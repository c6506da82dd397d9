"""Writing new keys and values into a cache in one pass: K is rotated once, here, and never again.

A program takes BLOCK_T tokens of one KV head: it reads their keys and values, rotates the keys, and writes
both where `slots` says. Each byte is read once and written once.
"""

# mypy: disable-error-code=no-untyped-def
# Triton gives the arguments of a kernel their types.
from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from fope_triton.backend import on_device, target_of, unit_stride
from fope_triton.signatures import COMPILED, compile_spec
from fope_triton.tables import factored_rows, table_rows
from fope_triton.tiles import HEAD_DIMS, TARGETS, CompileSpec

OPTIONS = {"num_warps": 4, "num_stages": 1}


@triton.jit
def rotate_and_cache(
    k, v, cos, sin, positions, slots, k_cache, v_cache,
    stride_kn, stride_kh, stride_vn, stride_vh, stride_ch, stride_ct, stride_sh, stride_st,
    stride_kcb, stride_kct, stride_kch, stride_vcb, stride_vct, stride_vch,
    N, H, D, R, block_size, zero_sin,
    P: tl.constexpr, BLOCK_T: tl.constexpr, FACTORED: tl.constexpr, ROWS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """k, v [N, H, 2P] to k_cache, v_cache [blocks, block_size, H, 2P]; not where slots are negative."""
    head = tl.program_id(1).to(tl.int64)
    token = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    slot = tl.load(slots + token, mask=token < N, other=-1).to(tl.int64)
    position = tl.load(positions + token, mask=token < N, other=0)
    wanted = slot >= 0
    if FACTORED:
        c, s = factored_rows(cos, sin, head, position, zero_sin, D, H, R, ROWS, PRECISION, P, BLOCK_T)
    else:
        c, s = table_rows(
            cos + head * stride_ch,
            sin + head * stride_sh,
            position,
            wanted,
            zero_sin,
            R,
            stride_ct,
            stride_st,
            P,
        )
    pair = tl.arange(0, P)[None, :]
    mask = wanted[:, None]
    source = token.to(tl.int64)[:, None]
    keys = k + source * stride_kn + head * stride_kh + pair
    x1 = tl.load(keys, mask=mask, other=0.0).to(tl.float32)
    x2 = tl.load(keys + P, mask=mask, other=0.0).to(tl.float32)
    block, row = (slot // block_size)[:, None], (slot % block_size)[:, None]
    kept = k_cache + block * stride_kcb + row * stride_kct + head * stride_kch + pair
    dtype = k_cache.dtype.element_ty
    tl.store(kept, (x1 * c - x2 * s).to(dtype), mask=mask)
    tl.store(kept + P, (x2 * c + x1 * s).to(dtype), mask=mask)
    channel = tl.arange(0, 2 * P)[None, :]
    values = tl.load(v + source * stride_vn + head * stride_vh + channel, mask=mask, other=0.0)
    tl.store(v_cache + block * stride_vcb + row * stride_vct + head * stride_vch + channel, values, mask=mask)


def constants(factored: bool, rows: int, head_dim: int, target: str) -> dict[str, Any]:
    """Return the compile-time arguments; `rows` of a factor table."""
    return {
        "P": head_dim // 2,
        "BLOCK_T": max(2048 // head_dim, 16),  # a key tile of 2048 numbers: eight pairs a thread
        "FACTORED": factored,
        "ROWS": rows if factored else 1,
        "PRECISION": "ieee" if TARGETS[target].is_amd else "tf32x3",
    }


def launch(
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
    """Run the kernel. Arguments as `fope_rotate_and_cache` checked them."""
    tokens, heads, head_dim = k.shape
    if k.numel() == 0:
        return
    factored = cos.ndim == 4
    cos, sin = (x.contiguous() if factored else unit_stride(x) for x in (cos, sin))
    k, v = unit_stride(k), unit_stride(v)
    values = constants(factored, cos.shape[1], head_dim, target_of(k))
    with on_device(k):
        rotate_and_cache[(triton.cdiv(tokens, values["BLOCK_T"]), heads)](
            k, v, cos, sin, positions.contiguous(), slots.contiguous(), k_cache, v_cache,
            *k.stride()[:2], *v.stride()[:2],
            *((0, 0, 0, 0) if factored else (*cos.stride()[:2], *sin.stride()[:2])),
            *k_cache.stride()[:3], *v_cache.stride()[:3],
            tokens, heads, cos.shape[2] if factored else 0, sin.shape[-1], k_cache.shape[1], zero_sin,
            **values, **OPTIONS,
        )  # fmt: skip


def specs(dtypes: Sequence[str] = COMPILED) -> list[CompileSpec]:
    """Return what is shipped, for every target."""
    found = []
    for target, dtype, head_dim in itertools.product(TARGETS, dtypes, HEAD_DIMS):
        for name, factored in (("rotate_and_cache", False), ("rotate_and_cache_factored", True)):
            values = constants(factored, 1024, head_dim, target)
            place = (dtype, head_dim, target)
            found.append(compile_spec(name, rotate_and_cache, values, OPTIONS, *place))
    return found
