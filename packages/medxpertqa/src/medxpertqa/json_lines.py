"""JSON lines of outside files; what is wrong in one is told with the number of its line."""

from __future__ import annotations

import json
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
