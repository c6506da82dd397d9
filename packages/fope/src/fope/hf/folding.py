"""Folding a whole model: the sine of its clipped pairs goes into the weights that make their channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fope.config import FopeConfig
from fope.errors import FopeError
from fope.folding import fold_norm, fold_rows
from fope.hf.config import own_config, require, store
from fope.hf.rotation import rotating_layers


def fold_zero_phase(model: PreTrainedModel, zero_sin: float = 0.0) -> PreTrainedModel:
    """Turn a FoPE model into the same function with another `zero_sin`, in place; returns it.

    Clipped channels of q and k are scaled by √((1 + ζ²)/(1 + ζ'²)): in the weights of q_norm and k_norm
    where a layer has them, else in the rows (and biases) of the projections. Exact up to rounding of the
    weights. Raises `FopeError` for a model without FoPE, or whose projections fope.hf does not know.
    """
    stored = require(model)
    if zero_sin == stored.config.zero_sin:
        return model
    own_config(model)
    for layer in rotating_layers(model):
        _fold_layer(layer, stored.config, zero_sin)
    folded = dataclasses.replace(stored.config, zero_sin=zero_sin)
    for layer in rotating_layers(model):
        layer.fope.config = folded
    store(model.config, dataclasses.replace(stored, config=folded))
    return model


def _fold_layer(layer: Any, config: FopeConfig, zero_sin: float) -> None:
    def rows(part: Tensor) -> Tensor:
        return fold_rows(part, config, zero_sin)

    if hasattr(layer, "q_norm") and hasattr(layer, "k_norm"):
        for norm in (layer.q_norm, layer.k_norm):
            _fold_norm(norm, config, zero_sin)
    elif hasattr(layer, "q_proj") and hasattr(layer, "k_proj"):
        for projection in (layer.q_proj, layer.k_proj):
            _rewrite(projection, rows)
    elif hasattr(layer, "qkv_proj"):  # q, k and v one after the other
        queries = layer.qkv_proj.weight.shape[0] - 2 * config.num_heads * config.head_dim
        end = queries + config.num_heads * config.head_dim
        _rewrite(layer.qkv_proj, lambda part: torch.cat([rows(part[:end]), part[end:]]))
    elif hasattr(layer, "query_key_value"):  # q, k and v of each head in turn
        _rewrite(layer.query_key_value, lambda part: _by_head(part, config, rows))
    else:
        raise FopeError(f"{type(layer).__name__} has no projections of q and k that fope.hf knows")


def _fold_norm(norm: nn.Module, config: FopeConfig, zero_sin: float) -> None:
    """Norms over a head's channels, or, as in OLMo 2, over those of all heads."""
    offset = 1.0 if "Gemma" in type(norm).__name__ else 0.0
    _rewrite(
        norm,
        lambda weight: (
            fold_norm(weight, config, zero_sin, offset)
            if weight.shape[-1] == config.head_dim
            else fold_rows(weight, config, zero_sin)
        ),
    )


def _by_head(part: Tensor, config: FopeConfig, rows: Callable[[Tensor], Tensor]) -> Tensor:
    heads = part.unflatten(0, (-1, 3, config.head_dim)).clone()
    for which in (0, 1):
        heads[:, which] = rows(heads[:, which].flatten(0, 1)).unflatten(0, (-1, config.head_dim))
    return heads.flatten(0, 2)


def _rewrite(module: Any, change: Callable[[Tensor], Tensor]) -> None:
    with torch.no_grad():
        for parameter in (module.weight, getattr(module, "bias", None)):
            if parameter is not None:
                parameter.copy_(change(parameter))
