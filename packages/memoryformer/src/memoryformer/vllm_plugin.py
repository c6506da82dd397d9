"""The entry point of group `vllm.general_plugins`: vLLM learns the model when it starts, in every process.

    LLM("folder")

vLLM runs the model's own modules with its attention and scheduler ("Transformers modeling backend"). It
refuses models with int8 tables, and other families changed by `apply_memoryformer`: what their config.json
has under `quantization_config` is to it a quantisation method that it does not know.
"""

from __future__ import annotations

ARCHITECTURE = "MemoryFormerForCausalLM"
BACKEND = "vllm.model_executor.models.transformers:TransformersForCausalLM"


def register() -> None:
    """Register config, model and architecture; vLLM may call it several times."""
    from vllm import ModelRegistry

    import memoryformer.hf  # noqa: F401  # registers with the Auto classes

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, BACKEND)
