"""How a layer's own tables reach transformers' attention: two patches that leave other models alone.

transformers gives all layers one pair (cos, sin) [B, T, d], and every family's `apply_rotary_pos_emb` repeats
it over the heads. A converted attention module has a forward pre-hook that puts a pair of `HeadTables` in its
place, and the family's function has a dispatcher in front that knows them and passes on all else.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fope.embedding import FourierPositionEmbedding
from fope.errors import FopeError, FopeWarning

FUNCTION = "apply_rotary_pos_emb"
ATTENTION = "fope_triton"
ADVICE = "use the model without use_kernels, and Liger with rope=False"


@dataclass(frozen=True)
class HeadTables:
    """cos and sin of a layer, [H, T, R] or [B, H, T, R], and the module that rotates by them."""

    embedding: FourierPositionEmbedding
    cos: Tensor
    sin: Tensor

    def rotate(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys, rotated."""
        self.embedding.check_heads(q, k)
        return (
            self.embedding.rotate(q, self.cos, self.sin),
            self.embedding.rotate(k, self.cos, self.sin),
        )


class Deferred:
    """Stands for tables where the attention function rotates."""

    def rotate(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys, as they are."""
        return q, k


# Families that leave the rotation out of some layers, without an attribute `use_rope` that says so.
ROTATES: dict[str, Callable[[Any], bool]] = {
    "AfmoeAttention": lambda attention: attention.is_local_attention,
    "Cohere2Attention": lambda attention: attention.sliding_window is not None,
    "Cohere2MoeAttention": lambda attention: attention.sliding_window is not None or attention.force_rope,
    "Exaone4Attention": lambda attention: attention.sliding_window is None or attention.is_sliding,
    "ExaoneMoeAttention": lambda attention: attention.sliding_window is None or attention.is_sliding,
}


def attention_layers(model: PreTrainedModel) -> list[Any]:
    """The attention modules, in the order of the layers; none for a model of another build."""
    layers = getattr(model.base_model, "layers", ())
    return [
        getattr(layer, name)
        for layer in layers
        for name in ("self_attn", "attention")
        if hasattr(layer, name)
    ]


def rotating_layers(model: PreTrainedModel) -> list[Any]:
    """The attention modules that rotate, in the order of the layers. Raises `FopeError` if there are none."""
    found = [attention for attention in attention_layers(model) if _rotates(attention)]
    if not found or getattr(model.base_model, "rotary_emb", None) is None:
        raise FopeError(
            f"{type(model).__name__} has no rotary embedding that fope.hf knows; it converts Llama-like "
            "models: layers with attention, and one rotary_emb for all"
        )
    return found


def _rotates(attention: nn.Module) -> bool:
    known = ROTATES.get(type(attention).__name__)
    return known(attention) if known else getattr(attention, "use_rope", True)


def patch_family(attention: nn.Module) -> None:
    """Put the dispatcher before the rotation function of the module that defines `attention`; once.

    Raises `FopeError` for a family without such a function, and where another library has replaced it.
    """
    family = sys.modules[type(attention).__module__]
    original = getattr(family, FUNCTION, None)
    if original is None:
        raise FopeError(
            f"{type(attention).__module__} has no {FUNCTION}: this family rotates in another way, "
            "and fope.hf cannot convert it"
        )
    if dispatches(original):
        return
    if original.__module__ != family.__name__ and not original.__module__.startswith("transformers."):
        raise FopeError(
            f"{family.__name__}.{FUNCTION} has been replaced by {original.__module__}'s, whose cos and sin "
            f"are shared by all heads; FoPE's are not: {ADVICE}"
        )
    setattr(family, FUNCTION, _dispatcher(original))


def dispatches(function: Callable[..., Any]) -> bool:
    """Whether a rotation function knows `HeadTables`."""
    return getattr(function, "dispatches_fope", False)


def _dispatcher(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def apply_rotary_pos_emb(q: Tensor, k: Tensor, cos: Any, sin: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(cos, HeadTables | Deferred):
            return cos.rotate(q, k)
        return original(q, k, cos, sin, *args, **kwargs)

    apply_rotary_pos_emb.dispatches_fope = True  # type: ignore[attr-defined]
    return apply_rotary_pos_emb


def give_tables(
    attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The forward pre-hook of a converted attention module."""
    family = sys.modules[type(attention).__module__]
    if not dispatches(getattr(family, FUNCTION)):
        raise FopeError(
            f"{family.__name__}.{FUNCTION} has been replaced since this model was converted, by a function "
            f"whose cos and sin are shared by all heads: {ADVICE}"
        )
    if "position_embeddings" in kwargs and kwargs["position_embeddings"] is None:
        return args, kwargs  # how some models tell a layer not to rotate
    positions = kwargs.get("position_ids")
    if positions is None:
        raise FopeError(f"{type(attention).__name__} was called without position_ids; FoPE needs them")
    embedding: FourierPositionEmbedding = attention.fope  # type: ignore[assignment]
    cos, sin = embedding.cos_sin(positions)  # of the tensor that all layers get, so that they share its basis
    if cos.dim() == 4 and len(cos) == 1:
        cos, sin = cos[0], sin[0]
    tables = HeadTables(embedding, cos, sin)
    if attention.config._attn_implementation != ATTENTION:  # type: ignore[union-attr]
        return args, kwargs | {"position_embeddings": (tables, tables)}
    # Of two names: transformers calls it `cache` from 5.24 on.
    has_cache = kwargs.get("past_key_values") is not None or kwargs.get("cache") is not None
    deferred = not has_cache and _kernels_have(tables)
    if has_cache and attention.training and not torch.compiler.is_compiling() and _kernels_have(tables):
        warnings.warn(
            "attn_implementation='fope_triton' rotates inside the kernel only where there is no cache, and "
            "this model keeps one in training, so PyTorch computes the attention: call it with "
            "use_cache=False, or set model.config.use_cache = False",
            FopeWarning,
            stacklevel=2,
        )
    attention.fope_tables = tables if deferred else None  # type: ignore[assignment]
    handed = Deferred() if deferred else tables
    return args, kwargs | {"position_embeddings": (handed, handed)}


def _kernels_have(tables: HeadTables) -> bool:
    """Whether fope-triton's attention has this layout: one row of positions, half-split, all channels."""
    config = tables.embedding.config
    plain = not config.interleaved and config.rotary_dim is None and config.direction == 1
    return plain and tables.cos.dim() == 3
