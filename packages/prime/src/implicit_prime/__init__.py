"""PRIME: reinforcement learning of language models with implicit process rewards, learned online.

Importing the package is light; what needs torch or transformers is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from implicit_prime.errors import PrimeError, PrimeWarning

if TYPE_CHECKING:
    from implicit_prime import core, sandbox, verifiers
    from implicit_prime.config import PrimeConfig
    from implicit_prime.core import (
        accuracy_filter,
        gae_advantage,
        grpo_advantage,
        implicit_value_advantage,
        normalize_process,
        pair_accuracy,
        ppo_clip_loss,
        reinforce_advantage,
        rloo_advantage,
        whiten,
    )
    from implicit_prime.online import OnlinePRM
    from implicit_prime.rollout import RolloutEngine, Rollouts, Sampling
    from implicit_prime.rollout.transformers import HFEngine
    from implicit_prime.rollout.vllm_colocate import VLLMEngine
    from implicit_prime.rollout.vllm_server import VLLMServerEngine
    from implicit_prime.sandbox import BubblewrapSandbox
    from implicit_prime.trainer import PrimeTrainer
    from implicit_prime.verifiers import CodeVerifier, ExactVerifier, MathVerifier, VerifierResult

__all__ = [
    "BubblewrapSandbox",
    "CodeVerifier",
    "ExactVerifier",
    "HFEngine",
    "MathVerifier",
    "OnlinePRM",
    "PrimeConfig",
    "PrimeError",
    "PrimeTrainer",
    "PrimeWarning",
    "RolloutEngine",
    "Rollouts",
    "Sampling",
    "VLLMEngine",
    "VLLMServerEngine",
    "VerifierResult",
    "accuracy_filter",
    "core",
    "gae_advantage",
    "grpo_advantage",
    "implicit_value_advantage",
    "normalize_process",
    "pair_accuracy",
    "ppo_clip_loss",
    "reinforce_advantage",
    "rloo_advantage",
    "sandbox",
    "verifiers",
    "whiten",
]

# Public name -> the module it lives in: one line a name.
_HOME = {
    "BubblewrapSandbox": "sandbox",
    "CodeVerifier": "verifiers",
    "ExactVerifier": "verifiers",
    "HFEngine": "rollout.transformers",
    "MathVerifier": "verifiers",
    "OnlinePRM": "online",
    "PrimeConfig": "config",
    "PrimeTrainer": "trainer",
    "RolloutEngine": "rollout",
    "Rollouts": "rollout",
    "Sampling": "rollout",
    "VLLMEngine": "rollout.vllm_colocate",
    "VLLMServerEngine": "rollout.vllm_server",
    "VerifierResult": "verifiers",
    "accuracy_filter": "core",
    "gae_advantage": "core",
    "grpo_advantage": "core",
    "implicit_value_advantage": "core",
    "normalize_process": "core",
    "pair_accuracy": "core",
    "ppo_clip_loss": "core",
    "reinforce_advantage": "core",
    "rloo_advantage": "core",
    "whiten": "core",
}
_SUBMODULES = ("core", "sandbox", "verifiers")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"implicit_prime.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'implicit_prime' has no attribute {name!r}")
    return getattr(importlib.import_module(f"implicit_prime.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
