"""Triton kernels for attention with position tables per head."""

from fope_triton.cache_ops import fope_decode, fope_rotate_and_cache

__all__ = ["fope_decode", "fope_rotate_and_cache"]
