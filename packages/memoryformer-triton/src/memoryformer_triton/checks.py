"""What the operations ask of their arguments; every mistake is a `ValueError` that says what was expected."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd import forward_ad

from memoryformer_triton.backend import DTYPE_NAMES

SCORES = ("scaled", "softmax")
MOST_BITS = 16

_is_mapped, _inside = torch._C._functorch.is_batchedtensor, torch._C._functorch.get_unwrapped


def check_chunks(z: Tensor, score: str, temperature: float) -> None:
    """See that z [..., tau] can be hashed so. Raises `ValueError`."""
    if z.ndim < 1 or not 1 <= z.shape[-1] <= MOST_BITS:
        raise ValueError(f"z is {describe(z)}; expected [..., tau] with tau from 1 to {MOST_BITS}")
    if not z.is_floating_point() or z.dtype not in DTYPE_NAMES:
        raise ValueError(f"z is {name_of(z)}; it must be bfloat16, float16, float32 or float64")
    if score not in SCORES:
        raise ValueError(f"unknown score {score!r}; there are {' and '.join(map(repr, SCORES))}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; it must be positive and finite")


def check_lookup(z: Tensor, tables: Tensor, bias: Tensor | None, scales: Tensor | None) -> None:
    """See that the tables, the bias and the scales fit z [..., K, tau]. Raises `ValueError`."""
    tau = z.shape[-1]
    if z.ndim < 2 or tables.ndim != 3 or tables.shape[:2] != (z.shape[-2], 2**tau) or 0 in tables.shape:
        raise ValueError(
            f"z is {list(z.shape)} and tables are {list(tables.shape)}; expected z [..., K, tau] and tables "
            f"[K, 2^tau, h], none of them empty (2^{tau} = {2**tau})"
        )
    if tables.dtype not in DTYPE_NAMES:
        raise ValueError(f"tables are {name_of(tables)}; they must be floating point or int8")
    if bias is not None and (bias.shape != tables.shape[2:] or not bias.is_floating_point()):
        raise ValueError(f"bias is {describe(bias)}; expected floating point [{tables.shape[2]}]")
    for name, x in (("tables are", tables), ("bias is", bias), ("scales are", scales)):
        if x is not None and x.device != z.device:
            raise ValueError(f"{name} on {x.device}, z is on {z.device}; move one of them")
    check_scales(z, tables, bias, scales)


def check_scales(z: Tensor, tables: Tensor, bias: Tensor | None, scales: Tensor | None) -> None:
    """See that int8 tables, and they alone, have scales, and need no gradient. Raises `ValueError`."""
    if (scales is not None) != (tables.dtype == torch.int8):
        raise ValueError(
            f"tables are {name_of(tables)} and scales {'are missing' if scales is None else 'were given'}; "
            "int8 tables, and they alone, need scales"
        )
    if scales is None:
        return
    chunks, rows, _ = tables.shape
    if scales.dtype != torch.float32 or scales.shape not in ((chunks, rows), (chunks, 1)):
        raise ValueError(
            f"scales are {describe(scales)}; expected float32 [{chunks}, {rows}], one a row, or [{chunks}, 1]"
        )
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (z, bias, scales)):
        raise ValueError(
            "quantized tables are for inference: call it under torch.no_grad(), or keep the tables in "
            "floating point to train"
        )


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
                "a look-up has no forward-mode derivative (torch.func.jvp, jacfwd, forward_ad): "
                "differentiate in reverse, by backward or torch.autograd.grad"
            )


def name_of(x: Tensor) -> str:
    """The dtype of a tensor in words."""
    return str(x.dtype).removeprefix("torch.")


def describe(x: Tensor) -> str:
    """Shape, dtype and device of a tensor in words."""
    return f"{list(x.shape)} {name_of(x)} on {x.device}"
