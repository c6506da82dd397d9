"""MemoryFormer's hashed table look-up for CPUs."""

from memoryformer_cpu.native import available, huge_pages, instruction_set
from memoryformer_cpu.ops import memory_lookup

__all__ = ["available", "huge_pages", "instruction_set", "memory_lookup"]
