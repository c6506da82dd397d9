"""Which GPU a tensor is on, and whether a kernel can run on it."""

from __future__ import annotations

import contextlib
import functools
import warnings

import torch
import triton
from torch import Tensor

from fope_triton.tiles import TARGETS

DTYPE_NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


def runs_kernels(x: Tensor) -> bool:
    """Whether Triton runs for this tensor: on a GPU, or, for tests, in its interpreter.

    The interpreter computes bfloat16 wrongly, so that never goes there. Warns once where PyTorch takes over.
    """
    return x.is_cuda or interpreted(x.device.type, x.dtype)


# `torch.compile` cannot look into Triton's settings; they do not change.
@torch.compiler.assume_constant_result
def interpreted(device: str, dtype: torch.dtype) -> bool:
    """Whether the interpreter is on and right for this dtype."""
    if triton.knobs.runtime.interpret:
        return dtype != torch.bfloat16
    warn_once(device)
    return False


@functools.cache
def warn_once(device: str) -> None:
    """Say, the first time, that the kernels are not used."""
    warnings.warn(f"fope-triton computes on {device} with PyTorch: its kernels run on GPUs.", stacklevel=2)


def target_of(x: Tensor) -> str:
    """Return the entry of `TARGETS` whose tiles suit the GPU that x is on; without a GPU the first one."""
    return _target(x.device) if x.is_cuda else next(iter(TARGETS))


@functools.cache
def _target(device: torch.device) -> str:
    if torch.version.hip:
        return "gfx942"
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) == (8, 0):
        return "sm_80"
    # The consumers' GPUs of each generation (8.6, 8.9, 12.x) have less shared memory than the data centres'.
    return {9: "sm_90", 10: "sm_100"}.get(major, "sm_86")


@functools.cache
def processors(device: torch.device) -> int:
    """Return how many multiprocessors a device has; without a GPU 1."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def on_device(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Make the GPU that x is on the current one; Triton launches there."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def unit_stride(x: Tensor) -> Tensor:
    """Return x with its last axis side by side; a copy only where it is not."""
    return x if x.stride(-1) == 1 else x.contiguous()


def token_major(x: Tensor) -> Tensor:
    """Return an empty tensor of the shape of x [B, H, T, D] that lies in memory as [B, T, H, D]."""
    batch, heads, length, head_dim = x.shape
    return x.new_empty((batch, length, heads, head_dim)).transpose(1, 2)
