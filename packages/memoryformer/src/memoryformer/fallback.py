"""The look-up in plain PyTorch: what runs where no kernel package is installed.

`forward` and `backward` are the same contract as `memoryformer_cpu.raw` and `memoryformer_triton.raw`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from memoryformer.hashing import hash_codes, hash_weights, weight_dtype, weight_gradients

CHUNK = 1 << 22  # numbers fetched at once where embedding_bag cannot sum in the right precision


def forward(
    z: Tensor, tables: Tensor, bias: Tensor | None, scales: Tensor | None, score: str, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y [N, h], codes [N, K] and weights [N, K] for z [N, K, tau], tables [K, 2^tau, h].

    y_n = Σ_k w_nk scales[k, c_nk] tables[k, c_nk] + bias, summed in float32 (float64 for float64).
    """
    codes = hash_codes(z)
    weights = hash_weights(z, score=score, temperature=temperature)
    chunks, rows, width = tables.shape
    flat = codes + rows * torch.arange(chunks, device=z.device)
    factors = weights
    if scales is not None:
        factors = weights * scales.expand(chunks, rows).reshape(-1)[flat]
    y = _weighted_sum(tables.reshape(chunks * rows, width), flat, factors)
    if bias is not None:
        y = y + bias
    return y.to(z.dtype), codes, weights


def _weighted_sum(table: Tensor, codes: Tensor, weights: Tensor) -> Tensor:
    """Σ_k weights[n, k] table[codes[n, k]] -> [N, h], in the precision of the weights."""
    if table.dtype == weights.dtype:
        return F.embedding_bag(codes, table, mode="sum", per_sample_weights=weights)
    y = weights.new_empty(len(codes), table.shape[1])
    step = max(1, CHUNK // max(1, codes.shape[1] * table.shape[1]))
    for part in range(0, len(codes), step):
        rows = table[codes[part : part + step]].to(weights.dtype)
        y[part : part + step] = torch.einsum("nk,nkh->nh", weights[part : part + step], rows)
    return y


def backward(
    grad_y: Tensor,
    z: Tensor,
    tables: Tensor,
    codes: Tensor,
    weights: Tensor,
    score: str,
    temperature: float,
    needs: tuple[bool, bool, bool],
    deterministic: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of z, tables and bias, each None where `needs` says no (section 2.2).

    One chunk at a time, so that no [N, K, h] ever exists. On CPUs the order of the sums is fixed; on GPUs
    PyTorch's `index_add_` fixes it under `torch.use_deterministic_algorithms`.
    """
    dtype = weight_dtype(z)
    g = grad_y.to(dtype)
    codes = codes.long()
    grad_z = grad_tables = grad_bias = None
    if needs[0]:
        q = torch.empty_like(weights)
        for k, table in enumerate(tables):
            q[:, k] = torch.einsum("nh,nh->n", g, table[codes[:, k]].to(dtype))
        slopes = weight_gradients(z, score=score, temperature=temperature)
        grad_z = (q.unsqueeze(-1) * slopes).to(z.dtype)
    if needs[1]:
        grad_tables = torch.empty_like(tables, memory_format=torch.contiguous_format)
        for k in range(len(tables)):
            rows = torch.zeros_like(tables[k], dtype=dtype)
            grad_tables[k] = rows.index_add_(0, codes[:, k], g * weights[:, k, None])
    if needs[2]:
        grad_bias = g.sum(0)
    return grad_z, grad_tables, grad_bias
