"""Triton kernels for MemoryFormer's hashed table look-up."""
