"""Byte-level BPE tokenizers trained on a corpus (Sennrich et al. 2016; Radford et al. 2019).

They lose nothing: any text is a sequence of bytes, and decoding gives the same text back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lmlab.cache import built_once, file_fingerprint, fingerprint
from lmlab.corpora import check_split, find_corpus
from lmlab.errors import SettingsError

END_OF_TEXT = "<|endoftext|>"
SMALLEST_VOCABULARY = 257  # the 256 bytes and the end of text
TRAINING_BYTES = 8_000_000  # merges learnt from more text hardly differ, and take longer
_PIECE = 4096


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with at most `vocab_size` entries, the same for the same texts.

    `<|endoftext|>` (id 0) begins and ends texts and pads. Texts in which fewer pairs repeat give a smaller
    vocabulary: `len(tokenizer)` is its size. Raises `SettingsError` for a `vocab_size` below 257.
    """
    _check_vocab_size(vocab_size)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _wrap(tokenizer)


def tokenizer_for(corpus: str, vocab_size: int) -> PreTrainedTokenizerFast:
    """The tokenizer trained on a corpus's `train` split, kept in the cache.

    At most `TRAINING_BYTES` of the text are used, taken evenly from all of it. Raises `SettingsError` for a
    `vocab_size` below 257, before anything is read.
    """
    _check_vocab_size(vocab_size)
    found = find_corpus(corpus)
    check_split(found, "train")
    key = fingerprint(found.key(), vocab_size, tokenizers.__version__, file_fingerprint(Path(__file__)))

    def build(folder: Path) -> None:
        sample = even_sample(found.open("train")["text"], TRAINING_BYTES)
        train_tokenizer(sample, vocab_size).backend_tokenizer.save(str(folder / "tokenizer.json"))

    folder = built_once("tokenizers", f"{corpus}-{vocab_size}", key, build)
    return _wrap(Tokenizer.from_file(str(folder / "tokenizer.json")))


def _check_vocab_size(vocab_size: int) -> None:
    if vocab_size < SMALLEST_VOCABULARY:
        raise SettingsError(
            f"vocab_size {vocab_size} is below {SMALLEST_VOCABULARY}: the 256 bytes and {END_OF_TEXT}"
        )


def even_sample(texts: Iterable[str], most: int) -> Iterator[str]:
    """Pieces of the texts, spread evenly over them, of at most `most` bytes together; all if they fit.

    `texts` is gone through twice.
    """
    total = sum(len(text.encode()) for text in texts)
    share = min(1.0, most / max(total, 1))
    seen = taken = 0
    for text in texts:
        for start in range(0, len(text), _PIECE):
            piece = text[start : start + _PIECE]
            size = len(piece.encode())
            seen += size
            if taken + size <= seen * share:
                taken += size
                yield piece


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Depends on how `encode` makes tokens of text and on which token ends a text."""
    with _whole_texts(_backend(tokenizer)) as backend:
        rules = backend.to_str().encode()
    return fingerprint(hashlib.sha256(rules).hexdigest(), tokenizer.eos_token_id)


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Token ids of each whole text, whatever truncation and padding the tokenizer was last used with.

    What looks like a special token in a text is text, and nothing is added.
    """
    with _whole_texts(_backend(tokenizer)) as backend:
        before = backend.encode_special_tokens
        backend.encode_special_tokens = True
        try:
            return [found.ids for found in backend.encode_batch_fast(texts, add_special_tokens=False)]
        finally:
            backend.encode_special_tokens = before


@contextmanager
def _whole_texts(backend: Any) -> Iterator[Any]:
    """The backend without truncation and padding, which a call of the tokenizer leaves in it."""
    truncation, padding = backend.truncation, backend.padding
    backend.no_truncation()
    backend.no_padding()
    try:
        yield backend
    finally:
        if truncation is not None:
            backend.enable_truncation(**truncation)
        if padding is not None:
            backend.enable_padding(**padding)


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> NDArray[np.uint16] | None:
    """How many bytes of text each token stands for, by id: shape (len(tokenizer),); special tokens, 0.

    Text is counted as the tokenizer's normalizer leaves it. None if the tokenizer is not byte-level: then
    tokens and bytes do not match up.
    """
    decoder = json.loads(_backend(tokenizer).to_str()).get("decoder") or {}
    parts = decoder.get("decoders", [decoder])
    if not any(part.get("type") == "ByteLevel" for part in parts):
        return None
    tokens: Any = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    sizes = np.array([len(token) for token in tokens], dtype=np.uint16)  # a byte is written as a character
    for token, number in tokenizer.get_added_vocab().items():  # these are written as they are
        sizes[number] = 0 if number in tokenizer.all_special_ids else len(token.encode())
    return sizes


def _wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def _backend(tokenizer: PreTrainedTokenizerBase) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise SettingsError(
            f"{type(tokenizer).__name__} is not a fast tokenizer; "
            "load one with AutoTokenizer.from_pretrained(..., use_fast=True)"
        )
    return backend
