"""MemoryFormer: fully connected layers replaced by hashed look-up tables.

Importing the package needs torch only; what needs more is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from memoryformer.errors import MemoryFormerError, MemoryFormerWarning
from memoryformer.registration import register_with_transformers

if TYPE_CHECKING:
    from memoryformer import convert, debug, flops, functional, parallel, plots, statistics, training
    from memoryformer.hf.application import apply_memoryformer
    from memoryformer.hf.config import MemoryFormerConfig
    from memoryformer.hf.modeling import MemoryFormerForCausalLM
    from memoryformer.huge_pages import use_huge_pages_
    from memoryformer.layers import MemoryBlock, MemoryLayer
    from memoryformer.quantization import QuantizedMemoryLayer, quantize_tables_
    from memoryformer.statistics import bucket_stats
    from memoryformer.training import param_groups

__all__ = [
    "MemoryBlock",
    "MemoryFormerConfig",
    "MemoryFormerError",
    "MemoryFormerForCausalLM",
    "MemoryFormerWarning",
    "MemoryLayer",
    "QuantizedMemoryLayer",
    "apply_memoryformer",
    "bucket_stats",
    "convert",
    "debug",
    "flops",
    "functional",
    "parallel",
    "param_groups",
    "plots",
    "quantize_tables_",
    "statistics",
    "training",
    "use_huge_pages_",
]

register_with_transformers()

_HOME = {
    "MemoryBlock": "layers",
    "MemoryFormerConfig": "hf.config",
    "MemoryFormerForCausalLM": "hf.modeling",
    "MemoryLayer": "layers",
    "QuantizedMemoryLayer": "quantization",
    "apply_memoryformer": "hf.application",
    "bucket_stats": "statistics",
    "param_groups": "training",
    "quantize_tables_": "quantization",
    "use_huge_pages_": "huge_pages",
}
_SUBMODULES = ("convert", "debug", "flops", "functional", "parallel", "plots", "statistics", "training")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"memoryformer.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'memoryformer' has no attribute {name!r}")
    return getattr(importlib.import_module(f"memoryformer.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
