from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from implicit_prm.tasks.vocabulary import word_tokenizer

torch.set_num_threads(1)

WORDS = 48


@pytest.fixture(scope="session")
def words() -> PreTrainedTokenizerFast:
    """A tokenizer of 48 tokens: <pad>, <eos>, <unk> and the words w0 .. w44."""
    return word_tokenizer([f"w{number}" for number in range(WORDS - 3)], between=" ")


@pytest.fixture(scope="session")
def tiny_llama() -> Callable[..., LlamaForCausalLM]:
    """Build a two-layer Llama with random weights for `words`, the same for the same seed.

    Heads of 32, the least that vLLM's attention on CPUs takes.
    """

    def build(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
        settings: dict[str, Any] = {
            "vocab_size": WORDS,
            "hidden_size": 64,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 64,
            "initializer_range": 0.2,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": None,
        }
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**settings | changes)).eval()

    return build
