"""The arms of the experiment: the same Llama block, dense or low-rank in different places.

Every arm starts from the setting-2 block of the official code: PyTorch's default initialisation for every
linear layer and N(0, 0.02^2) embeddings. What an arm changes, it changes after that, so two arms with one
seed share every other weight.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from lmlab.models import build_config, build_model
from lpa import LPAConfig, apply_lpa, match

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


def dense(shape: dict[str, Any], rank: int, seed: int) -> PreTrainedModel:
    """The plain Transformer."""
    model = build_model(shape, seed=seed)
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    return model


def dense_scaled(shape: dict[str, Any], rank: int, seed: int) -> PreTrainedModel:
    """Dense with q, k, v, o divided by sqrt(3): the scale at which LPA's products start with init 'torch'."""
    model = dense(shape, rank, seed)
    with torch.no_grad():
        for name, module in model.named_modules():
            if name.endswith(ATTENTION):
                module.weight.div_(math.sqrt(3))
    return model


def lpa(shape: dict[str, Any], rank: int, seed: int) -> PreTrainedModel:
    """LPA as the official code starts it (PyTorch's default for both factors)."""
    return apply_lpa(dense(shape, rank, seed), LPAConfig(rank=rank), generator=_generator(seed))


def lpa_matched(shape: dict[str, Any], rank: int, seed: int) -> PreTrainedModel:
    """LPA whose products start with the variance of the dense weights."""
    return apply_lpa(
        dense(shape, rank, seed), LPAConfig(rank=rank, init="matched"), generator=_generator(seed)
    )


def low_ffn(shape: dict[str, Any], rank: int, seed: int) -> PreTrainedModel:
    """Low rank in the feed-forward layers only, removing as many parameters as LPA does."""
    config = LPAConfig(rank=matched_ffn_rank(shape, rank), targets=("ffn",))
    return apply_lpa(dense(shape, rank, seed), config, generator=_generator(seed))


def low_all(shape: dict[str, Any], rank: int, seed: int) -> PreTrainedModel:
    """Low rank in attention and feed-forward layers: both removals together."""
    config = LPAConfig(
        rank=rank, targets=("all",), rank_pattern={r"(gate|up|down)_proj$": matched_ffn_rank(shape, rank)}
    )
    return apply_lpa(dense(shape, rank, seed), config, generator=_generator(seed))


def lpa_widened(shape: dict[str, Any], rank: int, seed: int) -> PreTrainedModel:
    """LPA whose feed-forward layers are widened to the dense model's parameter count."""
    wide = match(build_config(shape), rank, what="ffn").intermediate_size
    return lpa(shape | {"intermediate_size": wide}, rank, seed)


ARMS: dict[str, Callable[[dict[str, Any], int, int], PreTrainedModel]] = {
    "dense": dense,
    "dense-scaled": dense_scaled,
    "lpa": lpa,
    "lpa-matched": lpa_matched,
    "lpa-widened": lpa_widened,
    "low-ffn": low_ffn,
    "low-all": low_all,
}


def matched_ffn_rank(shape: dict[str, Any], rank: int) -> int:
    """The rank at which three low-rank FFN matrices lose what four low-rank attention matrices lose.

    Solves 3 (d F - r_f (d + F)) = 4 (d^2 - 2 r d) for r_f, rounded.
    """
    d, ffn = shape["hidden_size"], shape["intermediate_size"]
    return round((d * ffn - 4 / 3 * (d * d - 2 * rank * d)) / (d + ffn))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed + 1_000_003)
