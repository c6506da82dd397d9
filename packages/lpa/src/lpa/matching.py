"""Models of equal size: what low rank saves, spent elsewhere."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from lpa.config import LPAConfig
from lpa.errors import LPAError
from lpa.surgery import apply_lpa

# The width of the feed-forward layers, as the families call it (OPT, Falcon, GPT-2).
_FFN_WIDTHS = ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner")


def match(
    model_config: PreTrainedConfig, rank: int, what: Literal["ffn", "layers", "width"] = "ffn"
) -> PreTrainedConfig:
    """Return a config whose low-rank model has the parameter count of the dense model of `model_config`.

    What the attention saves at `rank` goes into a wider feed-forward layer ("ffn"), more layers ("layers"),
    or a larger hidden size with the same number of heads ("width"); as near to the dense count as whole units
    allow. Heads grow with the hidden size where they are hidden_size / num_attention_heads wide, and keep
    a width of their own (Qwen3). Raises `LPAError` for another `what`, and for "ffn" where the family's
    feed-forward width is not a setting (BLOOM).
    """
    if what not in ("ffn", "layers", "width"):
        raise LPAError(f"what is {what!r}; it may be 'ffn', 'layers' or 'width'")
    goal = _parameters(model_config, None)
    low = LPAConfig(rank=rank)
    fields = {"layers": "num_hidden_layers", "width": "hidden_size"}
    field = fields[what] if what in fields else _ffn_width(model_config)
    start, unit = getattr(model_config, field), 1
    if start is None:  # GPT-2's n_inner
        start = 4 * model_config.hidden_size
    if what == "width":
        unit = 2 * model_config.num_attention_heads  # an even number for each head: rotary halves

    def size(steps: int) -> int:
        return _parameters(_changed(model_config, field, start + steps * unit), low)

    most = 1
    while size(most) < goal:
        most *= 2
    least = 0
    while most - least > 1:  # size(least) <= goal <= size(most)
        middle = (least + most) // 2
        least, most = (middle, most) if size(middle) < goal else (least, middle)
    best = min((least, most), key=lambda steps: abs(size(steps) - goal))
    return _changed(model_config, field, start + best * unit)


def _ffn_width(config: PreTrainedConfig) -> str:
    found = next((name for name in _FFN_WIDTHS if hasattr(config, name)), None)
    if found is None:
        raise LPAError(
            f"{type(config).__name__} has none of {', '.join(_FFN_WIDTHS)}: its feed-forward layers cannot "
            "be made wider. Spend the parameters by what='layers' or what='width'"
        )
    return found


def _changed(config: PreTrainedConfig, field: str, value: int) -> PreTrainedConfig:
    changed = copy.deepcopy(config)
    setattr(changed, field, value)
    if field == "hidden_size":
        heads = config.num_attention_heads
        if vars(config).get("head_dim") == config.hidden_size // heads:  # else it follows of itself
            changed.head_dim = value // heads
    if field == "num_hidden_layers" and getattr(changed, "layer_types", None):
        kinds = list(config.layer_types)
        changed.layer_types = [kinds[layer % len(kinds)] for layer in range(value)]
    return changed


def _parameters(config: PreTrainedConfig, low: LPAConfig | None) -> int:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        if low is not None:
            apply_lpa(model, low)
    return sum(parameter.numel() for parameter in model.parameters())
