"""Models: any causal language model of transformers, built from a plain dictionary and a seed."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from huggingface_hub.errors import (
    StrictDataclassClassValidationError,
    StrictDataclassFieldValidationError,
)
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lmlab.errors import SettingsError

# Not fields of a config class, yet understood by transformers: the rotary keys that it folds into
# `rope_parameters`, and the attention implementation that goes to the model.
_ROPE_KEYS = {"rope_theta", "rope_scaling"}
_MODEL_KEYS = {"attn_implementation"}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def build_config(settings: Mapping[str, Any]) -> PreTrainedConfig:
    """The transformers config for `settings`, e.g. `{"model_type": "llama", "hidden_size": 128, ...}`.

    Raises `SettingsError` naming the key when `model_type` is missing or unknown, when a key is none of
    that config class's (transformers itself keeps such keys silently), or when a value is impossible.
    """
    keys = {key: value for key, value in settings.items() if key not in _MODEL_KEYS}
    model_type = keys.pop("model_type", None)
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        close = difflib.get_close_matches(str(model_type), list(CONFIG_MAPPING.keys()), 3)
        hint = f" Did you mean {', '.join(close)}?" if close else " For example: llama, gpt2, qwen3."
        raise SettingsError(f"model_type must name a model family of transformers, got {model_type!r}.{hint}")
    config_class = CONFIG_MAPPING[model_type]
    known = _known_keys(config_class)
    for key in keys:
        if key not in known:
            close = difflib.get_close_matches(key, sorted(known), 3)
            hint = f" Did you mean {', '.join(close)}?" if close else ""
            raise SettingsError(f"{key!r} is not a setting of {config_class.__name__}.{hint}")
    try:
        return AutoConfig.for_model(model_type, **keys)
    except (StrictDataclassFieldValidationError, StrictDataclassClassValidationError) as error:
        raise SettingsError(f"{config_class.__name__} refused the model settings: {error}") from error


def _known_keys(config_class: type[PreTrainedConfig]) -> set[str]:
    known = set(config_class.attribute_map)
    if dataclasses.is_dataclass(config_class):
        known |= {field.name for field in dataclasses.fields(config_class)}
    parameters = inspect.signature(config_class.__init__).parameters.values()
    known |= {p.name for p in parameters if p.kind is p.KEYWORD_ONLY or p.kind is p.POSITIONAL_OR_KEYWORD}
    if "rope_parameters" in known:
        known |= _ROPE_KEYS
    return known - {"self"}


def build_model(settings: Mapping[str, Any], seed: int, dtype: str = "float32") -> PreTrainedModel:
    """A freshly initialized causal language model.

    `settings` are `model_type` and that family's config keys, and optionally `attn_implementation`
    ("sdpa", the default of most families, "eager", "flex_attention", ...). The weights depend on
    `settings` and `seed` alone, and the CPU's random state is left as it was; an accelerator's is seeded too.

    Raises `SettingsError` as `build_config` does, for an unknown `dtype` ("float32", "bfloat16",
    "float16"), or for a family that has no causal language model.
    """
    if dtype not in DTYPES:
        raise SettingsError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    config = build_config(settings)
    options = {key: settings[key] for key in _MODEL_KEYS if key in settings}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype], **options)
