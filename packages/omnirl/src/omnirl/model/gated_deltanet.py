"""The gated DeltaNet layer, with the parameters of flash-linear-attention's, on any device.

Parameter names and shapes are those of `fla.layers.GatedDeltaNet`, so weights go from one to the other. On a
GPU with flash-linear-attention the recurrence runs in its kernels, else in `omnirl.model.gated_delta`.
"""

from __future__ import annotations

import importlib.util
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnirl.model.attention import Context, LayerMemory
from omnirl.model.config import OmniRLConfig
from omnirl.model.gated_delta import gated_delta, gated_delta_step, unit

_CONV = 4  # tokens that the short convolutions see


class GatedDeltaNet(nn.Module):
    """Short convolutions, the gated delta rule with a state a head, a gated norm (Yang et al. 2024)."""

    def __init__(self, config: OmniRLConfig) -> None:
        super().__init__()
        width, heads = config.hidden_size, config.num_heads
        self.num_heads = heads
        self.key_size = (
            3 * width // (4 * heads)
        )  # fla's default head of 3/4 width / heads, values twice as long
        self.value_size = 2 * self.key_size
        keys, values = heads * self.key_size, heads * self.value_size
        self.q_proj = nn.Linear(width, keys, bias=False)
        self.k_proj = nn.Linear(width, keys, bias=False)
        self.v_proj = nn.Linear(width, values, bias=False)
        self.a_proj = nn.Linear(width, heads, bias=False)
        self.b_proj = nn.Linear(width, heads, bias=False)
        self.g_proj = nn.Linear(width, values, bias=False)
        self.o_proj = nn.Linear(values, width, bias=False)
        self.q_conv1d, self.k_conv1d, self.v_conv1d = (
            nn.Conv1d(size, size, _CONV, groups=size, bias=False) for size in (keys, keys, values)
        )
        self.o_norm = nn.RMSNorm(self.value_size, eps=1e-5)
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(0, 16).log())
        step = torch.empty(heads).uniform_(math.log(1e-3), math.log(0.1)).exp()
        self.dt_bias = nn.Parameter(step + (-torch.expm1(-step)).log())  # softplus(dt_bias) = step

    def forward(self, x: Tensor, memory: LayerMemory, context: Context) -> tuple[Tensor, LayerMemory]:
        """(B, T, hidden) to (B, T, hidden), and the state after the T tokens."""
        projected = torch.cat((self.q_proj(x), self.k_proj(x), self.v_proj(x)), dim=-1).transpose(1, 2)
        window = torch.cat((memory["conv"].to(projected.dtype), projected), dim=-1)
        kernel = torch.cat((self.q_conv1d.weight, self.k_conv1d.weight, self.v_conv1d.weight))
        mixed = F.silu(F.conv1d(window, kernel, groups=len(kernel))).transpose(1, 2)
        q, k, v = mixed.split(
            [layer.weight.shape[0] for layer in (self.q_proj, self.k_proj, self.v_proj)], -1
        )
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)) for part in (q, k, v))
        q, k = (unit(part).to(v.dtype) for part in (q, k))  # autocast sums in fp32; fla wants one dtype
        beta = self.b_proj(x).sigmoid()
        g = -self.A_log.float().exp() * F.softplus(self.a_proj(x).float() + self.dt_bias)
        out, state = self._mix(q, k, v, g, beta, memory["state"])
        gate = F.silu(self.g_proj(x)).unflatten(-1, (self.num_heads, -1))
        out = self.o_proj((self.o_norm(out) * gate).flatten(-2))
        return out, {"conv": window[..., 1 - _CONV :], "state": state}

    def empty_memory(self, batch_size: int) -> LayerMemory:
        """Nothing seen: zeros."""
        weight = self.o_proj.weight
        channels = self.num_heads * (2 * self.key_size + self.value_size)
        return {
            "conv": weight.new_zeros(batch_size, channels, _CONV - 1),
            "state": weight.new_zeros(
                batch_size, self.num_heads, self.key_size, self.value_size, dtype=torch.float32
            ),
        }

    @staticmethod
    def _mix(
        q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        if q.shape[1] == 1:
            out, state = gated_delta_step(q[:, 0], k[:, 0], v[:, 0], g[:, 0], beta[:, 0], state)
            return out[:, None], state
        if q.is_cuda and importlib.util.find_spec("fla"):
            from fla.ops.gated_delta_rule import chunk_gated_delta_rule

            out, state = chunk_gated_delta_rule(
                q, k, v, g, beta, initial_state=state, output_final_state=True
            )
            return out, state
        return gated_delta(q, k, v, g, beta, state)
