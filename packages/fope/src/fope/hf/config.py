"""FoPE in a model's config.json: `rope_parameters` of the type "fope", known to transformers once imported.

What depends on the model (head dimension, heads, θ, partial rotation) stands where it always does; the
rest of `FopeConfig`, the `seed` of the coefficients, `per_layer` and a `scaling` of the frequencies stand
beside `rope_type`.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import Phi3Config, PreTrainedConfig, PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, RotaryEmbeddingConfigMixin

from fope.config import FopeConfig
from fope.errors import FopeError
from fope.frequencies import Yarn, interpolate, yarn

ROPE_TYPE = "fope"
OF_THE_MODEL = ("head_dim", "num_heads", "theta", "rotary_dim")
OF_THE_ROPE = ("rope_type", "rope_theta", "partial_rotary_factor")


@dataclass(frozen=True)
class StoredFope:
    """What a model's config says: the embedding, how its coefficients were drawn, how its bank is
    rescaled."""

    config: FopeConfig
    seed: int = 0
    per_layer: bool = True
    scaling: Mapping[str, Any] = field(default_factory=dict)

    def bank(self) -> Tensor:
        """The frequencies of the basis, float64 [D], rescaled if the model says so."""
        return rescaled(self.config.bank(), self.config, self.scaling)


def rescaled(inv_freq: Tensor, config: FopeConfig, scaling: Mapping[str, Any]) -> Tensor:
    """`inv_freq` after `scaling`: {"type": "yarn", ...} (`Yarn`), {"type": "linear", "original_length": ...,
    "new_length": ...}, or nothing.
    """
    if not scaling:
        return inv_freq
    settings = dict(scaling)
    kind = settings.pop("type", None)
    try:
        if kind == "yarn":
            return yarn(inv_freq, config.dim, config.theta, Yarn(**settings))
        if kind == "linear":
            return interpolate(inv_freq, **settings)
    except TypeError as error:
        raise FopeError(f"scaling {dict(scaling)} does not fit: {error}") from error
    raise FopeError(f"scaling type must be 'yarn' or 'linear', got {kind!r}")


def model_shape(config: PreTrainedConfig) -> dict[str, Any]:
    """The settings of `FopeConfig` that are the model's own. Raises `FopeError` where no RoPE turns heads."""
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None)
    if not rope or "rope_theta" not in rope:
        raise FopeError(
            f"{type(text).__name__} has no single rope_theta: fope.hf converts models with one "
            "rotary embedding"
        )
    if getattr(text, "kv_lora_rank", None):
        raise FopeError(
            f"{type(text).__name__} has latent attention (MLA): all its heads share one rotated key, and "
            "FoPE's coefficients are those of each key-value head"
        )
    heads = text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // heads
    shape = {
        "head_dim": head_dim,
        "num_heads": getattr(text, "num_key_value_heads", None) or heads,
        "theta": float(rope["rope_theta"]),
    }
    rotary_dim = int(head_dim * rope.get("partial_rotary_factor", 1.0))
    return shape if rotary_dim == head_dim else shape | {"rotary_dim": rotary_dim}


def store(config: PreTrainedConfig, stored: StoredFope) -> None:
    """Write into the model's config what `read` reads."""
    text = config.get_text_config()
    kept = {key: value for key, value in text.rope_parameters.items() if key in OF_THE_ROPE}
    defaults = {f.name: f.default for f in dataclasses.fields(FopeConfig)}
    always = ("train_length", "init_gain", "zero_sin")
    settings = {
        key: value
        for key, value in stored.config.to_dict().items()
        if key not in OF_THE_MODEL and (key in always or value != defaults[key])
    }
    kept |= {"rope_type": ROPE_TYPE, **settings, "seed": stored.seed, "per_layer": stored.per_layer}
    if stored.scaling:
        kept["scaling"] = dict(stored.scaling)
    text.rope_parameters = kept


def check_storable(config: PreTrainedConfig, stored: StoredFope) -> None:
    """Raise `FopeError` if the family's config allows no other rope types: the model could not be saved."""
    tried = copy.deepcopy(config)
    store(tried, stored)
    try:
        tried.validate()
    except StrictDataclassError as error:
        raise FopeError(
            f"{type(config).__name__} cannot hold Fourier position embeddings: {error}"
        ) from error


def own_config(model: PreTrainedModel) -> None:
    """Give `model` and the modules in it a copy of their config: others may be made from the same object."""
    copies: dict[int, Any] = {}
    copy.deepcopy(model.config, copies)
    for module in model.modules():
        config = getattr(module, "config", None)
        if id(config) in copies:
            module.config = copies[id(config)]


def read(config: PreTrainedConfig) -> StoredFope | None:
    """What the model's config says about FoPE; None for a model of another kind.

    Intern-S1-Pro's keys (`fope_init_factor`, `fope_sep_head` or `fope_sep_heads`, `num_inv_freq`) are read
    too.
    """
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    if "fope_init_factor" in rope:
        return _read_intern(text, rope)
    if rope.get("rope_type") != ROPE_TYPE:
        return None
    settings = {key: value for key, value in rope.items() if key not in OF_THE_ROPE}
    if "train_length" not in settings:
        raise FopeError("rope_parameters of type 'fope' need train_length")
    if "zero_sin" not in settings:
        raise FopeError(
            "rope_parameters of type 'fope' need zero_sin: 1 as the authors pad, 0 as newer engines do. "
            "They are "
            "different functions; `fope fold` turns one into the other"
        )
    scaling = settings.pop("scaling", {})
    seed, per_layer = settings.pop("seed", 0), settings.pop("per_layer", True)
    return StoredFope(FopeConfig.from_dict(model_shape(text) | settings), seed, per_layer, scaling)


def require(model: PreTrainedModel) -> StoredFope:
    """`read` of a model that must have FoPE. Raises `FopeError` if it has not."""
    stored = read(model.config)
    if stored is None:
        raise FopeError(
            f"this {type(model).__name__} has no Fourier position embeddings: use convert_to_fope first"
        )
    return stored


def _read_intern(text: PreTrainedConfig, rope: Mapping[str, Any]) -> StoredFope:
    shape = model_shape(text)
    config = FopeConfig.intern_s1(
        shape["head_dim"],
        shape["num_heads"],
        text.max_position_embeddings,
        theta=shape["theta"],
        init_gain=rope["fope_init_factor"],
        num_inv_freq=rope.get("num_inv_freq"),
        separate_heads=rope.get("fope_sep_head", rope.get("fope_sep_heads", True)),
    )
    return StoredFope(config, per_layer=False)


def clipped_frequencies(
    config: PreTrainedConfig, device: torch.device | None = None, **_: Any
) -> tuple[Tensor, float]:
    """RoPE's frequencies with the clipped ones at 0, float32 [P]: what is left of FoPE without its series."""
    stored = read(config)
    if stored is None:
        raise FopeError(f"{type(config).__name__} has no rope_parameters of the type 'fope'")
    own = stored.bank()[:: stored.config.oversample][: stored.config.num_kept]
    inv_freq = torch.zeros(stored.config.num_pairs, dtype=torch.float32, device=device)
    inv_freq[: len(own)] = own.to(inv_freq)
    return inv_freq, 1.0


def _validate(self: Any, rope_parameters: dict[str, Any], ignore_keys: set[str] | None = None) -> None:
    """transformers calls it for every config that is made; `read` is stricter, when the model is."""
    known = {f.name for f in dataclasses.fields(FopeConfig)} | {"seed", "per_layer", "scaling"}
    self._check_received_keys(
        ROPE_TYPE,
        set(rope_parameters),
        {"rope_type", "rope_theta", "train_length"},
        optional_keys=known | {"partial_rotary_factor"},
        ignore_keys=ignore_keys,
    )


def register() -> None:
    """Make the type "fope" known to transformers; again does nothing more."""
    ROPE_INIT_FUNCTIONS[ROPE_TYPE] = clipped_frequencies
    RotaryEmbeddingConfigMixin._validate_fope_rope_parameters = _validate  # type: ignore[attr-defined]
    validators: list[Any] = Phi3Config.__class_validators__  # type: ignore[attr-defined]
    for place, validator in enumerate(validators):  # Phi-3 allows two types by name, and says so when saved
        if validator.__name__ == "validate_rope" and not hasattr(validator, "knows_fope"):
            validators[place] = _sparing_fope(validator)


def _sparing_fope(original: Callable[[Any], None]) -> Callable[[Any], None]:
    @functools.wraps(original)
    def validate_rope(self: Any) -> None:
        if (self.rope_parameters or {}).get("rope_type") == ROPE_TYPE:
            RotaryEmbeddingConfigMixin.validate_rope(self)
        else:
            original(self)

    validate_rope.knows_fope = True  # type: ignore[attr-defined]
    return validate_rope
