"""Tokenizers of the tasks: a word a token, no merges, nothing to download."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"


def word_tokenizer(words: Sequence[str], between: Literal["", " "]) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a word; decoded text has `between` between its words.

    Words are found wherever they stand, so a prompt and a response joined without a space give the same
    tokens as each of them alone.
    """
    vocabulary = {word: index for index, word in enumerate([PAD, EOS, UNKNOWN, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    longest_first = sorted((re.escape(word) for word in vocabulary), key=len, reverse=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("|".join(longest_first)), "isolated"),
            pre_tokenizers.Split(Regex(r"\s+"), "removed"),
        ]
    )
    if between == "":
        tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
