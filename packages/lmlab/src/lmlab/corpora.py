"""Text to train and evaluate on, under a name, in splits that do not overlap."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lmlab import installed_text
from lmlab.cache import built_once
from lmlab.splitting import SPLITS, CorpusError, Document, Manifest, Splits

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

_ROWS_A_BATCH = 1000


@dataclass(frozen=True)
class Corpus:
    """A named text: which splits it has, what its content depends on (`key`) and how it is read."""

    name: str
    description: str
    splits: tuple[str, ...]
    key: Callable[[], str]
    read: Callable[[], tuple[Splits, Manifest]]


CORPORA: Mapping[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        Corpus(
            "docs",
            f"docstrings of {len(installed_text.LIBRARIES)} scientific Python libraries; "
            f"{installed_text.HELDOUT_LIBRARY} is held out",
            SPLITS,
            installed_text.docs_key,
            installed_text.read_docs,
        ),
        Corpus(
            "code",
            f"source of Python's standard library; its package {installed_text.HELDOUT_PACKAGE} is held out",
            SPLITS,
            installed_text.code_key,
            installed_text.read_code,
        ),
    )
}


def find_corpus(name: str) -> Corpus:
    """The corpus of that name. Raises `CorpusError`, which lists the names there are."""
    if name in CORPORA:
        return CORPORA[name]
    raise CorpusError(
        f"there is no corpus {name!r}. There are {', '.join(CORPORA)}, hf:<id>[:<config>] from the Hugging "
        "Face hub and file:<path> for a .txt or .jsonl file of your own"
    )


def documents(name: str, split: str) -> Dataset:
    """The documents of one split, memory-mapped: columns `text`, `name` and `source`.

    `name` identifies the document in its corpus (an object's full name, a chapter), `source` is the library,
    book or file that it is from. The first call reads the corpus and keeps it in the cache.
    Raises `CorpusError` if there is no such corpus or split, or its text is not to be had.
    """
    from datasets import Dataset

    corpus = find_corpus(name)
    check_split(corpus, split)
    return Dataset.from_file(str(_folder(corpus) / f"{split}.arrow"))


def manifest(name: str) -> Manifest:
    """Where the text came from (library versions, file) and what was left out."""
    return json.loads((_folder(find_corpus(name)) / "manifest.json").read_text("utf-8"))


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


def _statistics(split: str, source: str, count: Counter[str], tokenizer: Any) -> SplitStatistics:
    return SplitStatistics(
        split,
        source,
        count["documents"],
        count["characters"],
        count["bytes"],
        None if tokenizer is None else count["tokens"],
    )


def _folder(corpus: Corpus) -> Path:
    def build(folder: Path) -> None:
        splits, facts = corpus.read()
        for split in corpus.splits:
            _write(folder / f"{split}.arrow", splits[split])
        (folder / "manifest.json").write_text(json.dumps(facts, indent=2) + "\n", "utf-8")

    return built_once("corpora", corpus_folder_name(corpus), build)


def corpus_folder_name(corpus: Corpus) -> str:
    """The corpus's name and the hash of what it is made of, fit for a folder."""
    readable = "".join(c if c.isalnum() or c in "-_" else "-" for c in corpus.name)[-40:]
    return f"{readable.strip('-')}-{corpus.key()}"


def _write(path: Path, rows: Sequence[Document]) -> None:
    schema = pa.schema([(column, pa.string()) for column in Document._fields])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        for start in range(0, len(rows), _ROWS_A_BATCH):
            columns = zip(*rows[start : start + _ROWS_A_BATCH], strict=True)
            stream.write_batch(pa.record_batch([pa.array(c, pa.string()) for c in columns], schema=schema))
