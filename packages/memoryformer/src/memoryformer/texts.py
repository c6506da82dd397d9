"""A text file as sequences of token ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memoryformer.errors import MemoryFormerError

BYTES_PER_TOKEN = 12  # more than any tokenizer needs for ordinary text


def token_sequences(file: str | Path, tokenizer: Any, tokens: int, length: int) -> Tensor:
    """The first `tokens` tokens of a UTF-8 text, [sequences, length] int64, in whole sequences.

    `tokenizer` is one of transformers. Raises `MemoryFormerError` for a file that cannot be read, or whose
    text is shorter than one sequence.
    """
    try:
        with Path(file).open(encoding="utf-8") as handle:
            text = handle.read(BYTES_PER_TOKEN * tokens)
    except (OSError, UnicodeDecodeError) as error:
        raise MemoryFormerError(f"the text {file} cannot be read: {error}") from error
    ids = torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"][:tokens])
    if len(ids) < length:
        raise MemoryFormerError(
            f"the text {file} has {len(ids)} tokens of the {tokens} asked for; a sequence needs {length}"
        )
    return ids[: len(ids) // length * length].view(-1, length)
