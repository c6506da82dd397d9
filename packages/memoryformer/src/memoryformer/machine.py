"""The machine's memory: what is free, and pages for new tables."""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from memoryformer.errors import MemoryFormerError

_HUGE_PAGE = 1 << 21
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def empty_tables(
    shape: Sequence[int], dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Tensor:
    """`torch.empty` for tables; on Linux its memory asks for pages of 2 MB before anything is written there.

    Rows are fetched from all over the tables, and with pages of 4 KB finding its page is a good part of the
    time that a row takes. The system may say no, which changes nothing but the time.
    """
    tables = torch.empty(tuple(shape), dtype=dtype, device=device)
    if hasattr(mmap, "MADV_HUGEPAGE") and type(tables) is Tensor and tables.is_cpu:
        first = -(-tables.data_ptr() // _HUGE_PAGE) * _HUGE_PAGE
        last = (tables.data_ptr() + tables.nbytes) // _HUGE_PAGE * _HUGE_PAGE
        if first < last:
            ctypes.CDLL(None).madvise(
                ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_HUGEPAGE
            )
    return tables


def check_tables_fit(
    shape: Sequence[int], dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> None:
    """Raise `MemoryFormerError` if tables of this shape need more memory than is free; none are made."""
    nothing = torch.empty(0, dtype=dtype, device=device)  # on the device and of the dtype that `None` means
    if type(nothing) is not Tensor:  # under a mode whose tensors have no memory
        return
    needed, free = math.prod(shape) * nothing.itemsize, free_bytes(nothing.device)
    if free is None or needed <= free:
        return
    tables, rows, width = shape
    raise MemoryFormerError(
        f"{tables:,} tables of {rows:,} rows of {width:,} numbers need {needed / 1e9:.1f} GB in "
        f"{str(nothing.dtype).removeprefix('torch.')}, and {nothing.device} has {free / 1e9:.1f} GB free: "
        "choose a smaller tau (a table has 2^tau rows) or smaller widths, give dtype=torch.bfloat16, or "
        "build the layer under torch.device('meta')"
    )


def free_bytes(device: torch.device) -> int | None:
    """Bytes that a new tensor can still have on `device`; None where that cannot be told.

    On the CPU what Linux calls available, or what is left of the container's limit if that is less. On a GPU
    also what torch has reserved there and does not use.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type != "cpu" or not _MEMINFO.exists():
        return None
    lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    available = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)
    limits = [left for left in (available, _left_in_container()) if left is not None]
    return min(limits, default=None)


def _left_in_container() -> int | None:
    """Bytes left under the limit of the control group (version 2), where there is one."""
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        statistics = (_CGROUP / "memory.stat").read_text(encoding="ascii")
    except OSError:
        return None
    if not limit.isdigit():
        return None
    # Cached files count as used, and are given up when memory is asked for.
    cached = next((int(x.split()[1]) for x in statistics.splitlines() if x.startswith("inactive_file ")), 0)
    return int(limit) - used + cached
