"""`memory_lookup` and `hash`, and the operators of `torch.library` behind them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from memoryformer_triton import gather, hashing, raw, reference
from memoryformer_triton.backend import code_dtype, precision, runs_kernels
from memoryformer_triton.checks import check_chunks, check_lookup, refuse_tangents


def memory_lookup(
    z: Tensor,
    tables: Tensor,
    bias: Tensor | None = None,
    *,
    scales: Tensor | None = None,
    score: str = "scaled",
    temperature: float = 1.0,
    deterministic: bool | None = None,
) -> Tensor:
    """Hash the chunks of z, fetch a row for each from its table, and add the rows with their weights.

        y = Σ_k w_k T[k, code_k] + b        (codes and weights: `hash`; section 3 of the paper)

    z [..., K, tau], floating point; tables [K, 2^tau, h], floating point, or int8 with `scales` float32
    [K, 2^tau] or [K, 1]; bias [h]. Returns y [..., h] in the dtype of z, summed in float32 (float64 for
    float64). Differentiable, once, in z, tables and bias; int8 tables are for inference. Rows that nobody hit
    get a gradient of exactly 0.

    `deterministic`: whether the gradient of the tables has the same bits every time; None follows
    `torch.use_deterministic_algorithms`. y and the other gradients always have. On a CPU PyTorch computes,
    and says so once. Raises `ValueError`, also where a derivative in forward mode would pass a kernel.
    """
    check_chunks(z, score, temperature)
    check_lookup(z, tables, bias, scales)
    flat = z.reshape(-1, *z.shape[-2:])
    if runs_kernels(z):
        refuse_tangents(z, tables, bias)
        y, _, _ = lookup_op(flat, tables, bias, scales, score, float(temperature), deterministic)
    else:
        y = reference.lookup(flat, tables, bias, scales, score, temperature)
    return y.view(*z.shape[:-2], tables.shape[2])


def hash(z: Tensor, *, score: str = "scaled", temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return the code of each chunk of z [..., tau], and its weight.

        code = Σ_i [z_i >= 0] 2^(tau-1-i)        p = 1 / Π_i (1 + exp(-2|z_i|/t))
        weight = p ("softmax", Eq. 10 and 11)  or  p Σ_i |z_i|/t ("scaled", the authors' code)

    Codes [...] are uint8 up to tau = 8, else int32, the first number's bit highest; weights [...] are float32
    (float64 for float64). NaN has bit 0 and a weight of NaN. The weights are differentiable in z, once.
    Raises `ValueError`, also where a derivative in forward mode would pass a kernel.
    """
    check_chunks(z, score, temperature)
    if runs_kernels(z):
        refuse_tangents(z)
        weights, codes = hash_op(z, score, float(temperature))
        return codes, weights
    return reference.hash_chunks(z, score, temperature)


@torch.library.custom_op("memoryformer_triton::hash", mutates_args=())
def hash_op(z: Tensor, score: str, temperature: float) -> tuple[Tensor, Tensor]:
    """Weights and codes [...] of z [..., tau]; the differentiable result first, as `opcheck` asks."""
    codes, weights = hashing.launch_hash(z, score, temperature)
    return weights, codes


@hash_op.register_fake
def _(z: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    codes, weights = hash_outputs(z)
    return weights, codes


def hash_outputs(z: Tensor) -> tuple[Tensor, Tensor]:
    """Empty codes and weights for z [..., tau]."""
    shape = z.shape[:-1]
    return z.new_empty(shape, dtype=code_dtype(z.shape[-1])), z.new_empty(shape, dtype=precision(z)[0])


def save_hash(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Keep z."""
    z, ctx.score, ctx.temperature = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(z)


def hash_backward(ctx: Any, dweights: Tensor, _: object) -> tuple[Tensor | None, ...]:
    """What the weights' gradient gives to z."""
    refuse_tangents(dweights)
    return input_grad_op(*ctx.saved_tensors, dweights, ctx.score, ctx.temperature), None, None


hash_op.register_autograd(hash_backward, setup_context=save_hash)


@torch.library.custom_op("memoryformer_triton::input_grad", mutates_args=())
def input_grad_op(z: Tensor, dweights: Tensor, score: str, temperature: float) -> Tensor:
    """dweights [...] times the slopes of the weights at z [..., tau]."""
    return hashing.launch_input_grad(z, dweights.contiguous()[None], score, temperature)


@input_grad_op.register_fake
def _(z: Tensor, *_: object) -> Tensor:
    return torch.empty_like(z, memory_format=torch.contiguous_format)


@torch.library.custom_op("memoryformer_triton::lookup", mutates_args=())
def lookup_op(
    z: Tensor,
    tables: Tensor,
    bias: Tensor | None,
    scales: Tensor | None,
    score: str,
    temperature: float,
    deterministic: bool | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """y [N, h], and codes and weights [N, K], which its backward pass needs, of z [N, K, tau]."""
    return gather.launch(z, tables, bias, scales, score, temperature)


@lookup_op.register_fake
def _(z: Tensor, tables: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    return z.new_empty((z.shape[0], tables.shape[2])), *hash_outputs(z)


def save_lookup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    """Keep z, the tables, the codes and the weights."""
    z, tables, bias, _, ctx.score, ctx.temperature, ctx.deterministic = inputs
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(z, tables, *output[1:])


def lookup_backward(ctx: Any, dy: Tensor | None, *_: object) -> tuple[Tensor | None, ...]:
    """Gradients of z, tables and bias, those that are asked for."""
    if dy is None:
        return (None,) * 7
    refuse_tangents(dy)
    needs = list(ctx.needs_input_grad[:3])
    grads = lookup_backward_op(dy, *ctx.saved_tensors, ctx.score, ctx.temperature, needs, ctx.deterministic)
    dz, dtables, dbias = (grad if needed else None for grad, needed in zip(grads, needs, strict=True))
    return dz, dtables, None if dbias is None else dbias.to(ctx.bias_dtype), None, None, None, None


lookup_op.register_autograd(lookup_backward, setup_context=save_lookup)


@torch.library.custom_op("memoryformer_triton::lookup_backward", mutates_args=())
def lookup_backward_op(
    dy: Tensor,
    z: Tensor,
    tables: Tensor,
    codes: Tensor,
    weights: Tensor,
    score: str,
    temperature: float,
    needs: list[bool],
    deterministic: bool | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of z, tables and bias (float32 or float64); an empty tensor where not needed."""
    wanted = (needs[0], needs[1], needs[2])
    grads = raw.backward(dy, z, tables, codes, weights, score, temperature, wanted, deterministic)
    dz, dtables, dbias = (dy.new_empty(0) if grad is None else grad for grad in grads)
    return dz, dtables, dbias


@lookup_backward_op.register_fake
def _(
    dy: Tensor,
    z: Tensor,
    tables: Tensor,
    codes: Tensor,
    weights: Tensor,
    s: str,
    t: float,
    needs: list[bool],
    *_: object,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(z, memory_format=torch.contiguous_format) if needs[0] else dy.new_empty(0),
        torch.empty_like(tables, memory_format=torch.contiguous_format) if needs[1] else dy.new_empty(0),
        weights.new_empty(dy.shape[1]) if needs[2] else dy.new_empty(0),
    )
