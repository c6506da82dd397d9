"""Which channels a family of transformers turns together: its own function is asked to turn a vector.

Llama turns channels j and j + P, Cohere and GLM 2j and 2j + 1, NanoChat the other way round. Nothing in a
config says so, and read as another kind a trained model is silently another one.
"""

from __future__ import annotations

import itertools
import sys
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from fope.config import FopeConfig
from fope.embedding import FourierPositionEmbedding
from fope.errors import FopeError
from fope.hf.config import model_shape
from fope.hf.rotation import FUNCTION, rotating_layers


def family_pairing(model: PreTrainedModel) -> dict[str, Any]:
    """`interleaved` and `direction`, as settings of `FopeConfig`, of the model's own rotation.

    Raises `FopeError` for a family whose rotation is none of RoPE's kinds.
    """
    generator = torch.Generator().manual_seed(0)
    shape = model_shape(model.config) | {"num_heads": 1}
    x = torch.randn(1, 1, 3, shape["head_dim"], generator=generator, device="cpu")
    theirs = _turned_by_family(model, x)
    for interleaved, direction in itertools.product((False, True), (1, -1)):
        found = {"interleaved": interleaved, "direction": direction}
        rope = FopeConfig.from_dict(shape | found | {"train_length": 64, "clip": False, "series": False})
        ours, _ = FourierPositionEmbedding(rope, generator=generator, device="cpu")(x, x)
        if torch.allclose(ours, theirs, atol=1e-4):
            return found
    raise _unknown(model)


def _turned_by_family(model: PreTrainedModel, x: Tensor) -> Tensor:
    """x [1, 1, T, head_dim] at positions 0 … T−1, by a new rotary embedding: the model's may be anywhere."""
    family = sys.modules[type(rotating_layers(model)[0]).__module__]
    base: Any = model.base_model
    try:
        with torch.device("cpu"):
            rotary = type(base.rotary_emb)(base.rotary_emb.config)
            cos, sin = rotary(x[0], torch.arange(x.shape[2])[None])
            turned: Tensor = getattr(family, FUNCTION)(x, x, cos, sin)[0]
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise _unknown(model) from error
    return turned


def _unknown(model: PreTrainedModel) -> FopeError:
    return FopeError(
        f"{type(model).__name__} turns queries and keys in a way that fope.hf does not know: not by pairs "
        "of channels j, j + d/2 or 2j, 2j + 1 of a head (of its first channels where only some turn)"
    )
