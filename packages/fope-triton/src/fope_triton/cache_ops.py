"""The operations with a key-value cache: decoding a token, and writing new tokens.

A cache is [blocks, block_size, H, head_dim], as vLLM and flash-attention have it, in any strides with
channels side by side. With a `block_table` [B, blocks a sequence] it is paged. Without one, block b is
sequence b, so that the cache is [B, length, H, head_dim]; a Hugging Face cache [B, H, length, head_dim] is
passed as `.transpose(1, 2)`. The i-th token of a sequence has position i.

`cos, sin` are float32 tables [H, T, R] with a row a position (`emb.cos_sin(torch.arange(T))`); or, for long
contexts, the factored basis [2, ROWS, D, 2] and the coefficients [2, H, D, R] (`emb.factors(T), emb.coef`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fope_triton import cache, decode, reference_cache
from fope_triton.backend import runs_kernels
from fope_triton.checks import (
    check_cache,
    check_integers,
    check_positions,
    check_tables,
    describe,
    readable,
)


def fope_decode(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    cos: Tensor,
    sin: Tensor,
    cache_lens: Tensor,
    zero_sin: float = 1.0,
    rotated_cache: bool = False,
    block_table: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attention of one query token a sequence to the keys and values in its cache.

    q [B, Hq, head_dim]; k_cache, v_cache [blocks, block_size, H, head_dim], this token's key and value
    included; cache_lens [B], integers: how many tokens each sequence has. q is rotated here, at position
    cache_lens − 1; keys are rotated as they are read, unless `rotated_cache` says that they are
    (`fope_rotate_and_cache` writes them so). `scale` is head_dim^(−1/2) by default. Returns [B, Hq,
    head_dim]; zeros where a sequence has no token.

    No gradient. The same inputs give the same bits. Nothing is read back from a GPU, so a length beyond the
    cache is cut there; on a CPU it is an error. Raises `ValueError`.
    """
    check_cache(k_cache, v_cache, q, "q [B, Hq, head_dim]")
    heads = k_cache.shape[2]
    if q.shape[1] % heads:
        raise ValueError(f"q has {q.shape[1]} heads, which {heads} KV heads do not divide")
    batch = q.shape[0]
    if block_table is None and k_cache.shape[0] != batch:
        raise ValueError(
            f"without a block_table the cache has a block a sequence; it has {k_cache.shape[0]} blocks, "
            f"q has {batch} sequences"
        )
    if block_table is not None:
        check_integers("block_table", block_table, (batch, block_table.shape[-1]), q)
    check_integers("cache_lens", cache_lens, (batch,), q)
    capacity = k_cache.shape[1] * (1 if block_table is None else block_table.shape[1])
    check_tables(cos, sin, q, heads, capacity)
    if readable(q) and not 0 <= int(cache_lens.min()) <= int(cache_lens.max()) <= capacity:
        raise ValueError(
            f"cache_lens has {cache_lens.tolist()}; each must be in 0 … {capacity}, what the cache holds"
        )
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return decode_op(q, k_cache, v_cache, cos, sin, cache_lens, block_table, zero_sin, scale, rotated_cache)


def fope_rotate_and_cache(
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slots: Tensor,
    zero_sin: float = 1.0,
) -> None:
    """Rotate new keys and write them and their values into the cache, in one pass, in place.

    k, v [N, H, head_dim]; positions [N]: the row of the tables for each token; slots [N]: where it goes,
    block · block_size + offset (vLLM's slot mapping; sequence · length + position without paging), or
    negative for a token to leave out. k_cache, v_cache [blocks, block_size, H, head_dim].

    No gradient. On a CPU positions and slots out of range are an error; on a GPU nothing is read back, and
    they must be right. Raises `ValueError`.
    """
    check_cache(k_cache, v_cache, k, "k [N, H, head_dim]")
    if v.shape != k.shape or v.dtype != k.dtype or v.device != k.device:
        raise ValueError(f"v is {describe(v)}, k is {describe(k)}; they must be alike")
    tokens, heads = k.shape[:2]
    if heads != k_cache.shape[2]:
        raise ValueError(f"k has {heads} heads, the cache has {k_cache.shape[2]}")
    check_integers("positions", positions, (tokens,), k)
    check_integers("slots", slots, (tokens,), k)
    check_tables(cos, sin, k, heads, 0)
    check_positions(positions, cos)
    if readable(k):
        room = k_cache.shape[0] * k_cache.shape[1]
        if int(slots.max()) >= room:
            raise ValueError(f"slots go up to {slots.max()}; the cache has {room}")
    rotate_and_cache_op(k, v, cos, sin, positions, k_cache, v_cache, slots, zero_sin)


@torch.library.custom_op("fope_triton::decode", mutates_args=())
def decode_op(
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
    """`fope_decode` without its checks."""
    run = decode.launch if runs_kernels(q) else reference_cache.decode
    return run(q, k_cache, v_cache, cos, sin, cache_lens, block_table, zero_sin, scale, rotated_cache)


@decode_op.register_fake
def _(q: Tensor, *_: object) -> Tensor:
    return q.new_empty(q.shape)


@torch.library.custom_op("fope_triton::rotate_and_cache", mutates_args=("k_cache", "v_cache"))
def rotate_and_cache_op(
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
    """`fope_rotate_and_cache` without its checks."""
    run = cache.launch if runs_kernels(k) else reference_cache.rotate_and_cache
    run(k, v, cos, sin, positions, k_cache, v_cache, slots, zero_sin)


@rotate_and_cache_op.register_fake
def _(*_: object) -> None:
    return None
