"""Where a tensor is, and whether a kernel can run on it."""

from __future__ import annotations

import contextlib
import functools
import warnings

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

DTYPE_NAMES = {
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.int8: "i8",
}


@triton.jit
def probe():  # type: ignore[no-untyped-def]
    """Do nothing; its class says how this package's kernels were made."""


INTERPRETED = isinstance(probe, InterpretedFunction)


def runs_kernels(x: Tensor) -> bool:
    """Whether Triton runs for this tensor: on a GPU, or, for tests, in its interpreter.

    Warns once where PyTorch takes over. Raises `RuntimeError` where the interpreter was asked for too late.
    """
    if x.is_cuda:
        return True
    if torch.compiler.is_compiling():  # it cannot look into Triton's settings
        return INTERPRETED and x.device.type == "cpu"
    if interprets(x):
        return True
    warn_once(x.device.type)
    return False


def interprets(x: Tensor) -> bool:
    """Whether the interpreter is on and takes this tensor; `RuntimeError` if it was asked for too late."""
    if x.device.type != "cpu" or not triton.knobs.runtime.interpret:
        return False
    if not INTERPRETED:
        raise RuntimeError(
            "TRITON_INTERPRET was set after memoryformer_triton was imported, so its kernels cannot be "
            "interpreted: set it before the first import of triton"
        )
    return True


@functools.cache
def warn_once(device: str) -> None:
    """Say, the first time, that the kernels are not used."""
    warnings.warn(
        f"memoryformer-triton computes on {device} with PyTorch: its kernels run on GPUs.", stacklevel=2
    )


def require_kernels(x: Tensor) -> None:
    """See that Triton runs for this tensor. Raises `RuntimeError`."""
    if not x.is_cuda and not interprets(x):
        raise RuntimeError(
            f"the kernels of memoryformer-triton run on GPUs, and the tensor is on {x.device}: move it, or "
            "call memoryformer_triton.memory_lookup, which computes with PyTorch there"
        )


def on_device(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Make the GPU that x is on the current one; Triton launches there."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def precision(z: Tensor) -> tuple[torch.dtype, tl.dtype]:
    """Return what is summed in: float32, or float64 for float64; PyTorch's name and Triton's."""
    return (torch.float64, tl.float64) if z.dtype == torch.float64 else (torch.float32, tl.float32)


def code_dtype(tau: int) -> torch.dtype:
    """Return the dtype of codes: a byte each where that is enough."""
    return torch.uint8 if tau <= 8 else torch.int32
