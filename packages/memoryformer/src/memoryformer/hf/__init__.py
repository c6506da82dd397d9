"""MemoryFormer in Hugging Face transformers (extra `hf`)."""

from memoryformer.errors import MissingExtraError

try:
    import transformers  # noqa: F401
except ImportError as error:  # pragma: no cover - depends on the environment
    raise MissingExtraError("memoryformer.hf needs transformers: pip install 'memoryformer[hf]'") from error

from memoryformer.hf.application import apply_memoryformer
from memoryformer.hf.config import MemoryFormerConfig
from memoryformer.hf.modeling import MemoryFormerForCausalLM, MemoryFormerModel

__all__ = ["MemoryFormerConfig", "MemoryFormerForCausalLM", "MemoryFormerModel", "apply_memoryformer"]
