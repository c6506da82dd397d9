from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def tiny_llama() -> Callable[..., PreTrainedModel]:
    """Build a two-layer Llama with 4 heads of width 8, 2 of them for keys and values."""

    def build(**changes: Any) -> PreTrainedModel:
        settings: dict[str, Any] = {
            "vocab_size": 64,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            "initializer_range": 0.2,
        }
        return AutoModelForCausalLM.from_config(LlamaConfig(**settings | changes)).eval()

    return build


@pytest.fixture
def token_ids() -> torch.Tensor:
    """(3, 20) tokens below 64."""
    return torch.randint(0, 64, (3, 20), generator=torch.Generator().manual_seed(1))
