"""The rollout engine that the settings name."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from implicit_prime.errors import PrimeError
from implicit_prime.rollout.base import RolloutEngine

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from implicit_prime.config import PrimeConfig


def engine_for(config: PrimeConfig, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> RolloutEngine:
    """The engine of `config.rollout` for `model`; `sync_weights` comes before its first `generate`.

    Raises `PrimeError` or `ImplicitPRMError` where what it needs is not installed or does not answer.
    """
    if config.rollout == "hf":
        from implicit_prime.rollout.transformers import HFEngine

        return HFEngine(model, tokenizer, batch_size=config.rollout_batch_size)
    if config.rollout == "vllm_colocate":
        if find_spec("vllm") is None:
            raise PrimeError(
                "rollout is 'vllm_colocate', and vLLM is not installed: pip install 'implicit-prime[vllm]'"
            )
        from implicit_prime.rollout.vllm_colocate import VLLMEngine

        return VLLMEngine.from_model(
            model,
            tokenizer,
            max_length=config.max_prompt_length + config.max_completion_length,
            gpu_memory_utilization=config.vllm_gpu_memory_utilization,
        )
    from implicit_prime.rollout.vllm_server import VLLMServerEngine

    return VLLMServerEngine(config.vllm_server_url, tokenizer, sync_folder=config.vllm_sync_folder)
