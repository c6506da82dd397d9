"""Text as token blocks of one length: tokenised once, memory-mapped, the same for every process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from lmlab.cache import built_once, fingerprint
from lmlab.corpora import Corpus, CorpusError, check_split, find_corpus
from lmlab.errors import SettingsError
from lmlab.tokenizers import encode, token_bytes, tokenizer_fingerprint

_DOCUMENTS_A_BATCH = 1000
_TOKENS_A_COUNT = 1 << 24
_FORMAT = 1  # of the files; change it when they change


class TokenBlocks(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Blocks of `context_length` tokens, one after another from a running text.

    An item is `{"input_ids", "labels"}`, both int64 of shape (context_length,) and equal: models of
    `transformers` shift the labels inside, so a block has context_length - 1 predictions. The tokens stay in
    a memory-mapped file; pickling carries its path, so that a copy in another process shares the memory.
    """

    def __init__(self, folder: str | Path, context_length: int, start: int, stop: int) -> None:
        self.folder = Path(folder)
        self.context_length = context_length
        self._start = start
        self._stop = stop
        self._file: NDArray[Any] = np.load(self.folder / "tokens.npy", mmap_mode="r")

    def __reduce__(self) -> tuple[type[TokenBlocks], tuple[Path, int, int, int]]:
        return TokenBlocks, (self.folder, self.context_length, self._start, self._stop)

    def __repr__(self) -> str:
        return f"TokenBlocks({len(self)} blocks of {self.context_length} tokens, {self.folder.name})"

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        length = len(self)
        if not -length <= index < length:
            raise IndexError(f"block {index} of {length}")
        at = (self._start + index % length) * self.context_length
        block = torch.from_numpy(self._file[at : at + self.context_length].astype(np.int64))
        return {"input_ids": block, "labels": block.clone()}

    def slice(self, start: int, stop: int) -> TokenBlocks:
        """Blocks `start` to `stop` (not included). Raises `IndexError` outside of these blocks."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"blocks {start} to {stop} of {len(self)}")
        return TokenBlocks(self.folder, self.context_length, self._start + start, self._start + stop)

    def halves(self, first: int, second: int) -> tuple[TokenBlocks, TokenBlocks]:
        """At most `first` blocks of the first half, to choose on, and `second` of the second, to judge on."""
        half = len(self) // 2
        return self.slice(0, min(half, first)), self.slice(half, half + min(half, second))

    @property
    def tokens(self) -> NDArray[Any]:
        """The blocks' tokens in one row: a memory map of shape (len(self) * context_length,)."""
        return self._file[self._start * self.context_length : self._stop * self.context_length]

    @property
    def num_bytes(self) -> int | None:
        """UTF-8 bytes of text in the blocks; the ends of documents count none.

        None for a tokenizer that is not byte-level.
        """
        table = self.folder / "token_bytes.npy"
        if not table.exists():
            return None
        sizes = np.load(table)
        tokens = self.tokens
        return sum(
            int(sizes[tokens[at : at + _TOKENS_A_COUNT]].sum(dtype=np.int64))
            for at in range(0, len(tokens), _TOKENS_A_COUNT)
        )

    @property
    def bytes_per_token(self) -> float | None:
        """Mean bytes of text a token."""
        size = self.num_bytes
        return None if size is None or not len(self) else size / len(self.tokens)


def pack(corpus: str, split: str, tokenizer: PreTrainedTokenizerBase, context_length: int) -> TokenBlocks:
    """Blocks of a corpus's split: its documents in order, each ended by the end-of-text token, cut to length.

    Blank documents and the last, partial block are left out. The tokens are kept in the cache, one row for
    all context lengths.
    Raises `CorpusError` if the text is shorter than a block, `SettingsError` for a tokenizer that has no end
    of text or is not a fast one.
    """
    if context_length < 2:
        raise SettingsError(f"context_length is {context_length}; a block needs 2 tokens to predict anything")
    if tokenizer.eos_token_id is None:
        raise SettingsError("the tokenizer has no eos_token to end documents with; set tokenizer.eos_token")
    found = find_corpus(corpus)
    check_split(found, split)
    key = fingerprint(found.key(), split, tokenizer_fingerprint(tokenizer), _FORMAT)
    folder = built_once(
        "tokens", f"{corpus}-{split}", key, lambda folder: _write_tokens(folder, found, split, tokenizer)
    )
    tokens = np.load(folder / "tokens.npy", mmap_mode="r")
    if len(tokens) < context_length:
        raise CorpusError(
            f"the split {split} of {corpus} has {len(tokens)} tokens, fewer than one block of "
            f"{context_length}; take a shorter context_length or more text"
        )
    return TokenBlocks(folder, context_length, 0, len(tokens) // context_length)


def _write_tokens(folder: Path, corpus: Corpus, split: str, tokenizer: PreTrainedTokenizerBase) -> None:
    dtype = np.dtype(np.uint16 if len(tokenizer) <= 1 << 16 else np.uint32)
    sizes = token_bytes(tokenizer)
    if sizes is not None:
        np.save(folder / "token_bytes.npy", sizes)
    count = 0
    with (folder / "tokens.npy").open("wb") as file:
        _write_header(file, dtype, 0)
        for batch in corpus.open(split).iter(batch_size=_DOCUMENTS_A_BATCH):
            for ids in encode(tokenizer, [text for text in batch["text"] if text.strip()]):
                file.write(np.array([*ids, tokenizer.eos_token_id], dtype=dtype).tobytes())
                count += len(ids) + 1
        file.seek(0)
        _write_header(file, dtype, count)  # numpy leaves room in the header for the length to grow


def _write_header(file: Any, dtype: np.dtype[Any], count: int) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, header)
