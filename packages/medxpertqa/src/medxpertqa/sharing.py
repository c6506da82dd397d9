"""What of a run may be published: ids, attributes, letters and counts, and no text of a question.

The authors ask that no example be shown online in any form. Replies repeat questions, option texts are
questions, and a list of labels is the key to them: a bundle has none of these. Whoever has the questions can
score it: `load_results(bundle, questions=...)`.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from medxpertqa.errors import DataError
from medxpertqa.field_types import check_types
from medxpertqa.parsing import ParsedAnswer
from medxpertqa.questions import Question
from medxpertqa.results import ABOUT, SCHEMA, Record, Results, check_once, read_head
from medxpertqa.scores import FIELDS
from medxpertqa.summaries import summarize

SHARED = "medxpertqa-shared"
CANARY = (
    "Letters that models gave to MedXpertQA, for evaluation only. Its authors ask that the questions, and "
    "versions of them, be used for no training and be shown nowhere online."
)
_ATTRIBUTES = (*FIELDS, "n_images", "cluster")
_TOLD = ("epoch", "status", "stop_reason", "attributes", "input_tokens", "output_tokens")
_NUMBERS = ("epoch", "n_options", "input_tokens", "output_tokens")
WITHHELD = "(withheld)"
WORDS = 12
"""How many words in a row of a question a file must have to count as showing it."""


def share(results: Results, out: str | os.PathLike[str]) -> Path:
    """Write the bundle of a run as JSON lines: a head with counts, then a line a reply.

    A line has the id, attributes, epoch, order of the options, what each parser read by which rule, and
    whether there was an error, not what it said. Raises `DataError` for an id that looks like a text.
    """
    long = [record.id for record in results.records if len(record.id) > 64 or len(record.id.split()) > 1]
    if long:
        raise DataError(f"the id {long[0][:40]!r} ... looks like a text; a bundle has ids, not texts")
    target = Path(out)
    partial = target.with_name(f".{target.name}.partial")
    rows = [_head(results), *(_row(results, place) for place in range(results.n))]
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    os.replace(partial, target)
    return target


def is_shared(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a bundle."""
    with Path(path).open(encoding="utf-8", errors="replace") as file:
        return f'"kind": "{SHARED}"' in file.readline()


def read_shared(
    rows: Sequence[Mapping[str, Any]], questions: Iterable[Question], source: str = ""
) -> Results:
    """The results of a bundle's lines, with the labels of the questions; letters are those of the bundle.

    Raises `DataError` for another schema, a line that is damaged or comes twice, and for a line of a question
    that is not there.
    """
    head, *lines = rows
    about = read_head(head, source)
    known = {question.id: question for question in questions}
    records, answers = list[Record](), list[dict[str, ParsedAnswer]]()
    for number, line in enumerate(lines, 2):
        where = f"{source}, line {number}"
        try:
            question = known.get(line["id"])
            if question is None or question.n_options != line["n_options"]:
                raise DataError(f"{where}: {line['id']} is not among the questions; it is of another set")
            records.append(_record(question, line, where))
            answers.append({parser: _answer(line["answers"][parser], where) for parser in head["parsers"]})
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{where} is no line of a bundle: {type(error).__name__} {error}") from None
    check_once(records)
    letters = {parser: tuple(found[parser] for found in answers) for parser in head["parsers"]}
    return Results(tuple(records), letters, source=source, **about)


@dataclass(frozen=True)
class Leak:
    """A file (or `archive!member`) that shows part of a question."""

    file: str
    id: str


def find_leaks(path: str | os.PathLike[str], questions: Iterable[Question], words: int = WORDS) -> list[Leak]:
    """Search a file, a folder, or what is in a wheel or ZIP, for `words` words in a row of any question.

    Words are compared without case, blanks and punctuation. A question of fewer words counts as a whole, from
    six words on. Of a file that is not all text, what is text is searched; what gzip packed is unpacked.
    Raises `DataError` if there is nothing to search, and for what is packed and cannot be unpacked.
    """
    grams: dict[tuple[str, ...], str] = {}
    for question in questions:
        for gram in _grams(_words(question.to_prompt_string()), words):
            grams.setdefault(gram, question.id)
    lengths = sorted({len(gram) for gram in grams})
    place = Path(path)
    if not place.exists():
        raise DataError(f"there is no file or folder {place}")
    found: dict[Leak, None] = {}
    for name, text in _texts(place):
        said = _words(text)
        for length in lengths:
            for start in range(len(said) - length + 1):
                leaked = grams.get(tuple(said[start : start + length]))
                if leaked is not None:
                    found[Leak(name, leaked)] = None
    return list(found)


def _head(results: Results) -> dict[str, Any]:
    summary = summarize(results)
    return {
        "schema": SCHEMA,
        "kind": SHARED,
        "canary": CANARY,
        **{key: getattr(results, key) for key in ABOUT},
        "parsers": list(results.answers),
        "n": summary.n,
        "n_errors": summary.n_errors,
        "n_correct": {parser: found.n_correct for parser, found in summary.parsers.items()},
    }


def _row(results: Results, place: int) -> dict[str, Any]:
    record = results.records[place]
    answers = {}
    for parser, found in results.answers.items():
        answer = found[place]
        answers[parser] = {"letter": answer.letter, "rule": answer.rule, "ambiguous": answer.ambiguous}
    attributes = {key: record.attributes[key] for key in _ATTRIBUTES if record.attributes.get(key)}
    return {
        "id": record.id,
        **{key: getattr(record, key) for key in _NUMBERS},
        "order": list(record.order),
        "status": record.status,
        "stop_reason": record.stop_reason,
        "empty": not record.response.strip(),
        "attributes": attributes,
        "answers": answers,
    }


def _record(question: Question, line: Mapping[str, Any], where: str) -> Record:
    told = {key: line[key] for key in _TOLD} | {"order": tuple(line["order"])}
    check_types(Record, told, where)
    return Record.of(question, "" if line["empty"] else WITHHELD, **told)


def _answer(found: Mapping[str, Any], where: str) -> ParsedAnswer:
    check_types(ParsedAnswer, found, where)
    return ParsedAnswer(**found)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _grams(words: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    if len(words) < 6:
        return
    length = min(length, len(words))
    for start in range(len(words) - length + 1):
        yield tuple(words[start : start + length])


def _texts(place: Path) -> Iterator[tuple[str, str]]:
    """The name and the text of every file that is one."""
    files = sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]
    for file in files:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                for member in archive.infolist():
                    if not member.flag_bits & 1 and not member.is_dir():  # one with a password shows nothing
                        name = f"{file}!{member.filename}"
                        yield name, _text(_unpacked(name, partial(archive.read, member)))
        else:
            yield str(file), _text(_unpacked(str(file), file.read_bytes))


def _unpacked(name: str, read: Callable[[], bytes]) -> bytes:
    """What a file or a member of an archive has; a tar in gzip as the one stream that its files lie in."""
    with suppress(ImportError):
        import zipfile_zstd  # noqa: F401  # how inspect-ai packs its logs; it comes with inspect-ai
    try:
        data = read()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (NotImplementedError, zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
        raise DataError(f"{name} cannot be searched: {error}") from None


def _text(data: bytes) -> str:
    """The text in it: what is none becomes a sign that no word has."""
    coding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    return data.decode(coding, errors="replace")
