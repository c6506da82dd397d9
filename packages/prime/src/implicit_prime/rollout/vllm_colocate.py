"""Rollouts by a vLLM engine in the trainer's own process, which shares its device."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from torch import nn

from implicit_prime.errors import PrimeError
from implicit_prime.rollout.base import Rollouts, Sampling
from implicit_prime.rollout.weights import base_model, whole_weights
from implicit_prm.backends.vllm import load_engine
from implicit_prm.sampling import VLLMSampler

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SEPARATE_PROCESS = "VLLM_ENABLE_V1_MULTIPROCESSING"


class VLLMEngine:
    """A `RolloutEngine` on a `vllm.LLM` that runs in this process; `from_model` makes one.

    Weights go over in memory, one at a time, and through what vLLM does to weights it loads (packing,
    quantisation). Between the rollouts of two steps an engine with sleep mode gives its memory back, weights
    included, as new ones come anyway. Each process has an engine of its own on its own device; a policy that
    does not fit on one is for `VLLMServerEngine`.

    Raises `PrimeError` for an engine in another process, and `ImplicitPRMError` for one whose log-probs are
    not the model's own.
    """

    def __init__(self, llm: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        if getattr(llm.llm_engine, "model_executor", None) is None:
            raise PrimeError(
                "the vLLM engine runs in a process of its own, where weights cannot follow: make it by "
                f"VLLMEngine.from_model, or set {_SEPARATE_PROCESS}=0 before vllm.LLM(...)"
            )
        self._llm = llm
        self._sampler = VLLMSampler(llm, tokenizer)
        settings = llm.llm_engine.vllm_config.model_config
        self._can_sleep = bool(settings.enable_sleep_mode)
        self._tied = bool(getattr(settings.hf_config, "tie_word_embeddings", False))
        self._asleep = False
        self._has_weights = False

    @classmethod
    def from_model(
        cls, model: nn.Module, tokenizer: PreTrainedTokenizerBase, *, max_length: int, **options: Any
    ) -> VLLMEngine:
        """An engine for models like this one, without weights: `sync_weights` brings them.

        max_length  the most tokens of prompt and response together
        options     those of `vllm.LLM`, such as `gpu_memory_utilization`

        On a GPU the engine has sleep mode, and writes in bfloat16 where the trainer's weights are float32.
        Raises `ImplicitPRMError` where vLLM is not installed or does not know the model.
        """
        base: Any = base_model(model)
        on_gpu = base.device.type == "cuda"
        dtype = torch.bfloat16 if on_gpu and base.dtype == torch.float32 else base.dtype
        settings: dict[str, Any] = {
            "load_format": "dummy",  # the weights come from the trainer, not a second time from the disk
            "skip_tokenizer_init": True,
            "dtype": str(dtype).removeprefix("torch."),
            "max_model_len": max_length,
            "enable_sleep_mode": on_gpu,
            "disable_log_stats": True,
        }
        if PartialState().num_processes > 1:
            # Not a group of engines: each process is one, and vLLM starts no processes beside them.
            settings["distributed_executor_backend"] = "external_launcher"
        if not on_gpu:
            # On CPUs vLLM packs a copy of the head's weights, which it does not renew with the embedding's.
            settings["hf_overrides"] = {"tie_word_embeddings": False}
        with _saved_architecture(base) as folder, _in_this_process():
            return cls(load_engine(folder, **settings | options), tokenizer)

    def sync_weights(self, model: nn.Module) -> None:
        """See `RolloutEngine.sync_weights`. Raises `PrimeError` for adapters that cannot be merged."""
        if self._asleep:
            torch.cuda.empty_cache()  # vLLM takes its memory from the driver, not from torch's cache
            self._llm.wake_up(tags=["weights"])
        weights = whole_weights(model, untied=not self._tied)
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        if self._asleep:
            self._llm.wake_up(tags=["kv_cache"])
            self._asleep = False
        self._llm.reset_prefix_cache()  # what it holds was computed with the weights of before
        self._has_weights = True

    def generate(self, prompt_ids: Sequence[Sequence[int]], n: int, sampling: Sampling) -> Rollouts:
        """See `RolloutEngine.generate`. Raises `PrimeError` before `sync_weights` and after `rest`."""
        if not self._has_weights:
            raise PrimeError("the engine has no weights: call sync_weights(model) before generate")
        return Rollouts.from_samples(
            self._sampler.sample(
                prompt_ids,
                n,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                seed=sampling.seed,
            )
        )

    def rest(self) -> None:
        """See `RolloutEngine.rest`."""
        if self._can_sleep and not self._asleep:
            self._llm.sleep(level=2)
            self._asleep, self._has_weights = True, False


@contextmanager
def _saved_architecture(base: Any) -> Iterator[str]:
    """A folder with all that vLLM reads of a model but its weights."""
    config = copy.deepcopy(base.config)
    config.architectures = [type(base).__name__.removeprefix("FSDP")]
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        if getattr(base, "generation_config", None) is not None:
            base.generation_config.save_pretrained(folder)  # chat models have end tokens there
        yield folder


@contextmanager
def _in_this_process() -> Iterator[None]:
    before = os.environ.get(_SEPARATE_PROCESS)
    os.environ[_SEPARATE_PROCESS] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SEPARATE_PROCESS]
        else:
            os.environ[_SEPARATE_PROCESS] = before
