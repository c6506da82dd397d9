"""The loop of a run, and what it keeps on disk."""
