"""From the trunk's vector to logits, or to one number (section 2.5)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Head(nn.Module):
    """z = LN(h), out = W₃ (W₂ GELU(W₁ z) + z). Logits, not probabilities, leave it."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up_proj = nn.Linear(width, width)
        self.down_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, size)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., hidden) to (..., size)."""
        z = self.norm(hidden)
        out: Tensor = self.out_proj(self.down_proj(F.gelu(self.up_proj(z))) + z)
        return out
