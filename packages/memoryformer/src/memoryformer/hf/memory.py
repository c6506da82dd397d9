"""Is there room for the model? Asked before it is built: few computations, but very large tables."""

from __future__ import annotations

import torch

from memoryformer import flops
from memoryformer.errors import MemoryFormerError
from memoryformer.hf.config import MemoryFormerConfig
from memoryformer.machine import free_bytes


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


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
