"""The look-up in plain PyTorch: what the kernels mean, and what runs where they cannot.

Differentiable by PyTorch itself, in any floating dtype, so float64 settles what is right.
"""

from __future__ import annotations

import torch
from torch import Tensor

from memoryformer_triton.backend import code_dtype, precision


def hash_chunks(z: Tensor, score: str, temperature: float) -> tuple[Tensor, Tensor]:
    """Return codes [...], uint8 or int32, and weights [...], float32 or float64, of z [..., tau].

    code = Σ_i (z_i >= 0) 2^(tau-1-i);  p = 1 / Π_i (1 + exp(-2|z_i|/t));  weight = p or p Σ_i |z_i|/t.
    """
    tau = z.shape[-1]
    place = 2 ** torch.arange(tau - 1, -1, -1, dtype=torch.int32, device=z.device)
    codes = ((z >= 0) * place).sum(-1, dtype=torch.int32).to(code_dtype(tau))
    size = z.to(precision(z)[0]).abs() / temperature
    weights = 1.0 / (1.0 + torch.exp(-2.0 * size)).prod(-1)
    return codes, weights * size.sum(-1) if score == "scaled" else weights


def lookup(
    z: Tensor, tables: Tensor, bias: Tensor | None, scales: Tensor | None, score: str, temperature: float
) -> Tensor:
    """Return y [N, h] = Σ_k w_k scales[k, c_k] T[k, c_k] + b for z [N, K, tau] and tables [K, 2^tau, h]."""
    codes, weights = hash_chunks(z, score, temperature)
    codes = codes.long()
    y = weights.new_zeros((len(z), tables.shape[2]))
    for k, table in enumerate(tables.unbind(0)):
        weight = weights[:, k]
        if scales is not None:
            weight = weight * scales[k].expand(len(table))[codes[:, k]]
        y = y + weight[:, None] * table[codes[:, k]].to(y.dtype)
    if bias is not None:
        y = y + bias
    return y.to(z.dtype)
