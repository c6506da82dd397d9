"""Running questions through a model, on inspect-ai: tasks, resumable runs, logs, and offline batches."""
