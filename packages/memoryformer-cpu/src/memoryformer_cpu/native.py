"""The compiled library: found beside the package, loaded once, with its threads and its instruction set."""

from __future__ import annotations

import ctypes
import functools
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import torch

LIBRARY = {"win32": "memoryformer_lookup.dll", "darwin": "libmemoryformer_lookup.dylib"}.get(
    sys.platform, "libmemoryformer_lookup.so"
)
TORCH_LIBRARY = "libtorch_cpu.so"
INSTRUCTION_SETS = ("portable", "avx2", "avx512")  # each has all that is before it
VARIABLE = "MEMORYFORMER_CPU_ISA"

# `Problem` of src/native/lookup.h: packing it is three times faster than handing ctypes an argument each.
PROBLEM = struct.Struct("=12qd12q")


class LibraryMissingError(ImportError):
    """The compiled library is not where the package is."""


def library_path() -> Path:
    """Where the compiled library lies. Raises `LibraryMissingError`."""
    # An editable install has two folders: the source, and that of what was compiled.
    folders = [Path(folder) for folder in sys.modules["memoryformer_cpu"].__path__]
    for folder in folders:
        if (folder / LIBRARY).is_file():
            return folder / LIBRARY
    raise LibraryMissingError(
        f"memoryformer_cpu has no {LIBRARY} in {' or '.join(map(str, folders))}: it was not compiled. "
        "Install it again where a C++17 compiler is found: pip install --force-reinstall memoryformer-cpu"
    )


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded library, which uses torch's own threads. Raises `LibraryMissingError`."""
    path = library_path()
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise LibraryMissingError(
            f"{path} cannot be loaded ({error}). Install memoryformer-cpu again on this machine."
        ) from error
    loaded.memoryformer_forward.argtypes = loaded.memoryformer_backward.argtypes = (ctypes.c_char_p,)
    loaded.memoryformer_huge_pages.argtypes = (ctypes.c_void_p, ctypes.c_int64)
    loaded.memoryformer_set_parallel_region.argtypes = (ctypes.c_void_p,)
    loaded.memoryformer_set_parallel_region.restype = None
    loaded.memoryformer_set_parallel_region(torch_parallel_region())
    loaded.memoryformer_use_instruction_set(chosen(loaded.memoryformer_best_instruction_set()))
    return loaded


@functools.cache
def direct() -> Callable[..., int] | None:
    """`memoryformer_direct`, which takes the tensors themselves and keeps Python's lock.

    None where torch has no functions for it (before 2.10). Raises `LibraryMissingError`.
    """
    held = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if held is None:
        return None
    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    offer = library().memoryformer_set_exchange
    offer.argtypes = (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
    offer.restype = ctypes.c_bool
    clear = ctypes.cast(ctypes.pythonapi.PyErr_Clear, ctypes.c_void_p)
    if not offer(pointer(held, b"dlpack_exchange_api"), None, clear):
        return None
    function = ctypes.PyDLL(str(library_path())).memoryformer_direct
    function.argtypes = (ctypes.py_object,) * 5 + (ctypes.c_int, ctypes.c_double, ctypes.c_int)
    return function


def chosen(best: int) -> int:
    """The number of the instruction set that the environment asks for, else the best. Raises `ValueError`."""
    name = os.environ.get(VARIABLE, "")
    return number(name, best, f"{VARIABLE}={name}") if name else best


def number(name: str, best: int, wish: str) -> int:
    """The number of an instruction set. Raises `ValueError` where there is none, or not on this machine."""
    here = INSTRUCTION_SETS[: best + 1]
    if name not in here:
        raise ValueError(f"{wish}: this processor has {', '.join(here)}")
    return here.index(name)


def instruction_set() -> str:
    """The instruction set of the kernels in use: "portable", "avx2" or "avx512".

    The best that the processor has, unless the environment variable MEMORYFORMER_CPU_ISA or `use` named
    another. Float64 is always computed by portable code. Raises `LibraryMissingError`.
    """
    return INSTRUCTION_SETS[library().memoryformer_instruction_set()]


def use(name: str) -> None:
    """Use the kernels of another instruction set from now on; `ValueError` where the processor lacks it."""
    best = library().memoryformer_best_instruction_set()
    library().memoryformer_use_instruction_set(number(name, best, f"instruction set {name!r}"))


def torch_parallel_region() -> ctypes.c_void_p | None:
    """The entry of the OpenMP library that torch is linked to, None where it has no such entry.

    A symbol is looked for in torch's library and then in those it depends on, so this is the copy that torch
    uses, under whatever file name its wheel carries it.
    """
    try:
        linked = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / TORCH_LIBRARY))
        return ctypes.cast(linked.GOMP_parallel, ctypes.c_void_p)
    except (OSError, AttributeError):
        return None


def huge_pages(tables: torch.Tensor) -> bool:
    """Move tables [K, 2**tau, h], where they are, into memory pages of 2 MiB; whether the system did.

    Rows are looked up all over the tables: with pages of 4 KiB, finding the page is a part of the time. The
    tensor keeps its address; the system copies once. Linux 6.1 and later, for tables of a few MiB and more;
    elsewhere nothing happens and the answer is False. Raises `ValueError` for tables that are not contiguous.
    """
    if not tables.is_cpu or not tables.is_contiguous():
        raise ValueError(
            f"expected contiguous tables on the CPU; got {list(tables.shape)} on {tables.device}"
        )
    return library().memoryformer_huge_pages(tables.data_ptr(), tables.nbytes) == 0


def available() -> bool:
    """Whether the compiled library is there and can be loaded."""
    try:
        library()
    except LibraryMissingError:
        return False
    return True
