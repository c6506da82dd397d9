"""FoPE in Hugging Face transformers (extra `hf`): convert, save, load."""

from fope.hf.convert import convert_to_fope

__all__ = ["convert_to_fope"]
