"""The transformer decoded as leanly as `compile_decode` decodes a MemoryFormer: claim C9's control.

transformers spends more time in Python than small matrices take. `compile_decode` spares MemoryFormer that
time, so a part of its lead over `generate` of a transformer has nothing to do with look-ups. This is the
same lean loop for GPT-NeoX: what lead is left is of the look-ups.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from memoryformer.hf import caches


@torch.no_grad()
def write(model: PreTrainedModel, prompt: Tensor, new_tokens: int) -> Tensor:
    """Greedy tokens (1, n + new_tokens) after a prompt (1, n), those of `model.generate`.

    `model` is a `GPTNeoXForCausalLM` with sequential residuals, in evaluation mode.
    """
    length = prompt.shape[1]
    ids = prompt.new_empty(1, length + new_tokens)
    ids[:, :length] = prompt
    outputs = model(prompt, use_cache=True, logits_to_keep=1)
    step = Step(model, outputs[caches.NAME], length + new_tokens)
    logits = outputs.logits[:, -1]
    for at in range(length, length + new_tokens):
        ids[:, at] = logits.argmax(-1)
        if at + 1 < length + new_tokens:
            logits = step(ids[:, at])
    return ids


class Step:
    """The model for one more token, over a cache with room for `max_length` tokens."""

    def __init__(self, model: Any, cache: Any, max_length: int) -> None:
        inner, config = model.gpt_neox, model.config
        self.heads, self.width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
        self.embedding, self.head = inner.embed_in.weight, model.get_output_embeddings().weight
        self.norm = _norm(inner.final_layer_norm)
        self.blocks = [
            (
                _norm(layer.input_layernorm),
                _linear(layer.attention.query_key_value),
                _linear(layer.attention.dense),
                _norm(layer.post_attention_layernorm),
                _linear(layer.mlp.dense_h_to_4h),
                _linear(layer.mlp.dense_4h_to_h),
            )
            for layer in inner.layers
        ]
        self.length = cache.get_seq_length()
        self.keys, self.values = (
            [self._room(getattr(layer, kind), max_length) for layer in cache.layers]
            for kind in ("keys", "values")
        )
        cos, sin = inner.rotary_emb(self.embedding, torch.arange(max_length)[None])
        self.cos, self.sin, self.rotated = cos[0], sin[0], cos.shape[-1]

    def _room(self, part: Tensor, max_length: int) -> Tensor:
        room = part.new_empty(1, self.heads, max_length, self.width)
        room[:, :, : self.length] = part
        return room

    def __call__(self, token: Tensor) -> Tensor:
        """Token id (1,) -> logits (1, vocab_size)."""
        at = self.length
        self.length += 1
        x = torch.embedding(self.embedding, token)
        for (norm_1, qkv, dense, norm_2, up, down), keys, values in zip(
            self.blocks, self.keys, self.values, strict=True
        ):
            query, key, value = F.linear(norm_1(x), *qkv).view(1, self.heads, 1, 3 * self.width).chunk(3, -1)
            keys[:, :, at : at + 1], values[:, :, at : at + 1] = self._turned(key, at), value
            past = slice(0, self.length)
            attended = F.scaled_dot_product_attention(
                self._turned(query, at), keys[:, :, past], values[:, :, past]
            )
            x = x + F.linear(attended.view(1, -1), *dense)
            x = x + F.linear(F.gelu(F.linear(norm_2(x), *up)), *down)
        return F.linear(self.norm(x), self.head)

    def _turned(self, x: Tensor, at: int) -> Tensor:
        """The rotary embedding of (1, heads, 1, width) at a position, on the first `rotated` dimensions."""
        part, rest = x[..., : self.rotated], x[..., self.rotated :]
        first, second = part.chunk(2, -1)
        turned = part * self.cos[at] + torch.cat([-second, first], -1) * self.sin[at]
        return torch.cat([turned, rest], -1)


def _norm(module: Any) -> Any:
    shape, weight, bias, eps = module.normalized_shape, module.weight, module.bias, module.eps
    return lambda x: torch.layer_norm(x, shape, weight, bias, eps)


def _linear(module: Any) -> tuple[Tensor, Tensor]:
    return module.weight, module.bias
