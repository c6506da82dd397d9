"""MemoryFormer's hashed table look-up for CPUs."""
