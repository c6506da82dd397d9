"""The operator `memoryformer::lookup`: what makes a look-up known to autograd, autocast and torch.compile."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter
from torch.utils.flop_counter import register_flop_formula

from memoryformer import backends
from memoryformer.errors import MemoryFormerError
from memoryformer.hashing import weight_dtype

_library = torch.library.Library("memoryformer", "DEF")
_library.define(
    "lookup(Tensor z, Tensor tables, Tensor? bias, Tensor? scales, str score, float temperature)"
    " -> (Tensor, Tensor, Tensor)"
)
_library.define(
    "lookup_backward(Tensor grad_y, Tensor z, Tensor tables, Tensor codes, Tensor weights, str score,"
    " float temperature, bool[] needs) -> (Tensor, Tensor, Tensor)"
)
# Found once: with cold caches the way through three modules takes longer than the answer.
_modes, _tracing = torch._C._len_torch_dispatch_stack, torch._C._get_tracing_state
_transforms = torch._C._functorch.peek_interpreter_stack
_is_mapped, _inside = torch._C._functorch.is_batchedtensor, torch._C._functorch.get_unwrapped
lookup = torch.ops.memoryformer.lookup.default
lookup_backward = torch.ops.memoryformer.lookup_backward.default


def code_dtype(tau: int) -> torch.dtype:
    """Codes are kept for the backward pass: a byte each where that is enough."""
    return torch.uint8 if tau <= 8 else torch.int32


def run(
    z: Tensor, tables: Tensor, bias: Tensor | None, scales: Tensor | None, score: str, temperature: float
) -> Tensor:
    """Return y [N, h] of z [N, K, tau]: by the operator, or straight from the kernel where that is the same.

    The dispatcher's way takes as long as a whole look-up of one token. Raises `MemoryFormerError` where a
    derivative in forward mode passes.
    """
    if _unobserved(z, tables, bias):
        device = "cpu" if z.is_cpu else z.device.type
        return backends.chosen(device).output(z, tables, bias, scales, score, temperature)
    _refuse_tangents(z, tables, bias)
    return lookup(z, tables, bias, scales, score, temperature)[0]


def direct(
    x: Tensor, tables: Tensor, bias: Tensor | None, scales: Tensor | None, score: str, temperature: float
) -> Tensor | None:
    """Return y [..., h] of x [..., K·tau] where a kernel on the CPU checks and computes it in one call.

    None where something has to see the operator, there is no such kernel, the call is a large one, or wrong.
    """
    if x.is_cpu and _unobserved(x, tables, bias):
        return backends.chosen("cpu").direct(x, tables, bias, scales, score, temperature)
    return None


def _unobserved(z: Tensor, tables: Tensor, bias: Tensor | None) -> bool:
    """Whether neither derivatives, autocast, a compiler, a mode nor a subclass has to see the operator."""
    return (
        not torch.compiler.is_compiling()
        and type(z) is Tensor
        and (type(tables) is Parameter or type(tables) is Tensor)
        and not (
            torch.is_grad_enabled()
            and (z.requires_grad or tables.requires_grad or (bias is not None and bias.requires_grad))
        )
        and (z.is_cpu or z.is_cuda)
        and not torch.is_autocast_enabled("cpu" if z.is_cpu else "cuda")
        and forward_ad._current_level < 0
        and _modes() == 0
        and _transforms() is None
        and _tracing() is None
    )


def _refuse_tangents(*operands: Tensor | None) -> None:
    """An operator knows no rule for forward mode, and torch then takes the derivative for zero, untold."""
    if forward_ad._current_level < 0:
        return
    for x in operands:
        while x is not None and _is_mapped(x):  # by vmap, which cannot ask for a tangent
            x = _inside(x)
        if x is not None and forward_ad.unpack_dual(x).tangent is not None:
            raise MemoryFormerError(
                "a look-up has no forward-mode derivative (torch.func.jvp, jacfwd, forward_ad): "
                "differentiate in reverse, by backward or torch.autograd.grad"
            )


def compute(
    z: Tensor, tables: Tensor, bias: Tensor | None, scales: Tensor | None, score: str, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y [N, h], codes [N, K] and weights [N, K]; see `fallback.forward`. No gradients."""
    y, codes, weights = backends.chosen(z.device.type).forward(z, tables, bias, scales, score, temperature)
    return y, codes.to(code_dtype(z.shape[-1])), weights


def compute_backward(
    grad_y: Tensor,
    z: Tensor,
    tables: Tensor,
    codes: Tensor,
    weights: Tensor,
    score: str,
    temperature: float,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of z, tables and bias (float32 or float64); empty where not needed."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    grads = backends.chosen(z.device.type).backward(
        grad_y, z, tables, codes, weights, score, temperature, tuple(needs), deterministic
    )
    grad_z, grad_tables, grad_bias = (grad_y.new_empty(0) if grad is None else grad for grad in grads)
    return grad_z, grad_tables, grad_bias.to(weight_dtype(z))


_library.impl("lookup", compute, "CompositeExplicitAutograd")
_library.impl("lookup_backward", compute_backward, "CompositeExplicitAutograd")


@torch.library.register_fake("memoryformer::lookup")
def _(z: Tensor, tables: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    tokens, chunks, tau = z.shape
    return (
        z.new_empty(tokens, tables.shape[2]),
        z.new_empty(tokens, chunks, dtype=code_dtype(tau)),
        z.new_empty(tokens, chunks, dtype=weight_dtype(z)),
    )


@torch.library.register_fake("memoryformer::lookup_backward")
def _(
    grad_y: Tensor,
    z: Tensor,
    tables: Tensor,
    codes: Tensor,
    weights: Tensor,
    score: str,
    temperature: float,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = weight_dtype(z)
    return (
        z.new_empty(z.shape if needs[0] else 0, dtype=z.dtype if needs[0] else grad_y.dtype),
        tables.new_empty(tables.shape) if needs[1] else grad_y.new_empty(0),
        grad_y.new_empty(grad_y.shape[1] if needs[2] else 0, dtype=dtype),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    z, tables, bias, _, ctx.score, ctx.temperature = inputs
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(z, tables, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _differentiate(ctx: Any, grad_y: Tensor, *_: object) -> tuple[Tensor | None, ...]:
    z, tables, codes, weights = ctx.saved_tensors
    if not tables.is_floating_point():
        raise MemoryFormerError(
            "quantized tables are for inference: no gradient passes through int8 tables; "
            "train before quantize_tables_, or compute under torch.no_grad()"
        )
    _refuse_tangents(grad_y)
    needs = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.needs_input_grad[2]]
    grad_z, grad_tables, grad_bias = lookup_backward(
        grad_y.contiguous(), z, tables, codes, weights, ctx.score, ctx.temperature, needs
    )
    return (
        grad_z if needs[0] else None,
        grad_tables if needs[1] else None,
        grad_bias.to(ctx.bias_dtype) if needs[2] else None,
        None,
        None,
        None,
    )


torch.library.register_autograd("memoryformer::lookup", _differentiate, setup_context=_save)


def _no_second_derivative(ctx: Any, *grads: object) -> None:
    raise MemoryFormerError("a look-up has no second derivative: differentiate without create_graph=True")


torch.library.register_autograd("memoryformer::lookup_backward", _no_second_derivative)


def _autocast(device_type: str) -> None:
    """Under autocast y has autocast's dtype; the tables and z are taken as they are.

    A cast of all tables in each pass would cost more than the look-up, and a cast of z may change signs.
    float64 stays, as in all of autocast.
    """

    def cast_output(
        keyset: torch._C.DispatchKeySet, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(key)):
            y, codes, weights = lookup(*args, **kwargs)
        dtype = y.dtype if y.dtype == torch.float64 else torch.get_autocast_dtype(device_type)
        return y.to(dtype), codes, weights

    key = getattr(torch._C.DispatchKey, f"Autocast{device_type.upper()}")
    _library.impl("lookup", cast_output, f"Autocast{device_type.upper()}", with_keyset=True)


_autocast("cpu")
_autocast("cuda")


@register_flop_formula(torch.ops.memoryformer.lookup)
def _(z: tuple[int, int, int], tables: tuple[int, int, int], *_: object, **__: object) -> int:
    """One multiply-add a fetched number; 2 operations each, as `FlopCounterMode` counts."""
    return 2 * z[0] * z[1] * tables[2]


@register_flop_formula(torch.ops.memoryformer.lookup_backward)
def _(
    grad_y: tuple[int, int],
    z: tuple[int, int, int],
    tables: tuple[int, int, int],
    codes: tuple[int, int],
    weights: tuple[int, int],
    score: str,
    temperature: float,
    needs: list[bool],
    **_: object,
) -> int:
    """As much again for q (the gradient of z), and for the gradient of the tables."""
    return 2 * z[0] * z[1] * tables[2] * (int(needs[0]) + int(needs[1]))
