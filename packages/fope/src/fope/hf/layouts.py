"""Coefficients of other people's checkpoints in a Hugging Face model, and the model's in their layouts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from fope.compat.layouts import Coefficients, Layout, read_coefficients, write_coefficients
from fope.embedding import check_coefficients
from fope.errors import FopeError, FopeWarning
from fope.hf.config import require
from fope.hf.rotation import rotating_layers


def load_coefficients(model: PreTrainedModel, state_dict: Mapping[str, Tensor]) -> PreTrainedModel:
    """Put a checkpoint's coefficients into a FoPE model, in place; returns it.

    `state_dict` is of any layout that `fope.compat.layouts` reads (ours, OLMo's, Intern-S1-Pro's); what else
    is in it is left out. Warns where they come from code that pads with ζ = 1 (OLMo's, Intern-S1-Pro's) and
    the model pads with another ζ: the coefficients fit both, the rest of the checkpoint does not. Raises
    `FopeError` for a model without FoPE, a layer whose coefficients are missing, and for shapes that the
    model's config does not give.
    """
    config = require(model).config
    layout, sets = read_coefficients(state_dict)
    found = []
    for attention in rotating_layers(model):
        layer = None if None in sets else attention.layer_idx
        if layer not in sets:
            raise FopeError(
                f"the checkpoint (layout {layout!r}) has no coefficients for layer {layer}; it has those of "
                f"{sorted(key for key in sets if key is not None)}"
            )
        for part, coef in zip(("cos", "sin"), sets[layer], strict=True):
            check_coefficients(f"{part}_coef of layer {attention.layer_idx}", coef, config)
        found.append((attention.fope, sets[layer]))
    if layout != "fope" and config.zero_sin != 1.0:
        warnings.warn(
            f"coefficients of the layout {layout!r} come from code that pads with zero_sin 1, and this model "
            f"has zero_sin {config.zero_sin:g}. With that checkpoint's weights it is another function, if "
            "not folded: convert with zero_sin=1.0 and preserve=False, load, and then fold "
            "(`fope.hf.fold_zero_phase`, or `fope fold` from the shell)",
            FopeWarning,
            stacklevel=2,
        )
    with torch.no_grad():
        for embedding, (cos, sin) in found:
            embedding.cos_coef.copy_(cos)
            embedding.sin_coef.copy_(sin)
    return model


def coefficients(model: PreTrainedModel, layout: Layout = "fope") -> dict[str, Tensor]:
    """The state-dict entries of a FoPE model's coefficients in a layout, copies in float32.

    Raises `FopeError` for a model without FoPE, and for Intern-S1-Pro's layout, which has one set for all
    layers, where the layers' coefficients differ.
    """
    require(model)
    sets: Coefficients = {
        attention.layer_idx: (attention.fope.cos_coef.clone(), attention.fope.sin_coef.clone())
        for attention in rotating_layers(model)
    }
    return write_coefficients(_one_set(sets) if layout == "intern_s1" else sets, layout)


def _one_set(sets: Coefficients) -> Coefficients:
    first, *others = sets.values()
    if any(not torch.equal(one, other) for pair in others for one, other in zip(first, pair, strict=True)):
        raise FopeError(
            "the layers have coefficients of their own, and this layout holds one set for all of them; "
            "convert with per_layer=False for it"
        )
    return {None: first}
