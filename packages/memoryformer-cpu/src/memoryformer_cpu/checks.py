"""What the look-up asks of its arguments. Every mistake is a `ValueError` that says what was expected."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SCALED, SOFTMAX = "scaled", "softmax"
MOST_BITS = 16

# As the C++ side numbers them.
SCORES = {SOFTMAX: 0, SCALED: 1}
INT8, FLOAT64 = 3, 4
Z_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: FLOAT64}
TABLE_DTYPES = {**Z_DTYPES, torch.int8: INT8}
NO_MEMORY = 1


def check_lookup(z: Tensor, tables: Tensor, score: str, temperature: float) -> tuple[int, int]:
    """See that z [N, K, tau] and tables [K, 2**tau, h] fit each other; the numbers of their dtypes.

    Raises `ValueError`. One question for what is right; what is wrong is looked into afterwards.
    """
    z_dtype, table_dtype = Z_DTYPES.get(z.dtype), TABLE_DTYPES.get(tables.dtype)
    z_shape, shape = z.shape, tables.shape
    if (
        z_dtype is None
        or table_dtype is None
        or len(z_shape) != 3
        or len(shape) != 3
        or not 0 < z_shape[2] <= MOST_BITS
        or shape[1] != 1 << z_shape[2]
        or shape[0] != z_shape[1]
        or shape[0] == 0
        or score not in SCORES
        or not 0 < temperature < math.inf
        or (table_dtype == FLOAT64 and z_dtype != FLOAT64)
        or not (z.is_cpu and tables.is_cpu)
    ):
        raise ValueError(mistake(z, tables, score, temperature))
    return z_dtype, table_dtype


def mistake(z: Tensor, tables: Tensor, score: str, temperature: float) -> str:
    """What `check_lookup` found wrong."""
    z_shape, shape = list(z.shape), list(tables.shape)
    if not (z.is_cpu and tables.is_cpu):
        return f"z is on {z.device}, tables are on {tables.device}; this look-up runs on the CPU"
    if z.dtype not in Z_DTYPES:
        return f"z is {z.dtype}; it must be float32, bfloat16, float16 or float64"
    if tables.dtype not in TABLE_DTYPES or (tables.dtype is torch.float64 and z.dtype is not torch.float64):
        return (
            f"tables are {tables.dtype} for z of {z.dtype}; they must be float32, bfloat16, float16 or int8, "
            "or float64 for z of float64"
        )
    if score not in SCORES:
        return f"score is {score!r}; it must be {SCALED!r} or {SOFTMAX!r}"
    if not 0 < temperature < math.inf:
        return f"temperature is {temperature}; it must be above 0"
    if len(z_shape) == 3 and z_shape[1] > 0 and 0 < z_shape[2] <= MOST_BITS:
        return f"z {z_shape} needs tables [{z_shape[1]}, {1 << z_shape[2]}, h]; got {shape}"
    return (
        f"expected z [N, K, tau] with K >= 1 and tau 1 to {MOST_BITS}, and tables [K, 2**tau, h]; "
        f"got z {z_shape} and tables {shape}"
    )


def fitting_bias(bias: Tensor, z: Tensor, width: int) -> Tensor:
    """The bias [h] in the dtype of the sums. Raises `ValueError`."""
    if bias.shape != (width,) or not bias.is_cpu or not bias.is_floating_point():
        raise ValueError(
            f"bias is {bias.dtype} {list(bias.shape)} on {bias.device}; expected floats [{width}] on the CPU"
        )
    real = torch.float64 if z.dtype is torch.float64 else torch.float32
    return bias if bias.dtype is real and bias.is_contiguous() else bias.to(real).contiguous()


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
