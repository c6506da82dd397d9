"""`fope_rotate`: queries and keys turned by tables per head, with gradients for them and for the tables."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fope_triton import reference_cache, rotate
from fope_triton.backend import runs_kernels, token_major
from fope_triton.checks import (
    check_heads,
    check_integers,
    check_positions,
    check_tables,
    refuse_tangents,
)


def fope_rotate(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor,
    zero_sin: float = 1.0,
    inplace: bool = False,
) -> tuple[Tensor, Tensor]:
    """Rotate queries and keys by the rows `positions` of their heads' tables, in one pass.

    q [N, Hq, head_dim], k [N, H, head_dim], positions [N], integers. `cos, sin` are float32 tables [H, T, R]
    (`emb.cos_sin(torch.arange(T))`) or, for long contexts, the factored basis [2, ROWS, D, 2] and the
    coefficients [2, H, D, R] (`emb.factors(T), emb.coef`). With x1, x2 the halves of a head:
    y1 = x1·c − x2·s, y2 = x2·c + x1·s, in float32; pairs from R on have c = 1, s = `zero_sin`. Query head i
    takes table i // (Hq / H).

    Returns tensors like q and k; with `inplace` q and k themselves, overwritten, for inference. There, with
    `zero_sin` 0 (a folded model), pairs from R on cost nothing. Differentiable in q, k, cos, sin and the
    coefficients; the same inputs give the same bits. On a CPU positions out of range are an error; on a GPU
    nothing is read back, and they must be right. Raises `ValueError`.
    """
    if q.ndim != 3 or k.ndim != 3 or (q.shape[0], q.shape[2]) != (k.shape[0], k.shape[2]):
        raise ValueError(
            f"expected q [N, Hq, head_dim] and k [N, H, head_dim], got {list(q.shape)} and {list(k.shape)}"
        )
    check_heads(q, k, q.shape[1], k.shape[1])
    check_integers("positions", positions, (q.shape[0],), q)
    check_tables(cos, sin, q, k.shape[1], 0)
    check_positions(positions, cos)
    if inplace:
        if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, cos, sin)):
            raise ValueError("inplace=True is for inference: it overwrites what a gradient needs")
        if q.stride(-1) != 1 or k.stride(-1) != 1:
            raise ValueError(
                f"inplace=True needs channels side by side; strides are {q.stride()} and {k.stride()}"
            )
    if not runs_kernels(q):
        return rotate_by_torch(q, k, cos, sin, positions, zero_sin, inplace)
    refuse_tangents(q, k, cos, sin)
    packed = (q.transpose(0, 1)[None], k.transpose(0, 1)[None])
    if inplace:
        rotate_inplace_op(*packed, cos, sin, positions, zero_sin, cos.ndim == 4)
        return q, k
    turned = rotate_op(*packed, cos, sin, positions, zero_sin, False, cos.ndim == 4)
    return turned[0][0].transpose(0, 1), turned[1][0].transpose(0, 1)


def rotate_by_torch(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, zero_sin: float, inplace: bool
) -> tuple[Tensor, Tensor]:
    """What `fope_rotate` returns, in PyTorch."""
    c, s = reference_cache.tables_at(cos, sin, positions)
    new_q, new_k = (reference_cache.rotate(x, c, s, zero_sin) for x in (q, k))
    return (q.copy_(new_q), k.copy_(new_k)) if inplace else (new_q, new_k)


@torch.library.custom_op("fope_triton::rotate", mutates_args=())
def rotate_op(
    q: Tensor,
    k: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None,
    zero_sin: float,
    transpose: bool,
    factored: bool,
) -> tuple[Tensor, Tensor]:
    """Rotate q [B, Hq, T, D] and k [B, H, T, D] (an empty tensor for None); `transpose` the other way.

    Tables [H, T, R] or [B, H, T, R], row t for token t, unless `positions` [T] says which. Results lie in
    memory as [B, T, heads, D].
    """
    q_out = token_major(q)
    k_out = q.new_empty(0) if k is None else token_major(k)
    rotate.launch(q, k, q_out, k_out, cos, sin, positions, zero_sin, transpose, factored)
    return q_out, k_out


@rotate_op.register_fake
def _(q: Tensor, k: Tensor | None, *_: object) -> tuple[Tensor, Tensor]:
    return token_major(q), q.new_empty(0) if k is None else token_major(k)


def save_rotation(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Keep the tables; queries and keys only where the tables learn."""
    q, k, cos, sin, positions, ctx.zero_sin, ctx.transpose, ctx.factored = inputs
    ctx.has_k, ctx.learns = k is not None, ctx.needs_input_grad[2] or ctx.needs_input_grad[3]
    ctx.save_for_backward(cos, sin, positions, *((q, k) if ctx.learns else (None, None)))


def rotate_backward(ctx: Any, dq: Tensor, dk: Tensor) -> tuple[Tensor | None, ...]:
    """Rᵀ of the gradients, and what the tables receive."""
    cos, sin, positions, q, k = ctx.saved_tensors
    refuse_tangents(dq, dk)
    dk_in = dk if ctx.has_k else None
    new_q, new_k = rotate_op(
        dq, dk_in, cos, sin, positions, ctx.zero_sin, not ctx.transpose, ctx.factored
    )  # fmt: skip
    dcos = dsin = None
    if ctx.learns:
        dc, ds = table_grads_op(q, k, dq, dk_in, sin.shape[-3], sin.shape[-1], ctx.transpose)
        dcos, dsin = collect(dc, ds, cos, positions, ctx.factored)
    return new_q, new_k if ctx.has_k else None, dcos, dsin, None, None, None, None


rotate_op.register_autograd(rotate_backward, setup_context=save_rotation)


def collect(
    dc: Tensor, ds: Tensor, cos: Tensor, positions: Tensor | None, factored: bool
) -> tuple[Tensor | None, Tensor]:
    """Sum what tokens give, [B, H, T, R], into gradients of tables or coefficients; always in one order."""
    if factored:
        assert positions is not None  # the factored basis is taken at positions, always
        basis = reference_cache.factored_basis(cos, positions)
        return None, torch.stack([basis.real.T @ dc[0], basis.imag.T @ ds[0]])
    if positions is None:
        return (dc, ds) if cos.ndim == 4 else (dc.sum(0), ds.sum(0))
    rows = cos.shape[1]

    def gathered(x: Tensor) -> Tensor:
        # Not index_add_: on GPUs that is atomic. Accumulating index_put_ sorts first.
        table = x.new_zeros((rows, x.shape[1], x.shape[3]))
        return table.index_put_((positions.long(),), x[0].transpose(0, 1), accumulate=True).transpose(0, 1)

    return gathered(dc), gathered(ds)


@torch.library.custom_op("fope_triton::table_grads", mutates_args=())
def table_grads_op(
    q: Tensor, k: Tensor | None, dq: Tensor, dk: Tensor | None, heads: int, pairs: int, transpose: bool
) -> tuple[Tensor, Tensor]:
    """dc and ds [B, heads, T, pairs] of each token, summed over the heads that share a table."""
    return rotate.launch_table_grads(q, k, dq, dk, heads, pairs, transpose)


@table_grads_op.register_fake
def _(
    q: Tensor, k: Tensor | None, dq: Tensor, dk: Tensor | None, heads: int, pairs: int, transpose: bool
) -> tuple[Tensor, Tensor]:
    shape = (q.shape[0], heads, q.shape[2], pairs)
    return q.new_empty(shape, dtype=torch.float32), q.new_empty(shape, dtype=torch.float32)


@torch.library.custom_op("fope_triton::rotate_inplace", mutates_args=("q", "k"))
def rotate_inplace_op(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, zero_sin: float, factored: bool
) -> None:
    """`rotate_op` onto its inputs."""
    rotate.launch(q, k, q, k, cos, sin, positions, zero_sin, False, factored)


@rotate_inplace_op.register_fake
def _(*_: object) -> None:
    return None
