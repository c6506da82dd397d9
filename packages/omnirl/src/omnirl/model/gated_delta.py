"""The gated delta rule, in PyTorch (section 5).

    S_t = α_t S_{t-1} (I - β_t k_t k_tᵀ) + β_t v_t k_tᵀ,    o_t = S_t q_t,    α = exp(g) in (0, 1]

S maps keys to values; it is kept as (B, H, K, V), its transpose. `gated_delta` reads a chunk of C tokens at a
time in the WY form: with decays γ_i = Σ_{j≤i} g_j within the chunk, the chunk's corrected values U solve

    (I + A) U = β (V - (exp(γ) K) S),    A_ij = β_i exp(γ_i - γ_j) k_i·k_j  for i > j

so that a chunk costs a few matrix products and one triangular solve. `gated_delta_step` is one token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gated_delta(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor, chunk_size: int = 64
) -> tuple[Tensor, Tensor]:
    """Outputs (B, T, H, V) and the state (B, H, K, V) after T tokens, in float32, under autocast too.

    q and k (B, T, H, K), v (B, T, H, V), g = log α ≤ 0 and beta (B, T, H), state (B, H, K, V). q is divided
    by √K; normalise q and k yourself.
    """
    length, dtype = q.shape[1], v.dtype
    with torch.autocast(q.device.type, enabled=False):  # it would multiply in bfloat16
        padding = -length % chunk_size
        q, k, v = (_chunks(x.float(), padding, chunk_size) for x in (q.float() * q.shape[-1] ** -0.5, k, v))
        g, beta = (_chunks(x.float()[..., None], padding, chunk_size) for x in (g, beta))
        decay = g.cumsum(-2)  # (B, H, N, C, 1)
        seen = torch.ones(chunk_size, chunk_size, dtype=torch.bool, device=q.device).tril()
        relative = (decay - decay.mT).masked_fill(~seen, float("-inf")).exp()
        corrections = (beta * (k @ k.mT) * relative).tril(-1)
        identity = torch.eye(chunk_size, device=q.device)
        right = torch.cat((beta * v, beta * decay.exp() * k), dim=-1)
        solved = torch.linalg.solve_triangular(identity + corrections, right, upper=False, unitriangular=True)
        values, keys = solved.split((v.shape[-1], k.shape[-1]), dim=-1)
        scores = (q @ k.mT) * relative
        q_decayed, last = q * decay.exp(), decay[..., -1:, :]
        k_left = k * (last - decay).exp()
        state, outputs = state.float(), []
        for n in range(q.shape[2]):
            new = values[:, :, n] - keys[:, :, n] @ state
            outputs.append(q_decayed[:, :, n] @ state + scores[:, :, n] @ new)
            state = last[:, :, n].exp() * state + k_left[:, :, n].mT @ new
        out = torch.stack(outputs, dim=2).flatten(2, 3)[:, :, :length]
    return out.transpose(1, 2).to(dtype), state


def gated_delta_step(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One token of `gated_delta`: q, k (B, H, K), v (B, H, V), g, beta (B, H), state (B, H, K, V)."""
    dtype = v.dtype
    with torch.autocast(q.device.type, enabled=False):
        q, k, v, g, beta = (x.float() for x in (q.float() * q.shape[-1] ** -0.5, k, v, g, beta))
        state = state.float() * g.exp()[..., None, None]
        correction = beta[..., None] * (v - (k[..., None, :] @ state)[..., 0, :])
        state = state + k[..., None] * correction[..., None, :]
        out = (q[..., None, :] @ state)[..., 0, :]
    return out.to(dtype), state


def unit(x: Tensor) -> Tensor:
    """x / |x| along the last dimension."""
    return x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt()


def _chunks(x: Tensor, padding: int, size: int) -> Tensor:
    """(B, T, H, D) to (B, H, N, C, D); padded tokens have k, v, β and g zero, so they change nothing."""
    x = F.pad(x, (0, 0, 0, 0, 0, padding)).transpose(1, 2)
    return x.unflatten(2, (-1, size))
