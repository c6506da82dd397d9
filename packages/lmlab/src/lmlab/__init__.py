"""A small laboratory for language models: text, tokenizers, pre-training and evaluation."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmlab.corpora import CORPORA, CorpusError, documents
    from lmlab.packing import TokenBlocks, pack
    from lmlab.preparation import PreparedCorpus, prepare
    from lmlab.tokenizers import train_tokenizer

# torch and transformers take seconds to import: what needs them waits until somebody asks for it.
_LAZY = {
    "CORPORA": "lmlab.corpora",
    "CorpusError": "lmlab.corpora",
    "PreparedCorpus": "lmlab.preparation",
    "TokenBlocks": "lmlab.packing",
    "documents": "lmlab.corpora",
    "pack": "lmlab.packing",
    "prepare": "lmlab.preparation",
    "train_tokenizer": "lmlab.tokenizers",
}

__all__ = [
    "CORPORA",
    "CorpusError",
    "PreparedCorpus",
    "TokenBlocks",
    "documents",
    "pack",
    "prepare",
    "train_tokenizer",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'lmlab' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
