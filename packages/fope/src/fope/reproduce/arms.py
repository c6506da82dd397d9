"""The arms of the experiment: one pre-norm Llama whose only difference is how positions enter attention.

Arms with one seed share every weight at the start; the Fourier coefficients are drawn from the same seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from transformers import PreTrainedModel

from fope.hf import convert_to_fope
from fope.hf.baselines import apply_position
from lmlab.models import build_model

FOPE: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "fope": {},
        "cf": {"series": False},  # clip the floor to zero, no series
        "fs": {"clip": False},  # a Fourier series for every channel, nothing clipped
        "fope-zeta0": {"zero_sin": 0.0},
    }
)
"""FoPE and its parts, as changes of the paper's setting (gain 0.3, zero_sin 1)."""

BASELINES = ("rope", "nope", "alibi", "rope_a", "kerple", "fire")
ARMS = (*BASELINES, *FOPE)


def build(
    shape: Mapping[str, Any], arm: str, train_length: int, seed: int, **options: Any
) -> PreTrainedModel:
    """A fresh model of `shape` with the positions of `arm`; `options` go to FoPE (`init_gain=0.1`)."""
    return give_positions(build_model(shape, seed=seed), arm, train_length, seed, **options)


def give_positions(
    model: PreTrainedModel, arm: str, train_length: int, seed: int, **options: Any
) -> PreTrainedModel:
    """Change a fresh model in place to the positions of `arm`; `options` are FoPE's."""
    if arm in FOPE:
        settings = {"init_gain": 0.3, "zero_sin": 1.0, **FOPE[arm], **options}
        return convert_to_fope(model, train_length=train_length, seed=seed, preserve=False, **settings)
    return apply_position(model, arm, train_length=train_length, seed=seed)
