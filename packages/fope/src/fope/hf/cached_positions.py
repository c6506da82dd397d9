"""New positions for keys that are cached: RoPE allows them, the Fourier series does not; a warning says so.

Looking at positions on a GPU would wait for it at every token, so only positions on the CPU are looked at.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from fope.coefficients import init_std
from fope.errors import FopeWarning


def warn_of_new_positions(attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """A forward pre-hook of one attention module: warn where a token stands before the cache's end.

    Silent with an attention mask, whose padding counts in the cache and not in positions, and where scores
    depend on the distance alone.
    """
    # Of two names: transformers calls it `cache` from 5.24 on.
    cache, positions = kwargs.get("past_key_values", kwargs.get("cache")), kwargs.get("position_ids")
    if cache is None or positions is None or kwargs.get("attention_mask") is not None:
        return
    if positions.device.type != "cpu" or torch.compiler.is_compiling() or not positions.numel():
        return
    cached, first = int(cache.get_seq_length(attention.layer_idx)), int(positions.flatten()[0])
    if first < cached and init_std(attention.fope.config) > 0:  # type: ignore[union-attr, arg-type]
        warnings.warn(
            f"position_ids begin at {first} and {cached} tokens are cached. With the Fourier series scores "
            "are not a function of the distance alone: keys that are rotated and cached cannot be given new "
            "positions. Count on from the cache (and keep the true positions where tokens are dropped from "
            "it), or compute the cache anew; a model converted with series=False has no such limit",
            FopeWarning,
            stacklevel=2,
        )
