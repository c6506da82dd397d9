"""RoPE to FoPE in place: `convert_to_fope` gives every attention layer of a Hugging Face model its own tables."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from fope.config import FopeConfig
from fope.embedding import FourierPositionEmbedding
from fope.errors import FopeError
from fope.hf.rotation import give_tables, patch_family


def convert_to_fope(
    model: PreTrainedModel,
    *,
    train_length: int,
    init_gain: float = 0.3,
    seed: int = 0,
    zero_sin: float = 0.0,
    preserve: bool = True,
    per_layer: bool = True,
    **options: Any,
) -> PreTrainedModel:
    """Give `model` Fourier position embeddings, in place; returns it.

    `train_length` is the length it will be trained (or fine-tuned) at; frequencies without a full period in it
    are clipped. θ, the head dimension and the number of key-value heads are the model's. `options` are other
    settings of `FopeConfig` (`clip=False`, `oversample=4`, ...). `per_layer` False shares one set of
    coefficients over all layers. With `zero_sin` ζ other than 0, `preserve` divides the clipped channels of q
    and k by sqrt(1 + ζ²), so that a trained model keeps its scores.

    Raises `FopeError` for a model without rotary embeddings or one that is converted already.
    """
    layers = attention_layers(model)
    if any(hasattr(layer, "fope") for layer in layers):
        raise FopeError(f"this {type(model).__name__} has Fourier position embeddings already")
    config = fope_config(model, train_length, init_gain=init_gain, zero_sin=zero_sin, **options)
    attach(layers, config, seed=seed, per_layer=per_layer)
    return model


def fope_config(model: PreTrainedModel, train_length: int, **options: Any) -> FopeConfig:
    """The FoPE config that fits the model's heads and θ."""
    config = model.config.get_text_config()
    rope = config.rope_parameters
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    share = rope.get("partial_rotary_factor", 1.0)
    rotary_dim = int(head_dim * share)
    return FopeConfig(
        head_dim=head_dim,
        num_heads=getattr(config, "num_key_value_heads", None) or heads,
        train_length=train_length,
        theta=rope["rope_theta"],
        **({} if rotary_dim == head_dim else {"rotary_dim": rotary_dim}),
        **options,
    )


def attention_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The attention modules that rotate, in the order of the layers. Raises `FopeError` if there are none."""
    layers = getattr(model.base_model, "layers", None)
    names = ("self_attn", "attention")
    found = [getattr(layer, name) for layer in layers or () for name in names if hasattr(layer, name)]
    if not found or not hasattr(model.base_model, "rotary_emb"):
        raise FopeError(
            f"{type(model).__name__} has no rotary position embeddings that fope.hf knows; it converts Llama-like "
            "models (layers with attention, one rotary_emb)"
        )
    return found


def attach(layers: list[nn.Module], config: FopeConfig, *, seed: int, per_layer: bool) -> None:
    """Put an embedding as `fope` into each attention module, and the patches that make it count."""
    generator = torch.Generator().manual_seed(seed)
    shared = None if per_layer else FourierPositionEmbedding(config, generator=generator)
    for layer in layers:
        device = next(layer.parameters()).device
        layer.fope = (shared or FourierPositionEmbedding(config, generator=generator)).to(device)
        patch_family(layer)
        layer.register_forward_pre_hook(give_tables, with_kwargs=True)


def preserve_factor(zero_sin: float) -> float:
    """What clipped channels of q and k are divided by: sqrt(1 + ζ²)."""
    return math.sqrt(1 + zero_sin**2)
