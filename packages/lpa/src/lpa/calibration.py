"""Batches of token ids from a text file, for the whitened factorisation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from lpa.errors import LPAError

LENGTH, BATCH = 512, 4


def text_batches(file: Path, tokenizer: PreTrainedTokenizerBase, tokens: int) -> Iterator[torch.Tensor]:
    """The first `tokens` tokens of a UTF-8 text file in (batch, length) blocks.

    Raises `LPAError` if the file cannot be read or holds no text.
    """
    try:
        # 12 bytes a token is more than any tokenizer needs for ordinary text.
        with file.open(encoding="utf-8") as handle:
            text = handle.read(12 * tokens)
    except (OSError, UnicodeDecodeError) as error:
        raise LPAError(f"the calibration text {file} cannot be read: {error}") from error
    ids = torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"][:tokens])
    if not len(ids):
        raise LPAError(f"the calibration text {file} is empty")
    whole = len(ids) // LENGTH * LENGTH
    blocks = ids[:whole].view(-1, LENGTH) if whole else ids[None]
    return iter(blocks.split(BATCH))
