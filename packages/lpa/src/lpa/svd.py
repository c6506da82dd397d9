"""The best low-rank product for a given matrix."""

from __future__ import annotations

import torch


def svd_factors(weight: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A = sqrt(S_r) V_r^T and B = U_r sqrt(S_r) from the singular value decomposition W = U S V^T.

    `weight` is (n_out, n_in); A is (rank, n_in), B (n_out, rank), both of the weight's dtype. Computed in at
    least float32. B A is the nearest matrix of that rank: its error is sqrt(sum of s_i^2 over i > rank)
    (Eckart, Young 1936).
    """
    precise = weight if weight.dtype == torch.float64 else weight.float()
    u, s, vt = torch.linalg.svd(precise, full_matrices=False)
    root = s[:rank].sqrt()
    down, up = root[:, None] * vt[:rank], u[:, :rank] * root
    return down.to(weight.dtype).contiguous(), up.to(weight.dtype).contiguous()
