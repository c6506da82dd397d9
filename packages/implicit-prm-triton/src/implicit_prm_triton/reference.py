"""The definition, in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_log_probs(hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None = None) -> Tensor:
    """log_softmax(hidden @ weight.T + bias) at `targets`: [N], float32 (float64 for float64)."""
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    logits = torch.nn.functional.linear(hidden, weight, bias).to(wide)
    return logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
