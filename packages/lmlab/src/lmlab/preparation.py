"""From the name of a text to what a training run needs."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from lmlab.corpora import find_corpus
from lmlab.packing import TokenBlocks, pack
from lmlab.tokenizers import tokenizer_for


@dataclass(frozen=True)
class PreparedCorpus:
    """A corpus in blocks of `context_length` tokens; `heldout` is None where nothing is held out."""

    name: str
    context_length: int
    tokenizer: PreTrainedTokenizerFast
    train: TokenBlocks
    valid: TokenBlocks
    heldout: TokenBlocks | None


def prepare(corpus: str = "docs", vocab_size: int = 2048, context_length: int = 128) -> PreparedCorpus:
    """Read a corpus, train its tokenizer and pack its splits; what was done before comes from the cache.

    Any number of processes may ask at once: one does the work, the others wait for it.
    Raises `CorpusError` if the corpus, or a split needed for training, is not to be had.
    """
    tokenizer = tokenizer_for(corpus, vocab_size)
    blocks = {split: pack(corpus, split, tokenizer, context_length) for split in find_corpus(corpus).splits}
    return PreparedCorpus(
        corpus, context_length, tokenizer, blocks["train"], blocks["valid"], blocks.get("heldout")
    )
