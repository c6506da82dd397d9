"""`fope_attention` and `fope_attention_varlen`: attention of queries and keys turned by tables per head.

Keys are rotated once, before. Without gradients queries are rotated in the attention kernel; with gradients
before it, as the backward pass needs q′ and k′, and turns its results back in its epilogues. Where tables
learn, rotation is an operation of its own, whose backward pass gives them their gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fope_triton import attention_bwd, attention_fwd, reference, rotate
from fope_triton.backend import runs_kernels, token_major
from fope_triton.checks import check_heads, check_tables, describe, refuse_tangents
from fope_triton.rotate_ops import rotate_op
from fope_triton.varlen import packed_positions


def fope_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    causal: bool = True,
    zero_sin: float = 1.0,
    scale: float | None = None,
) -> Tensor:
    """Softmax attention of rotated queries to rotated keys.

    q [B, Hq, T, head_dim]; k, v [B, H, S, head_dim], none of them rotated, in any strides; T ≤ S, and the
    queries are the last T of the S positions. `cos, sin` are float32 tables [H, S, R], or [B, H, S, R] where
    sequences have their own positions (`emb.cos_sin(positions)`); more rows than S are left out. The rotation
    is that of `fope_rotate`. `scale` is head_dim^(−1/2) by default.

    Returns [B, Hq, T, head_dim], in memory as [B, T, Hq, head_dim]. Differentiable in q, k, v, cos and sin;
    the same inputs give the same bits. Raises `ValueError`, also where a derivative in forward mode would
    pass a kernel.
    """
    if q.ndim != 4 or k.ndim != 4:
        raise ValueError(
            "expected q [B, Hq, T, head_dim] and k [B, H, S, head_dim], "
            f"got {list(q.shape)} and {list(k.shape)}"
        )
    heads, keys = k.shape[1:3]
    check_inputs(q, k, v, q.shape[1], heads)
    if k.shape[0] != q.shape[0] or k.shape[-1] != q.shape[-1] or keys < q.shape[2]:
        raise ValueError(
            f"q is {list(q.shape)}, k is {list(k.shape)}; B and head_dim must be the same, and T at most S"
        )
    if cos.ndim == 4:
        if cos.shape != sin.shape or cos.shape[0] not in (1, q.shape[0]):
            raise ValueError(
                f"expected cos and sin [{heads}, S, R] or [{q.shape[0]}, {heads}, S, R], "
                f"got {list(cos.shape)} and {list(sin.shape)}"
            )
        cos, sin = (x.expand(q.shape[0], -1, -1, -1) for x in (cos, sin))
    one = (cos[0], sin[0]) if cos.ndim == 4 and len(cos) else (cos, sin)
    check_tables(*one, q, heads, 0)
    if cos.shape[-2] < keys:
        raise ValueError(f"the tables have {cos.shape[-2]} rows, for {keys} keys: a row a position")
    cos, sin = cos[..., :keys, :], sin[..., :keys, :]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if not runs_kernels(q):
        return reference.attention(q, k, v, cos, sin, causal, zero_sin, scale)
    refuse_tangents(q, k, v, cos, sin)
    if torch.is_grad_enabled() and (cos.requires_grad or sin.requires_grad):
        late = (x[..., keys - q.shape[2] :, :] for x in (cos, sin))
        q, _ = rotate_op(q, None, *late, None, zero_sin, False, False)
        k, _ = rotate_op(k, None, cos, sin, None, zero_sin, False, False)
        cos, sin, zero_sin = nothing(cos), nothing(sin), 0.0
    return attend(q, k, v, cos, sin, None, causal, zero_sin, scale)


def fope_attention_varlen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    cu_seqlens: Tensor,
    causal: bool = True,
    zero_sin: float = 1.0,
    scale: float | None = None,
) -> Tensor:
    """`fope_attention` in each of the sequences packed one after the other; positions restart in each.

    q [N, Hq, head_dim]; k, v [N, H, head_dim]; cu_seqlens [sequences + 1], integers: where each sequence
    begins, and at last N. `cos, sin` [H, T, R] with at least as many rows as the longest sequence has tokens.

    Returns [N, Hq, head_dim]. Differentiable in q, k, v, cos and sin; the same inputs give the same bits. On
    a CPU lengths that do not fit are an error; on a GPU nothing is read back, and they must be right. Raises
    `ValueError`.
    """
    if q.ndim != 3 or k.ndim != 3 or (q.shape[0], q.shape[2]) != (k.shape[0], k.shape[2]):
        raise ValueError(
            f"expected q [N, Hq, head_dim] and k [N, H, head_dim], got {list(q.shape)} and {list(k.shape)}"
        )
    check_inputs(q, k, v, q.shape[1], k.shape[1])
    if cos.ndim != 3:
        raise ValueError(f"expected cos and sin [{k.shape[1]}, T, R], got {list(cos.shape)}")
    check_tables(cos, sin, q, k.shape[1], 0)
    check_sequences(cu_seqlens, q, cos.shape[1])
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if not runs_kernels(q):
        return reference.attention_varlen(q, k, v, cos, sin, cu_seqlens, causal, zero_sin, scale)
    refuse_tangents(q, k, v, cos, sin)
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    if torch.is_grad_enabled() and (cos.requires_grad or sin.requires_grad):
        positions = packed_positions(cu_seqlens, q.shape[2])
        q, k = rotate_op(q, k, cos, sin, positions, zero_sin, False, False)
        cos, sin, zero_sin = nothing(cos), nothing(sin), 0.0
    starts = cu_seqlens.int().contiguous()  # the kernels read it without a stride
    return attend(q, k, v, cos, sin, starts, causal, zero_sin, scale)[0].transpose(0, 1)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    cu_seqlens: Tensor | None,
    causal: bool,
    zero_sin: float,
    scale: float,
) -> Tensor:
    """Take the operation that keeps what a gradient needs, or the one that keeps nothing."""
    arguments = (q, k, v, cos, sin, cu_seqlens, causal, zero_sin, scale)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        return attention_with_grad_op(*arguments)[0]
    return attention_op(*arguments)


def nothing(table: Tensor) -> Tensor:
    """Return a table without pairs: with zero_sin = 0, no rotation."""
    return table.detach()[..., :0]


def check_inputs(q: Tensor, k: Tensor, v: Tensor, query_heads: int, heads: int) -> None:
    """See that queries, keys and values fit each other. Raises `ValueError`."""
    check_heads(q, k, query_heads, heads)
    if v.shape != k.shape or v.dtype != k.dtype or v.device != k.device:
        raise ValueError(f"v is {describe(v)}, k is {describe(k)}; they must be alike")


def check_sequences(cu_seqlens: Tensor, q: Tensor, rows: int) -> None:
    """See that cu_seqlens cuts the packed tokens into sequences that tables reach. Raises `ValueError`."""
    if cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"cu_seqlens is {cu_seqlens.dtype}; it must be int32 or int64")
    if cu_seqlens.ndim != 1 or len(cu_seqlens) < 2 or cu_seqlens.device != q.device:
        raise ValueError(
            f"cu_seqlens is {describe(cu_seqlens)}; expected [sequences + 1], at least 2, on {q.device}"
        )
    if q.is_cuda or torch.compiler.is_compiling():
        return
    lens = cu_seqlens.diff()
    if cu_seqlens[0] != 0 or cu_seqlens[-1] != q.shape[0] or int(lens.min()) < 0:
        raise ValueError(
            f"cu_seqlens is {cu_seqlens.tolist()}; it must rise from 0 to {q.shape[0]}, the number of tokens"
        )
    if int(lens.max()) > rows:
        raise ValueError(f"the longest sequence has {int(lens.max())} tokens, the tables have {rows} rows")


def rotated(
    x: Tensor, cos: Tensor, sin: Tensor, cu_seqlens: Tensor | None, zero_sin: float, first: int = 0
) -> Tensor:
    """Return x [B, heads, T, D] rotated, from row `first` on, or by its positions in packed sequences."""
    out, positions = token_major(x), None
    if cu_seqlens is not None and cos.shape[-2]:
        # Tokens beyond the last sequence have no position; theirs stays within the tables.
        positions = packed_positions(cu_seqlens, x.shape[2]).clamp_(max=cos.shape[-2] - 1)
    rotate.launch(x, None, out, None, cos, sin, positions, zero_sin, first=first)
    return out


@torch.library.custom_op("fope_triton::attention", mutates_args=())
def attention_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    cu_seqlens: Tensor | None,
    causal: bool,
    zero_sin: float,
    scale: float,
) -> Tensor:
    """Attention of [B, heads, T, D] tensors, or of packed ones with B = 1, with no gradient."""
    if not cos.shape[-1] and not zero_sin:  # nothing turns, and copies are not needed
        return attention_fwd.launch(q, k, v, None, None, cu_seqlens, causal, zero_sin, scale)[0]
    k = rotated(k, cos, sin, cu_seqlens, zero_sin)
    return attention_fwd.launch(q, k, v, cos, sin, cu_seqlens, causal, zero_sin, scale)[0]


@attention_op.register_fake
def _(q: Tensor, *_: object) -> Tensor:
    return token_major(q)


@torch.library.custom_op("fope_triton::attention_with_grad", mutates_args=())
def attention_with_grad_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    cu_seqlens: Tensor | None,
    causal: bool,
    zero_sin: float,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`attention_op`, and what its backward pass needs: lse [B, Hq, T], q′ and k′."""
    q = rotated(q, cos, sin, cu_seqlens, zero_sin, first=k.shape[2] - q.shape[2])
    k = rotated(k, cos, sin, cu_seqlens, zero_sin)
    out, lse = attention_fwd.launch(q, k, v, None, None, cu_seqlens, causal, zero_sin, scale)
    return out, lse, q, k


@attention_with_grad_op.register_fake
def _(q: Tensor, k: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return token_major(q), q.new_empty(q.shape[:3], dtype=torch.float32), token_major(q), token_major(k)


@torch.library.custom_op("fope_triton::attention_backward", mutates_args=())
def attention_backward_op(
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
    """Gradients of queries and keys before rotation, and of values; q and k are rotated."""
    return attention_bwd.launch(dout, q, k, v, out, lse, cos, sin, cu_seqlens, causal, zero_sin, scale)


@attention_backward_op.register_fake
def _(dout: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    return token_major(q), token_major(k), token_major(v)


def save_attention(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keep q′, k′, v, the result and the tables."""
    _, _, v, cos, sin, cu_seqlens, ctx.causal, ctx.zero_sin, ctx.scale = inputs
    out, lse, q, k = output
    ctx.mark_non_differentiable(lse, q, k)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, out, lse, cos, sin, cu_seqlens)


def attention_backward(ctx: Any, dout: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    """dq, dk and dv; nothing for the tables, which `fope_attention` rotates by before where they learn."""
    if dout is None:
        return (None,) * 9
    refuse_tangents(dout)
    grads = attention_backward_op(dout, *ctx.saved_tensors, ctx.causal, ctx.zero_sin, ctx.scale)
    return *grads, None, None, None, None, None, None


attention_with_grad_op.register_autograd(attention_backward, setup_context=save_attention)
