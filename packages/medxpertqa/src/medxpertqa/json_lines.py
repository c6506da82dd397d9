"""JSON lines: read with what is wrong told by the number of its line, and written all or nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medxpertqa.errors import DataError


def read_json_lines(text: str) -> list[dict[str, Any]]:
    """Return the object of every line that is not blank. Raises `DataError` that names a line with none."""
    rows = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"line {number} is no JSON: {error.msg}, column {error.colno}") from error
        except RecursionError:
            raise DataError(f"line {number} is nested too deeply") from None
        if not isinstance(row, dict):
            raise DataError(f"line {number} is no object")
        rows.append(row)
    return rows


def write_json_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write an object a line; a file that is there stays whole until the new one is."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    os.replace(partial, path)
