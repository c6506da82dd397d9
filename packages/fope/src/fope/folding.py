"""Folding: a model whose zero-frequency pairs have sine 1 as one whose pairs have sine 0, and back, exactly.

A zero-frequency pair is turned by the same matrix [[1, −ζ], [ζ, 1]] in queries and keys, and that matrix
times its transpose is (1 + ζ²)·I. So ζ only scales what the pair adds to the score: it can stand in the
weights that make the pair's channels, √(1 + ζ²) on the query's side and √(1 + ζ²) on the key's. Engines
differ in ζ (vLLM has had 1 and 0); a folded checkpoint with ζ = 0 is right wherever the sine is padded with
0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fope.config import FopeConfig
from fope.errors import FopeError


def zero_channels(config: FopeConfig) -> Tensor:
    """The channels of a head whose pair has frequency zero, int64, in order."""
    pairs = torch.arange(config.num_kept, config.num_pairs)
    if config.interleaved:
        return torch.stack([2 * pairs, 2 * pairs + 1], dim=1).flatten()
    return torch.cat([pairs, pairs + config.num_pairs])


def zero_phase_scale(old_zero_sin: float, new_zero_sin: float) -> float:
    """What a zero-frequency channel of q and k is multiplied by, so that scores stay: √((1+ζ²)/(1+ζ'²))."""
    return math.sqrt((1 + old_zero_sin**2) / (1 + new_zero_sin**2))


def fold_rows(weight: Tensor, config: FopeConfig, new_zero_sin: float) -> Tensor:
    """The q or k projection of a model that pads with `new_zero_sin` instead of `config.zero_sin`.

    `weight` [heads·head_dim, n_in] or a bias [heads·head_dim], of q and k both; a new tensor of the same
    dtype. With normalised queries and keys (Qwen3, Intern-S1-Pro) projections must stay and the norms'
    weights be folded: `fold_norm`. Raises `FopeError` if the rows are no whole heads.
    """
    if weight.shape[0] % config.head_dim:
        raise FopeError(f"{weight.shape[0]} rows are no whole heads of {config.head_dim}")
    scale = _channel_scale(config, new_zero_sin).to(weight.device)
    rows = scale.repeat(weight.shape[0] // config.head_dim)
    return _scaled(weight, rows.view(-1, *[1] * (weight.dim() - 1)))


def fold_norm(weight: Tensor, config: FopeConfig, new_zero_sin: float, offset: float = 0.0) -> Tensor:
    """The weight [head_dim] of a norm over the head's channels, of q_norm and k_norm both.

    `offset` is 1 for norms that multiply by 1 + weight (Gemma). Raises `FopeError` for a weight that is not
    per channel of a head.
    """
    if weight.shape[-1] != config.head_dim:
        raise FopeError(
            f"the norm has {weight.shape[-1]} weights, a head {config.head_dim} channels: a norm over "
            "all heads at once can be folded only where it is repeated by head, as rows"
        )
    scale = _channel_scale(config, new_zero_sin).to(weight.device)
    return (_scaled(weight.double() + offset, scale) - offset).to(weight.dtype)


def _channel_scale(config: FopeConfig, new_zero_sin: float) -> Tensor:
    """The scale of each channel of a head, float64 [head_dim]."""
    scale = torch.ones(config.head_dim, dtype=torch.float64)
    scale[zero_channels(config)] = zero_phase_scale(config.zero_sin, new_zero_sin)
    return scale


def _scaled(weight: Tensor, scale: Tensor) -> Tensor:
    return (weight.detach().double() * scale).to(weight.dtype)
