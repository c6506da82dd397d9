"""Loading questions: from the hub at a pinned revision, from a file, or the synthetic ones.

What the authors ask (paper, appendix A): evaluation only, no training, and no example shared online in any
form. So nothing here writes a question anywhere, and the archive with a password is read in memory.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from medxpertqa.errors import DataError, MissingExtraError
from medxpertqa.json_lines import read_json_lines
from medxpertqa.o1_sample import O1_SAMPLE
from medxpertqa.questions import Question, check_questions
from medxpertqa.synthetic import synthetic_questions

REPOSITORY = "TsinghuaC3I/MedXpertQA"
REVISION = "7e7c465a68eb2b866926bfa59c8c9d17a8daba65"
ARCHIVE_PASSWORD = b"evaluation-only-do-not-train"


_UNREADABLE = (
    OSError,
    EOFError,
    RecursionError,
    UnicodeDecodeError,
    json.JSONDecodeError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What a file that is cut off, damaged or of another kind raises where it is read."""


class _Set(NamedTuple):
    """A named set of questions: its file on the hub, its size, and the digest of its questions if known."""

    file: str
    size: int
    digest: str = ""


_MM_DIGEST = "a409b2982f652599c2f4fade3ec3d3b77a985d1c058c0c72110c422b49f8e1eb"
_O1_DIGESTS = {
    "Text": "0be9284a404826f5114823e40e86b2f945b23e8e849d5cdceec9d134bbf60ad8",
    "MM": "fda66a4dd872c5c9f8c33473c3a64f15348c7dfa93e7150e9d81575eb3008ccf",
}
SETS = {
    "text": _Set("Text/test.jsonl", 2450),
    "mm": _Set("MM/test.jsonl", 2000, _MM_DIGEST),
    "text/dev": _Set("Text/dev.jsonl", 5),
    "mm/dev": _Set("MM/dev.jsonl", 5),
    "text/o1": _Set("Text/test.jsonl", 244, _O1_DIGESTS["Text"]),
    "mm/o1": _Set("MM/test.jsonl", 199, _O1_DIGESTS["MM"]),
    "synthetic/text": _Set("", 12),
    "synthetic/mm": _Set("", 8),
}


def load_questions(
    name: str = "text",
    path: str | os.PathLike[str] | None = None,
    *,
    revision: str = REVISION,
    allow_revision: bool = False,
) -> list[Question]:
    """Load a set: "text", "mm", "text/dev", "mm/dev", "text/o1", "mm/o1", "synthetic/text", "synthetic/mm".

    Without `path` the set comes from the hub's cache or the hub, at the pinned revision, and must have the
    right number of questions and, where it is known, the right digest; `allow_revision` permits others.
    `path` is a file instead: .jsonl, .jsonl.gz, .json (a list) or .parquet, in the form of the hub or of the
    official `eval/` folder, or the evaluation archive with its password (.zip). Of a file, "/o1" keeps the
    sample's ids; any other name takes all its questions.

    Raises `DataError`, which says what to do: unknown name, unreachable hub, other questions than expected,
    a record that is no question.
    """
    if name not in SETS:
        raise DataError(f"there is no set {name!r}; there are: {', '.join(SETS)}")
    if path is not None:
        return _sampled(name, check_questions(_read(Path(path), name), str(path)), str(path))
    if name.startswith("synthetic/"):
        return synthetic_questions(name.removeprefix("synthetic/"))
    if revision != REVISION and not allow_revision:
        raise DataError(f"revision {revision} is not the pinned {REVISION}; --allow-revision takes it anyway")
    file = download(SETS[name].file, revision=revision)
    questions = check_questions(_read(file, name), str(file))
    if not allow_revision:
        _check(name.replace("/o1", ""), questions, file)
    questions = _sampled(name, questions, str(file))
    if not allow_revision:
        _check(name, questions, file)
    return questions


def download(file: str, *, revision: str = REVISION) -> Path:
    """The path of a file of the hub data set in the hub's cache, fetched if it is not there.

    Raises `DataError` if it is not there and cannot be fetched.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        return Path(hf_hub_download(REPOSITORY, file, repo_type="dataset", revision=revision))
    except OSError as error:
        raise DataError(
            f"{file} of the data set {REPOSITORY} is neither in the cache {HF_HUB_CACHE} nor to be fetched "
            f"({_first_line(error)}). With a network, `medxpertqa download` fetches it; without one, --data "
            f"takes a file of the questions"
        ) from error


def cached(file: str, *, revision: str = REVISION) -> bool:
    """Whether a file of the hub data set is in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(REPOSITORY, file, revision=revision, repo_type="dataset"), str)


def question_digest(questions: Iterable[Question]) -> str:
    """SHA-256 over id, question string, label and image names, in the order of ids; not over attributes."""
    rows = sorted([q.id, q.to_prompt_string(), q.label, *q.images] for q in questions)
    return hashlib.sha256("\n".join(json.dumps(row) for row in rows).encode()).hexdigest()


def _check(name: str, questions: list[Question], file: Path) -> None:
    expected = SETS[name]
    if len(questions) != expected.size:
        problem = f"has {len(questions)} questions instead of {expected.size}"
    elif expected.digest and question_digest(questions) != expected.digest:
        problem = "has other questions than the pinned revision"
    else:
        return
    raise DataError(
        f"{file}: the set {name} {problem}. Delete the file and load again; if the data set was changed on "
        f"purpose, --allow-revision takes it, and the scores do not compare with the paper's"
    )


def _sampled(name: str, questions: list[Question], source: str) -> list[Question]:
    if not name.endswith("/o1"):
        return questions
    wanted = O1_SAMPLE["Text" if name.startswith("text") else "MM"]
    known = {question.id: question for question in questions}
    lacking = [number for number in wanted if number not in known]
    if lacking:
        raise DataError(
            f"{source} lacks {len(lacking)} questions of the sample {name}, the first is {lacking[0]}"
        )
    return [known[number] for number in wanted]


def _read(path: Path, name: str) -> Iterator[Question]:
    try:
        bank = path.name.partition(".")[0]
        for number, record in enumerate(_records(path, name)):
            if not isinstance(record, Mapping):
                raise DataError(f"record {number + 1} is no object")
            # MMLU as the official repository keeps it has no ids.
            yield Question.from_record({"id": f"{bank}-{number}", **record})
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read: {_first_line(error)}") from error


def _records(path: Path, name: str) -> Iterable[Mapping[str, Any]]:
    if path.name.endswith(".parquet"):
        return _parquet(path)
    if path.name.endswith(".zip"):
        return read_json_lines(_member(path, name))
    raw = path.read_bytes()
    if path.name.endswith(".gz"):
        raw = gzip.decompress(raw)
    text = raw.decode("utf-8")
    if path.name.endswith(".json"):
        found = json.loads(text)
        if not isinstance(found, list):
            raise DataError("holds no list of records")
        return found
    return read_json_lines(text)


def _member(path: Path, name: str) -> str:
    subset = "text" if name.startswith("text") else "mm"
    sampled = name.endswith("/o1") or subset == "text"  # the archive has no more of Text than the sample
    member = f"medxpertqa_{'sampled_' if sampled else ''}{subset}_input.jsonl"
    with zipfile.ZipFile(path) as archive:
        if member not in archive.namelist():
            raise DataError(f"holds no {member}; it has {', '.join(archive.namelist())}")
        try:
            return archive.read(member, pwd=ARCHIVE_PASSWORD).decode("utf-8")
        except RuntimeError as error:  # what zipfile raises for a wrong password
            raise DataError(f"{member} does not open with the password of the evaluation archive") from error


def _parquet(path: Path) -> list[Any]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MissingExtraError(
            f"reading {path.name} needs an optional extra: pip install 'medxpertqa[data]'"
        ) from error
    try:
        return list(parquet.read_table(path).to_pylist())
    except ArrowException as error:
        raise DataError(f"cannot be read: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
