"""Folding a whole model: the sine of its clipped pairs goes into the weights that make their channels."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel

from fope.config import FopeConfig
from fope.errors import FopeError
from fope.folding import fold_norm, fold_rows
from fope.hf.config import own_config, require, store
from fope.hf.rotation import rotating_layers

OTHER_NORM = re.compile(r"(?!(q|k)_norm$)(q|k|qk|query|key)_.*norm")  # some of them come after the rotation


def fold_zero_phase(model: PreTrainedModel, zero_sin: float = 0.0) -> PreTrainedModel:
    """Turn a FoPE model into the same function with another `zero_sin`, in place; returns it.

    Clipped channels of q and k are scaled by √((1 + ζ²)/(1 + ζ'²)): in the weights of q_norm and k_norm
    where a layer has them, else in the rows (and biases) of the projections. Exact up to rounding of the
    weights. Raises `FopeError` for a model without FoPE, or whose norms or projections fope.hf does not
    know or are adapted or quantised, before anything is changed.
    """
    stored = require(model)
    if zero_sin == stored.config.zero_sin:
        return model
    folded = dataclasses.replace(stored.config, zero_sin=zero_sin)
    check_foldable(model)
    own_config(model)
    for layer in rotating_layers(model):
        _fold_layer(layer, stored.config, zero_sin)
    for layer in rotating_layers(model):
        layer.fope.config = folded
    store(model.config, dataclasses.replace(stored, config=folded))
    return model


def check_foldable(model: PreTrainedModel) -> None:
    """Raise `FopeError` unless every layer makes its queries and keys by norms or projections known here."""
    for layer in rotating_layers(model):
        name = type(layer).__name__
        if others := [child for child, _ in layer.named_children() if OTHER_NORM.fullmatch(child)]:
            raise FopeError(
                f"{name} normalizes queries and keys by {', '.join(others)}, which fope.hf cannot fold; "
                "convert with zero_sin=0"
            )
        for part in _parts(layer):
            module = getattr(layer, part)
            if any(module.children()) if _has_norms(layer) else type(module) is not nn.Linear:
                raise FopeError(
                    f"{name}.{part} is a {type(module).__module__}.{type(module).__qualname__}, and folding "
                    "rewrites plain weights: merge adapters first (merge_and_unload()), and fold before "
                    "quantising"
                )
            if _has_norms(layer):
                _norm_offset(module)


def _parts(layer: Any) -> tuple[str, ...]:
    """What is folded in a layer, by name: its norms of q and k where it has them, else its projections.

    Raises `FopeError` for a layer that has none of those known here.
    """
    if _has_norms(layer):
        return "q_norm", "k_norm"
    for names in (("q_proj", "k_proj"), ("qkv_proj",), ("query_key_value",)):
        if all(hasattr(layer, name) for name in names):
            return names
    raise FopeError(f"{type(layer).__name__} has no projections of q and k that fope.hf knows")


def _has_norms(layer: Any) -> bool:
    return hasattr(layer, "q_norm") and hasattr(layer, "k_norm")


def _fold_layer(layer: Any, config: FopeConfig, zero_sin: float) -> None:
    def rows(part: Tensor) -> Tensor:
        return fold_rows(part, config, zero_sin)

    if _has_norms(layer):
        for norm in (layer.q_norm, layer.k_norm):
            _fold_norm(norm, config, zero_sin)
    elif hasattr(layer, "k_proj"):
        for projection in (layer.q_proj, layer.k_proj):
            _rewrite(projection, rows)
    elif hasattr(layer, "qkv_proj"):  # q, k and v one after the other
        queries = layer.qkv_proj.weight.shape[0] - 2 * config.num_heads * config.head_dim
        end = queries + config.num_heads * config.head_dim
        _rewrite(layer.qkv_proj, lambda part: torch.cat([rows(part[:end]), part[end:]]))
    else:  # query_key_value: q, k and v of each head in turn
        _rewrite(layer.query_key_value, lambda part: _by_head(part, config, rows))


def _fold_norm(norm: Any, config: FopeConfig, zero_sin: float) -> None:
    """Norms over a head's channels, or, as in OLMo 2, over those of all heads."""
    with torch.no_grad():
        for name, part in norm.named_parameters(recurse=False):
            offset = _norm_offset(norm) if name == "weight" else 0.0
            if part.shape[-1] == config.head_dim:
                folded = fold_norm(part.double(), config, zero_sin, offset)
            else:
                folded = fold_rows(part.double() + offset, config, zero_sin) - offset
            part.copy_(folded)


def _norm_offset(norm: Any) -> float:
    """What a norm adds to its weight before it multiplies: 0, or 1 as in Gemma and Qwen3-Next. Tried out.

    Raises `FopeError` for a norm that multiplies by neither.
    """
    weight: Tensor | None = getattr(norm, "weight", None)
    if weight is not None:
        x = torch.linspace(-1, 2, weight.numel(), device=weight.device).view(1, 1, *weight.shape)
        zero, one = (_normalized(norm, x, value) for value in (0.0, 1.0))
        for offset in (0.0, 1.0):
            if one.any() and torch.allclose(zero * (1 + offset), one * offset, atol=1e-6):
                return offset
    raise FopeError(
        f"{type(norm).__name__} multiplies by neither its weight nor 1 + its weight, so fope.hf cannot fold; "
        "convert with zero_sin=0"
    )


def _normalized(norm: nn.Module, x: Tensor, weight: float) -> Tensor:
    """What `norm` makes of x with all its weights at one value, and no bias."""
    parameters = {
        name: torch.full_like(part, weight if name == "weight" else 0.0, dtype=x.dtype)
        for name, part in norm.named_parameters()
    }
    with torch.no_grad():
        made: Tensor = functional_call(norm, parameters, (x,))
    return made


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
