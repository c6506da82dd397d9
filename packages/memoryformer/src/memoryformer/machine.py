"""What the machine has free."""

from __future__ import annotations

from pathlib import Path

import torch

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
