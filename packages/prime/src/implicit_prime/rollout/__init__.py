"""Rollout engines: responses by transformers, by vLLM in this process, or by a vLLM server."""
