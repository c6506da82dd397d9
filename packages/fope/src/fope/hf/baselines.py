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
from fope.hf.rotation import attention_layers

KINDS = ("rope", "rope_a", "nope", "alibi", "kerple", "fire")
ATTENTION = "fope_position_bias"


def apply_position(
    model: PreTrainedModel, kind: str, *, train_length: int | None = None, seed: int = 0
) -> PreTrainedModel:
    """Give `model`, which has rotary embeddings, positions of `kind`; returns it, changed in place.

    The config that it was made from stays as it was, for the next model.
    `train_length` is that of RoPE-A and FIRE. KERPLE and FIRE bring parameters of their own (in a Llama
    `model.layers.*.self_attn.position_bias`), drawn from `seed`, which train and stand in the state dict
    with the others. The kind is not stored in the config: to load a saved model, build it, apply the kind,
    and load the state dict.

    Raises `FopeError` for an unknown kind, a missing `train_length`, a model that has been changed before or
    has no single rotary embedding, and where a bias is to join scores that are capped (Gemma 2); the model is
    then as it was.
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
    rotary = _single_rotary(model)
    if (previous := getattr(rotary, "position_kind", "rope")) != "rope":
        raise FopeError(f"this model already has positions of kind {previous!r}; apply to a fresh one")
    if kind in ("alibi", "kerple", "fire"):
        _add_bias(model, kind, train_length, seed)
    rotary.position_kind = kind
    if kind == "rope_a":
        _set_frequencies(rotary, rope_a(rotary.inv_freq, train_length or 0))
    elif kind != "rope":
        _set_frequencies(rotary, torch.zeros_like(rotary.inv_freq))  # cos 1, sin 0: no rotation
    return model


def _single_rotary(model: PreTrainedModel) -> Any:
    rotary: Any = getattr(model.base_model, "rotary_emb", None)
    if not attention_layers(model) or not hasattr(rotary, "inv_freq"):
        raise FopeError(
            f"{type(model).__name__} has no rotary embedding that these positions could replace; they go "
            "into Llama-like models: layers with attention, and one rotary_emb for all"
        )
    return rotary


def _add_bias(model: PreTrainedModel, kind: str, train_length: int | None, seed: int) -> None:
    config = model.config.get_text_config()
    if getattr(config, "attn_logit_softcapping", None):
        raise FopeError(
            f"{type(model).__name__} caps its attention scores, which {kind}'s attention does not; build it "
            "with attn_logit_softcapping=None to compare"
        )
    layers = attention_layers(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        biases = [_bias(kind, config.num_attention_heads, train_length) for _ in layers]
    own_config(model)  # which the attention implementation is written into
    model.set_attn_implementation(ATTENTION)
    for attention, bias in zip(layers, biases, strict=True):
        attention.position_bias = bias


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
    queries = _filled(keys, query.shape[2], attention_mask) - query.shape[2] + keys[: query.shape[2]]
    bias: torch.Tensor = module.position_bias(queries, keys)
    bias = bias.to(query.dtype)[None]
    return sdpa_attention_forward(module, query, key, value, attention_mask, position_bias=bias, **kwargs)


def _filled(keys: torch.Tensor, queries: int, mask: torch.Tensor | None) -> torch.Tensor | int:
    """How many keys the cache has, the queries' own among them; a static one has empty places behind.

    The last query sees itself, in one sequence at least, and no query sees an empty place.
    """
    if mask is None or queries == len(keys):
        return len(keys)
    seen = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min
    return torch.where(seen.flatten(0, -2).any(0), keys + 1, 0).amax()


AttentionInterface.register(ATTENTION, biased_attention)
AttentionMaskInterface.register(ATTENTION, eager_mask)  # additive, and never left out
