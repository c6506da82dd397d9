"""The published models and how they were trained, by name.

Sizes, ranks and hyperparameters of "setting1-370m" and "setting2-130m" stand in the official scripts. Those
of the other sizes that the paper names are not published there: they are marked `assumed`, with ranks of d/4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from lpa.biased_llama import BiasedLlamaConfig
from lpa.classic import ClassicConfig
from lpa.config import ATTENTION_ROLES, LPAConfig
from lpa.official import add_head_bias
from lpa.surgery import apply_lpa


@dataclass(frozen=True)
class Training:
    """Hyperparameters of the official scripts; `batch_size` is sequences of `context` tokens, all GPUs.

    The length is `epochs` of the data or, if `steps` is given, that many steps. AdamW, cosine to 0.
    """

    data: str
    tokenizer: str
    context: int
    batch_size: int
    lr: float
    steps: int | None = None
    epochs: int | None = None
    warmup_steps: int = 0
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-5
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 27

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one step of the optimiser sees."""
        return self.batch_size * self.context


@dataclass(frozen=True)
class Preset:
    """One published model: the dense config, the ranks, and how it was trained.

    `rank` is that of the attention (LPA), `ffn_rank` that of the feed-forward layers in the paper's ablation.
    `assumed` marks sizes whose rank (and what `note` says) is our choice.
    """

    name: str
    config: PreTrainedConfig
    rank: int
    ffn_rank: int
    training: Training
    assumed: bool = False
    note: str = ""

    @property
    def lpa(self) -> LPAConfig:
        """What `apply_lpa` takes for the low-rank attention."""
        return LPAConfig(rank=self.rank)

    def build(self, low_attention: bool = True, low_ffn: bool = False) -> PreTrainedModel:
        """A new model: LPA by default, or the dense baseline or an ablation.

        Starts as the official code does, with PyTorch's defaults. Under `torch.device("meta")` it has shapes
        only. The setting-2 head has a bias, as there.
        """
        if isinstance(self.config, ClassicConfig):
            ranks = {
                "rank": self.rank if low_attention else None,
                "ffn_rank": self.ffn_rank if low_ffn else None,
            }
            return AutoModelForCausalLM.from_config(ClassicConfig(**self.config.to_diff_dict() | ranks))
        lpa = None
        if low_attention or low_ffn:
            targets = (*(ATTENTION_ROLES if low_attention else ()), *(("ffn",) if low_ffn else ()))
            pattern = {r"\.mlp\.": self.ffn_rank} if low_ffn else None
            lpa = LPAConfig(rank=self.rank, targets=targets, rank_pattern=pattern)
        return as_setting_2(AutoModelForCausalLM.from_config(self.config), lpa)


def as_setting_2(model: PreTrainedModel, lpa: LPAConfig | None) -> PreTrainedModel:
    """Start `model` as the official setting 2 does and return it: dense, or low-rank as `lpa` says.

    Matrices at PyTorch's default, embeddings at N(0, 1), a head with a bias. Works in place, save that a
    dense Llama becomes another model, a `BiasedLlamaForCausalLM`, which is saved and loaded with its bias.
    """
    if lpa is None and type(model) is LlamaForCausalLM:
        config = BiasedLlamaConfig.of(model.config)
        attention, device = model.config._attn_implementation, model.device
        model = AutoModelForCausalLM.from_config(config, dtype=model.dtype, attn_implementation=attention)
        nn.Module.to(model, device)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            module.reset_parameters()
    if lpa is not None:
        apply_lpa(model, lpa)
    add_head_bias(model)
    return model


def _llama(hidden: int, ffn: int, layers: int, heads: int) -> LlamaConfig:
    """The official setting 2: RMSNorm eps 1e-6, RoPE base 10,000, SwiGLU, 32,000 tokens and a pad."""
    return LlamaConfig(
        vocab_size=32_001,
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=256,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=False,
        dtype=torch.float32,
    )


_WIKITEXT = Training(
    data="WikiText-103",
    tokenizer="LLaMA-2, 32,000 tokens",
    context=1024,
    batch_size=48,
    lr=5e-4,
    epochs=8,
    warmup_steps=1000,
)
_PILE = Training(
    data="The Pile",
    tokenizer="LLaMA-2 and a padding token, 32,001",
    context=256,
    batch_size=512,
    lr=1e-3,
    steps=31_800,
    precision="bf16",
)

_PRESETS = (
    Preset("setting1-370m", ClassicConfig(), rank=320, ffn_rank=768, training=_WIKITEXT),
    Preset(
        "setting1-130m",
        ClassicConfig(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=6, head_dim=128
        ),
        rank=192,
        ffn_rank=384,
        training=_WIKITEXT,
        assumed=True,
        note="no script: sizes after the 370M one's proportions, training as there",
    ),
    Preset("setting2-130m", _llama(768, 2048, 12, 12), rank=128, ffn_rank=384, training=_PILE),
    Preset(
        "setting2-370m",
        _llama(1024, 2736, 24, 16),
        rank=256,
        ffn_rank=512,
        training=replace(_PILE, lr=5e-4),
        assumed=True,
        note="no script: sizes of llama_350m of ReLoRA and GaLore, whose llama_130m is setting2-130m; "
        "the learning rate is ours",
    ),
    Preset(
        "setting2-3b",
        _llama(3072, 8192, 26, 24),
        rank=768,
        ffn_rank=1536,
        training=replace(_PILE, lr=3e-4),
        assumed=True,
        note="no script: a model of about 3 B in LLaMA's proportions; learning rate and length are ours",
    ),
)

presets: dict[str, Preset] = {preset.name: preset for preset in _PRESETS}
"""By name: "setting1-370m", "setting1-130m", "setting2-130m", "setting2-370m", "setting2-3b"."""
