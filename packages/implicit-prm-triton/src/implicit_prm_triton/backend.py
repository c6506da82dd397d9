"""Where a tensor is, and whether a kernel can run on it."""

from __future__ import annotations

import contextlib

import torch
import triton
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction


@triton.jit
def probe():  # type: ignore[no-untyped-def]
    """Do nothing; its class says how this package's kernels were made."""


INTERPRETED = isinstance(probe, InterpretedFunction)


def runs_kernels(x: Tensor) -> bool:
    """Whether Triton runs for this tensor: on a GPU, or, for tests, in its interpreter; not for float64."""
    return x.dtype != torch.float64 and (x.is_cuda or (INTERPRETED and x.device.type == "cpu"))


def on_device(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Make the GPU that x is on the current one; Triton launches there."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
