"""MemoryFormer's hashed table look-up for CPUs."""

from memoryformer_cpu.native import available
from memoryformer_cpu.ops import memory_lookup

__all__ = ["available", "memory_lookup"]
