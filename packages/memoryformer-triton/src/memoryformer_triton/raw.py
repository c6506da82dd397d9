"""The look-up and its gradients without autograd or checks, for packages with an operator of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from memoryformer_triton import gather, sorted_grad, token_grad
from memoryformer_triton.backend import require_kernels
from memoryformer_triton.hashing import launch_input_grad


def forward(
    z: Tensor, tables: Tensor, bias: Tensor | None, scales: Tensor | None, score: str, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y [N, h], codes [N, K] and weights [N, K] of z [N, K, tau].

    tables [K, 2^tau, h], floating point or int8; bias [h]; scales float32 [K, 2^tau] or [K, 1] for int8
    tables. y has z's dtype and is summed in float32; codes are uint8 up to tau = 8, else int32; weights are
    float32, before any scale. For float64 z all is float64. Raises `RuntimeError` where no kernel can run.
    """
    require_kernels(z)
    return gather.launch(z, tables, bias, scales, score, temperature)


def backward(
    grad_y: Tensor,
    z: Tensor,
    tables: Tensor,
    codes: Tensor,
    weights: Tensor,
    score: str,
    temperature: float,
    needs: tuple[bool, bool, bool] = (True, True, True),
    deterministic: bool | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of z, tables and bias, None where `needs` says so; grad_y is [N, h].

    grad_z has z's dtype, grad_tables, dense, the tables'; grad_bias is float32, or float64 for float64.
    Deterministic (None: as `torch.use_deterministic_algorithms` says), or with more tokens than a table has
    rows, tokens are sorted by code, and the same inputs give the same bits; else rows are added to by
    atomics. Raises `RuntimeError` where no kernel can run.
    """
    require_kernels(z)
    if deterministic is None:
        deterministic = torch.are_deterministic_algorithms_enabled()
    needs_z, needs_tables, needs_bias = needs
    grad_tables = q = None
    if needs_tables and (deterministic or len(z) > tables.shape[1]):
        grad_tables, q = sorted_grad.launch(grad_y, tables, codes, weights, needs_z)
    elif needs_tables or needs_z:
        grad_tables, q = token_grad.launch(grad_y, tables, codes, weights, needs_z, needs_tables)
    grad_z = None if q is None else launch_input_grad(z, q, score, temperature)
    grad_bias = grad_y.sum(0, dtype=weights.dtype) if needs_bias else None
    return grad_z, grad_tables, grad_bias
