"""Triton kernels for attention with position tables per head."""
