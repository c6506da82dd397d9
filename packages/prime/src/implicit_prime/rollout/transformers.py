"""Rollouts by transformers: on CPUs, for tests, and where vLLM does not know the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from implicit_prime.rollout.base import Rollouts, Sampling
from implicit_prime.rollout.weights import bare_model, base_model, is_sharded, whole_weights
from implicit_prm.sampling import HFSampler

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class HFEngine:
    """A `RolloutEngine` that writes with the trained model itself, which it never copies unless it must.

    Responses are written `batch_size` at a time, longest prompts first, with a cache of keys and values; a
    prompt is read once for all of its responses. With a seed, a response depends on its prompt's position and
    its own number alone, not on the batch.

    A model sharded by FSDP2 is gathered into a whole copy at each sync, as the processes write responses of
    other lengths and could not take part in each other's forward passes.

    Raises `implicit_prm.ImplicitPRMError` for `batch_size` below 1 and a tokenizer without an end token.
    """

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, *, batch_size: int = 64) -> None:
        self._sampler = HFSampler(
            cast("PreTrainedModel", bare_model(model)), tokenizer, batch_size=batch_size
        )
        self._replica: PreTrainedModel | None = None

    def sync_weights(self, model: nn.Module) -> None:
        """See `RolloutEngine.sync_weights`; nothing moves unless the model is sharded."""
        model = bare_model(model)
        if is_sharded(model):
            self._replica = self._replica or _like(model)
            _load(self._replica, model)
            model = self._replica
        self._sampler.model = cast("PreTrainedModel", model)

    def generate(self, prompt_ids: Sequence[Sequence[int]], n: int, sampling: Sampling) -> Rollouts:
        """See `RolloutEngine.generate`. Raises `ImplicitPRMError` also where memory or the numbers fail."""
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
        """Nothing to give back: the weights are the trainer's."""


def _like(model: nn.Module) -> PreTrainedModel:
    """A whole model of the sharded one's kind, without adapters; its weights mean nothing yet."""
    base: Any = base_model(model)
    with torch.random.fork_rng():  # its first weights must not change what the trainer draws next
        whole = type(base)(base.config)  # FSDP2's classes construct the class that they shard
    whole.to(device=base.device, dtype=base.dtype)
    return cast("PreTrainedModel", whole.eval().requires_grad_(False))


@torch.no_grad()
def _load(whole: PreTrainedModel, model: nn.Module) -> None:
    weights = dict(whole.named_parameters())
    for name, value in whole_weights(model):
        weights[name].copy_(value)
