"""Mixers of flash-linear-attention by name: rwkv7, gsa, gla, mamba2. They need a GPU (section 5).

All take segments with carried memory at once except mamba2, whose layer goes on from a memory by one token at
a time.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from omnirl.errors import MissingExtraError, OmniRLError
from omnirl.model.attention import Context, LayerMemory
from omnirl.model.config import CPU_MIXERS, OmniRLConfig


class FLAMixer(nn.Module):
    """A layer of flash-linear-attention as a mixer of ours; what it keeps is taken apart into a plain dict.

    Raises `MissingExtraError` without the package and `OmniRLError` without a GPU, with the mixers that need
    neither.
    """

    def __init__(self, config: OmniRLConfig, index: int) -> None:
        super().__init__()
        self.layer = _layer(config, index)
        self.passes_values = config.mixer == "rwkv7"
        self.by_token = config.mixer == "mamba2"

    def forward(self, x: Tensor, memory: LayerMemory, context: Context) -> tuple[Tensor, LayerMemory]:
        """(B, T, hidden) to (B, T, hidden), and the layer's state after these tokens.

        Raises `OmniRLError` where mamba2 would have to learn through a memory and its kernel has no gradient.
        """
        cache = _Cache(memory)
        if self.by_token and memory:
            outputs = [
                self.layer(token, past_key_values=cache, use_cache=True)[0] for token in x.split(1, dim=1)
            ]
            if x.requires_grad and not cache.memory()["recurrent_state"].requires_grad:
                raise OmniRLError(
                    "mixer 'mamba2' goes on from a memory by a kernel without gradients: leave out `segment` "
                    "to train it on whole contexts"
                )
            return torch.cat(outputs, dim=1), cache.memory()
        extra = {"v_first": context.shared.get("v_first")} if self.passes_values else {}
        out, _, _, *rest = self.layer(x, past_key_values=cache, use_cache=True, **extra)
        if rest:  # the first layer's values, which the layers above mix in, in this very pass
            context.shared["v_first"] = rest[0]
        return out, cache.memory()

    def empty_memory(self, batch_size: int) -> LayerMemory:
        """Nothing: the layer makes its first state itself."""
        return {}


class _Cache:
    """What fla's layers ask of a cache, for one layer. They write into its tensors, so it has copies."""

    def __init__(self, memory: LayerMemory) -> None:
        memory = {name: value.clone() for name, value in memory.items()}
        self.state: dict[str, Any] | None = None
        if memory:
            self.state = {"attn_state": None, "conv_state": None, "ffn_state": None, "recurrent_state": None}
            for name in dict.fromkeys(key.partition(".")[0] for key in memory):
                parts = [value for key, value in memory.items() if key.startswith(f"{name}.")]
                self.state[name] = tuple(parts) if parts else memory[name]

    def __len__(self) -> int:
        return 0 if self.state is None else 1_000_000  # any layer's index is below it

    def __getitem__(self, index: int) -> dict[str, Any] | None:
        return self.state

    def update(self, layer_idx: int = 0, offset: int = 0, **state: Any) -> dict[str, Any]:
        self.state = {**(self.state or {}), **state}
        return self.state

    def memory(self) -> LayerMemory:
        """The state's tensors by name; the members of a tuple are `name.0`, `name.1`, ..."""
        memory: LayerMemory = {}
        for name, value in (self.state or {}).items():
            if isinstance(value, Tensor):
                memory[name] = value
            elif value is not None:
                memory |= {f"{name}.{i}": part for i, part in enumerate(value)}
        return memory


def _layer(config: OmniRLConfig, index: int) -> nn.Module:
    others = f"the mixers {' and '.join(CPU_MIXERS)} run anywhere"
    if not torch.cuda.is_available():
        raise OmniRLError(f"mixer {config.mixer!r} runs on a GPU only, and there is none; {others}")
    try:
        from fla import layers
    except ImportError as error:
        raise MissingExtraError(
            f"mixer {config.mixer!r} needs flash-linear-attention: pip install 'omnirl-icrl[gpu]'; {others}"
        ) from error
    width, heads = config.hidden_size, config.num_heads
    shared = {"hidden_size": width, "layer_idx": index}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        match config.mixer:
            case "rwkv7":
                depth = max(config.num_layers, 2)  # it divides by one less
                return layers.RWKV7Attention(head_dim=width // heads, num_hidden_layers=depth, **shared)
            case "gsa":
                return layers.GatedSlotAttention(num_heads=heads, **shared)
            case "gla":
                return layers.GatedLinearAttention(num_heads=heads, **shared)
            case _:
                return layers.Mamba2(num_heads=heads, head_dim=2 * width // heads, **shared)
