"""RoPE to FoPE in place: every attention layer of a Hugging Face model gets tables of its own."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from fope.coefficients import grow
from fope.config import FopeConfig
from fope.embedding import FourierPositionEmbedding, check_present
from fope.errors import FopeError
from fope.hf.cached_positions import warn_of_new_positions
from fope.hf.config import StoredFope, check_storable, model_shape, own_config, read, require, store
from fope.hf.folding import check_foldable, fold_zero_phase
from fope.hf.pairing import family_pairing
from fope.hf.rotation import ADVICE, give_tables, patch_family, rotating_layers


def convert_to_fope(
    model: PreTrainedModel,
    *,
    train_length: int,
    init_gain: float = 0.3,
    seed: int = 0,
    zero_sin: float = 0.0,
    preserve: bool = True,
    per_layer: bool = True,
    scaling: Mapping[str, Any] | None = None,
    **options: Any,
) -> PreTrainedModel:
    """Give `model` Fourier position embeddings, in place; returns it.

    The model gets a config of its own: the object that it was made from stays as it was.
    `train_length` is the length it will be trained or fine-tuned at: frequencies without a full period in it
    are clipped. θ, head dimension and key-value heads are the model's; `options` are other settings of
    `FopeConfig` (`clip=False`, `oversample=4`, ...). Which channels turn together is found by turning a
    vector as the family does, if `options` do not say it. `per_layer=False` gives all layers the same
    coefficients. `scaling` rescales the frequencies, {"type": "yarn", "factor": 16.0, ...} or {"type":
    "linear", ...}.

    A clipped pair's score is 1 + ζ² times its channels' product. With a `zero_sin` ζ that is not 0,
    `preserve` divides those channels of q and k by √(1 + ζ²), so that a trained model keeps its scores;
    without it, as in the released code, a pre-trained model is badly hurt.

    Raises `FopeError` for a model that has FoPE already (see `extend`), has another kind of scaled or no
    rotary embedding, whose rotation is another library's or of no kind that `FopeConfig` has, whose
    config allows no other rope type, and for one to be preserved whose norms or projections fope.hf does not
    know. The model is then as it was.
    """
    if read(model.config) is not None:
        raise FopeError(
            f"this {type(model).__name__} has Fourier position embeddings already; "
            "`fope.hf.extend` takes it to a longer train_length"
        )
    rope_type = _rope_type(model)
    if rope_type != "default":
        raise FopeError(
            f"the model's frequencies are scaled already (rope_type {rope_type!r}); FoPE starts from "
            "plain RoPE. Set rope_parameters to rope_type 'default' first, and give `scaling` here"
        )
    if getattr(model, "use_kernels", False):
        raise FopeError(f"the model uses hub kernels, whose cos and sin are shared by all heads: {ADVICE}")
    options |= {"train_length": train_length, "init_gain": init_gain, "zero_sin": zero_sin}
    shape = model_shape(model.config)
    for layer in rotating_layers(model):
        patch_family(layer)
    config = FopeConfig.from_dict(shape | family_pairing(model) | options)
    if preserve and zero_sin:  # what cannot be done is told before anything is changed
        check_foldable(model)
        config = dataclasses.replace(config, zero_sin=0.0)
    stored = StoredFope(config, seed, per_layer, scaling or {})
    stored.bank()
    check_storable(model.config, stored)
    own_config(model)
    attach(model, stored)
    return fold_zero_phase(model, zero_sin) if preserve else model


def extend(
    model: PreTrainedModel,
    train_length: int,
    *,
    seed: int = 0,
    scaling: Mapping[str, Any] | None = None,
) -> PreTrainedModel:
    """Take a FoPE model to a longer training length, in place (512 to 1024, for instance); returns it.

    The bank and the rotated pairs grow. Old coefficients keep their place; new columns start at their own
    wave, new entries with noise drawn from `seed`. `scaling`, as for `convert_to_fope`, takes the place of
    the model's own (with the old `train_length` nothing else changes); {} takes it away, None keeps it.
    Raises `FopeError` for a model without FoPE, a shorter length, or an impossible scaling; the model is then
    as it was.
    """
    stored = require(model)
    old = stored.config
    new = FopeConfig.from_dict(old.to_dict() | {"train_length": train_length})
    longer = StoredFope(new, stored.seed, stored.per_layer, stored.scaling if scaling is None else scaling)
    longer.bank()
    own_config(model)
    generator = torch.Generator().manual_seed(seed)
    for layer in rotating_layers(model):
        if not stored.per_layer:
            generator.manual_seed(seed)
        embedding = layer.fope
        grown = FourierPositionEmbedding(new, generator=generator)
        coefs = grow(embedding.cos_coef, embedding.sin_coef, old, new, generator)
        with torch.no_grad():
            grown.cos_coef.copy_(coefs[0])
            grown.sin_coef.copy_(coefs[1])
        layer.fope = grown.to(embedding.cos_coef.device)
    _rescale(model, longer)
    _record(model, longer)
    return model


def attach(model: PreTrainedModel, stored: StoredFope) -> None:
    """Put an embedding as `fope` into each attention module, and the patches that make it count."""
    generator = torch.Generator().manual_seed(stored.seed)
    layers = rotating_layers(model)
    for layer in layers:
        patch_family(layer)
    for layer in layers:
        if not stored.per_layer:
            generator.manual_seed(stored.seed)
        device = next(layer.parameters()).device
        layer.fope = FourierPositionEmbedding(stored.config, generator=generator, device=device)
        layer.register_forward_pre_hook(give_tables, with_kwargs=True)
        layer.register_load_state_dict_pre_hook(refuse_another_model)
    layers[0].register_forward_pre_hook(warn_of_new_positions, with_kwargs=True)
    _rescale(model, stored)
    _record(model, stored)


def refuse_another_model(attention: nn.Module, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """A hook of `load_state_dict`: raise `FopeError` for a layer's own weights without its coefficients.

    Adapters of PEFT, whose weights lie deeper (q_proj.lora_A.weight), are loaded onto a model as it is.
    """
    own = re.compile(re.escape(prefix) + r"\w+(\.base_layer)?\.weight")
    if any(own.fullmatch(key) for key in state_dict):
        for name in ("cos_coef", "sin_coef"):
            check_present(f"{prefix}fope.{name}", state_dict)


def _rope_type(model: PreTrainedModel) -> str:
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    return rope.get("rope_type", "default")


def _rescale(model: PreTrainedModel, stored: StoredFope) -> None:
    if stored.scaling:
        for layer in rotating_layers(model):
            layer.fope.set_inv_freq(stored.bank())


def _record(model: PreTrainedModel, stored: StoredFope) -> None:
    """In the config, for saving, and among the modules that loading leaves in float32."""
    store(model.config, stored)
    strict = set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    model._keep_in_fp32_modules_strict = strict | {"fope"}
