"""Checkpoints of the official code (github.com/TsinghuaC3I/LPA), by their own key names."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel

from lpa import hf
from lpa.errors import LPAError, LPAWarning
from lpa.surgery import give_head_a_bias

Model = TypeVar("Model", bound=PreTrainedModel)

# Official names become ours by these replacements, one after another.
_COMMON = (
    (r"^(?:module\.)?(?:lpa\.)?", ""),
    (r"^token_embedding\.", "model.embed_tokens."),
    (r"^fc\.", "lm_head."),
    (r"^transformer_blocks\.", "model.layers."),
    (r"\.attention\.", ".self_attn."),
    (r"_proj\.0\.", "_proj.down."),
    (r"_proj\.1\.", "_proj.up."),
)
_SETTING_1 = (
    (r"^positional_embedding\.", "model.embed_positions."),
    (r"\.query_proj\.", ".q_proj."),
    (r"\.key_proj\.", ".k_proj."),
    (r"\.value_proj\.", ".v_proj."),
    (r"\.out_proj\.", ".o_proj."),
    (r"\.norm1\.", ".attn_norm."),
    (r"\.norm2\.", ".mlp_norm."),
)
# The feed-forward layer is a Sequential; with or without the ReLU, at 2 or 1, its numbers mean this.
_DENSE_FFN = ((r"\.fc\.0\.", ".mlp.fc1."), (r"\.fc\.2\.", ".mlp.fc2."))
_LOW_FFN = (
    (r"\.fc\.0\.", ".mlp.fc1.down."),
    (r"\.fc\.1\.", ".mlp.fc1.up."),
    (r"\.fc\.3\.", ".mlp.fc2.down."),
    (r"\.fc\.4\.", ".mlp.fc2.up."),
)
_SETTING_2 = (
    (r"^norm\.", "model.norm."),
    (r"\.ffn\.", ".mlp."),
    (r"\.norm1\.", ".input_layernorm."),
    (r"\.norm2\.", ".post_attention_layernorm."),
)


def load_official_state_dict(model: Model, sd: Mapping[str, torch.Tensor], setting: int) -> Model:
    """Load a state dict of the official code's `LPAForCausalLM` into `model`, in place, and return it.

    Setting 1 wants a `ClassicForCausalLM`; setting 2 a `LlamaForCausalLM` (untied, RMSNorm eps 1e-6, RoPE
    base 10,000) that `apply_lpa` has made low-rank; both of the checkpoint's sizes and ranks. `presets` has
    the published ones. Dense baselines load into dense models. The official setting-2 head has a bias: the
    Llama model gets one, and its LPA config records it (`lm_head_bias`): `from_pretrained` rebuilds it.

    Raises `LPAError` for another setting, for keys that are missing or unknown and for shapes that differ;
    the model is then as it was.
    """
    if setting not in (1, 2):
        raise LPAError(f"setting is {setting!r}; the official code has the settings 1 and 2")
    official = {_own_name(name, sd, setting): name for name in sd if not name.endswith("rotary_emb.inv_freq")}
    _check_fits(model, sd, official, setting)
    if "lm_head.bias" in official:
        add_head_bias(model)
    model.load_state_dict({own: sd[name] for own, name in official.items()})
    return model


def add_head_bias(model: PreTrainedModel) -> None:
    """Give the output embedding a bias of 0, if it has none, and record that in the model's LPA config."""
    head: Any = model.get_output_embeddings()
    if head.bias is not None:
        return
    give_head_a_bias(model)
    config = hf.attached_config(model)
    if config is not None:
        hf.attach(model, config.model_copy(update={"lm_head_bias": True}))
        return
    warnings.warn(
        f"{type(model).__name__} is dense, and its class has a head without bias: save_pretrained will write "
        "the bias, but from_pretrained will not read it. presets[...].build(low_attention=False) has a class "
        "that does",
        LPAWarning,
        stacklevel=3,
    )


def _own_name(name: str, sd: Mapping[str, torch.Tensor], setting: int) -> str:
    low_ffn = any(".fc.4." in key for key in sd)
    special = (*_SETTING_1, *(_LOW_FFN if low_ffn else _DENSE_FFN)) if setting == 1 else _SETTING_2
    for pattern, replacement in (*_COMMON, *special):
        name = re.sub(pattern, replacement, name)
    return name


def _check_fits(
    model: PreTrainedModel, sd: Mapping[str, torch.Tensor], official: Mapping[str, str], setting: int
) -> None:
    own = model.state_dict()
    found = official.keys() - ({"lm_head.bias"} if setting == 2 else set())
    unknown = sorted(official[name] for name in found - own.keys())
    missing = sorted(own.keys() - official.keys())
    if unknown or missing:
        raise LPAError(
            f"this is no setting-{setting} checkpoint of {type(model).__name__}. Unknown keys: "
            f"{_some(unknown)}. Missing: {_some(missing)}.{_hint(own, official)}"
        )
    for name, values in own.items():
        given = sd[official[name]]
        if values.shape != given.shape:
            raise LPAError(
                f"{official[name]} is {tuple(given.shape)} in the checkpoint; in the model "
                f"{name} is {tuple(values.shape)}. Build the model with the checkpoint's sizes and rank"
            )


def _hint(own: Mapping[str, Any], official: Mapping[str, Any]) -> str:
    key = "model.layers.0.self_attn.q_proj.down.weight"
    if key in official and key not in own:
        return (
            " The checkpoint's attention is low-rank and the model's is dense: give the model its rank first"
        )
    if key in own and key not in official:
        return " The model's attention is low-rank and the checkpoint's is dense: load it into a dense model"
    return ""


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:4]) or "none"
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown
