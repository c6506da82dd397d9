"""How a layer's own tables reach transformers' attention: two patches that leave other models alone.

transformers gives all layers one pair (cos, sin) [B, T, d], and every family's `apply_rotary_pos_emb` broadcasts
it over the heads. A converted attention module has a forward pre-hook that puts in its place a pair of
`HeadTables`, and the family's function has a dispatcher in front that knows them and passes on all else.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fope.embedding import FourierPositionEmbedding
from fope.errors import FopeError

FUNCTION = "apply_rotary_pos_emb"


@dataclass(frozen=True)
class HeadTables:
    """cos and sin of a layer, [H, T, R] or [B, H, T, R], and the module that knows how to rotate by them."""

    embedding: FourierPositionEmbedding
    cos: Tensor
    sin: Tensor


def patch_family(attention: nn.Module) -> None:
    """Put the dispatcher before the rotation function of the module that defines `attention`; once."""
    family = sys.modules[type(attention).__module__]
    original = getattr(family, FUNCTION, None)
    if original is None:
        raise FopeError(
            f"{type(attention).__module__} has no {FUNCTION}: models of this family rotate in another way, and "
            "fope.hf cannot convert them"
        )
    if not getattr(original, "dispatches_fope", False):
        setattr(family, FUNCTION, _dispatcher(original))


def _dispatcher(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def apply_rotary_pos_emb(q: Tensor, k: Tensor, cos: Any, sin: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(cos, HeadTables):
            emb = cos.embedding
            emb._check_heads(q, k)
            return emb.rotate(q, cos.cos, cos.sin), emb.rotate(k, cos.cos, cos.sin)
        return original(q, k, cos, sin, *args, **kwargs)

    apply_rotary_pos_emb.dispatches_fope = True  # type: ignore[attr-defined]
    return apply_rotary_pos_emb


def give_tables(
    attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The forward pre-hook of a converted attention module."""
    embedding: FourierPositionEmbedding = attention.fope
    positions = kwargs.get("position_ids")
    if positions is None:
        raise FopeError(
            f"{type(attention).__name__} was called without position_ids, which Fourier position embedding needs"
        )
    if positions.dim() == 2 and positions.shape[0] == 1:
        positions = positions[0]
    tables = HeadTables(embedding, *embedding.cos_sin(positions))
    return args, kwargs | {"position_embeddings": (tables, tables)}
