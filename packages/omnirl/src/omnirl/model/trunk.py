"""The causal trunk: pre-norm blocks of a mixer over time and a feed-forward part (section 2.5)."""

from __future__ import annotations

from typing import Protocol, cast

import torch.nn.functional as F
from torch import Tensor, nn

from omnirl.model.attention import Attention, Context, LayerMemory
from omnirl.model.config import OmniRLConfig
from omnirl.model.fla_trunk import FLAMixer
from omnirl.model.gated_deltanet import GatedDeltaNet


class Mixer(Protocol):
    """What mixes over time: a module that also says what its memory is before the first token."""

    def __call__(self, x: Tensor, memory: LayerMemory, context: Context) -> tuple[Tensor, LayerMemory]:
        """(B, T, hidden) to (B, T, hidden), and the memory after these tokens."""

    def empty_memory(self, batch_size: int) -> LayerMemory:
        """The memory of `batch_size` rows."""


class Block(nn.Module):
    """x + mixer(LN x), then x + FF(LN x), FF = W₂ GELU(W₁ x)."""

    def __init__(self, config: OmniRLConfig, index: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.mixer_norm = nn.LayerNorm(width)
        self.mixer = make_mixer(config, index)
        self.norm = nn.LayerNorm(width)
        self.up_proj = nn.Linear(width, config.feed_forward_size)
        self.down_proj = nn.Linear(config.feed_forward_size, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, memory: LayerMemory, context: Context) -> tuple[Tensor, LayerMemory]:
        """(B, T, hidden) to (B, T, hidden), and the layer's memory after these tokens."""
        mixed, memory = self.mixer(self.mixer_norm(x), memory, context)
        x = x + self.dropout(mixed)
        return x + self.dropout(self.down_proj(F.gelu(self.up_proj(self.norm(x))))), memory


class Trunk(nn.Module):
    """`num_layers` blocks; the heads begin with a norm, and `final_norm` adds one before them."""

    def __init__(self, config: OmniRLConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, index) for index in range(config.num_layers))
        if config.final_norm:
            self.final_norm = nn.LayerNorm(config.hidden_size)

    def forward(
        self, x: Tensor, memory: list[LayerMemory], context: Context
    ) -> tuple[Tensor, list[LayerMemory]]:
        """(B, T, hidden) to (B, T, hidden), and the memory of each layer."""
        after = []
        for block, layer_memory in zip(self.blocks, memory, strict=True):
            x, layer_memory = block(x, layer_memory, context)
            after.append(layer_memory)
        return (self.final_norm(x) if hasattr(self, "final_norm") else x), after

    def empty_memory(self, batch_size: int) -> list[LayerMemory]:
        """The memory of each layer before the first token."""
        return [cast(Block, block).mixer.empty_memory(batch_size) for block in self.blocks]


def make_mixer(config: OmniRLConfig, index: int) -> Mixer:
    """The mixer of layer `index`, chosen by `config.mixer`."""
    if config.mixer == "attention":
        return Attention(config)
    if config.mixer == "gated_deltanet":
        return GatedDeltaNet(config)
    return FLAMixer(config, index)
