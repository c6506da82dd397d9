"""Tables in huge pages of memory, for inference on Linux: fewer address translations for scattered rows.

New tables ask for them by themselves (`machine.empty_tables`); loaded ones lie where the loader put them.
"""

from __future__ import annotations

import mmap

import torch
from torch import Tensor, nn

from memoryformer.errors import MemoryFormerError
from memoryformer.layers import LookupLayer


def use_huge_pages_(model: nn.Module) -> nn.Module:
    """Move the tables of every layer of `model` on the CPU, in place, to memory that asks for huge pages.

    A look-up reads rows all over its tables, most of them on a 4 KB page of their own; with pages of 2 MB the
    translations of their addresses stay cached.
    Results do not change. Takes effect where /sys/kernel/mm/transparent_hugepage/enabled says "madvise" or
    "always". Returns the model. Raises `MemoryFormerError` where the system has no huge pages, tables are
    not on the CPU, or there are none.
    """
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        raise MemoryFormerError("this system offers no huge pages to Python: they need Linux")
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LookupLayer)}
    if not layers:
        raise MemoryFormerError(f"{type(model).__name__} has no layer with tables")
    for name, layer in layers.items():
        if not layer.tables.is_cpu:
            raise MemoryFormerError(
                f"the tables of {name or model} are on {layer.tables.device}, not on the CPU"
            )
    for layer in layers.values():
        layer.tables.data = _in_huge_pages(layer.tables.data)
    return model


def _in_huge_pages(tables: Tensor) -> Tensor:
    # Private: pages shared between processes follow another setting, which is off on most systems.
    memory = mmap.mmap(-1, tables.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=tables.dtype).view(tables.shape).copy_(tables)
