"""The other position embeddings of the comparison, in a Llama-like Hugging Face model.

RoPE, RoPE-A and NoPE are choices of the rotary frequencies; ALiBi, KERPLE and FIRE rotate nothing and add a
bias to the scores, through an attention interface that only the models they were applied to use.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

from fope.baselines import Alibi, Fire, Kerple, rope_a
from fope.errors import FopeError
from fope.hf.config import own_config, read

KINDS = ("rope", "rope_a", "nope", "alibi", "kerple", "fire")
ATTENTION = "fope_position_bias"


def apply_position(
    model: PreTrainedModel, kind: str, *, train_length: int | None = None, seed: int = 0
) -> PreTrainedModel:
    """Give `model`, which has rotary embeddings, positions of `kind`; returns it, changed in place.

    The config that it was made from stays as it was, for the next model.
    `train_length` is that of RoPE-A and FIRE. KERPLE and FIRE bring parameters of their own
    (`model.layers.*.self_attn.position_bias`), drawn from `seed`, which train and stand in the state dict
    with the others. The kind is not stored in the config: to load a saved model, build it, apply the kind,
    and load the state dict.

    Raises `FopeError` for an unknown kind, a missing `train_length`, or a model that has been changed before.
    """
    if kind not in KINDS:
        raise FopeError(f"there are no positions of kind {kind!r}; there are {', '.join(KINDS)}")
    if kind in ("rope_a", "fire") and train_length is None:
        raise FopeError(f"{kind} needs train_length, the length that the model is trained at")
    if read(model.config) is not None:
        raise FopeError(
            f"this {type(model).__name__} has Fourier position embeddings, which would go on rotating; "
            "apply to a model that was not converted, made from a config of its own"
        )
    base: Any = model.base_model
    rotary = base.rotary_emb
    if (previous := getattr(rotary, "position_kind", "rope")) != "rope":
        raise FopeError(f"this model already has positions of kind {previous!r}; apply to a fresh one")
    rotary.position_kind = kind
    if kind == "rope_a":
        _set_frequencies(rotary, rope_a(rotary.inv_freq, train_length or 0))
    elif kind != "rope":
        _set_frequencies(rotary, torch.zeros_like(rotary.inv_freq))  # cos 1, sin 0: no rotation
    if kind in ("alibi", "kerple", "fire"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for layer in base.layers:
                layer.self_attn.position_bias = _bias(kind, model.config.num_attention_heads, train_length)
        own_config(model)  # which the attention implementation is written into
        model.set_attn_implementation(ATTENTION)
    return model


def _set_frequencies(rotary: Any, inv_freq: torch.Tensor) -> None:
    rotary.inv_freq.copy_(inv_freq)
    rotary.original_inv_freq.copy_(inv_freq)


def _bias(kind: str, heads: int, train_length: int | None) -> nn.Module:
    if kind == "fire":
        return Fire(heads, train_length or 0)
    return Alibi(heads) if kind == "alibi" else Kerple(heads)


def biased_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' SDPA attention with the module's own bias (heads, queries, keys) on the scores."""
    keys = torch.arange(key.shape[2], device=key.device)
    bias: torch.Tensor = module.position_bias(keys[-query.shape[2] :], keys)
    bias = bias.to(query.dtype)[None]
    return sdpa_attention_forward(module, query, key, value, attention_mask, position_bias=bias, **kwargs)


AttentionInterface.register(ATTENTION, biased_attention)
AttentionMaskInterface.register(ATTENTION, eager_mask)  # additive, and never left out
