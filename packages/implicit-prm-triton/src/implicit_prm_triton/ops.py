"""`linear_log_probs`, and the operators of `torch.library` behind it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from implicit_prm_triton import backward, forward, reference
from implicit_prm_triton.backend import runs_kernels

_is_mapped, _inside = torch._C._functorch.is_batchedtensor, torch._C._functorch.get_unwrapped


def linear_log_probs(
    hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None = None, *, chunk_size: int = 1024
) -> Tensor:
    """log_softmax(hidden @ weight.T + bias) at `targets`, without the logits.

    hidden [N, d] and weight [V, d] of one dtype, bfloat16, float16 or float32; targets int64 [N]; bias [V] or
    None. Returns [N], float32. Differentiable once, in hidden, weight and bias; the backward pass has the
    logits of `chunk_size` rows at a time. On a CPU, and in float64, PyTorch computes (with all logits).
    Raises `ValueError` for shapes and dtypes that do not fit, and where a derivative in forward mode would
    pass a kernel.
    """
    _check(hidden, weight, targets, bias, chunk_size)
    if not runs_kernels(hidden):
        return reference.linear_log_probs(hidden, weight, targets, bias)
    _refuse_tangents(hidden, weight, bias)
    found: Tensor = log_probs_op(hidden, weight, targets, bias, chunk_size)[0]
    return found


def _check(hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None, chunk_size: int) -> None:
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            f"hidden {tuple(hidden.shape)} and weight {tuple(weight.shape)} must be [N, d] and [V, d]"
        )
    if hidden.dtype != weight.dtype or not hidden.is_floating_point():
        raise ValueError(
            f"hidden is {hidden.dtype} and weight {weight.dtype}; they must be of one float dtype"
        )
    if targets.shape != hidden.shape[:1] or targets.dtype != torch.int64:
        raise ValueError(
            f"targets are {targets.dtype} {tuple(targets.shape)}; needed: int64 [{len(hidden)}], one a row"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias {tuple(bias.shape)} must be [{len(weight)}], one a row of weight")
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; it must be at least 1 row")


def _refuse_tangents(*operands: Tensor | None) -> None:
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
                "linear_log_probs has no forward-mode derivative (torch.func.jvp, jacfwd, forward_ad): "
                "differentiate in reverse, by backward or torch.autograd.grad"
            )


@torch.library.custom_op("implicit_prm_triton::log_probs", mutates_args=())
def log_probs_op(
    hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None, chunk_size: int
) -> tuple[Tensor, Tensor]:
    """Log-probs and normalisers, float32 [N] each; the backward pass needs the latter."""
    return forward.launch(hidden, weight, targets, bias)


@log_probs_op.register_fake
def _(hidden: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    shape = hidden.shape[:1]
    return hidden.new_empty(shape, dtype=torch.float32), hidden.new_empty(shape, dtype=torch.float32)


def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Keep the inputs and the normalisers."""
    hidden, weight, targets, bias, ctx.chunk_size = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(hidden, weight, targets, bias, output[1])


def gradients(ctx: Any, grad: Tensor, _: object) -> tuple[Tensor | None, ...]:
    """Gradients of hidden, weight and bias, those that are asked for."""
    _refuse_tangents(grad)
    hidden, weight, targets, bias, normaliser = ctx.saved_tensors
    needs = [ctx.needs_input_grad[place] for place in (0, 1, 3)]
    found = gradients_op(grad, hidden, weight, targets, bias, normaliser, ctx.chunk_size, needs)
    of_hidden, of_weight, of_bias = (
        one if needed else None for one, needed in zip(found, needs, strict=True)
    )
    return of_hidden, of_weight, None, of_bias, None


log_probs_op.register_autograd(gradients, setup_context=save)


@torch.library.custom_op("implicit_prm_triton::log_probs_backward", mutates_args=())
def gradients_op(
    grad: Tensor,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    normaliser: Tensor,
    chunk_size: int,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of hidden, weight and bias; an empty tensor where not needed."""
    grad = grad.contiguous()
    found = backward.launch(grad, hidden, weight, bias, targets, normaliser, chunk_size, needs)
    of_hidden, of_weight, of_bias = (grad.new_empty(0) if one is None else one for one in found)
    return of_hidden, of_weight, of_bias


@gradients_op.register_fake
def _(
    grad: Tensor, hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    needs = rest[-1]
    return (
        torch.empty_like(hidden, memory_format=torch.contiguous_format) if needs[0] else grad.new_empty(0),
        torch.empty_like(weight, memory_format=torch.contiguous_format) if needs[1] else grad.new_empty(0),
        bias.new_empty(bias.shape) if needs[2] and bias is not None else grad.new_empty(0),
    )
