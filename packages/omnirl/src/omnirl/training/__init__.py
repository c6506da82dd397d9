"""Meta-training in segments with carried memory, resumable bit for bit (sections 2.7 and 6.2)."""
