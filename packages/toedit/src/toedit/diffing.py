"""The differences of texts word by word, and as a data set in which each difference is there once.

A corpus that was edited has the same few edits again and again. The data set has them as rows of the words
before, the old ones, the new ones and the words after, with the number of times that they are there.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from toedit.errors import ToEditError

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True)
class Change:
    """Words `old` that became `new`, with a few words of both texts around them."""

    before: str
    old: str
    new: str
    after: str


def word_changes(old: str, new: str, context: int = 6) -> Iterator[Change]:
    """The changes from `old` to `new`; `context` words and spaces are given on both sides."""
    a, b = _WORDS.findall(old), _WORDS.findall(new)
    matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
    for kind, a_start, a_end, b_start, b_end in matcher.get_opcodes():
        if kind != "equal":
            before, after = a[max(0, a_start - 2 * context) : a_start], a[a_end : a_end + 2 * context]
            old_words, new_words = "".join(a[a_start:a_end]), "".join(b[b_start:b_end])
            yield Change("".join(before), old_words, new_words, "".join(after))


@dataclass(frozen=True)
class ChangedDocument:
    """A document in both corpora."""

    doc_id: str
    old: str
    new: str


class CorpusDiff:
    """The differences of two corpora whose documents have the same ids; the old texts are held in memory.

    n_same, n_changed, n_new, n_gone count the documents; they are complete when `documents` is exhausted.

    Raises `ToEditError` for an id that a corpus has twice, here or while `documents` are read.
    """

    def __init__(self, old: Iterable[tuple[str, str]], new: Iterable[tuple[str, str]]) -> None:
        self._old = dict(_each_once(old, "first"))
        self.n_same = self.n_changed = self.n_new = self.n_gone = 0
        self.documents = self._compared(new)

    def _compared(self, new: Iterable[tuple[str, str]]) -> Iterator[ChangedDocument]:
        for doc_id, text in _each_once(new, "second"):
            before = self._old.pop(doc_id, None)
            if before is None:
                self.n_new += 1
            elif before == text:
                self.n_same += 1
            else:
                self.n_changed += 1
                yield ChangedDocument(doc_id, before, text)
        self.n_gone = len(self._old)


def _each_once(texts: Iterable[tuple[str, str]], which: str) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for doc_id, text in texts:
        if doc_id in seen:
            raise ToEditError(
                f"the {which} corpus has the document id {doc_id!r} twice, so it is not clear what to "
                "compare; --id-column names another column, and one that neither has compares row by row"
            )
        seen.add(doc_id)
        yield doc_id, text


def write_changes(path: str | Path, counts: Mapping[Change, int]) -> None:
    """Write changes as JSON lines of `before`, `old`, `new`, `after` and `count`, the most frequent first.

    Changes that are there equally often come in the order of `counts`. The file is whole or not there.

    Raises `OSError` where it cannot be written.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        for change, count in sorted(counts.items(), key=lambda item: -item[1]):
            file.write(json.dumps({**asdict(change), "count": count}, ensure_ascii=False) + "\n")
    os.replace(part, path)
