"""`memory_lookup`: the look-up as a differentiable `torch.library` operator, `memoryformer_cpu::lookup`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from memoryformer_cpu import raw

_is_mapped, _inside = torch._C._functorch.is_batchedtensor, torch._C._functorch.get_unwrapped


def memory_lookup(
    z: Tensor,
    tables: Tensor,
    bias: Tensor | None = None,
    *,
    scales: Tensor | None = None,
    score: str = "scaled",
    temperature: float = 1.0,
) -> Tensor:
    """Hash each chunk of z and add up the rows it points to: y = sum_k w_k · tables[k, code_k] + bias.

    z [..., K, tau], float32, bfloat16, float16 or float64, tau 1 to 16; tables [K, 2**tau, h] float32,
    bfloat16 or float16 (float64 with z of float64), or int8 with `scales` float32 [K, 2**tau] or [K, 1]; bias
    [h] or None. code_k has bit 1 where z >= 0, most significant first; w_k = p_k for `score="softmax"` and
    p_k · sum|z|/t for "scaled", p_k = 1 / prod(1 + exp(-2|z|/t)) (MemoryFormer, Eq. 10 and 11, and the
    authors' released code).

    Returns [..., h] of z's dtype, accumulated in float32 (float64 for float64). A NaN in a token makes its
    whole output NaN. Differentiable in z, tables and bias; int8 tables are for inference. The same call gives
    the same bits, forward and backward, for any number of threads. Raises `ValueError`, also where a
    derivative in forward mode passes, and `LibraryMissingError` where the compiled library is missing.
    """
    if z.ndim < 2:
        raise ValueError(f"expected z [..., K, tau], got shape {list(z.shape)}")
    _refuse_tangents(z, tables, bias)
    y, _, _ = lookup_op(z.flatten(0, -3) if z.ndim > 2 else z[None], tables, bias, scales, score, temperature)
    return y.view(*z.shape[:-2], y.shape[-1])


def _refuse_tangents(*operands: Tensor | None) -> None:
    """An operator knows no rule for forward mode, and torch then takes the derivative for zero, untold."""
    if forward_ad._current_level < 0:
        return
    for x in operands:
        while x is not None and _is_mapped(x):  # by vmap, which cannot ask for a tangent
            x = _inside(x)
        if x is not None and forward_ad.unpack_dual(x).tangent is not None:
            raise ValueError(
                "a look-up has no forward-mode derivative (torch.func.jvp, jacfwd, forward_ad): "
                "differentiate in reverse, by backward or torch.autograd.grad"
            )


@torch.library.custom_op("memoryformer_cpu::lookup", mutates_args=(), device_types="cpu")
def lookup_op(
    z: Tensor, tables: Tensor, bias: Tensor | None, scales: Tensor | None, score: str, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """y [N, h], codes and weights [N, K] of z [N, K, tau]."""
    return raw.forward(z, tables, bias, scales, score, temperature)


@lookup_op.register_fake
def _(
    z: Tensor, tables: Tensor, bias: Tensor | None, scales: Tensor | None, score: str, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    real = torch.float64 if z.dtype is torch.float64 else torch.float32
    tokens, chunks, _ = z.shape
    codes = z.new_empty((tokens, chunks), dtype=torch.int32)
    return z.new_empty((tokens, tables.shape[-1])), codes, z.new_empty((tokens, chunks), dtype=real)


@torch.library.custom_op("memoryformer_cpu::lookup_backward", mutates_args=(), device_types="cpu")
def lookup_backward_op(
    grad_y: Tensor,
    z: Tensor,
    tables: Tensor,
    codes: Tensor,
    weights: Tensor,
    score: str,
    temperature: float,
    needs: list[bool],
) -> list[Tensor]:
    """The gradients that are needed, in the order z, tables, bias."""
    wanted = (needs[0], needs[1], needs[2])
    grads = raw.backward(grad_y, z, tables, codes, weights, score, temperature, wanted)
    return [grad for grad in grads if grad is not None]


@lookup_backward_op.register_fake
def _(
    grad_y: Tensor,
    z: Tensor,
    tables: Tensor,
    codes: Tensor,
    weights: Tensor,
    score: str,
    temperature: float,
    needs: list[bool],
) -> list[Tensor]:
    grads = (
        z.new_empty(z.shape),
        tables.new_empty(tables.shape),
        weights.new_empty(tables.shape[-1]),
    )
    return [grad for grad, needed in zip(grads, needs, strict=True) if needed]


def save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    """Keep the inputs, codes and weights: N·K·8 bytes beside what is there already."""
    z, tables, bias, _, ctx.score, ctx.temperature = inputs
    _, codes, weights = output
    ctx.mark_non_differentiable(codes, weights)
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(z, tables, codes, weights)


def backward(ctx: Any, grad_y: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients for z, tables and bias."""
    _refuse_tangents(grad_y)
    needs = list(ctx.needs_input_grad[:3])
    grads = iter(lookup_backward_op(grad_y, *ctx.saved_tensors, ctx.score, ctx.temperature, needs))
    z, tables, bias = (next(grads) if needed else None for needed in needs)
    return z, tables, None if bias is None else bias.to(ctx.bias_dtype), None, None, None


lookup_op.register_autograd(backward, setup_context=save_for_backward)
