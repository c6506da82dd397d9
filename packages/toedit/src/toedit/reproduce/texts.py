"""Human text for the experiment: lmlab's corpora, GSM8K, instructions, in pieces of some hundred tokens."""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lmlab import documents
from lmlab.tokenizers import encode
from tenfold.data import get
from toedit.datasets import DATASETS
from toedit.errors import ToEditError

SHORTEST = 200
"""Characters: shorter texts are mostly stubs."""

FILES = {dataset.name: tuple(dataset.files) for dataset in DATASETS}

_WORD = re.compile(r"\w+|[^\w\s]+")
_BATCH = 64


def human_texts(
    corpus: str,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
    tokens: int,
    characters: int,
    seed: int = 0,
) -> list[str]:
    """Pieces of a corpus, at most `characters` each, until they have `tokens` tokens; fewer if it is shorter.

    Documents come in an order that depends on `seed`. GSM8K and the instructions have one split.
    """
    found: list[str] = []
    missing = tokens
    stream = pieces(_documents(corpus, split, seed), characters)
    while missing > 0 and (batch := [text for text, _ in zip(stream, range(_BATCH), strict=False)]):
        for text, ids in zip(batch, encode(tokenizer, batch), strict=True):
            if missing > 0:
                found.append(text)
                missing -= len(ids)
    return found


def pieces(texts: Iterable[str], characters: int) -> Iterator[str]:
    """The texts cut at white space into pieces of at most `characters`; what is too short is left out."""
    for text in texts:
        start = 0
        while len(text) - start > characters:
            end = max(text.rfind("\n", start, start + characters), text.rfind(" ", start, start + characters))
            end = end if end - start >= SHORTEST else start + characters
            yield text[start:end]
            start = end
        if len(text) - start >= SHORTEST:
            yield text[start:]


def cut_to_words(texts: Iterable[str], words: int) -> list[str]:
    """The texts up to the first `words` words (and runs of punctuation), the units of n-grams."""
    found = []
    for text in texts:
        ends = [match.end() for match in _WORD.finditer(text)]
        if not words:
            break
        found.append(text if len(ends) <= words else text[: ends[words - 1]])
        words -= min(words, len(ends))
    return found


def count_words(texts: Iterable[str]) -> int:
    """How many words (and runs of punctuation) the texts have."""
    return sum(len(_WORD.findall(text)) for text in texts)


def blocks_of(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, length: int, tokens: int
) -> torch.Tensor:
    """int64 (tokens // length, length): the texts one after the other, each ended by the end-of-text token.

    Raises `ToEditError` if the texts have fewer tokens.
    """
    end = tokenizer.eos_token_id
    ids = [token for one in encode(tokenizer, list(texts)) for token in (*one, end)]
    wanted = tokens // length * length
    if len(ids) < wanted:
        raise ToEditError(f"the text has {len(ids)} tokens; the study needs {wanted} of each kind")
    return torch.tensor(ids[:wanted]).view(-1, length)


def _documents(corpus: str, split: str, seed: int) -> Iterator[str]:
    if corpus == "gsm8k":
        texts: Any = [f"{row['question']}\n{row['answer']}" for row in _rows(corpus)]
    elif corpus == "self-instruct-seeds":
        texts = [_instruction(row) for row in _rows(corpus)]
    else:
        texts = documents(corpus, split)["text"]
    for index in np.random.default_rng(seed).permutation(len(texts)):
        yield texts[int(index)]


def _instruction(row: dict[str, Any]) -> str:
    first = row["instances"][0]
    return "\n\n".join(part for part in (row["instruction"], first["input"], first["output"]) if part)


def _rows(name: str) -> list[dict[str, Any]]:
    (file,) = (get(name) / file for file in FILES[name])
    with lzma.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
