"""Text from elsewhere: the named data sets and files of one's own."""

from __future__ import annotations

import itertools
import json
import lzma
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from lmlab import deduplication, splitting
from lmlab.cache import file_fingerprint, fingerprint
from lmlab.splitting import (
    SPLITS,
    CorpusError,
    Document,
    Manifest,
    Splits,
    by_text,
    distinct_splits,
    is_unicode,
)

FILE_ENDINGS = (".txt", ".txt.xz", ".jsonl", ".jsonl.xz")
FILE_VALID_SHARE = 0.05
_DOCUMENT_CHARACTERS = 4000  # of a text file, about; it has no other division

_TITLE = re.compile(r"^ \n = ([^=].*[^=]) = \n \n", re.MULTILINE)  # in the text, formulas look like titles

_BIBLE = "kjv.jsonl"
BIBLE_HELDOUT = "Revelation"
_BIBLE_VALID_SHARE = 0.05  # by chapters
_BOOKS = {split: f"books-{split}.jsonl.xz" for split in SPLITS}
_WIKITEXT2 = {"valid": "wikitext-2-valid.txt.xz", "heldout": "wikitext-2-test.txt.xz"}


def read_bible() -> tuple[Splits, Manifest]:
    """The King James Version of the Bible, a document a chapter, a verse a line; one book is held out.

    A hash of the chapter's name chooses between train and valid; chapters told twice are left out.
    """
    verses = (row for _, row in _json_lines(data_folder("bible") / _BIBLE))
    chapters = [
        Document("\n".join(row["text"] for row in rows), f"{book} {chapter}", book)
        for (book, chapter), rows in itertools.groupby(verses, lambda row: (row["book"], row["chapter"]))
    ]
    splits, left_out = distinct_splits(chapters, BIBLE_HELDOUT, _BIBLE_VALID_SHARE)
    return splits, {"dataset": "bible", "heldout_book": BIBLE_HELDOUT, **left_out}


def read_books() -> tuple[Splits, Manifest]:
    """Free English books, a document a chapter; two whole books by other authors are held out."""
    folder = data_folder("books")
    splits = {
        split: [
            Document(row["text"], f"{row['book']}/{row['part']}", row["book"])
            for _, row in _json_lines(folder / file)
        ]
        for split, file in _BOOKS.items()
    }
    return splits, {"dataset": "books"}


def read_wikitext2() -> tuple[Splits, Manifest]:
    """WikiText-2 as published (tokenised, with `<unk>`), a document an article; its test text is held out."""
    folder = data_folder("wikitext2")
    splits = {}
    for split, file in _WIKITEXT2.items():
        with _open_text(folder / file) as text:
            splits[split] = list(_articles(text.read(), file.split(".")[0]))
    return splits, {"dataset": "wikitext2"}


def _articles(text: str, file: str) -> Iterator[Document]:
    titles = list(_TITLE.finditer(text))
    ends = [*(title.start() for title in titles[1:]), len(text)]
    for number, (title, end) in enumerate(zip(titles, ends, strict=True)):
        yield Document(text[title.start() : end].strip(), f"{number}/{title[1]}", file)


def data_folder(name: str) -> Path:
    """The folder of a named data set; its error, if it cannot be had, names the ways to get it."""
    from tenfold.data import get

    return Path(get(name))


def bible_key() -> str:
    """Changes with the data set's content and with the code that makes documents of it."""
    code = (Path(__file__), *(Path(str(module.__file__)) for module in (splitting, deduplication)))
    return file_fingerprint(*code, data_folder("bible") / _BIBLE)


def books_key() -> str:
    """Changes with the data set's content and with the code that makes documents of it."""
    return file_fingerprint(Path(__file__), *(data_folder("books") / file for file in _BOOKS.values()))


def wikitext2_key() -> str:
    """Changes with the data set's content and with the code that makes documents of it."""
    return file_fingerprint(
        Path(__file__), *(data_folder("wikitext2") / file for file in _WIKITEXT2.values())
    )


def text_file(name: str) -> Path:
    """The path in `file:<path>`. Raises `CorpusError` if there is no such file, or not of a known kind."""
    path = Path(name.removeprefix("file:")).expanduser()
    if not path.name.endswith(FILE_ENDINGS):
        raise CorpusError(f"{name}: a corpus is a file that ends in {', '.join(FILE_ENDINGS)}")
    if not path.is_file():
        raise CorpusError(f"{name}: there is no file {path.absolute()}")
    return path


def file_key(path: Path) -> str:
    """Changes with the file's name and content and with the code that makes documents of it."""
    return fingerprint(path.name, file_fingerprint(Path(__file__), path))


def read_file(path: Path) -> tuple[Splits, Manifest]:
    """A JSON-lines file, a document a line (its `text`), or a text file cut at blank lines.

    A hash of a document's text chooses between train and valid, so repeated texts are never in both.
    """
    found = list(_rows(path) if ".jsonl" in path.name else _pieces(path))
    return by_text(found, FILE_VALID_SHARE), {"file": path.name, "fingerprint": file_fingerprint(path)}


def _rows(path: Path) -> Iterator[Document]:
    for number, row in _json_lines(path):
        text = row.get("text") if isinstance(row, dict) else None
        if not isinstance(text, str):
            raise CorpusError(f'{path}, line {number}: no "text" with a string, as in {{"text": "..."}}')
        if not is_unicode(text):
            raise CorpusError(f"{path}, line {number}: half of a surrogate pair, which is no character")
        yield Document(text, f"{path.name}/{number}", path.name)


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    with _open_text(path) as file:
        for number, line in enumerate(_decoded(file, path), start=1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except json.JSONDecodeError as error:
                    raise CorpusError(f"{path}, line {number} is not JSON: {error}") from error


def _pieces(path: Path) -> Iterator[Document]:
    """The text cut at blank lines (several empty lines, or lines of white space, are one)."""
    with _open_text(path) as file:
        paragraphs = re.split(r"\n\s*\n", "".join(_decoded(file, path)).strip())
    piece: list[str] = []
    number = 0
    for paragraph in paragraphs:
        piece.append(paragraph)
        if sum(map(len, piece)) >= _DOCUMENT_CHARACTERS:
            yield Document("\n\n".join(piece), f"{path.name}/{number}", path.name)
            piece = []
            number += 1
    if piece:
        yield Document("\n\n".join(piece), f"{path.name}/{number}", path.name)


def _open_text(path: Path) -> TextIO:
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _decoded(file: TextIO, path: Path) -> Iterator[str]:
    try:
        yield from file
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8 text: {error}") from error
    except (lzma.LZMAError, EOFError) as error:
        raise CorpusError(f"{path} cannot be unpacked: {error}") from error
