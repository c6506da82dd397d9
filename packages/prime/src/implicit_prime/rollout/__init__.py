"""Rollout engines: responses by transformers, by vLLM in this process, or by a vLLM server."""

from implicit_prime.rollout.base import RolloutEngine, Rollouts, Sampling, check_drift, log_prob_drift
from implicit_prime.rollout.choice import engine_for

__all__ = ["RolloutEngine", "Rollouts", "Sampling", "check_drift", "engine_for", "log_prob_drift"]
