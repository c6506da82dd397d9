"""The entry point of group `vllm.general_plugins`: vLLM learns FoPE models when it starts, in every process.

    LLM("folder", hf_overrides={"architectures": ["FopeLlamaForCausalLM"]})

vLLM makes one rotary module for all layers, so models with coefficients of their own in each layer need this.
Without the override it refuses a folder whose rope type is "fope".
"""

from __future__ import annotations

ARCHITECTURE = "FopeLlamaForCausalLM"


def register() -> None:
    """Register the architecture and the rope type; vLLM may call it several times."""
    from vllm import ModelRegistry

    from fope.hf.config import register as register_rope_type

    register_rope_type()
    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, f"fope.vllm_model:{ARCHITECTURE}")
