"""`attn_implementation="fope_triton"`: rotation inside the attention kernel, where that can be.

Without a cache, a converted layer hands queries and keys over as they are, and fope-triton rotates keys
once and queries in the kernel's prologue. With a cache (whose keys are rotated; transformers makes one in
every forward pass unless it is told `use_cache=False`), a mask, or a layout that the kernels do not have,
queries and keys are rotated as always and attention is PyTorch's.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from fope.errors import FopeError, MissingExtraError
from fope.hf.rotation import ATTENTION, HeadTables


def fope_triton_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: q [B, H_q, T, d], k and v [B, H, S, d]; returns [B, T, H_q, d], None.

    Without `is_causal` the module says whether queries see later keys.
    Raises `FopeError` where fope-triton is not installed, and for models that cap their scores (Gemma 2).
    """
    if softcap:
        raise FopeError("fope_triton has no capped scores; use attn_implementation='eager' for this model")
    tables: HeadTables | None = getattr(module, "fope_tables", None)
    if tables is not None and attention_mask is None and not dropout:
        out = _kernel()(
            query,
            key,
            value,
            tables.cos,
            tables.sin,
            causal=module.is_causal if is_causal is None else is_causal,
            zero_sin=tables.embedding.config.zero_sin,
            scale=scaling,
        )
        return out.transpose(1, 2), None
    if tables is not None:
        query, key = tables.rotate(query, key)
    options = kwargs | {"dropout": dropout, "scaling": scaling, "is_causal": is_causal}
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


def _kernel() -> Any:
    try:
        from fope_triton import fope_attention
    except ImportError as error:
        raise MissingExtraError(
            "attn_implementation='fope_triton' needs its kernels: pip install 'fope[triton]'"
        ) from error
    return fope_attention


def install() -> None:
    """Register the implementation with transformers; again does nothing more."""
    AttentionInterface.register(ATTENTION, fope_triton_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
