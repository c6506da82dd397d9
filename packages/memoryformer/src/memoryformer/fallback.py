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

    The tokens of a row are found by a stable sort, so the order of every sum is fixed, on GPUs too, and with
    `deterministic` nothing changes.
    """
    del deterministic
    dtype = weight_dtype(z)
    grad_y = grad_y.to(dtype)
    codes = codes.long()
    grad_z = grad_tables = None
    if needs[0]:
        q = _fetched_products(grad_y, tables, codes)
        grad_z = (q.unsqueeze(-1) * weight_gradients(z, score=score, temperature=temperature)).to(z.dtype)
    if needs[1]:
        grad_tables = _row_sums(grad_y, codes, weights, tables.shape[1]).to(tables.dtype)
    return grad_z, grad_tables, grad_y.sum(0) if needs[2] else None


def _fetched_products(grad_y: Tensor, tables: Tensor, codes: Tensor) -> Tensor:
    """q[n, k] = <grad_y[n], tables[k, codes[n, k]]>, a chunk at a time: no [N, K, h] is ever made."""
    q = grad_y.new_empty(codes.shape)
    rows = tables.new_empty(grad_y.shape)
    for k, table in enumerate(tables):
        torch.index_select(table, 0, codes[:, k], out=rows)
        q[:, k] = rows.to(grad_y.dtype).mul_(grad_y).sum(-1)
    return q


def _row_sums(grad_y: Tensor, codes: Tensor, weights: Tensor, rows: int) -> Tensor:
    """[K, rows, h]: in row r of table k the sum of weights[n, k] grad_y[n] over n with codes[n, k] = r."""
    tokens, chunks = codes.shape
    flat = (codes + rows * torch.arange(chunks, device=codes.device)).t().reshape(-1)
    order = torch.argsort(flat, stable=True)
    hits = torch.bincount(flat, minlength=chunks * rows)
    sums = F.embedding_bag(
        order % max(tokens, 1),
        grad_y,
        hits.cumsum(0) - hits,
        mode="sum",
        per_sample_weights=weights.t().reshape(-1)[order],
    )
    return sums.view(chunks, rows, -1)
