"""Where the models of transformers keep their attention and feed-forward matrices.

A role is found by the end of a module's name, which the families share; only matrices that hold several
need the model's config to say how.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lpa.config import LPAConfig
from lpa.errors import LPAError
from lpa.layers import FusedLayout, FusedLowRank, LowRankLinear

_ATTENTION = r"(?:^|\.)(?:self_attn|attn|attention|self_attention)\."
_ROLE_OF = {
    _ATTENTION + r"q_proj$": "q",
    _ATTENTION + r"k_proj$": "k",
    _ATTENTION + r"v_proj$": "v",
    _ATTENTION + r"(?:o_proj|out_proj|c_proj|dense)$": "o",
    _ATTENTION + r"(?:c_attn|query_key_value|qkv_proj)$": "qkv",
    r"(?:^|\.)mlp\.(?:gate_proj|up_proj|down_proj|c_fc|c_proj|dense_h_to_4h|dense_4h_to_h|fc1|fc2)$": "ffn",
    r"(?:^|\.)layers\.\d+\.fc[12]$": "ffn",  # OPT
    r"(?:^|\.)mlp\.gate_up_proj$": "gate_up",
}
PARTS = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}
_LAYER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class Site:
    """One module of a model and the part that low-rank layers may take in it.

    `role` is q, k, v, o, ffn, or "other" for what only an expression names; qkv and gate_up are matrices that
    hold several. `parts` are (name, n_out) of those, or one part with the name "".
    """

    name: str
    role: str
    n_in: int
    parts: tuple[tuple[str, int], ...]
    layout: FusedLayout | None = None

    @property
    def layer(self) -> int | None:
        """The number of the layer that it belongs to."""
        found = _LAYER.search(self.name)
        return int(found[1]) if found else None

    def full_name(self, part: str) -> str:
        """The name that patterns see."""
        return f"{self.name}.{part}" if part else self.name

    def role_of(self, part: str) -> str:
        """q, k, v, o, ffn or other."""
        if self.role == "gate_up":
            return "ffn"
        return part if self.role == "qkv" else self.role

    def is_targeted(self, part: str, config: LPAConfig) -> bool:
        """Say whether `config` makes this part low-rank."""
        if any(re.search(expression, self.full_name(part)) for expression in config.expressions):
            return True
        in_layers = config.layers is None or self.layer in config.layers
        return in_layers and self.role_of(part) in config.roles


def sites(model: nn.Module) -> Iterator[Site]:
    """Every matrix of the model's decoder that could be or is low-rank, embeddings and heads left out."""
    root = decoder_prefix(model)
    heads = _heads(model)
    for name, module in model.named_modules():
        if not name.startswith(root) or module in heads or not is_matrix(module):
            continue
        if any(isinstance(parent, LowRankLinear | FusedLowRank) for parent in _parents(model, name)):
            continue  # the factors themselves
        yield _site(name, module, model)


def role_of(name: str) -> str:
    """The role of the matrix of that name, see `Site`."""
    return next((role for pattern, role in _ROLE_OF.items() if re.search(pattern, name)), "other")


def _site(name: str, module: nn.Module, model: nn.Module) -> Site:
    role = role_of(name)
    n_in, n_out = matrix_shape(module)
    if role not in PARTS:
        return Site(name, role, n_in, (("", n_out),))
    layout = module.layout if isinstance(module, FusedLowRank) else fused_layout(role, n_out, model)
    sizes = tuple(layout.groups * size for size in layout.sizes)
    return Site(name, role, n_in, tuple(zip(PARTS[role], sizes, strict=True)), layout)


def fused_layout(role: str, n_out: int, model: nn.Module) -> FusedLayout:
    """How q, k and v (or gate and up) lie in the one matrix with `n_out` rows."""
    if role == "gate_up":
        return FusedLayout(1, (n_out // 2, n_out // 2))
    config = _config(model)
    kind = getattr(config, "model_type", type(model).__name__)
    heads = getattr(config, "num_attention_heads", 0)
    if kind in ("gpt_neox", "bloom", "falcon"):
        if kind == "falcon" and config.new_decoder_architecture:
            groups = config.num_kv_heads
            head_dim = n_out // (heads + 2 * groups)
            return FusedLayout(groups, (heads // groups * head_dim, head_dim, head_dim))
        if kind == "falcon" and config.multi_query:
            head_dim = n_out // (heads + 2)
            return FusedLayout(1, (heads * head_dim, head_dim, head_dim))
        head_dim = n_out // (3 * heads)
        return FusedLayout(heads, (head_dim, head_dim, head_dim))
    if kind in ("gpt2", "phi3"):
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        head_dim = n_out // (heads + 2 * kv_heads)
        return FusedLayout(1, (heads * head_dim, kv_heads * head_dim, kv_heads * head_dim))
    raise LPAError(
        f"{kind} keeps q, k and v in one matrix, and how they lie in it is not known here; known are "
        "gpt2, phi3, gpt_neox, bloom and falcon"
    )


def is_matrix(module: nn.Module) -> bool:
    """Say whether the module is a matrix, dense or low-rank."""
    return isinstance(module, nn.Linear | Conv1D | LowRankLinear | FusedLowRank)


def matrix_shape(module: Any) -> tuple[int, int]:
    """(n_in, n_out) of a matrix, dense or low-rank."""
    match module:
        case Conv1D():
            return module.nx, module.nf
        case FusedLowRank():
            parts: list[Any] = list(module.parts.values())
            return parts[0].in_features, sum(part.out_features for part in parts)
        case _:
            return module.in_features, module.out_features


def dense_bias(module: Any) -> bool:
    """Say whether a matrix has a bias, or would have one as a dense layer."""
    match module:
        case LowRankLinear():
            return module.down.bias is not None or module.up.bias is not None
        case FusedLowRank():
            return any(dense_bias(part) for part in module.parts.values())
        case _:
            return module.bias is not None


def decoder_prefix(model: nn.Module) -> str:
    """The start of the names in the text decoder: "" for a plain language model.

    Raises `LPAError` for an encoder-decoder model.
    """
    config = getattr(model, "config", None)
    if config is None:
        return ""
    if getattr(config, "is_encoder_decoder", False):
        raise LPAError(
            f"{type(model).__name__} is an encoder-decoder model; LPA is a method for decoders. "
            "Pass its decoder (model.get_decoder()) if that is what you mean"
        )
    if isinstance(model, PreTrainedModel) and config.get_text_config() is not config:
        decoder = model.get_decoder()
        return next(name for name, module in model.named_modules() if module is decoder) + "."
    return ""


def head_dim(model: nn.Module) -> int | None:
    """The width of an attention head, None for a model without a config."""
    config = _config(model)
    if config is None:
        return None
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def module_names(model: nn.Module) -> list[str]:
    """The different matrices of a model, layer numbers written as `*`, for messages."""
    return without_layers(name for name, module in model.named_modules() if is_matrix(module))


def without_layers(names: Iterable[str]) -> list[str]:
    """The different names, layer numbers written as `*`."""
    return list(dict.fromkeys(_LAYER.sub(".*.", name) for name in names))


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` where `name` points to."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _config(model: nn.Module) -> Any:
    config = getattr(model, "config", None)
    return config.get_text_config() if isinstance(config, PreTrainedConfig) else config


def _heads(model: nn.Module) -> set[nn.Module]:
    if not isinstance(model, PreTrainedModel):
        return set()
    return {head for head in (model.get_output_embeddings(),) if head is not None}


def _parents(model: nn.Module, name: str) -> Iterator[nn.Module]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield model.get_submodule(name)
