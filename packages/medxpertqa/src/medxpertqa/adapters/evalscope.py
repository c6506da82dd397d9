"""Reading what EvalScope wrote for its `medxpertqa`: reviews/<model>/medxpertqa_Text.jsonl and _MM.jsonl.

Its prompt asks for a last line "ANSWER: X" in one turn, so the numbers do not compare with the paper's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medxpertqa.errors import DataError
from medxpertqa.questions import N_OPTIONS
from medxpertqa.results import Record, Results, score_records

PATTERN = "medxpertqa_*.jsonl"


def review_files(path: str | os.PathLike[str]) -> list[Path]:
    """The files of reviews that a path is or has in it."""
    place = Path(path)
    found = [place] if place.is_file() else sorted(place.rglob(f"reviews/*/{PATTERN}"))
    return [file for file in found if file.match(PATTERN) and "reviews" in file.parts]


def read_evalscope(path: str | os.PathLike[str]) -> Results:
    """Read an output folder of EvalScope, or one of its files of reviews, of one model.

    Raises `DataError` if there is none, if there are several models, or for a line that is no review.
    """
    files = review_files(path)
    models = sorted({file.parent.name for file in files})
    if len(models) != 1:
        problem = (
            f"reviews of {', '.join(models)}; give the folder of one"
            if models
            else "no reviews of medxpertqa"
        )
        raise DataError(f"{path} has {problem}")
    records = [record for file in files for record in _records(file)]
    return score_records(records, "robust", name=models[0], protocol="evalscope", source=str(path))


def _records(file: Path) -> Iterator[Record]:
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # a reply may have what splitlines splits at
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as JSON lines: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            review: dict[str, Any] = json.loads(line)
            sample = review["sample_score"]
            about = sample["sample_metadata"]
            subset = about["id"].partition("-")[0]
            yield Record.from_dict(
                {
                    "id": about["id"],
                    "label": review["target"],
                    "n_options": N_OPTIONS[subset],
                    "response": sample["score"]["prediction"],
                    "attributes": {
                        "subset": subset,
                        **{key: about[key] for key in ("question_type", "medical_task", "body_system")},
                        "n_images": len(about.get("images") or ()),
                    },
                }
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{file}, line {number} is no review of medxpertqa: {type(error).__name__} {error}"
            ) from None
