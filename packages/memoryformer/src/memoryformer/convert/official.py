"""Checkpoints of the authors' code, github.com/C0-Design/MemoryFormer, a fork of GPT-NeoX.

Their model is a sequence: 0 the embedding, 2 to L + 1 the layers, L + 3 the final norm, L + 4 the head.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.initialization import no_init_weights

from memoryformer.errors import MemoryFormerError
from memoryformer.hf.config import MemoryFormerConfig
from memoryformer.hf.modeling import MemoryFormerForCausalLM

WHOLE, BY_LAYER = "mp_rank_*_model_states.pt", "layer_*-model_*-model_states.pt"
_EXPAND = {"extra_bit": "bits", "extra_table": "tables"}
# What the released ymls say, and what this package cannot do otherwise: (section, key) -> value.
_REQUIRED: dict[tuple[str | None, str], Any] = {
    (None, "pos_emb"): "rotary",
    (None, "gpt_j_residual"): False,
    (None, "use_qk_layernorm"): False,
    (None, "mlp_type"): "MemoryBlock",
    (None, "double_mlp_table"): True,
    ("attn_memory_config", "fc_qkv"): False,
    ("attn_memory_config", "remove_projection"): True,
    ("attn_memory_config", "shared_projection"): False,
    ("attn_memory_config", "del_dense"): True,
    ("memory_config", "remove_projection"): True,
    ("memory_config", "act_pos"): "none",
}
_NEOX_DEFAULTS = {
    "pos_emb": "learned",
    "rotary_pct": 1.0,
    "rotary_emb_base": 10_000,
    "norm": "layernorm",
    "layernorm_epsilon": 1e-5,
    "rms_norm_epsilon": 1e-8,
    "gpt_j_residual": False,
    "use_qk_layernorm": False,
    "fc_qkv": False,
    "no_weight_tying": False,
    "mlp_expand_type": "extra_bit",
}


def convert_official(source: str | Path, config: MemoryFormerConfig | None = None) -> MemoryFormerForCausalLM:
    """Read a checkpoint of the authors' code as a model of transformers, ready for `save_pretrained`.

    `source`: a folder `global_step...`, the folder of several (the newest is taken), or a file
    mp_rank_00_model_states.pt. With pipeline stages (layer_...-model_00-model_states.pt) or without.
    `config` None: that of the yml beside the checkpoint, in `configs/`. The weights keep their dtype; the
    model is in evaluation mode.

    Raises `MemoryFormerError` if no checkpoint or no yml is found, for a checkpoint split by tensor
    parallelism or damaged, for a yml that lacks an option or asks for what this package has not, and where
    weights and config differ.
    """
    folder, states = _read(Path(source))
    embedding = states.get("sequential.0.word_embeddings.weight")
    if embedding is None:
        raise MemoryFormerError(
            f"{source} has no sequential.0.word_embeddings.weight: it is no checkpoint of the authors' models"
        )
    config = config or _written_config(folder, embedding.shape[0])
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=embedding.dtype)
    return load_official_state_dict(model, states).eval()


def official_config(yml: Mapping[str, Any], vocab_size: int) -> MemoryFormerConfig:
    """The config that a yml of the authors' code describes (keys with "-" or "_"); the vocabulary is padded.

    Raises `MemoryFormerError` for an option that is missing, is no number where one is needed, or that this
    package has not, naming it.
    """
    given = {str(key).replace("-", "_"): value for key, value in yml.items()}
    given = {**_NEOX_DEFAULTS, **given}
    for (section, key), wanted in _REQUIRED.items():
        options = given if section is None else {**_NEOX_DEFAULTS, **_section(given, section)}
        if options.get(key) != wanted:
            where = key if section is None else f"{section}.{key}"
            raise MemoryFormerError(
                f"{where} is {options.get(key)!r} in the yml; only {wanted!r} can be converted"
            )
    width, attention = _whole(given, "hidden_size"), _section(given, "attn_memory_config")
    tau = _whole(given, "code_length", "memory_config")
    for section in ("attn_memory_config", "memory_config"):
        bits, tables = _whole(given, "code_length", section), _whole(given, "ffn_num_table", section)
        if bits != tau or tables * tau != width:
            raise MemoryFormerError(
                f"{section} has code_length {bits} and ffn_num_table {tables}; with hidden_size {width} and "
                f"code_length {tau} in memory_config they must be {tau} and {width // tau}"
            )
    if attention.get("value_size", width) != width or given["norm"] not in ("layernorm", "rmsnorm"):
        raise MemoryFormerError(
            f"attn_memory_config.value_size is {attention.get('value_size')} and norm {given['norm']!r}; "
            f"only {width} (hidden_size) and 'layernorm' or 'rmsnorm' can be converted"
        )
    if given["mlp_expand_type"] not in _EXPAND:
        raise MemoryFormerError(
            f"mlp_expand_type is {given['mlp_expand_type']!r} in the yml; only "
            f"{' or '.join(map(repr, _EXPAND))} can be converted"
        )
    return MemoryFormerConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=_whole(given, "num_layers"),
        num_attention_heads=_whole(given, "num_attention_heads"),
        tau=tau,
        expand=_EXPAND[given["mlp_expand_type"]],
        norm=given["norm"],
        max_position_embeddings=_whole(given, "max_position_embeddings"),
        rope_parameters={
            "rope_theta": _number(given, "rotary_emb_base"),
            "partial_rotary_factor": _number(given, "rotary_pct"),
        },
        layer_norm_eps=_number(given, "layernorm_epsilon"),
        rms_norm_eps=_number(given, "rms_norm_epsilon"),
        tie_word_embeddings=not given["no_weight_tying"],
        bos_token_id=0,
        eos_token_id=0,
    )


def _section(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = given.get(name, {})
    if not isinstance(section, Mapping):
        raise MemoryFormerError(f"{name} is {section!r} in the yml; it must be a section of options")
    return section


def _whole(given: Mapping[str, Any], key: str, section: str | None = None) -> int:
    """The number of an option without which the sizes are not known."""
    options = given if section is None else _section(given, section)
    where = key if section is None else f"{section}.{key}"
    if key not in options:
        raise MemoryFormerError(f"the yml has no {where}, without which the model's sizes are not known")
    value = options[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise MemoryFormerError(f"{where} is {value!r} in the yml; it must be a whole number, at least 1")
    return value


def _number(given: Mapping[str, Any], key: str) -> float:
    try:
        return float(given[key])  # PyYAML reads 1e-8, without a point, as text
    except (TypeError, ValueError):
        raise MemoryFormerError(f"{key} is {given[key]!r} in the yml; it must be a number") from None


def load_official_state_dict(
    model: MemoryFormerForCausalLM, states: Mapping[str, Tensor]
) -> MemoryFormerForCausalLM:
    """Load a state dict with the authors' names ("sequential.2.attention.query_proj.tables") into `model`.

    The tables of q, k and v become one, [K·2^tau, h] becomes [K, 2^tau, h]. Raises `MemoryFormerError` where
    names or shapes (tau, number of tables, widths, layers) are not those of the model; it is then as it was.
    """
    converted = _own_names(states, model.config.num_hidden_layers)
    own = model.state_dict()
    if model.config.tie_word_embeddings:
        own.pop("lm_head.weight")
    missing, unknown = sorted(own.keys() - converted.keys()), sorted(converted.keys() - own.keys())
    if missing or unknown:
        raise MemoryFormerError(
            f"the checkpoint is not one of this config ({model.config.num_hidden_layers} layers, norm "
            f"{model.config.norm!r}): missing {_some(missing)}; unknown {_some(unknown)}"
        )
    for name, values in own.items():
        given = converted[name]
        wanted = values.flatten(0, 1).shape if name.endswith("tables") else values.shape
        if given.shape != wanted:
            raise MemoryFormerError(_mismatch(name, tuple(given.shape), tuple(wanted), model.config))
    ours = {name: converted[name].view(values.shape) for name, values in own.items()}
    model.load_state_dict(ours, strict=False)
    model.tie_weights()
    return model


_NAMES = (
    (r"^0\.word_embeddings\.weight$", "model.embed_tokens.weight"),
    (r"\.mlp\.0\.", ".mlp.layer1."),
    (r"\.mlp\.1\.", ".mlp.norm."),
    (r"\.mlp\.2\.", ".mlp.layer2."),
    (r"norm\.scale$", "norm.weight"),
)


def _own_names(states: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    own: dict[str, Tensor] = {}
    projections: dict[str, dict[str, Tensor]] = {}
    for key, values in states.items():
        name = key.removeprefix("module.").removeprefix("sequential.")
        if name.endswith("rotary_emb.inv_freq"):
            continue
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        place, _, rest = name.partition(".")
        if place.isdigit() and 2 <= int(place) < layers + 2:
            name = f"model.layers.{int(place) - 2}.{rest}"
        elif place == str(layers + 3):
            name = f"model.{rest}"
        elif place == str(layers + 4) and rest == "final_linear.weight":
            name = "lm_head.weight"
        if found := re.fullmatch(r"(.*)\.attention\.(query|key|value)_proj\.(tables|bias)", name):
            joined = f"{found[1]}.self_attn.qkv_proj.{found[3]}"
            projections.setdefault(joined, {})[found[2]] = values
        else:
            own[name] = values
    for name, parts in projections.items():
        if len(parts) == 3 and len({part.shape[:-1] for part in parts.values()}) == 1:
            own[name] = torch.cat([parts["query"], parts["key"], parts["value"]], dim=-1)
    return own


def _mismatch(name: str, given: tuple[int, ...], wanted: tuple[int, ...], config: MemoryFormerConfig) -> str:
    return (
        f"{name} is {list(given)} in the checkpoint and {list(wanted)} by the config (hidden_size "
        f"{config.hidden_size}, tau {config.tau}, {config.hidden_size // config.tau} tables, expand "
        f"{config.expand!r}, expand_bits {config.expand_bits}; tables have number of tables x 2**tau rows): "
        "convert it with the config it was trained with"
    )


def _read(source: Path) -> tuple[Path, dict[str, Tensor]]:
    """The folder of a checkpoint, and its weights with the names of the sequence."""
    if source.is_file():
        return source.parent, _module(source)
    steps = {path: re.fullmatch(r"global_step(\d+)", path.name) for path in source.glob("global_step*")}
    numbers = {path: int(step[1]) for path, step in steps.items() if step}  # others are somebody's copies
    folder = max(numbers, key=numbers.__getitem__, default=source)
    whole, by_layer = sorted(folder.glob(WHOLE)), sorted(folder.glob(BY_LAYER))
    if not whole and not by_layer:
        raise MemoryFormerError(f"{source} has no checkpoint: neither {WHOLE} nor {BY_LAYER}")
    if len(whole) > 1 or any("-model_00-" not in path.name for path in by_layer):
        raise MemoryFormerError(
            f"{folder} is split by tensor parallelism, which the authors' tables do not have; merge it with "
            "GPT-NeoX's own tools first"
        )
    if not by_layer:
        return folder, _module(whole[0])
    states = {}
    for path in by_layer:
        place = int(path.name.split("-")[0].removeprefix("layer_"))
        weights = _weights(path, _load(path))
        states.update({f"sequential.{place}.{key}": values for key, values in weights.items()})
    return folder, states


def _module(path: Path) -> dict[str, Tensor]:
    """The weights in a file of DeepSpeed's, which has more beside them."""
    states = _load(path)
    if "module" not in states:
        there = _some([str(key) for key in states])
        raise MemoryFormerError(f'{path} has no "module", where DeepSpeed keeps the weights; it has {there}')
    return _weights(path, states["module"])


def _weights(path: Path, states: Any) -> dict[str, Tensor]:
    if not isinstance(states, dict) or not all(isinstance(values, Tensor) for values in states.values()):
        raise MemoryFormerError(f"{path} has no tensors by their names: it is no checkpoint of the authors'")
    return states


def _load(path: Path) -> dict[str, Any]:
    """Read a file of torch.save without running anything in it; NumPy's random state stands in it too."""
    reconstruct = np.zeros(0).__reduce__()[0]  # under the names that it has had
    harmless: list[Any] = [np.ndarray, np.dtype, type(np.dtype(np.uint32))]
    harmless += [(reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    try:
        with torch.serialization.safe_globals(harmless):
            states = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise MemoryFormerError(
            f"{path} cannot be read as weights: {error}. If you trust it and it has more than tensors, save "
            'those alone: torch.save({"module": torch.load(path, weights_only=False)["module"]}, path)'
        ) from error
    if not isinstance(states, dict):
        raise MemoryFormerError(f"{path} holds a {type(states).__name__}, not a dictionary of weights")
    return states


def _written_config(folder: Path, vocab_size: int) -> MemoryFormerConfig:
    """The config of the yml beside a checkpoint."""
    yml = _yml(folder)
    try:
        return official_config(yml, vocab_size)
    except MemoryFormerError as error:
        raise MemoryFormerError(f"{folder / 'configs'}: {error}") from error


def _yml(folder: Path) -> dict[str, Any]:
    """The yml that GPT-NeoX puts beside a checkpoint; several are one config."""
    files = sorted(folder.glob("configs/*.yml"))
    if not files:
        raise MemoryFormerError(
            f"{folder / 'configs'} has no yml, so the number of heads is not known: give "
            "convert_official(source, config=MemoryFormerConfig(...)), or put the yml of the training there"
        )
    merged: dict[str, Any] = {}
    for file in files:
        try:
            options = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise MemoryFormerError(f"{file} is no yml that can be read: {error}") from error
        if not isinstance(options, dict):
            raise MemoryFormerError(f"{file} is a {type(options).__name__}, not options by their names")
        merged.update(options)
    return merged


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3]) or "none"
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
