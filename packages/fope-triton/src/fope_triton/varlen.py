"""Sequences of any lengths packed one after the other: which belongs where, found on the device.

`cu_seqlens` [B + 1] has where each sequence begins in the packed tokens, and at last their number. Nothing is
read back: a launch has as many programs as the worst lengths could need, and those without work end at once.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor


def sequence_blocks(cu_seqlens: Tensor, tokens: int, size: int) -> Tensor:
    """Return each program's sequence and its block of `size` tokens there, int32 [programs, 2].

    The last sequence gets the programs that are over, with blocks beyond its end.
    """
    sequences = cu_seqlens.shape[0] - 1
    program = torch.arange(triton.cdiv(tokens, size) + sequences, device=cu_seqlens.device)
    ends = ((cu_seqlens.diff() + size - 1) // size).cumsum(0)
    sequence = torch.searchsorted(ends, program, right=True).clamp_(max=sequences - 1)
    starts = ends - (cu_seqlens.diff() + size - 1) // size
    return torch.stack([sequence, program - starts[sequence]], dim=1).int()


def packed_positions(cu_seqlens: Tensor, tokens: int) -> Tensor:
    """Return the position of each packed token in its sequence, int64 [tokens]."""
    token = torch.arange(tokens, device=cu_seqlens.device)
    sequence = torch.searchsorted(cu_seqlens[1:].contiguous(), token, right=True)
    return token - cu_seqlens[sequence.clamp_(max=cu_seqlens.shape[0] - 2)]
