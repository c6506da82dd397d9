"""Which code computes a look-up: a kernel package where one is installed for the device, else PyTorch."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from memoryformer import fallback
from memoryformer.errors import MemoryFormerError, MemoryFormerWarning

# The package of each named backend; `None` is the fallback in this package.
PACKAGES = {"cpu": "memoryformer_cpu", "triton": "memoryformer_triton", "torch": None}
_UNCOMPILED = {"cpu": ", or not compiled", "triton": ""}

_forced: str | None = None


class Backend(NamedTuple):
    """The functions of one backend, whose contract is that of `fallback.forward` and `fallback.backward`."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    output: Callable[..., Any]  # y alone
    direct: Callable[..., Any]  # y of whole tokens [..., K·tau], or None where that needs more than one call
    bound: Callable[..., Any]  # y, and the function that computes it from what z then holds


@contextmanager
def use(name: str) -> Iterator[None]:
    """Compute every look-up of the process with one backend: "cpu", "triton" or "torch".

    Without it, the device decides: CPUs take `memoryformer-cpu`, CUDA devices `memoryformer-triton`, where
    they are installed, and everything else PyTorch. Raises `MemoryFormerError` for an unknown name or a
    package that is not there.
    """
    global _forced
    _backend(name)
    before, _forced = _forced, name
    try:
        yield
    finally:
        _forced = before


def name_for(device: torch.device | str) -> str:
    """Return the backend that computes look-ups on a device: "cpu", "triton" or "torch"."""
    return _forced or _automatic(torch.device(device).type)


def chosen(device_type: str) -> Backend:
    """Return the functions that compute look-ups on a kind of device."""
    return _backend(_forced or _automatic(device_type))


@functools.cache
def _automatic(device_type: str) -> str:
    name = {"cpu": "cpu", "cuda": "triton"}.get(device_type)
    if name is None:
        return "torch"
    if _installed(name):
        return name
    package = f"memoryformer-{name}"
    warnings.warn(
        f"{package} is not installed{_UNCOMPILED[name]}, so look-ups on {device_type} run in plain PyTorch: "
        f"the same results, but several times slower. pip install {package} brings the kernels.",
        MemoryFormerWarning,
        stacklevel=2,
    )
    return "torch"


@functools.cache
def _installed(name: str) -> bool:
    package = PACKAGES[name]
    if package is None:
        return True
    if importlib.util.find_spec(package) is None:
        return False
    if name == "cpu":  # the compiled library may be missing, where there was no compiler
        available = getattr(importlib.import_module(package), "available", None)
        try:
            return available is not None and bool(available())
        except ValueError as error:  # MEMORYFORMER_CPU_ISA names kernels that are not on this machine
            raise MemoryFormerError(str(error)) from error
    return importlib.util.find_spec(f"{package}.raw") is not None


@functools.cache
def _backend(name: str) -> Backend:
    if name not in PACKAGES:
        raise MemoryFormerError(f"unknown backend {name!r}; there are {', '.join(PACKAGES)}")
    package = PACKAGES[name]
    if not _installed(name):
        raise MemoryFormerError(
            f"the backend {name!r} is not installed{_UNCOMPILED[name]}: pip install memoryformer-{name}"
        )
    kernels: Any = fallback if package is None else importlib.import_module(f"{package}.raw")
    output = getattr(kernels, "output", None) or (lambda *lookup: kernels.forward(*lookup)[0])
    bound = getattr(kernels, "bound", None) or functools.partial(_bound, output)
    direct = getattr(kernels, "direct", None) or (lambda *_: None)
    return Backend(kernels.forward, kernels.backward, output, direct, bound)


def _bound(output: Callable[..., Any], *lookup: Any) -> tuple[torch.Tensor, Callable[[], object]]:
    y = output(*lookup)
    return y, lambda: y.copy_(output(*lookup))
