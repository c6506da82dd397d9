"""What the operations ask of their arguments; every mistake is a `ValueError` that says what was expected."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fope_triton.backend import DTYPE_NAMES
from fope_triton.tiles import HEAD_DIMS

LEAST_ROWS = 64  # of a factor table: the keys of the largest tile

_is_mapped, _inside = torch._C._functorch.is_batchedtensor, torch._C._functorch.get_unwrapped


def readable(x: Tensor) -> bool:
    """Whether there are values beside x that can be looked at: a GPU would have to be waited for."""
    return not x.is_cuda and len(x) > 0 and not torch.compiler.is_compiling()


def refuse_tangents(*operands: Tensor | None) -> None:
    """An operator knows no rule for forward mode, and torch then takes the derivative for zero, untold.

    Raises `ValueError` where one of the operands has such a derivative.
    """
    if forward_ad._current_level < 0:
        return
    for x in operands:
        while x is not None and _is_mapped(x):  # by vmap, which cannot ask for a tangent
            x = _inside(x)
        if x is not None and forward_ad.unpack_dual(x).tangent is not None:
            raise ValueError(
                "these kernels have no forward-mode derivative (torch.func.jvp, jacfwd, forward_ad): "
                "differentiate in reverse, by backward or torch.autograd.grad"
            )


def check_cache(k_cache: Tensor, v_cache: Tensor, x: Tensor, wanted: str) -> None:
    """See that x and the caches fit each other. Raises `ValueError`."""
    if x.ndim != 3:
        raise ValueError(f"expected {wanted}, got shape {list(x.shape)}")
    for name, cache_ in (("k_cache", k_cache), ("v_cache", v_cache)):
        if cache_.ndim != 4:
            raise ValueError(
                f"expected {name} [blocks, block_size, H, head_dim], got shape {list(cache_.shape)}"
            )
        if cache_.shape != k_cache.shape or cache_.shape[-1] != x.shape[-1]:
            raise ValueError(
                f"{name} is {describe(cache_)}; k_cache is {describe(k_cache)} and head_dim is {x.shape[-1]}"
            )
        if cache_.dtype != x.dtype or cache_.device != x.device:
            raise ValueError(
                f"{name} is {describe(cache_)}, {wanted[0]} is {describe(x)}; dtype or device differ"
            )
        if cache_.stride(-1) != 1:
            raise ValueError(
                f"the channels of {name} must lie side by side; its strides are {cache_.stride()}"
            )
    check_kernels(wanted[0], x)


def check_integers(name: str, x: Tensor, shape: tuple[int, ...], like: Tensor) -> None:
    """See that x is an integer tensor of that shape on the device of `like`. Raises `ValueError`."""
    if x.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"{name} is {x.dtype}; it must be int32 or int64")
    if x.shape != shape or x.device != like.device:
        raise ValueError(f"{name} is {describe(x)}; expected shape {list(shape)} on {like.device}")


def check_tables(cos: Tensor, sin: Tensor, x: Tensor, heads: int, positions: int) -> None:
    """See that tables, or factors and coefficients, fit x and reach `positions`. Raises `ValueError`."""
    pairs = x.shape[-1] // 2
    if cos.dtype != torch.float32 or sin.dtype != torch.float32:
        raise ValueError(f"cos and sin are {cos.dtype} and {sin.dtype}; they must be float32")
    if cos.device != x.device or sin.device != x.device:
        raise ValueError(f"cos and sin are on {cos.device} and {sin.device}; they must be on {x.device}")
    if cos.ndim == 4:
        if cos.shape[0] != 2 or cos.shape[3] != 2 or sin.shape[:-1] != (2, heads, cos.shape[2]):
            raise ValueError(
                f"expected factors [2, ROWS, D, 2] and coefficients [2, {heads}, D, R], "
                f"got {list(cos.shape)} and {list(sin.shape)}"
            )
        rows = cos.shape[1]
        if rows < LEAST_ROWS or rows & (rows - 1):
            raise ValueError(
                f"the factors have {rows} rows; they need a power of two from {LEAST_ROWS} on: "
                f"emb.factors({LEAST_ROWS**2})"
            )
        reach = rows**2
    else:
        if cos.ndim != 3 or cos.shape != sin.shape or cos.shape[0] != heads:
            raise ValueError(
                f"expected cos and sin [{heads}, T, R], a table a KV head, "
                f"got {list(cos.shape)} and {list(sin.shape)}"
            )
        reach = cos.shape[1]
    if sin.shape[-1] > pairs:
        raise ValueError(f"the tables have {sin.shape[-1]} pairs; head_dim {x.shape[-1]} has {pairs}")
    if reach < positions:
        raise ValueError(f"the tables reach {reach} positions, the cache holds {positions} tokens a sequence")


def describe(x: Tensor) -> str:
    """Shape, dtype and device of a tensor in words."""
    return f"{list(x.shape)} {str(x.dtype).removeprefix('torch.')} on {x.device}"


def check_heads(q: Tensor, k: Tensor, query_heads: int, heads: int) -> None:
    """See that queries and keys fit each other and the kernels. Raises `ValueError`."""
    if q.dtype != k.dtype or q.device != k.device:
        raise ValueError(f"q is {describe(q)}, k is {describe(k)}; dtype or device differ")
    if heads == 0 or query_heads % heads:
        raise ValueError(f"q has {query_heads} heads, which {heads} KV heads do not divide")
    check_kernels("q", q)


def check_kernels(name: str, x: Tensor) -> None:
    """See that there are kernels for the head_dim and dtype of x. Raises `ValueError`."""
    if x.shape[-1] not in HEAD_DIMS:
        raise ValueError(f"head_dim is {x.shape[-1]}; there are kernels for {', '.join(map(str, HEAD_DIMS))}")
    if x.dtype not in DTYPE_NAMES:
        raise ValueError(f"{name} is {x.dtype}; it must be bfloat16, float16 or float32")


def check_positions(positions: Tensor, cos: Tensor) -> None:
    """See, where it can be seen, that tables or factors have a row for each position. Raises `ValueError`."""
    if readable(positions):
        rows = cos.shape[1] if cos.ndim == 3 else cos.shape[1] ** 2
        if not 0 <= int(positions.min()) <= int(positions.max()) < rows:
            raise ValueError(
                f"positions go from {positions.min()} to {positions.max()}; the tables have {rows} rows"
            )
