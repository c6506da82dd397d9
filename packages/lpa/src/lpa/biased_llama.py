"""A Llama whose head has a bias: the dense baseline of the paper's setting 2.

A low-rank model's LPA config says that its head has a bias. A dense model has no such config, and the class
of transformers builds a head without one: `from_pretrained` would leave out what was trained.
"""

from __future__ import annotations

from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM


class BiasedLlamaConfig(LlamaConfig):
    """The settings of a Llama."""

    model_type = "lpa_biased_llama"

    @classmethod
    def of(cls, config: LlamaConfig) -> BiasedLlamaConfig:
        """The same settings."""
        return cls(**{key: value for key, value in config.to_diff_dict().items() if key != "model_type"})


class BiasedLlamaForCausalLM(LlamaForCausalLM):
    """logits = W x + b."""

    config_class = BiasedLlamaConfig

    def __init__(self, config: BiasedLlamaConfig) -> None:
        super().__init__(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()


AutoConfig.register(BiasedLlamaConfig.model_type, BiasedLlamaConfig, exist_ok=True)
AutoModelForCausalLM.register(BiasedLlamaConfig, BiasedLlamaForCausalLM, exist_ok=True)
