"""The keys and values of prompts, computed once for all responses that follow them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from implicit_prm.backends.batching import cheapest_cuts

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def cache_name(model: PreTrainedModel) -> str | None:
    """What the model's `forward` calls its cache: `cache` from transformers 5.24 on; None: it takes none."""
    accepted = inspect.signature(_inner(model).forward).parameters
    return next((name for name in ("past_key_values", "cache") if name in accepted), None)


def can_share_prompts(model: PreTrainedModel) -> bool:
    """Whether what a model keeps of a prompt is one key and one value for each token in every layer.

    Not so for sliding windows, chunked attention and state spaces; nor without places for a cache and for
    position ids in the model's `forward`.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    inner = _inner(model)
    accepted = inspect.signature(inner.forward).parameters
    if inner._is_stateful or cache_name(model) is None or "position_ids" not in accepted:
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=inner.config).layers)


class PromptCache:
    """Keys and values of G prompts, padded on the right: in each layer two tensors [G, heads, P, d].

    tokens: those of all prompts; computed: the positions fed to get them, padding included.
    """

    def __init__(
        self, layers: list[tuple[Tensor, Tensor]], lengths: list[int], computed: int, name: str
    ) -> None:
        self._layers = layers
        self._name = name  # of the cache among the model's arguments
        self._lengths = lengths
        self.tokens = sum(lengths)
        self.computed = computed

    @classmethod
    def compute(
        cls, model: PreTrainedModel, prompts: Sequence[Sequence[int]], batch_size: int
    ) -> PromptCache:
        """Feed the prompts, the longest first, at most `batch_size` at a time; none may be empty."""
        from transformers import DynamicCache

        longest, computed, name = max(map(len, prompts)), 0, cache_name(model) or "past_key_values"
        parts: list[list[tuple[Tensor, Tensor]]] = []
        for part in cheapest_cuts([len(prompt) for prompt in prompts], batch_size):
            tokens = padded(prompts[part], 0, model.device)
            cache = DynamicCache(config=_inner(model).config)
            # Of the logits only the last position's, which nobody reads, can be asked for: none would be all.
            model(input_ids=tokens, **{name: cache}, use_cache=True, logits_to_keep=1)
            computed += tokens.numel()
            room = (0, 0, 0, longest - tokens.shape[1])
            parts.append([(F.pad(keys, room), F.pad(values, room)) for keys, values, _ in cache])
        layers = [
            (torch.cat([keys for keys, _ in layer]), torch.cat([values for _, values in layer]))
            for layer in zip(*parts, strict=True)
        ]
        return cls(layers, [len(prompt) for prompt in prompts], computed, name)

    def followed_by(self, tokens: Tensor, prompts: Sequence[int]) -> dict[str, Any]:
        """What to call the model with so that row b of `tokens` [B, T] follows prompt number `prompts[b]`.

        Rows may be padded on the right, where a causal model does not see it.
        """
        from transformers import DynamicCache

        number = torch.tensor(prompts, device=tokens.device)
        lengths = torch.tensor([self._lengths[prompt] for prompt in prompts], device=tokens.device)
        width = max(self._lengths[prompt] for prompt in prompts)
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        held = torch.arange(width, device=tokens.device) < lengths[:, None]
        kept = [
            (keys[number.to(keys.device), :, :width], values[number.to(values.device), :, :width])
            for keys, values in self._layers
        ]
        return {
            "input_ids": tokens,
            "attention_mask": torch.cat([held, torch.ones_like(tokens, dtype=torch.bool)], 1).long(),
            "position_ids": lengths[:, None] + positions,
            self._name: DynamicCache(kept),
            "use_cache": True,
        }


def _inner(model: Any) -> Any:
    """The model of transformers inside PEFT's wrapper, where there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def padded(rows: Sequence[Sequence[int]], filler: int, device: torch.device) -> Tensor:
    """Rows of any lengths as one int64 tensor [B, T], filled up on the right."""
    block = torch.full((len(rows), max(map(len, rows))), filler, dtype=torch.long)
    for at, row in enumerate(rows):
        block[at, : len(row)] = torch.tensor(row, dtype=torch.long)
    return block.to(device)
