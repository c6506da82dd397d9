"""Triton kernels for attention with position tables per head."""

from fope_triton.attention_ops import fope_attention, fope_attention_varlen
from fope_triton.cache_ops import fope_decode, fope_rotate_and_cache
from fope_triton.rotate_ops import fope_rotate

__all__ = [
    "fope_attention",
    "fope_attention_varlen",
    "fope_decode",
    "fope_rotate",
    "fope_rotate_and_cache",
]
