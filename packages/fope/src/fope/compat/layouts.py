"""How checkpoints name the coefficients: three public layouts, read and written as tensors by layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

from torch import Tensor

from fope.coefficients import check_finite
from fope.errors import FopeError

Layout: TypeAlias = Literal["fope", "olmo", "intern_s1"]
Coefficients: TypeAlias = dict[int | None, tuple[Tensor, Tensor]]  # by layer; None: one set for all layers

KEYS: dict[Layout, str] = {
    "fope": "model.layers.{layer}.self_attn.fope.{part}_coef",
    "olmo": "transformer.blocks.{layer}.pos_emb.{part}_coef",
    "intern_s1": "model.language_model.rotary_emb.{part}_coef",
}
PATTERNS: dict[Layout, str] = {  # families of transformers differ in what stands before `layers`, and after
    "fope": r"layers\.(?P<layer>\d+)\.(?:self_attn|attention)\.fope\.(?P<part>cos|sin)_coef",
    "olmo": r"transformer\.blocks\.(?P<layer>\d+)\.pos_emb\.(?P<part>cos|sin|fourier)_coef",
    "intern_s1": r"model\.language_model\.rotary_emb\.(?P<part>cos|sin|fourier)_coef",
}


def read_coefficients(state_dict: Mapping[str, Tensor]) -> tuple[Layout, Coefficients]:
    """Find the coefficients of a checkpoint: its layout, and (cos, sin) [H, D, R] by layer, float32.

    The key `None` means one set for all layers. A released model whose cosine and sine share coefficients
    (`fourier_coef`) gives them twice. Raises `FopeError` if there are none, if one of a pair is missing, or
    if the file has two layouts.
    """
    found: dict[Layout, dict[int | None, dict[str, Tensor]]] = {}
    for layout in get_args(Layout):
        for key, value in state_dict.items():
            if match := re.search(rf"(?:^|\.){PATTERNS[layout]}$", key):
                layer = int(match["layer"]) if "layer" in match.re.groupindex else None
                check_finite(key, value)
                parts = ("cos", "sin") if match["part"] == "fourier" else (match["part"],)
                found.setdefault(layout, {}).setdefault(layer, {}).update(dict.fromkeys(parts, value.float()))
    if len(found) != 1:
        named = " and ".join(KEYS[layout] for layout in found) or "none"
        raise FopeError(
            f"expected the coefficients of one layout, found {named}; known are {', '.join(KEYS.values())}"
        )
    ((layout, layers),) = found.items()
    for layer, pair in layers.items():
        for part in ("cos", "sin"):
            if part not in pair:
                missing = KEYS[layout].format(layer=layer, part=part)
                raise FopeError(f"{missing} is missing in the checkpoint: coefficients cannot be drawn again")
    return layout, {layer: (pair["cos"], pair["sin"]) for layer, pair in layers.items()}


def write_coefficients(coefficients: Coefficients, layout: Layout) -> dict[str, Tensor]:
    """The state-dict entries of (cos, sin) by layer in a layout.

    Raises `FopeError` where the layout cannot hold them: Intern-S1-Pro's has one set for all layers, the
    others one a layer.
    """
    if layout not in KEYS:
        raise FopeError(f"layout is {layout!r}; it must be one of {', '.join(KEYS)}")
    if (layout == "intern_s1") != (set(coefficients) == {None}):
        holds = "one set for all layers" if layout == "intern_s1" else "a set for each layer"
        raise FopeError(f"the layout {layout!r} holds {holds}, got those of layers {list(coefficients)}")
    return {
        KEYS[layout].format(layer=layer, part=part): coef.float()
        for layer, pair in coefficients.items()
        for part, coef in zip(("cos", "sin"), pair, strict=True)
    }
