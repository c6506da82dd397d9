"""Files of responses: our own rows as JSON lines, and those of public data sets, which become ours.

Ours are TRL's, with further columns as one likes:

unpaired  prompt, completion, label
grouped   prompt, completions, labels
paired    prompt, chosen, rejected; or chosen and rejected alone, as conversations with the prompt in them
tokens    prompt_ids in place of a prompt, completion_ids in place of a completion

Prompts and completions are text or messages. Labels lie in [0, 1].
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, TypeAlias

from implicit_prm.errors import ImplicitPRMError
from implicit_prm.formats import own_row

__all__ = ["Row", "own_row", "read_responses", "read_rows", "ungrouped", "write_rows"]

Row: TypeAlias = dict[str, Any]


def read_rows(path: str | Path) -> Iterator[Row]:
    """The rows of a file, those of public data sets as `own_row` gives them.

    The file has a JSON object a line, or is one JSON list if its name ends in .json; empty lines are skipped.
    Raises `ImplicitPRMError`, with file and line, for what is no JSON object, and as `own_row`.
    """
    for where, row in _objects(Path(path)):
        try:
            yield own_row(row)
        except ImplicitPRMError as error:
            raise ImplicitPRMError(f"{where}: {error}") from error


def read_responses(path: str | Path) -> Iterator[Row]:
    """The same with a response a row: grouped rows are taken apart, their ids become `<id>-<number>`.

    A grouped row without an id is called by its number in the file, from 1. Raises as `read_rows`, and
    for rows without a completion, such as pairs.
    """
    for number, row in enumerate(read_rows(path), 1):
        responses = ungrouped(row, str(row.get("id", number))) if "completions" in row else [row]
        for response in responses:
            if "completion" not in response and "completion_ids" not in response:
                raise ImplicitPRMError(
                    f"{path}, row {number} has no completion to score; its columns are {sorted(row)}"
                )
            yield response


def ungrouped(row: Mapping[str, Any], name: str) -> list[Row]:
    """A grouped row as unpaired ones, with the ids `<name>-0` and so on and its other columns."""
    kept = {key: value for key, value in row.items() if key not in ("completions", "labels")}
    labels = (
        [{"label": label} for label in row["labels"]] if "labels" in row else [{}] * len(row["completions"])
    )
    return [
        {**kept, "id": f"{name}-{number}", "completion": completion, **label}
        for number, (completion, label) in enumerate(zip(row["completions"], labels, strict=True))
    ]


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows as JSON lines, all of them or, after an error, none; their number is returned.

    Raises `ImplicitPRMError` for a row that JSON cannot hold (NaN, a tensor), and `OSError` as writing does.
    """
    target = Path(path)
    number = 0
    with NamedTemporaryFile(
        "w", encoding="utf-8", dir=target.parent, prefix=target.name, delete=False
    ) as file:
        try:
            for number, row in enumerate(rows, 1):
                file.write(_line(row, number))
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(file.name)
            raise
    return number


def _line(row: Mapping[str, Any], number: int) -> str:
    try:
        return json.dumps(dict(row), ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ImplicitPRMError(f"row {number} cannot be written as JSON: {error}") from error


def _objects(path: Path) -> Iterator[tuple[str, Row]]:
    """Every JSON object of a file, and where it stands."""
    if not path.is_file():
        raise ImplicitPRMError(f"there is no file {path}")
    if path.suffix == ".json":
        rows = _parsed(path.read_bytes(), str(path))
        if not isinstance(rows, list):
            raise ImplicitPRMError(f"{path} holds no JSON list; name a file of JSON lines .jsonl")
        numbered: Iterator[tuple[str, Any]] = (
            (f"{path}, row {number}", row) for number, row in enumerate(rows, 1)
        )
    else:
        numbered = _lines(path)
    for where, row in numbered:
        if not isinstance(row, dict):
            raise ImplicitPRMError(f"{where}: a JSON object is expected, not {json.dumps(row)[:40]}")
        yield where, row


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                where = f"{path}, line {number}"
                yield where, _parsed(line, where)


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text.decode("utf-8-sig"))
    except ValueError as error:
        raise ImplicitPRMError(f"{where}: no JSON: {error}") from error
