"""The arms of the experiment: MemoryFormer, its ablations, and the GPT-NeoX (Pythia) it is compared with.

All have the depth of the experiment's shape, untied embeddings, sequential residuals and rotary embeddings
on a quarter of each head. `transformer` has the same width too. The narrow ones are as wide as the same
number of FLOPs allows:

    transformer-fc       12 d'² about K (4 d + (tau + e) K)                     the fully connected layers
    transformer-total    12 d'² + 2 s d' about K (4 d + (tau + e) K) + 2 s d     and attention at length s
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from transformers import PreTrainedModel

import memoryformer.hf  # noqa: F401  # makes `memoryformer` a model type of transformers
from lmlab.models import build_model

TRANSFORMER, NARROW_FC, NARROW_TOTAL = "transformer", "transformer-fc", "transformer-total"
MEMORYFORMER = "memoryformer"
ARMS = (TRANSFORMER, NARROW_FC, NARROW_TOTAL, MEMORYFORMER)

ABLATIONS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "memoryformer": {},
        "bits-0": {"expand_bits": 0},
        "bits-1": {"expand_bits": 1},
        "bits-3": {"expand_bits": 3},
        "tau-4": {"tau": 4},
        "gelu": {"activation": "gelu"},
        "softmax": {"score": "softmax"},  # the weight of the paper's text, Eq. 10
    }
)
"""What each ablation changes of the setting: tau 8, 2 more bits, no activation, the released score."""


class Shape(BaseModel):
    """Depth, width, heads; `narrow_fc` and `narrow_total` are (width, heads) of the narrow transformers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    narrow_fc: tuple[int, int]
    narrow_total: tuple[int, int]


def build(arm: str, shape: Shape, vocab_size: int, context_length: int, seed: int) -> PreTrainedModel:
    """A fresh model of an arm, or of an ablation, in float32."""
    return build_model(settings_of(arm, shape, vocab_size, context_length), seed=seed)


def settings_of(arm: str, shape: Shape, vocab_size: int, context_length: int) -> dict[str, Any]:
    """The transformers config of an arm or ablation, as `lmlab.models.build_model` takes it."""
    width, heads = shape.hidden_size, shape.num_attention_heads
    if arm in (NARROW_FC, NARROW_TOTAL):
        width, heads = shape.narrow_fc if arm == NARROW_FC else shape.narrow_total
    common = {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": heads,
        "max_position_embeddings": context_length,
        "tie_word_embeddings": False,
    }
    if arm.startswith(TRANSFORMER):
        dense = {"intermediate_size": 4 * width, "use_parallel_residual": False}
        return common | dense | {"model_type": "gpt_neox"}
    return common | {"model_type": "memoryformer"} | ABLATIONS[arm]
