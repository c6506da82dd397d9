"""Triton kernels for MemoryFormer's hashed table look-up."""

from memoryformer_triton.ops import hash, memory_lookup
from memoryformer_triton.report import aot_report

__all__ = ["aot_report", "hash", "memory_lookup"]
