"""Is there room for the model? Asked before it is built: few computations, but very large tables."""

from __future__ import annotations

from pathlib import Path

import torch

from memoryformer import flops
from memoryformer.errors import MemoryFormerError
from memoryformer.hf.config import MemoryFormerConfig

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int | None:
    """Bytes that a new tensor can still have on `device`; None where that cannot be told.

    On the CPU what Linux calls available, or what is left of the container's limit if that is less.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu" or not _MEMINFO.exists():
        return None
    lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    available = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)
    limits = [left for left in (available, _left_in_container()) if left is not None]
    return min(limits, default=None)


def check_fits(config: MemoryFormerConfig, device: torch.device, dtype: torch.dtype) -> None:
    """Raise `MemoryFormerError` if the model's parameters need more than the free memory of `device`."""
    counts = flops.parameters(config)
    needed = counts["total"] * dtype.itemsize
    free = free_bytes(device)
    if free is None or needed <= free:
        return
    name = str(dtype).removeprefix("torch.")
    raise MemoryFormerError(
        f"the model needs {_gb(needed)} in {name}, and {device} has {_gb(free)} free; of its "
        f"{counts['total']:,} parameters {counts['tables']:,} are in tables. In bfloat16 "
        "(AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)) it needs "
        f"{_gb(2 * counts['total'])}; a saved model with int8 tables (quantize_tables_) about "
        f"{_gb(counts['total'])}. Or build it under torch.device('meta') and shard it over several processes "
        "(fully_shard), or choose a smaller width or tau"
    )


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


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
