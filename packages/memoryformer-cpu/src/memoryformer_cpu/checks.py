"""What the look-up asks of its arguments. Every mistake is a `ValueError` that says what was expected."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SCALED, SOFTMAX = "scaled", "softmax"
MOST_BITS = 16

# As the C++ side numbers them.
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.int8: 3, torch.float64: 4}
NO_MEMORY = 1


def check_lookup(z: Tensor, tables: Tensor, score: str, temperature: float) -> None:
    """See that z [N, K, tau] and tables [K, 2**tau, h] fit each other. Raises `ValueError`."""
    z_shape, shape = z.shape, tables.shape
    if len(z_shape) != 3 or len(shape) != 3 or z_shape[1] == 0 or not 1 <= z_shape[2] <= MOST_BITS:
        raise ValueError(
            f"expected z [N, K, tau] with K >= 1 and tau 1 to {MOST_BITS}, and tables [K, 2**tau, h]; "
            f"got z {list(z_shape)} and tables {list(shape)}"
        )
    if shape[0] != z_shape[1] or shape[1] != 1 << z_shape[2]:
        raise ValueError(
            f"z {list(z_shape)} needs tables [{z_shape[1]}, {1 << z_shape[2]}, h]; got {list(shape)}"
        )
    if not (z.is_cpu and tables.is_cpu):
        raise ValueError(f"z is on {z.device}, tables are on {tables.device}; this look-up runs on the CPU")
    if not z.is_floating_point() or z.dtype not in DTYPES:
        raise ValueError(f"z is {z.dtype}; it must be float32, bfloat16, float16 or float64")
    if tables.dtype not in DTYPES or (tables.dtype is torch.float64 and z.dtype is not torch.float64):
        raise ValueError(
            f"tables are {tables.dtype} for z of {z.dtype}; they must be float32, bfloat16, float16 or int8, "
            "or float64 for z of float64"
        )
    if score != SCALED and score != SOFTMAX:
        raise ValueError(f"score is {score!r}; it must be {SCALED!r} or {SOFTMAX!r}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; it must be above 0")


def rows_side_by_side(tables: Tensor) -> Tensor:
    """Tables whose rows are contiguous: a part of larger ones, narrowed in any dimension, needs no copy."""
    return tables if tables.stride(2) == 1 else tables.contiguous()


def fitting_bias(bias: Tensor, z: Tensor, width: int) -> Tensor:
    """The bias [h] in the dtype of the sums. Raises `ValueError`."""
    if bias.shape != (width,) or not bias.is_cpu or not bias.is_floating_point():
        raise ValueError(
            f"bias is {bias.dtype} {list(bias.shape)} on {bias.device}; expected floats [{width}] on the CPU"
        )
    return bias.to(torch.float64 if z.dtype is torch.float64 else torch.float32).contiguous()


def fitting_scales(scales: Tensor | None, tables: Tensor) -> Tensor:
    """The scales, one a row of int8 tables, [K, 2**tau]; [K, 1] is broadcast. Raises `ValueError`."""
    chunks, rows, _ = tables.shape
    if tables.dtype is not torch.int8 or scales is None:
        raise ValueError(
            f"tables are {tables.dtype} {'without' if scales is None else 'with'} scales; "
            "int8 tables need float32 scales [K, 2**tau] or [K, 1], other tables have none"
        )
    if (
        scales.shape not in ((chunks, rows), (chunks, 1))
        or scales.dtype is not torch.float32
        or not scales.is_cpu
    ):
        raise ValueError(
            f"scales are {scales.dtype} {list(scales.shape)} on {scales.device}; "
            f"expected float32 [{chunks}, {rows}] or [{chunks}, 1] on the CPU"
        )
    return scales if scales.shape[1] == rows else scales.expand(chunks, rows)


def check_backward(grad_y: Tensor, z: Tensor, tables: Tensor, codes: Tensor, weights: Tensor) -> None:
    """See that gradients can be computed from these. Raises `ValueError`."""
    if tables.dtype is torch.int8:
        raise ValueError("tables are int8: quantized tables are for inference, they have no gradient")
    tokens, chunks, _ = z.shape
    real = torch.float64 if z.dtype is torch.float64 else torch.float32
    expected = ("grad_y", grad_y, (tokens, tables.shape[2])), ("codes", codes, (tokens, chunks))
    for name, x, shape in (*expected, ("weights", weights, (tokens, chunks))):
        if x.shape != shape or not x.is_cpu:
            raise ValueError(f"{name} is {list(x.shape)} on {x.device}; expected {list(shape)} on the CPU")
    if codes.is_floating_point() or codes.is_complex():
        raise ValueError(f"codes are {codes.dtype}; they must be integers")
    if weights.dtype is not real:
        raise ValueError(f"weights are {weights.dtype}; for z of {z.dtype} they are {real}")
    if tokens > 2**31 - 1:
        raise ValueError(f"there are {tokens} tokens; a call takes up to 2**31 - 1")


def fail(status: int) -> None:
    """Raise what a status of the library means."""
    if status == NO_MEMORY:
        raise MemoryError("the look-up found no memory for its codes and weights")
    raise ValueError("codes has a number that is no row of its table")
