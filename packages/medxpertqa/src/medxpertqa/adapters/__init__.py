"""Other harnesses: tasks for lm-evaluation-harness, and readers of what EvalScope and OpenCompass wrote."""
