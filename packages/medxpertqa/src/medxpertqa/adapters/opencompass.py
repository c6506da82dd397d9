"""Reading what OpenCompass wrote for the Text questions: predictions/<model>/medxpertqa.json, or its parts.

It has no ids, but numbers the questions in the order of the hub, whose ids are Text-0, Text-1 and so on. Its
prompt is that of official-ao without the system message.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from medxpertqa.errors import DataError
from medxpertqa.results import Record, Results, score_records

_NAME = re.compile(r"medxpertqa(?:_(\d+))?\.json", re.IGNORECASE)
_N_OPTIONS = 10


def prediction_files(path: str | os.PathLike[str]) -> list[Path]:
    """The files of predictions that a path is or has in it, parts in order."""
    place = Path(path)
    found = [place] if place.is_file() else list(place.rglob("predictions/*/*.json"))
    matches = [(file, _NAME.fullmatch(file.name)) for file in found]
    return [
        file
        for file, match in sorted(matches, key=lambda pair: int((pair[1] and pair[1][1]) or 0))
        if match and "predictions" in file.parts
    ]


def read_opencompass(path: str | os.PathLike[str]) -> Results:
    """Read a work folder of OpenCompass, or one of its files of predictions, of one model.

    Raises `DataError` if there is none, if there are several models, or for a file of another form.
    """
    files = prediction_files(path)
    models = sorted({file.parent.name for file in files})
    if len(models) != 1:
        problem = (
            f"predictions of {', '.join(models)}; give the folder of one" if models else "no predictions"
        )
        raise DataError(f"{path} has {problem} of medxpertqa")
    records: list[Record] = []
    for file in files:
        records += _records(file, first=len(records))
    return score_records(
        records, "official", trigger="ao", name=models[0], protocol="opencompass", source=str(path)
    )


def _records(file: Path, first: int) -> list[Record]:
    """The records of a file, whose numbers begin at 0 in each part."""
    try:
        rows: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return [
            Record.from_dict(
                {
                    "id": f"Text-{first + int(number)}",
                    "label": row["gold"],
                    "n_options": _N_OPTIONS,
                    "response": row["prediction"],
                    "attributes": {"subset": "Text"},
                }
            )
            for number, row in rows.items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file} holds no predictions of medxpertqa: {type(error).__name__} {error}"
        ) from None
