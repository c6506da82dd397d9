"""The kernels as plain functions of tensors, without autograd: what an operator of another package calls.

    y[n] = sum_k w[n, k] · tables[k, codes[n, k]] + bias

with codes and weights of section 2.1: `codes[n, k]` has bit 1 where z >= 0, the first number being the most
significant; w = p for `score="softmax"`, p · sum|z|/t for `score="scaled"`, p = 1 / prod(1 + exp(-2|z|/t)).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from memoryformer_cpu import checks, native
from memoryformer_cpu.checks import INT8, SCORES


def forward(
    z: Tensor,
    tables: Tensor,
    bias: Tensor | None = None,
    scales: Tensor | None = None,
    score: str = "scaled",
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Look up, and keep what `backward` needs.

    z [N, K, tau] float32, bfloat16, float16 or float64; tables [K, 2**tau, h] float32, bfloat16, float16,
    float64 (with z of float64) or int8; bias [h] or None; scales float32 [K, 2**tau] or [K, 1] for int8
    tables, else None. Returns y [N, h] of z's dtype, accumulated in float32 (float64 for float64 z); codes
    int32 [N, K]; weights float32 (float64 for float64 z) [N, K], without the scale. Runs on
    `torch.get_num_threads()` threads; their number changes no bit of the result. Raises `ValueError`, and
    `memoryformer_cpu.native.LibraryMissingError`.
    """
    shape = z.shape[:2]
    codes = torch.empty(shape, dtype=torch.int32)
    weights = torch.empty(shape, dtype=torch.float64 if z.dtype is torch.float64 else torch.float32)
    y = run(z, tables, bias, scales, score, temperature, codes, weights)
    return y, codes, weights


def output(
    z: Tensor,
    tables: Tensor,
    bias: Tensor | None = None,
    scales: Tensor | None = None,
    score: str = "scaled",
    temperature: float = 1.0,
) -> Tensor:
    """The y of `forward` alone, for inference: codes and weights are not written."""
    if z.ndim == 3 and tables.ndim == 3:
        y = z.new_empty(z.shape[0], tables.shape[2])
        if _written(y, z, tables, bias, scales, score, temperature):
            return y
    return run(z, tables, bias, scales, score, temperature, None, None)


def direct(
    x: Tensor,
    tables: Tensor,
    bias: Tensor | None = None,
    scales: Tensor | None = None,
    score: str = "scaled",
    temperature: float = 1.0,
) -> Tensor | None:
    """`output` of x [..., K·tau] as y [..., h], checked and computed in one call of the library.

    None where that is not possible: rows of more than 8 MiB, float64, tensors that are not side by side in
    memory, torch before 2.10, and whatever is wrong.
    """
    if tables.ndim != 3:
        return None
    y = x.new_empty(*x.shape[:-1], tables.shape[2])
    return y if _written(y, x, tables, bias, scales, score, temperature) else None


def _written(
    y: Tensor,
    x: Tensor,
    tables: Tensor,
    bias: Tensor | None,
    scales: Tensor | None,
    score: str,
    temperature: float,
) -> bool:
    """Whether one call could do it. With cold caches each line and object here counts."""
    look_up = native.direct()
    if look_up is None:
        return False
    number = SCORES.get(score, -1)
    return look_up(y, x, tables, bias, scales, number, temperature, torch.get_num_threads()) == 0


def run(
    z: Tensor,
    tables: Tensor,
    bias: Tensor | None,
    scales: Tensor | None,
    score: str,
    temperature: float,
    codes: Tensor | None,
    weights: Tensor | None,
) -> Tensor:
    """Check, allocate y, call the library. Each line counts: for one token the kernel takes microseconds."""
    y, problem, _kept = _described(z, tables, bias, scales, score, temperature, codes, weights)
    status = native.library().memoryformer_forward(problem)
    if status:
        checks.fail(status)
    return y


def bound(
    z: Tensor,
    tables: Tensor,
    bias: Tensor | None = None,
    scales: Tensor | None = None,
    score: str = "scaled",
    temperature: float = 1.0,
) -> tuple[Tensor, Callable[[], None]]:
    """`output` for a loop: y, and the function that computes it from what z then holds.

    All is checked here, once, and each call then costs a microsecond beside the kernel. The tensors are kept
    alive, must stay where they are, and z must be contiguous. Raises as `forward` does.
    """
    if not z.is_contiguous():
        raise ValueError("z must be contiguous: a copy of it would not follow what is written to it later")
    y, problem, kept = _described(z, tables, bias, scales, score, temperature, None, None)
    compute = native.library().memoryformer_forward

    def look_up(_kept: tuple[Tensor | None, ...] = kept) -> None:
        status = compute(problem)
        if status:
            checks.fail(status)

    return y, look_up


def _described(
    z: Tensor,
    tables: Tensor,
    bias: Tensor | None,
    scales: Tensor | None,
    score: str,
    temperature: float,
    codes: Tensor | None,
    weights: Tensor | None,
) -> tuple[Tensor, bytes, tuple[Tensor | None, ...]]:
    """Check and allocate y; return it, the library's `Problem`, and the tensors that it points to."""
    z_dtype, table_dtype = checks.check_lookup(z, tables, score, temperature)
    tokens, chunks, tau = z.shape
    width = tables.shape[2]
    z = z if z.is_contiguous() else z.contiguous()
    table_stride, row_stride, stride = tables.stride()
    if stride != 1:
        tables = tables.contiguous()
        table_stride, row_stride, _ = tables.stride()
    if bias is not None:
        bias = checks.fitting_bias(bias, z, width)
    scale_table = scale_row = 0
    if scales is not None or table_dtype == INT8:
        scales = checks.fitting_scales(scales, tables)
        scale_table, scale_row = scales.stride()
    y = z.new_empty((tokens, width))
    problem = native.PROBLEM.pack(
        torch.get_num_threads(), tokens, chunks, width, tau, z_dtype, table_dtype, SCORES[score],
        table_stride, row_stride, scale_table, scale_row, temperature,
        z.data_ptr(), tables.data_ptr(),
        address(bias), address(scales), y.data_ptr(), address(codes), address(weights),
        0, 0, 0, 0, 0,
    )  # fmt: skip
    return y, problem, (z, tables, bias, scales, y)


def address(x: Tensor | None) -> int:
    """Where the numbers of x lie, 0 for None."""
    return 0 if x is None else x.data_ptr()


def backward(
    grad_y: Tensor,
    z: Tensor,
    tables: Tensor,
    codes: Tensor,
    weights: Tensor,
    score: str = "scaled",
    temperature: float = 1.0,
    needs: tuple[bool, bool, bool] = (True, True, True),
    deterministic: bool | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of section 2.2 for z, tables and bias; None where `needs` says no.

    grad_y [N, h]; codes and weights as `forward` returned them. grad_z has z's shape and dtype, grad_tables
    those of tables (dense: rows that no token hit are exactly 0), grad_bias [h] is float32 (float64 for
    float64 z). The same call always gives the same bits, for any number of threads: `deterministic` is there
    for callers of several backends and changes nothing. Raises `ValueError`, also where a code is no row of
    its table.
    """
    del deterministic
    z_dtype, table_dtype = checks.check_lookup(z, tables, score, temperature)
    checks.check_backward(grad_y, z, tables, codes, weights)
    tokens, chunks, tau = z.shape
    width = tables.shape[2]
    real = weights.dtype
    grad_y, z = grad_y.to(real).contiguous(), z.contiguous()
    tables = tables if tables.stride(2) == 1 else tables.contiguous()
    codes, weights = codes.to(torch.int32).contiguous(), weights.contiguous()
    grad_z = torch.empty_like(z) if needs[0] else None
    q = torch.empty((tokens, chunks), dtype=real) if needs[0] else None
    grad_tables = torch.empty(tables.shape, dtype=tables.dtype) if needs[1] else None
    grad_bias = torch.empty(width, dtype=real) if needs[2] else None
    table_stride, row_stride, _ = tables.stride()
    status = native.library().memoryformer_backward(
        native.PROBLEM.pack(
            torch.get_num_threads(), tokens, chunks, width, tau, z_dtype, table_dtype, SCORES[score],
            table_stride, row_stride, 0, 0, temperature,
            z.data_ptr(), tables.data_ptr(), 0, 0, 0, codes.data_ptr(), weights.data_ptr(),
            grad_y.data_ptr(), address(q), address(grad_z), address(grad_tables), address(grad_bias),
        )
    )  # fmt: skip
    if status:
        checks.fail(status)
    return grad_z, grad_tables, grad_bias
